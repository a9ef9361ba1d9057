"""Reading environments, tasks, their reports and their lineage."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from envsynth.errors import SpecNotFound
from envsynth.report import GateReport
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import queries
from envsynth.store.records import EnvironmentEntry, Kind, Origin, TaskEntry, TaskQuery
from envsynth.store.rows import EnvironmentRow, ReportRow, TaskRow
from envsynth.store.session import OpenStore

_CHUNK = 500


class RecordReader(OpenStore):
    """The part of a store that finds environments and tasks."""

    def environment(self, ref: str) -> EnvironmentSpec:
        """Return the environment that a hash, a slug, or a unique prefix of either names.

        Args:
            ref: The reference.

        Returns:
            The environment.

        Raises:
            SpecNotFound: there is none.
            StoreError: there are several, or it is damaged.
        """
        with self._session(f"read environment {ref!r}") as session:
            digest = queries.resolve_environment(session, ref, self._where)
            text = session.exec(_text(EnvironmentRow, digest)).one()
        return queries.parsed(EnvironmentSpec, text, digest, "environment", self._where)

    def task(self, ref: str) -> TaskVersion:
        """Return the task that a hash or unique prefix names, or the only leaf of the environment that a slug names.

        Args:
            ref: The reference.

        Returns:
            The task.

        Raises:
            SpecNotFound: there is none.
            StoreError: there are several, or it is damaged.
        """
        with self._session(f"read task {ref!r}") as session:
            digest = queries.resolve_task(session, ref, self._where)
            text = session.exec(_text(TaskRow, digest)).one()
        return queries.parsed(TaskVersion, text, digest, "task", self._where)

    def environments(self, category: str | None = None) -> list[EnvironmentSpec]:
        """Return environments. To list many, `environment_entries` is far cheaper.

        Args:
            category: Only those of this category sentence.

        Returns:
            The environments by slug.
        """
        return [self.environment(entry.hash) for entry in self.environment_entries(category)]

    def tasks(
        self, environment: str | None = None, leaves_only: bool = False, kind: Kind | None = None
    ) -> list[TaskVersion]:
        """Return tasks. To list many, or by other conditions, `task_entries` is far cheaper.

        Args:
            environment: Only those of this environment version (a reference).
            leaves_only: Only those that have not failed and have no child that has not failed.
            kind: Only those of this class.

        Returns:
            The tasks by slug, depth and hash.
        """
        query = TaskQuery(environment=environment, leaves_only=leaves_only, kind=kind)
        return [self.task(entry.hash) for entry in self.task_entries(query)]

    def environment_entries(self, category: str | None = None) -> list[EnvironmentEntry]:
        """List environments from the index, without parsing them.

        Args:
            category: Only those of this category sentence.

        Returns:
            The entries by slug.
        """
        with self._session("list environments") as session:
            return queries.environment_entries(session, category)

    def task_entries(self, query: TaskQuery | None = None) -> list[TaskEntry]:
        """List tasks from the index, without parsing them.

        Args:
            query: Conditions; all tasks when None.

        Returns:
            The entries by slug, depth and hash.
        """
        query = query or TaskQuery()
        with self._session("list tasks") as session:
            home = query.environment and queries.resolve_environment(session, query.environment, self._where)
            return queries.task_entries(session, queries.query_conditions(query, home))

    def entries_of(self, hashes: Sequence[str]) -> dict[str, TaskEntry]:
        """Look up tasks in the index.

        Args:
            hashes: Whole content hashes.

        Returns:
            The entries by hash, of those that are stored.
        """
        found: dict[str, TaskEntry] = {}
        with self._session("look up tasks") as session:
            for start in range(0, len(hashes), _CHUNK):
                some = col(TaskRow.hash).in_(hashes[start : start + _CHUNK])
                found.update((entry.hash, entry) for entry in queries.task_entries(session, [some]))
        return found

    def environment_json(self, digest: str) -> str:
        """Return the canonical JSON of an environment, verified but not parsed.

        Args:
            digest: Whole content hash.

        Returns:
            The text.
        """
        return self._json(EnvironmentRow, digest, "environment")

    def task_json(self, digest: str) -> str:
        """Return the canonical JSON of a task, verified but not parsed.

        Args:
            digest: Whole content hash.

        Returns:
            The text.
        """
        return self._json(TaskRow, digest, "task")

    def reports(self, ref: str, origin: Origin | None = None) -> list[GateReport]:
        """Return the gate reports of a task, oldest first.

        Args:
            ref: The task.
            origin: Only reports made here, or only those that came with an import.

        Returns:
            The reports.
        """
        conditions = [] if origin is None else [col(ReportRow.origin) == origin]
        with self._session(f"read the reports of task {ref!r}") as session:
            digest = queries.resolve_task(session, ref, self._where)
            query = select(ReportRow).where(col(ReportRow.task) == digest, *conditions)
            return self._records(session, query.order_by(col(ReportRow.id)), GateReport, "gate report")

    def latest_report(self, ref: str) -> GateReport | None:
        """Return a task's latest gate report made here, else the latest that came with an import, else None.

        Args:
            ref: The task.

        Returns:
            The report, if there is one.
        """
        with self._session(f"read the latest report of task {ref!r}") as session:
            digest = queries.resolve_task(session, ref, self._where)
            # "authored" sorts before "imported".
            query = select(ReportRow).where(col(ReportRow.task) == digest)
            query = query.order_by(col(ReportRow.origin), col(ReportRow.id).desc()).limit(1)
            return next(iter(self._records(session, query, GateReport, "gate report")), None)

    def latest_reports(self, hashes: Sequence[str]) -> Generator[GateReport]:
        """Yield what `latest_report` returns of each of many tasks, without keeping all of them in memory.

        Args:
            hashes: Whole content hashes of tasks.

        Yields:
            The reports, in the order of the hashes; none for a task that has none.
        """
        order = (col(ReportRow.origin).desc(), col(ReportRow.id))  # the last one of a task counts
        for start in range(0, len(hashes), _CHUNK):
            some = hashes[start : start + _CHUNK]
            with self._session("read the latest reports") as session:
                query = select(ReportRow.task, ReportRow.id).where(col(ReportRow.task).in_(some)).order_by(*order)
                latest = dict(session.exec(query).all())
                rows = select(ReportRow).where(col(ReportRow.id).in_(latest.values()))
                found = {report.task: report for report in self._records(session, rows, GateReport, "gate report")}
            yield from (found[digest] for digest in some if digest in found)

    def lineage(self, ref: str) -> list[TaskVersion]:
        """Return the versions from the root to a task.

        Args:
            ref: The task.

        Returns:
            The versions, root first, the task last.
        """
        with self._session(f"read the lineage of task {ref!r}") as session:
            return queries.lineage(session, queries.resolve_task(session, ref, self._where), self._where)

    def children(self, ref: str) -> list[TaskVersion]:
        """Return the versions that were hardened from a task directly.

        Args:
            ref: The task.

        Returns:
            The children by hash.
        """
        with self._session(f"read the children of task {ref!r}") as session:
            digest = queries.resolve_task(session, ref, self._where)
            entries = queries.task_entries(session, [col(TaskRow.parent) == digest])
        return [self.task(entry.hash) for entry in sorted(entries, key=lambda entry: entry.hash)]

    def descendants(self, ref: str) -> list[TaskEntry]:
        """List a task and all versions that were hardened from it, from the index.

        Args:
            ref: The task.

        Returns:
            The entries by depth and hash; the first is the task itself.
        """
        with self._session(f"list the descendants of task {ref!r}") as session:
            digest = queries.resolve_task(session, ref, self._where)
            entries = queries.task_entries(session, queries.descendant_conditions(digest))
        return sorted(entries, key=lambda entry: (entry.depth, entry.hash))

    def _json(self, table: type[EnvironmentRow] | type[TaskRow], digest: str, what: str) -> str:
        with self._session(f"read {what} {digest}") as session:
            text = session.exec(_text(table, digest)).first()
        if text is None:
            raise SpecNotFound(f"no {what} {digest} in store {self._where}: `envsynth list` shows what is there")
        return queries.verified(text, digest, what, self._where)


def _text(table: type[EnvironmentRow] | type[TaskRow], digest: str) -> SelectOfScalar[str]:
    return select(table.json_text).where(col(table.hash) == digest)
