"""A batch: records that enter the store together, in one transaction, or not at all.

Rows are prepared, hashed and serialised before the transaction begins, so that the write lock is held for the inserts
alone. Adding is idempotent: a record whose hash is there already is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import insert
from sqlalchemy.sql import ColumnElement
from sqlmodel import Session, col, func, select

from envsynth.errors import SpecError, StoreError
from envsynth.record import Record
from envsynth.report import GateReport
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store.catalogue import text_hash
from envsynth.store.records import Calibration, Origin, Rejection, Suite
from envsynth.store.rows import (
    CalibrationRow,
    EnvironmentRow,
    RejectionRow,
    ReportRow,
    RunRow,
    SuiteItemRow,
    SuiteRow,
    TaskRow,
    TrajectoryRow,
    UnitRow,
)
from envsynth.trajectory import Trajectory

Entry = dict[str, Any]
"""A row of a table, by attribute."""

_MOST_ASKED = 500
"""Hashes in one statement; databases allow a thousand and more."""


def hashed(record: Record) -> tuple[str, str]:
    """Serialise a record once, for its hash and its text.

    Args:
        record: The record.

    Returns:
        Content hash and canonical JSON.

    Raises:
        SpecError: the record holds text with lone surrogates, which no database stores.
    """
    text = record.to_json()
    try:
        return text_hash(text), text
    except UnicodeEncodeError as error:
        raise SpecError(f"text with lone surrogates cannot be stored: {error}") from error


class Batch:
    """Collects records for one transaction; `Store.batch` gives one and writes it at the end of its block.

    Args:
        origin: Where the records come from; reports of imported ones audit nothing.
    """

    def __init__(self, origin: Origin = "authored") -> None:
        self._origin: Origin = origin
        self._environments: dict[str, EnvironmentRow] = {}
        self._tasks: dict[str, TaskRow] = {}
        self._reports: list[tuple[ReportRow, bool]] = []
        self._rejections: list[Entry] = []
        self._trajectories: dict[str, TrajectoryRow] = {}
        self._calibrations: list[CalibrationRow] = []
        self._suites: list[tuple[SuiteRow, list[SuiteItemRow]]] = []
        self.new_environments: tuple[str, ...] = ()
        """After writing: hashes of the environments that were not there before."""
        self.new_tasks: tuple[str, ...] = ()
        """After writing: hashes of the tasks that were not there before."""
        self.new_trajectories: tuple[str, ...] = ()
        """After writing: hashes of the trajectories that were not there before."""

    def add_environment(self, spec: EnvironmentSpec) -> str:
        """Add an environment version.

        Args:
            spec: The environment.

        Returns:
            Its hash.
        """
        digest, text = hashed(spec)
        self._environments[digest] = EnvironmentRow(
            hash=digest,
            slug=spec.slug,
            title=spec.title,
            category=spec.provenance.category,
            author=spec.provenance.author,
            n_tools=len(spec.tools),
            n_tables=len(spec.world.tables),
            n_rows=sum(len(rows) for rows in spec.world.rows.values()),
            previous=spec.previous,
            origin=self._origin,
            json_text=text,
        )
        return digest

    def add_task(self, task: TaskVersion) -> str:
        """Add a task version; its environment and parent must be in the batch or in the store.

        Args:
            task: The task.

        Returns:
            Its hash.
        """
        digest, text = hashed(task)
        self._tasks[digest] = TaskRow(
            hash=digest,
            environment=task.environment,
            parent=task.lineage.parent,
            operator=task.lineage.operator,
            depth=task.lineage.depth,
            kind=task.kind,
            status="unaudited",
            origin=self._origin,
            json_text=text,
        )
        return digest

    def add_report(self, report: GateReport) -> None:
        """Add a gate report; its task must be in the batch or in the store.

        Args:
            report: The report.
        """
        digest, text = hashed(report)
        row = ReportRow(hash=digest, task=report.task, ok=report.ok, origin=self._origin, json_text=text)
        self._reports.append((row, report.whole))

    def add_rejection(self, rejection: Rejection, run: str | None = None, unit: int | None = None) -> None:
        """Add a rejection.

        Args:
            rejection: The rejection.
            run: Key of the run that it happened in.
            unit: Unit of that run.
        """
        digest, text = hashed(rejection)
        # No row object: a unit has a hundred of them, and making objects takes longer than writing them.
        self._rejections.append(
            {
                "hash": digest,
                "run": run,
                "unit": unit,
                "environment": rejection.environment,
                "parent": rejection.parent,
                "operator": rejection.operator,
                "stage": rejection.stage,
                "code": rejection.code,
                "json_text": text,
            }
        )

    def add_trajectory(self, trajectory: Trajectory) -> str:
        """Add a trajectory; its task must be in the batch or in the store.

        Args:
            trajectory: The trajectory.

        Returns:
            Its hash.
        """
        digest, text = hashed(trajectory)
        self._trajectories[digest] = TrajectoryRow(
            hash=digest,
            task=trajectory.task,
            environment=trajectory.environment,
            actor=trajectory.actor,
            stop=trajectory.stop.value,
            status=trajectory.verdict.status,
            score=trajectory.verdict.score,
            n_turns=len(trajectory.turns),
            n_calls=trajectory.n_calls,
            json_text=text,
        )
        return digest

    def add_calibration(self, calibration: Calibration) -> None:
        """Add a calibration; its task must be in the batch or in the store.

        Args:
            calibration: The calibration.
        """
        digest, text = hashed(calibration)
        self._calibrations.append(
            CalibrationRow(
                hash=digest,
                task=calibration.task,
                actor=calibration.actor,
                route=calibration.route,
                n=calibration.n,
                c=calibration.c,
                json_text=text,
            )
        )

    def add_suite(self, suite: Suite) -> None:
        """Add a frozen suite; its tasks must be in the batch or in the store.

        Args:
            suite: The suite.
        """
        digest, text = hashed(suite)
        row = SuiteRow(
            name=suite.name,
            hash=digest,
            checksum=suite.checksum,
            n_items=len(suite.items),
            json_text=text,
        )
        items = [
            SuiteItemRow(suite=suite.name, position=position, environment=item.environment, task=item.task)
            for position, item in enumerate(suite.items)
        ]
        self._suites.append((row, items))

    def write(self, session: Session) -> None:
        """Insert what is not there yet; the caller owns the transaction.

        Args:
            session: Session inside a writing transaction.

        Raises:
            StoreError: a slug or suite name is taken by another record, or a record refers to one that is missing.
        """
        self.new_environments = self._write_environments(session)
        self.new_tasks = self._write_tasks(session)
        _write_reports(session, self._reports, {*self.new_tasks})
        _write_rejections(session, self._rejections)
        self.new_trajectories = self._write_trajectories(session)
        for calibration in self._calibrations:
            _write_calibration(session, calibration)
        for suite, items in self._suites:
            _write_suite(session, suite, items)

    def _write_environments(self, session: Session) -> tuple[str, ...]:
        new: list[str] = []
        for digest, row in self._environments.items():
            slug = col(EnvironmentRow.slug) == row.slug
            if _exists(session, EnvironmentRow, col(EnvironmentRow.hash) == digest):
                continue
            if taken := session.exec(select(EnvironmentRow.hash).where(slug)).first():
                raise StoreError(
                    f"cannot add environment {digest}: its slug {row.slug!r} belongs to environment {taken}, which is "
                    "another version: give it a slug of its own (authors append a part that depends on the content)"
                )
            session.add(row)
            session.flush()
            new.append(digest)
        return tuple(new)

    def _write_tasks(self, session: Session) -> tuple[str, ...]:
        rows = self._tasks.values()
        homes = _homes(session, (row.environment for row in rows))
        depths = _depths(session, {row.hash for row in rows} | {row.parent for row in rows if row.parent})
        known = self._tasks.keys() & depths.keys()
        new: list[TaskRow] = []
        # Parents first, whatever order they were added in.
        for row in sorted(rows, key=lambda task: task.depth):
            if row.hash in known:
                continue
            if row.environment not in homes:
                raise _missing(f"task {row.hash}", "environment", row.environment)
            if row.parent is not None:
                if row.parent not in depths:
                    raise _missing(f"task {row.hash}", "parent task", row.parent)
                _check_depth(row, row.parent, depths[row.parent])
            depths[row.hash] = row.depth
            new.append(row)
        session.add_all(new)
        session.flush()
        return tuple(row.hash for row in new)

    def _write_trajectories(self, session: Session) -> tuple[str, ...]:
        new: list[str] = []
        for digest, row in self._trajectories.items():
            if _exists(session, TrajectoryRow, col(TrajectoryRow.hash) == digest):
                continue
            _need(session, TaskRow, row.task, f"trajectory {digest}", "task")
            _need(session, EnvironmentRow, row.environment, f"trajectory {digest}", "environment")
            session.add(row)
            new.append(digest)
        session.flush()
        return tuple(new)


def _exists(session: Session, table: type, *where: ColumnElement[bool] | bool) -> bool:
    return session.exec(select(1).select_from(table).where(*where).limit(1)).first() is not None


def _need(session: Session, table: type[EnvironmentRow] | type[TaskRow], digest: str, who: str, what: str) -> None:
    if not _exists(session, table, col(table.hash) == digest):
        raise _missing(who, what, digest)


def _missing(who: str, what: str, digest: str) -> StoreError:
    return StoreError(f"cannot add {who}: its {what} {digest} is not in the store: add that first")


def _parts(hashes: Iterable[str]) -> Iterator[list[str]]:
    """Cut different hashes into lists that fit into one statement."""
    distinct = list(dict.fromkeys(hashes))
    for start in range(0, len(distinct), _MOST_ASKED):
        yield distinct[start : start + _MOST_ASKED]


def _depths(session: Session, hashes: Iterable[str]) -> dict[str, int]:
    """Depths of those tasks that are stored, by hash."""
    found: dict[str, int] = {}
    for part in _parts(hashes):
        rows = session.exec(select(TaskRow.hash, TaskRow.depth).where(col(TaskRow.hash).in_(part)))
        found.update((digest, depth) for digest, depth in rows)
    return found


def _homes(session: Session, hashes: Iterable[str]) -> set[str]:
    """Those environments that are stored."""
    found: set[str] = set()
    for part in _parts(hashes):
        found.update(session.exec(select(EnvironmentRow.hash).where(col(EnvironmentRow.hash).in_(part))))
    return found


def _check_depth(row: TaskRow, parent: str, depth: int) -> None:
    if row.depth != depth + 1:
        raise StoreError(
            f"cannot add task {row.hash}: its depth is {row.depth}, its parent {parent} has depth {depth}: a child "
            "stands one step below its parent"
        )


def _write_reports(session: Session, reports: Sequence[tuple[ReportRow, bool]], new: Collection[str]) -> None:
    """Write reports in order; `new` tasks have none yet.

    Raises:
        StoreError: a task is missing.
    """
    latest: dict[tuple[str, str], str | None] = {}
    for row, whole in reports:
        task = session.get(TaskRow, row.task)
        if task is None:
            raise StoreError(f"cannot add a gate report: its task {row.task} is not in the store: add that first")
        place = row.task, row.origin
        if place not in latest:
            latest[place] = None if row.task in new else _latest_report(session, row)
        if latest[place] == row.hash or (latest[place] is not None and not whole):
            continue  # one that leaves gates out tells less than whatever is there
        session.add(row)
        latest[place] = row.hash
        if row.origin == "authored":
            task.status = "failed" if not row.ok else "passed" if whole else "unaudited"
    session.flush()


def _latest_report(session: Session, row: ReportRow) -> str | None:
    return session.exec(
        select(ReportRow.hash)
        .where(col(ReportRow.task) == row.task, col(ReportRow.origin) == row.origin)
        .order_by(col(ReportRow.id).desc())
    ).first()


def _write_rejections(session: Session, rows: Sequence[Entry]) -> None:
    """Write rejections; equal ones of one batch are as many proposals, those of an earlier batch are the same ones."""
    left: dict[tuple[str | None, int | None], Counter[str]] = {}
    for row in rows:
        left.setdefault((row["run"], row["unit"]), Counter())[row["hash"]] += 0
    for (run, unit), counts in left.items():
        for part in _parts(counts):
            known = (
                select(RejectionRow.hash, func.count())
                .where(
                    col(RejectionRow.hash).in_(part),
                    col(RejectionRow.run).is_(None) if run is None else col(RejectionRow.run) == run,
                    col(RejectionRow.unit).is_(None) if unit is None else col(RejectionRow.unit) == unit,
                )
                .group_by(RejectionRow.hash)
            )
            counts.update(dict(session.exec(known).all()))
    new: list[Entry] = []
    for row in rows:
        counts = left[row["run"], row["unit"]]
        if counts[row["hash"]] > 0:
            counts[row["hash"]] -= 1
        else:
            new.append(row)
    if new:
        session.exec(insert(RejectionRow), params=new)


def _write_calibration(session: Session, row: CalibrationRow) -> None:
    _need(session, TaskRow, row.task, "a calibration", "task")
    latest = session.exec(
        select(CalibrationRow.hash)
        .where(col(CalibrationRow.task) == row.task, col(CalibrationRow.actor) == row.actor)
        .order_by(col(CalibrationRow.id).desc())
    ).first()
    if latest != row.hash:
        session.add(row)
        session.flush()


def _write_suite(session: Session, row: SuiteRow, items: list[SuiteItemRow]) -> None:
    kept = session.get(SuiteRow, row.name)
    if kept is not None:
        if kept.hash == row.hash:
            return
        raise StoreError(
            f"suite {row.name!r} is frozen with {kept.n_items} tasks (checksum {kept.checksum}); this one has "
            f"{row.n_items} (checksum {row.checksum}) or another description: a frozen suite never changes, so "
            "choose another name"
        )
    session.add(row)
    session.flush()
    for item in items:
        _need(session, TaskRow, item.task, f"suite {row.name!r}", "task")
        stored = session.exec(select(TaskRow.environment).where(col(TaskRow.hash) == item.task)).one()
        if stored != item.environment:
            raise StoreError(
                f"cannot add suite {row.name!r}: task {item.task} belongs to environment {stored}, "
                f"not {item.environment}"
            )
        session.add(item)
    session.flush()


def write_unit(session: Session, batch: Batch, row: UnitRow) -> bool:
    """Write a batch as one unit of a run.

    Args:
        session: Session inside a writing transaction.
        batch: What the unit brought.
        row: The unit.

    Returns:
        False when the unit was committed before with the same result, and nothing was written now.

    Raises:
        StoreError: no such run, or the unit was committed before with another result.
    """
    if session.get(RunRow, row.run) is None:
        raise StoreError(f"there is no run {row.run!r}: start it with start_run before committing units")
    done = session.get(UnitRow, (row.run, row.unit))
    if done is not None:
        if (done.environment, done.tasks) != (row.environment, row.tasks):
            raise StoreError(
                f"unit {row.unit} of run {row.run!r} was committed before with another result (environment "
                f"{done.environment}, now {row.environment}): two processes work on the same units with authors that "
                "differ, so give each its own run or its own units"
            )
        return False
    batch.write(session)
    session.add(row)
    session.flush()
    return True
