"""What the oracle gives back: outcome, facts about each let, refusals; and how expected changes are applied."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from envsynth.errors import AuthorError

Key = int | str
"""Id of a row."""

Cell = int | str | None
"""What a query gives; booleans count as integers."""

Value = Key | list[Key]
"""What a variable denotes: the id of a row, the ids of a chosen set, or a number."""


class Reject(AuthorError):
    """The task has no well-defined outcome in this world.

    Codes: `empty`, `tie`, `infeasible`, `search_cap`, `name_unknown`, `name_ambiguous`, `null_value`,
    `plural_operand`, `act_empty`, `act_noop`, `foreach_empty`.

    Args:
        code: Stable code.
        message: Where and with which value.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class Change(NamedTuple):
    """One expected change of a row."""

    op: str
    """`insert`, `update` or `delete`."""
    table: str
    """Where."""
    cells: dict[str, Any]
    """Insert: cells without the id. Update: id and new cells. Delete: id."""


@dataclass(frozen=True, kw_only=True)
class LetInfo:
    """What the oracle found out about one let over rows."""

    entity: str
    """Whose rows."""
    ids: tuple[Key, ...]
    """The rows that meet the atoms, ascending."""
    table_rows: int
    """Rows of the whole table."""
    feasible: int = 0
    """Choose: sets that meet atoms and set conditions."""
    candidates: int = 0
    """Choose: sets of k of `ids`, C(len(ids), k)."""
    table_sets: int = 0
    """Choose: sets of k rows of the whole table: what a random typed answer draws from."""
    best: int | None = None
    """Pick: the winner's value when it is a number. GroupBy: its count or total. Choose with a goal: the best total."""
    second: int | None = None
    """The next best value: of the runner-up (Pick, GroupBy), of the best set that is not optimal (Choose)."""
    optimal: tuple[tuple[Key, ...], ...] = ()
    """Choose: every best set (every feasible one without a goal), ids ascending."""
    has_goal: bool = False
    """Choose: whether `best` is the certificate that the verifier needs."""
    nearest: tuple[Key, ...] = ()
    """Choose with `or_none`, when no set is feasible: a set that meets all conditions but the bound, nearest to it."""


@dataclass(frozen=True, kw_only=True)
class OracleResult:
    """The outcome of a task."""

    answer: dict[str, Any]
    """The final answer; a row is reported by its id, a chosen set as the first best one."""
    changes: list[Change]
    """All changed rows, in the order of the steps."""
    info: dict[str, LetInfo]
    """Facts about each let over rows (`To` has none)."""
    branches: dict[int, bool]
    """Truth of the condition of each `If`, by step index."""
    sets: dict[int, tuple[Key, ...]]
    """Members of each `ForEach`, by step index."""
    bindings: dict[str, Value]
    """What each variable denotes."""
    decisions: dict[str, bool]
    """Whether the action of each `Try` is allowed, by variable."""
    targets: list[tuple[int, tuple[Any, ...]]]
    """For each change: the number of the act that makes it, and what it touches."""

    @property
    def infeasible(self) -> bool:
        """Whether some choice has no set: the task's answer says so."""
        return any(info.nearest for info in self.info.values())

    @property
    def write_overlap(self) -> bool:
        """Whether two acts touch the same row, or insert rows with equal relations into one table."""
        first: dict[tuple[Any, ...], int] = {}
        return any(first.setdefault(target, act) != act for act, target in self.targets)


def certificates(result: OracleResult) -> dict[str, int]:
    """Return the only oracle products that a verifier reads.

    Args:
        result: Outcome of the task.

    Returns:
        The best total of each `Choose` with a goal; 1 or 0 for each `Try` that is allowed or denied.
    """
    best = {var: info.best for var, info in result.info.items() if info.has_goal and info.best is not None}
    return {**best, **{var: int(allowed) for var, allowed in result.decisions.items()}}


def apply_changes(connection: sqlite3.Connection, changes: Sequence[Change]) -> sqlite3.Connection:
    """Copy a database and apply changes to the copy.

    Args:
        connection: The database; it is not changed.
        changes: What to apply; an insert without an id gets a fresh one.

    Returns:
        A new in-memory database; the caller closes it.

    Raises:
        AuthorError: a change does not fit the schema (a defect of a mechanism).
    """
    copy = sqlite3.connect(":memory:", isolation_level=None)
    connection.backup(copy)
    try:
        write_changes(copy.cursor(), changes)
    except AuthorError:
        copy.close()
        raise
    return copy


def write_changes(cursor: sqlite3.Cursor, changes: Sequence[Change]) -> None:
    """Apply changes in place.

    Args:
        cursor: Of the database to write.
        changes: What to apply; an insert without an id gets a fresh one.

    Raises:
        AuthorError: a change does not fit the schema (a defect of a mechanism).
    """
    cursor.row_factory = None
    for change in changes:
        sql, values = _statement(cursor, change)
        try:
            cursor.execute(sql, values)
        except sqlite3.Error as error:
            text = f"change {change} does not fit the schema ({error}): fix the action's SQL"
            raise AuthorError(text) from error


def _statement(cursor: sqlite3.Cursor, change: Change) -> tuple[str, list[Any]]:
    cells = dict(change.cells)
    if change.op == "insert":
        cells = {"id": _fresh_id(cursor, change.table), **cells}
        names = ", ".join(f'"{name}"' for name in cells)
        marks = ", ".join("?" for _ in cells)
        return f'INSERT INTO "{change.table}" ({names}) VALUES ({marks})', list(cells.values())
    if "id" not in cells or change.op not in ("update", "delete"):
        raise AuthorError(f"change {change} is no insert, update or delete with an id")
    key = cells.pop("id")
    if change.op == "delete":
        return f'DELETE FROM "{change.table}" WHERE "id" = ?', [key]
    sets = ", ".join(f'"{name}" = ?' for name in cells)
    return f'UPDATE "{change.table}" SET {sets} WHERE "id" = ?', [*cells.values(), key]


def _fresh_id(cursor: sqlite3.Cursor, table: str) -> Key:
    sql = f'SELECT MAX("id"), COUNT(*), MAX(typeof("id")) FROM "{table}"'
    top, count, kind = cursor.execute(sql).fetchone()
    return f"NEW-{count + 1}" if kind == "text" else (top or 0) + 1
