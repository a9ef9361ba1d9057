"""Reading: finds records by reference, verifies them, walks lineage, lists the index. The only SQL of the house.

A query that lists reads index columns alone; one that returns records verifies each text against its hash first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import func
from sqlalchemy import select as core_select
from sqlalchemy.orm import Mapped, aliased
from sqlalchemy.sql import ColumnElement
from sqlmodel import Session, col, select

from envsynth.errors import SpecError, SpecNotFound, StoreError
from envsynth.record import Record
from envsynth.spec import TaskVersion
from envsynth.store.catalogue import text_hash
from envsynth.store.records import EnvironmentEntry, RefusalCount, RunEntry, TaskEntry, TaskQuery, UnitEntry
from envsynth.store.rows import EnvironmentRow, RejectionRow, RunRow, TaskRow, UnitRow

R = TypeVar("R", bound=Record)

_SHOWN = 8
_PREFIX = re.compile(r"[0-9a-f]{4,32}")


def verified(text: str, digest: str, what: str, where: str) -> str:
    """Check a stored text against its hash.

    Args:
        text: The stored JSON.
        digest: The hash it was stored under.
        what: Which kind of row, for the message.
        where: The store, for the message.

    Returns:
        The text.

    Raises:
        StoreError: the text has another hash.
    """
    # Stored text is canonical JSON, so its bytes hash to the content hash; nothing need be parsed for that.
    found = text_hash(text)
    if found != digest:
        raise StoreError(
            f"{what} {digest} in store {where} is damaged: its text has the hash {found}: restore a copy of the "
            "store, or import the record again into a new store"
        )
    return text


def parsed(record: type[R], text: str, digest: str, what: str, where: str) -> R:
    """Verify a stored text and parse it.

    Args:
        record: Class of the record.
        text: The stored JSON.
        digest: The hash it was stored under.
        what: Which kind of row, for the message.
        where: The store, for the message.

    Returns:
        The record.

    Raises:
        StoreError: the text is damaged, or this build cannot read it.
    """
    try:
        return record.from_json(verified(text, digest, what, where))
    except SpecError as error:
        raise StoreError(
            f"{what} {digest} in store {where} cannot be read by this envsynth: {error}: use the version that wrote it"
        ) from error


# ---------------------------------------------------------------------------------------------------------- references


def resolve_environment(session: Session, ref: str, where: str) -> str:
    """Find the environment that a hash, a slug, or a unique prefix of either names.

    Args:
        session: Open session.
        ref: The reference.
        where: The store, for messages.

    Returns:
        The environment's hash.

    Raises:
        SpecNotFound: there is none.
        StoreError: there are several.
    """
    exact = (col(EnvironmentRow.hash) == ref) | (col(EnvironmentRow.slug) == ref)
    found = _environments(session, exact)
    if not found and ref:
        starts = col(EnvironmentRow.slug).startswith(ref, autoescape=True)
        if _PREFIX.fullmatch(ref):
            starts = starts | hash_starts(col(EnvironmentRow.hash), ref)
        found = _environments(session, starts)
    candidates = [f"{digest} {slug}" for digest, slug in found]
    return _only([digest for digest, _ in found], candidates, "environment", ref, where)


def resolve_task(session: Session, ref: str, where: str) -> str:
    """Find the task that a hash or a unique prefix names, or the only leaf of the environment that a slug names.

    Args:
        session: Open session.
        ref: The reference.
        where: The store, for messages.

    Returns:
        The task's hash.

    Raises:
        SpecNotFound: there is none.
        StoreError: there are several.
    """
    found: Sequence[TaskEntry] = ()
    if _PREFIX.fullmatch(ref):
        found = task_entries(session, [hash_starts(col(TaskRow.hash), ref)])
    if not found:
        by_slug = col(EnvironmentRow.slug) == ref
        found = task_entries(session, [by_slug, *leaf_conditions()])
    candidates = [f"{task.hash} {task.slug} depth {task.depth}" for task in found]
    return _only([task.hash for task in found], candidates, "task", ref, where)


def _environments(session: Session, where: ColumnElement[bool]) -> list[tuple[str, str]]:
    query = select(EnvironmentRow.hash, EnvironmentRow.slug).where(where).order_by(EnvironmentRow.slug)
    return list(session.exec(query.limit(_SHOWN + 1)).all())


def hash_starts(column: Mapped[str] | Mapped[str | None], prefix: str) -> ColumnElement[bool]:
    """Return the condition that a hash column starts with a prefix, as a range, so that its index serves."""
    return (column >= prefix) & (column < prefix + "g")


def _only(hashes: list[str], candidates: list[str], what: str, ref: str, where: str) -> str:
    if len(hashes) == 1:
        return hashes[0]
    if not hashes:
        raise SpecNotFound(
            f"no {what} {ref!r} in store {where}: give a hash, at least 4 digits of it, or a slug "
            "(`envsynth list` shows them)"
        )
    more = f" and {len(hashes) - _SHOWN} or more" if len(hashes) > _SHOWN else ""
    raise StoreError(
        f"{ref!r} names several {what}s in store {where}; give more of the hash: "
        + ", ".join(candidates[:_SHOWN])
        + more
    )


# ------------------------------------------------------------------------------------------------------------ listings


def leaf_conditions() -> list[ColumnElement[bool]]:
    """Return the conditions of a leaf: it has not failed, and no child of it that has not failed exists."""
    child = aliased(TaskRow)
    children = select(1).where(col(child.parent) == col(TaskRow.hash), col(child.status) != "failed")
    return [col(TaskRow.status) != "failed", ~children.exists()]


def query_conditions(query: TaskQuery, environment: str | None) -> list[ColumnElement[bool]]:
    """Turn a query into conditions on the index.

    Args:
        query: The query.
        environment: Resolved hash of `query.environment`.

    Returns:
        The conditions, all of which must hold.
    """
    equal = (
        (col(TaskRow.environment), environment),
        (col(EnvironmentRow.category), query.category),
        (col(TaskRow.kind), query.kind),
        (col(TaskRow.operator), query.operator),
        (col(TaskRow.status), query.status),
    )
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal if value is not None]
    conditions.append(col(TaskRow.depth) >= query.min_depth)
    if query.max_depth is not None:
        conditions.append(col(TaskRow.depth) <= query.max_depth)
    if query.leaves_only:
        conditions += leaf_conditions()
    return conditions


def task_entries(session: Session, conditions: Sequence[ColumnElement[bool]]) -> list[TaskEntry]:
    """List tasks of the index, ordered by slug, depth and hash: the same in every store that holds the same records.

    Args:
        session: Open session.
        conditions: Conditions over `TaskRow` and `EnvironmentRow`.

    Returns:
        The entries.
    """
    columns = {"slug": col(EnvironmentRow.slug), "category": col(EnvironmentRow.category)}
    names = [name for name in TaskEntry.__dataclass_fields__ if name not in columns]
    query = (
        core_select(*(getattr(TaskRow, name) for name in names), *columns.values())
        .join(EnvironmentRow, col(EnvironmentRow.hash) == col(TaskRow.environment))
        .where(*conditions)
        .order_by(col(EnvironmentRow.slug), col(TaskRow.depth), col(TaskRow.hash))
    )
    return [TaskEntry(**row) for row in session.connection().execute(query).mappings()]


def environment_entries(session: Session, category: str | None) -> list[EnvironmentEntry]:
    """List environments of the index, ordered by slug.

    Args:
        session: Open session.
        category: Only those of this category sentence.

    Returns:
        The entries.
    """
    columns = (getattr(EnvironmentRow, name) for name in EnvironmentEntry.__dataclass_fields__)
    query = core_select(*columns).order_by(col(EnvironmentRow.slug))
    if category is not None:
        query = query.where(col(EnvironmentRow.category) == category)
    return [EnvironmentEntry(**row) for row in session.connection().execute(query).mappings()]


# ------------------------------------------------------------------------------------------------------------- lineage


def lineage(session: Session, digest: str, where: str) -> list[TaskVersion]:
    """Walk from a task to its root.

    Args:
        session: Open session.
        digest: Hash of the task.
        where: The store, for messages.

    Returns:
        The versions, root first.

    Raises:
        StoreError: a version is damaged or missing, or the index does not fit the records.
    """
    line = select(TaskRow.hash, TaskRow.parent).where(col(TaskRow.hash) == digest).cte("line", recursive=True)
    upper = aliased(TaskRow)
    # UNION, not UNION ALL: even an index damaged into a circle ends.
    line = line.union(select(upper.hash, upper.parent).join(line, col(upper.hash) == line.c.parent))
    query = select(TaskRow.hash, TaskRow.json_text).join(line, col(TaskRow.hash) == line.c.hash)
    rows = session.exec(query.order_by(col(TaskRow.depth))).all()
    versions = [parsed(TaskVersion, text, key, "task", where) for key, text in rows]
    if [version.lineage.parent for version in versions] != [None, *(key for key, _ in rows[:-1])]:
        raise StoreError(
            f"the lineage of task {digest} in store {where} is broken: the index does not fit the records; "
            "restore a copy of the store"
        )
    return versions


def descendant_conditions(digest: str) -> list[ColumnElement[bool]]:
    """Return the condition that a task is `digest` or was hardened from it, in any number of steps."""
    tree = select(TaskRow.hash).where(col(TaskRow.hash) == digest).cte("tree", recursive=True)
    lower = aliased(TaskRow)
    tree = tree.union(select(lower.hash).join(tree, col(lower.parent) == tree.c.hash))
    return [col(TaskRow.hash).in_(select(tree.c.hash))]


# ------------------------------------------------------------------------------------------------- runs and rejections


def run_entries(session: Session) -> list[RunEntry]:
    """List runs by key, with the counts of their units.

    Args:
        session: Open session.

    Returns:
        The entries.
    """
    query = (
        select(
            RunRow,
            func.count(col(UnitRow.unit)),
            func.coalesce(func.sum(UnitRow.n_tasks), 0),
            func.coalesce(func.sum(UnitRow.n_rejections), 0),
        )
        .outerjoin(UnitRow, col(UnitRow.run) == col(RunRow.key))
        .group_by(col(RunRow.key))
        .order_by(RunRow.key)
    )
    return [
        RunEntry(
            key=run.key,
            command=run.command,
            params=json.loads(run.params),
            finished=run.finished,
            n_units=n_units,
            n_tasks=n_tasks,
            n_rejections=n_rejections,
        )
        for run, n_units, n_tasks, n_rejections in session.exec(query)
    ]


def unit_entries(session: Session, key: str) -> list[UnitEntry]:
    """List the committed units of a run in order.

    Args:
        session: Open session.
        key: The run.

    Returns:
        The entries.
    """
    rows = session.exec(select(UnitRow).where(col(UnitRow.run) == key).order_by(col(UnitRow.unit)))
    return [
        UnitEntry(
            unit=row.unit,
            environment=row.environment,
            tasks=tuple(json.loads(row.tasks)),
            n_rejections=row.n_rejections,
        )
        for row in rows
    ]


def rejection_counts(session: Session) -> dict[tuple[str, str], int]:
    """Count rejections by stage and code, the most frequent first.

    Args:
        session: Open session.

    Returns:
        Number of rejections by (stage, code).
    """
    number = func.count().label("number")
    query = (
        select(RejectionRow.stage, RejectionRow.code, number)
        .group_by(col(RejectionRow.stage), col(RejectionRow.code))
        .order_by(number.desc(), RejectionRow.stage, RejectionRow.code)
    )
    return {(stage, code): count for stage, code, count in session.exec(query)}


def refusal_counts(session: Session) -> list[RefusalCount]:
    """Count rejections by environment, operator, stage and code, from index columns alone.

    Args:
        session: Open session.

    Returns:
        The counts, in the order of these columns.
    """
    keys = [getattr(RejectionRow, name) for name in ("environment", "operator", "stage", "code")]
    query = core_select(*keys, func.count().label("count")).group_by(*keys)
    query = query.order_by(*(key.nulls_first() for key in keys))  # the default differs between databases
    return [RefusalCount(**row) for row in session.connection().execute(query).mappings()]
