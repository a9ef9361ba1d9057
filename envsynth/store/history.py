"""Reading what happened: rejections, runs, trajectories, and the suites that were frozen."""

from __future__ import annotations

from sqlalchemy.sql import ColumnElement
from sqlmodel import col, func, select

from envsynth.errors import SpecNotFound
from envsynth.record import content_hash
from envsynth.store import queries
from envsynth.store.records import Calibration, RefusalCount, Rejection, Route, RunEntry, Suite, UnitEntry
from envsynth.store.rows import CalibrationRow, EnvironmentRow, RejectionRow, RunRow, SuiteRow, TrajectoryRow, UnitRow
from envsynth.store.session import OpenStore
from envsynth.trajectory import Trajectory


class HistoryReader(OpenStore):
    """The part of a store that tells what happened."""

    def rejections(
        self,
        environment: str | None = None,
        code: str | None = None,
        *,
        parent: str | None = None,
        run: str | None = None,
    ) -> list[Rejection]:
        """Return why drafts were rejected, oldest first.

        Args:
            environment: Hash (whole or prefix) or slug of the environment version; it need not be stored.
            code: Stable code.
            parent: Hash (whole or prefix) of the task version that was to be hardened.
            run: Key of the run.

        Returns:
            The rejections.
        """
        conditions: list[ColumnElement[bool]] = []
        with self._session("read rejections") as session:
            if environment is not None:
                slug = select(EnvironmentRow.hash).where(col(EnvironmentRow.slug) == environment)
                home = session.exec(slug).first() or environment
                conditions.append(queries.hash_starts(col(RejectionRow.environment), home))
            if parent is not None:
                conditions.append(queries.hash_starts(col(RejectionRow.parent), parent))
            equal = ((col(RejectionRow.code), code), (col(RejectionRow.run), run))
            conditions += [column == value for column, value in equal if value is not None]
            query = select(RejectionRow).where(*conditions).order_by(col(RejectionRow.id))
            return self._records(session, query, Rejection, "rejection")

    def rejection_counts(self) -> dict[tuple[str, str], int]:
        """Count rejections by (stage, code), the most frequent first."""
        with self._session("count rejections") as session:
            return queries.rejection_counts(session)

    def refusal_counts(self) -> list[RefusalCount]:
        """Count rejections by environment, operator, stage and code."""
        with self._session("count rejections") as session:
            return queries.refusal_counts(session)

    def runs(self) -> list[RunEntry]:
        """List the runs by key."""
        with self._session("list runs") as session:
            return queries.run_entries(session)

    def units(self, key: str) -> list[UnitEntry]:
        """List the committed units of a run in order; none for an unknown run.

        Args:
            key: The run.

        Returns:
            The entries.
        """
        with self._session(f"list the units of run {key!r}") as session:
            return queries.unit_entries(session, key)

    def dataset_hash(self, key: str, count: int | None = None) -> str:
        """Hash what a run brought: equal for equal requests, whatever made the units, in which order, and where they are kept.

        Args:
            key: The run.
            count: Only units below this number; all when None.

        Returns:
            Content hash of the list of units in order of their numbers, each with its number, the hash of its
            environment, and the hashes of its tasks, each parent before its children.

        Raises:
            SpecNotFound: there is no such run.
        """
        with self._session(f"hash run {key!r}") as session:
            if session.get(RunRow, key) is None:
                raise SpecNotFound(f"no run {key!r} in store {self._where}: `runs()` lists them")
            units = queries.unit_entries(session, key)
        chosen = [unit for unit in units if count is None or unit.unit < count]
        return content_hash([[unit.unit, unit.environment, list(unit.tasks)] for unit in chosen])

    def done_units(self, key: str) -> set[int]:
        """Return the numbers of a run's committed units: a resumed run skips them.

        Args:
            key: The run.

        Returns:
            The numbers.
        """
        with self._session(f"read the done units of run {key!r}") as session:
            return set(session.exec(select(UnitRow.unit).where(col(UnitRow.run) == key)).all())

    def trajectories(self, task: str | None = None, actor: str | None = None) -> list[Trajectory]:
        """Return trajectories, oldest first.

        Args:
            task: Only of this task (a reference).
            actor: Only of this actor.

        Returns:
            The trajectories.
        """
        conditions = [] if actor is None else [col(TrajectoryRow.actor) == actor]
        with self._session("read trajectories") as session:
            if task is not None:
                digest = queries.resolve_task(session, task, self._where)
                conditions.append(col(TrajectoryRow.task) == digest)
            query = select(TrajectoryRow).where(*conditions).order_by(col(TrajectoryRow.id))
            return self._records(session, query, Trajectory, "trajectory")

    def calibrations(
        self, task: str | None = None, actor: str | None = None, *, route: Route | None = None
    ) -> list[Calibration]:
        """Return the latest calibration of each task and actor, oldest first.

        Args:
            task: Only of this task (a reference).
            actor: Only of this actor.
            route: Only those whose latest calibration sends the task there.

        Returns:
            The calibrations.
        """
        conditions = [] if actor is None else [col(CalibrationRow.actor) == actor]
        with self._session("read calibrations") as session:
            if task is not None:
                digest = queries.resolve_task(session, task, self._where)
                conditions.append(col(CalibrationRow.task) == digest)
            latest = select(func.max(CalibrationRow.id)).where(*conditions)
            latest = latest.group_by(col(CalibrationRow.task), col(CalibrationRow.actor))
            query = select(CalibrationRow).where(col(CalibrationRow.id).in_(latest)).order_by(col(CalibrationRow.id))
            if route is not None:
                query = query.where(col(CalibrationRow.route) == route)
            return self._records(session, query, Calibration, "calibration")

    def suite(self, name: str) -> Suite:
        """Return a frozen suite.

        Args:
            name: Its name.

        Returns:
            The suite.

        Raises:
            SpecNotFound: there is none of that name.
        """
        with self._session(f"read suite {name!r}") as session:
            row = session.get(SuiteRow, name)
            if row is None:
                raise SpecNotFound(f"no suite {name!r} in store {self._where}: `suites()` lists them")
            return queries.parsed(Suite, row.json_text, row.hash, "suite", self._where)

    def suites(self) -> list[str]:
        """List the names of the frozen suites."""
        with self._session("list suites") as session:
            return list(session.exec(select(SuiteRow.name).order_by(SuiteRow.name)).all())
