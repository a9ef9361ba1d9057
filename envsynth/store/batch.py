"""A batch: records that enter the store together, in one transaction, or not at all.

Rows are prepared, hashed and serialised before the transaction begins, so that the write lock is held for the inserts
alone. Adding is idempotent: a record whose hash is there already is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        self._rejections: list[RejectionRow] = []
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
        self._rejections.append(
            RejectionRow(
                hash=digest,
                run=run,
                unit=unit,
                environment=rejection.environment,
                parent=rejection.parent,
                operator=rejection.operator,
                stage=rejection.stage,
                code=rejection.code,
                json_text=text,
            )
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
        for report, whole in self._reports:
            _write_report(session, report, whole=whole)
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
        new: list[str] = []
        # Parents first, whatever order they were added in.
        for row in sorted(self._tasks.values(), key=lambda task: task.depth):
            if _exists(session, TaskRow, col(TaskRow.hash) == row.hash):
                continue
            _need(session, EnvironmentRow, row.environment, f"task {row.hash}", "environment")
            if row.parent is not None:
                _need(session, TaskRow, row.parent, f"task {row.hash}", "parent task")
                _check_depth(session, row, row.parent)
            session.add(row)
            session.flush()
            new.append(row.hash)
        return tuple(new)

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
        raise StoreError(f"cannot add {who}: its {what} {digest} is not in the store: add that first")


def _check_depth(session: Session, row: TaskRow, parent: str) -> None:
    depth = session.exec(select(TaskRow.depth).where(col(TaskRow.hash) == parent)).one()
    if row.depth != depth + 1:
        raise StoreError(
            f"cannot add task {row.hash}: its depth is {row.depth}, its parent {parent} has depth {depth}: a child "
            "stands one step below its parent"
        )


def _write_report(session: Session, row: ReportRow, *, whole: bool) -> None:
    task = session.get(TaskRow, row.task)
    if task is None:
        raise StoreError(f"cannot add a gate report: its task {row.task} is not in the store: add that first")
    latest = session.exec(
        select(ReportRow.hash)
        .where(col(ReportRow.task) == row.task, col(ReportRow.origin) == row.origin)
        .order_by(col(ReportRow.id).desc())
    ).first()
    if latest == row.hash or (latest is not None and not whole):
        return  # one that leaves gates out tells less than whatever is there
    session.add(row)
    if row.origin == "authored":
        task.status = "failed" if not row.ok else "passed" if whole else "unaudited"
    session.flush()


def _write_rejections(session: Session, rows: Sequence[RejectionRow]) -> None:
    """Write rejections; equal ones of one batch are as many proposals, those of an earlier batch are the same ones."""
    alike: dict[tuple[str, str | None, int | None], list[RejectionRow]] = {}
    for row in rows:
        alike.setdefault((row.hash, row.run, row.unit), []).append(row)
    new: list[RejectionRow] = []
    for (digest, run, unit), same in alike.items():
        known = select(func.count()).where(
            col(RejectionRow.hash) == digest,
            col(RejectionRow.run).is_(None) if run is None else col(RejectionRow.run) == run,
            col(RejectionRow.unit).is_(None) if unit is None else col(RejectionRow.unit) == unit,
        )
        new += same[session.exec(known).one() :]
    order = {id(row): place for place, row in enumerate(rows)}
    for row in sorted(new, key=lambda row: order[id(row)]):
        session.add(row)
    session.flush()


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
