"""The store: environments, tasks, reports, rejections, runs, trajectories and suites in one file or database.

Every write is one transaction: after an error, a crash or `kill -9` the store holds all of it or nothing of it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine

from envsynth.errors import SpecNotFound, StoreError
from envsynth.record import Record, canonical_json
from envsynth.report import GateReport
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store.batch import Batch, write_unit
from envsynth.store.engine import check_file, locate, sqlite_engine, use_wal
from envsynth.store.failures import explained
from envsynth.store.history import HistoryReader
from envsynth.store.migrate import revision_of, upgrade
from envsynth.store.postgres import postgres_engine, shown
from envsynth.store.reader import RecordReader
from envsynth.store.records import (
    Calibration,
    Origin,
    Rejection,
    Suite,
)
from envsynth.store.rows import (
    RunRow,
    UnitRow,
)
from envsynth.store.schema import HEAD, default_store_path
from envsynth.trajectory import Trajectory

R = TypeVar("R", bound=Record)


class Store(RecordReader, HistoryReader):
    """An open store. Use `Store.open`; a context manager; safe to use from several threads and processes.

    References (`ref`) are content hashes, unique prefixes of at least four digits, or slugs. Lists of environments and
    tasks are ordered by slug, depth and hash, the same in every store that holds the same records.
    """

    @classmethod
    def open(cls, path: str | Path | None = None, *, readonly: bool = False, busy_timeout_s: float = 60.0) -> Store:
        """Open a store, making or upgrading its tables when needed.

        Args:
            path: A file, an `sqlite:///` URL, or `postgresql+psycopg://USER@HOST/DATABASE` (extra `postgres`);
                `$ENVSYNTH_STORE` or `envsynth.db` when None.
            readonly: Whether nothing may be written, not even an upgrade; works on read-only files and folders.
            busy_timeout_s: Seconds to wait for another writer.

        Returns:
            The open store.

        Raises:
            StoreError: there is no such store or folder, the file is something else, it cannot be read or written, or
                the server refuses.
            MissingExtra: the driver of PostgreSQL is not installed.
            SchemaTooNew: a newer envsynth wrote it.
        """
        place = locate(default_store_path() if path is None else path)
        if isinstance(place, Path):
            check_file(place, readonly=readonly)
            engine = sqlite_engine(place, readonly=readonly, timeout_s=busy_timeout_s)
            where = str(place)
        else:
            engine = postgres_engine(place, readonly=readonly, timeout_s=busy_timeout_s)
            where = shown(place)
        try:
            _prepare(engine, where, readonly=readonly)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, where, readonly=readonly)

    @contextmanager
    def batch(self, origin: Origin = "authored") -> Generator[Batch, None, None]:
        """Collect records in the block and write them in one transaction at its end; nothing when the block raises.

        Args:
            origin: `imported` marks the records, and their reports audit nothing.

        Yields:
            The batch to add to.
        """
        self._check_writable("write a batch")
        batch = Batch(origin)
        yield batch
        with self._session("write a batch", write=True) as session:
            batch.write(session)

    def add_environment(self, spec: EnvironmentSpec) -> str:
        """Add an environment version; adding it again changes nothing.

        Args:
            spec: The environment.

        Returns:
            Its hash.
        """
        with self.batch() as batch:
            return batch.add_environment(spec)

    def add_task(self, task: TaskVersion, report: GateReport | None = None) -> str:
        """Add a task version with its gate report; adding it again changes nothing.

        Args:
            task: The task; its environment and its parent must be stored.
            report: What the gates found; without one the task is unaudited.

        Returns:
            Its hash.

        Raises:
            StoreError: the report is of another task, or something that the task refers to is missing.
        """
        with self.batch() as batch:
            digest = batch.add_task(task)
            if report is not None:
                _check_report(task, digest, report)
                batch.add_report(report)
            return digest

    def add_report(self, report: GateReport) -> None:
        """Add a gate report of a stored task: it becomes the latest, the earlier ones stay as history.

        Args:
            report: The report.
        """
        with self.batch() as batch:
            batch.add_report(report)

    def add_rejections(self, rejections: Sequence[Rejection]) -> None:
        """Add rejections that belong to no run; adding them again changes nothing.

        Args:
            rejections: The rejections.
        """
        with self.batch() as batch:
            for rejection in rejections:
                batch.add_rejection(rejection)

    def add_trajectories(self, trajectories: Sequence[Trajectory]) -> list[str]:
        """Add trajectories of stored tasks; adding one again changes nothing.

        Args:
            trajectories: The trajectories.

        Returns:
            Their hashes in order.
        """
        with self.batch() as batch:
            return [batch.add_trajectory(trajectory) for trajectory in trajectories]

    def add_calibration(self, calibration: Calibration) -> None:
        """Add a calibration of a stored task: it becomes the latest of its actor, the earlier ones stay as history.

        Args:
            calibration: The calibration.
        """
        with self.batch() as batch:
            batch.add_calibration(calibration)

    def add_suite(self, suite: Suite) -> None:
        """Add a frozen suite of stored tasks; adding it again changes nothing.

        Args:
            suite: The suite.

        Raises:
            StoreError: the name belongs to another suite, or a task is not stored.
        """
        with self.batch() as batch:
            batch.add_suite(suite)

    def start_run(self, key: str, command: str, params: dict[str, Any]) -> None:
        """Start a run, or resume it when the key is known.

        Args:
            key: Name of the run.
            command: What is run.
            params: With which parameters (JSON).

        Raises:
            StoreError: the key belongs to a run of another command or with other parameters.
        """
        text = canonical_json(params)
        with self._session(f"start run {key!r}", write=True) as session:
            row = session.get(RunRow, key)
            if row is None:
                session.add(RunRow(key=key, command=command, params=text))
            elif (row.command, row.params) != (command, text):
                raise StoreError(
                    f"run {key!r} in store {self._where} was started as {row.command} with {row.params}, now it is "
                    f"{command} with {text}: resume it with the same options, or choose another key"
                )

    def commit_unit(
        self,
        run: str,
        unit: int,
        *,
        environment: EnvironmentSpec | None = None,
        tasks: Sequence[tuple[TaskVersion, GateReport]] = (),
        rejections: Sequence[Rejection] = (),
    ) -> bool:
        """Store all that one unit of a run brought, and that it is done, in one transaction.

        Args:
            run: Key of a started run.
            unit: Number of the unit.
            environment: The environment version it made; None when its tasks belong to stored ones, or it failed.
            tasks: Accepted tasks with their reports, in order.
            rejections: Drafts that were not accepted.

        Returns:
            False when the unit was committed before with the same result; nothing is written then.

        Raises:
            StoreError: no such run, the unit was committed before with another result, or a record refers to one that
                is missing.
        """
        doing = f"commit unit {unit} of run {run!r}"
        self._check_writable(doing)
        batch = Batch()
        home = None if environment is None else batch.add_environment(environment)
        hashes: list[str] = []
        for task, report in tasks:
            digest = batch.add_task(task)
            _check_report(task, digest, report)
            batch.add_report(report)
            hashes.append(digest)
        for rejection in rejections:
            batch.add_rejection(rejection, run, unit)
        row = UnitRow(
            run=run,
            unit=unit,
            environment=home,
            n_tasks=len(hashes),
            n_rejections=len(rejections),
            tasks=canonical_json(hashes),
        )
        with self._session(doing, write=True) as session:
            return write_unit(session, batch, row)

    def finish_run(self, key: str) -> None:
        """Mark a run as finished.

        Args:
            key: The run.

        Raises:
            SpecNotFound: there is no such run.
        """
        with self._session(f"finish run {key!r}", write=True) as session:
            row = session.get(RunRow, key)
            if row is None:
                raise SpecNotFound(f"no run {key!r} in store {self._where}: `runs()` lists them")
            row.finished = True


def _prepare(engine: Engine, where: str, *, readonly: bool) -> None:
    with explained(where, "open"):
        with engine.connect() as connection, connection.begin():
            revision = revision_of(connection, where)
        if revision == HEAD:
            return
        if readonly:
            found = (
                "is empty" if revision is None else f"has schema revision {revision!r}, this envsynth reads {HEAD!r}"
            )
            raise StoreError(f"store {where} {found}: open it once for writing, which upgrades it")
        if engine.dialect.name == "sqlite":
            use_wal(engine, where)
    upgrade(engine, where)


def _check_report(task: TaskVersion, digest: str, report: GateReport) -> None:
    if (report.task, report.environment) != (digest, task.environment):
        raise StoreError(
            f"cannot add task {digest} of environment {task.environment}: its gate report is of task {report.task} in "
            f"environment {report.environment}: give the report of the very version that is stored"
        )
