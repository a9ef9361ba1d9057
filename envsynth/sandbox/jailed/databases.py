"""Connections that untrusted code gets: an in-memory database whose transaction belongs to the sandbox.

Each call runs inside a savepoint, so that a call that fails leaves no trace. Code may still use the usual idioms:
`commit()`, `rollback()`, `with db:` and `executescript()` work within the call; `BEGIN`, `COMMIT`, `ROLLBACK` and
`ATTACH` as SQL text are refused. This keeps honest code atomic; the kernel, not SQLite, keeps hostile code in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Literal

LIMITS: tuple[tuple[int, int], ...] = (
    (sqlite3.SQLITE_LIMIT_LENGTH, 10_000_000),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1_000_000),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
)
"""SQLite limits of every connection: bytes of a value, bytes of a statement, attached databases."""

PROGRESS_OPERATIONS = 20_000
"""Virtual machine steps between two looks at the clock."""

WAL_VERSION, DELETE_VERSION = b"\x02\x02", b"\x01\x01"
_VERSION_BYTES = slice(18, 20)

_DENIED = (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)


class Database(sqlite3.Connection):
    """A connection inside the jail; rows are plain dictionaries."""

    _part_open = False

    def commit(self) -> None:
        """Keep what the call has done so far, whatever `rollback` does later; a failing call still loses it."""
        if self.in_transaction:
            if self._part_open:
                self.execute("RELEASE call_part")
            self.execute("SAVEPOINT call_part")
            self._part_open = True

    def rollback(self) -> None:
        """Undo what the call has done since its start or its last `commit`."""
        if self.in_transaction:
            self.execute(f"ROLLBACK TO {'call_part' if self._part_open else 'call_scope'}")

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> Literal[False]:
        if kind is None:
            self.commit()
        else:
            self.rollback()
        return False

    def close(self) -> None:
        """Leave the connection open: it belongs to the sandbox, and the next call needs it."""

    def executescript(self, script: str) -> sqlite3.Cursor:
        """Run several statements inside the call's savepoint (the inherited method would end it)."""
        cursor = self.cursor()
        for statement in _statements(script):
            cursor.execute(statement)
        return cursor

    def begin_call(self) -> None:
        """Open the savepoint of a call."""
        self._part_open = False
        self.execute("SAVEPOINT call_scope")

    def end_call(self) -> None:
        """Keep what the call did."""
        self.execute("RELEASE call_scope")

    def undo_call(self) -> None:
        """Undo what the call did."""
        if self.in_transaction:
            self.execute("ROLLBACK TO call_scope")
            self.execute("RELEASE call_scope")


def _statements(script: str) -> Iterator[str]:
    held = ""
    for piece in script.split(";")[:-1]:
        held += piece + ";"
        if sqlite3.complete_statement(held):
            yield held
            held = ""
    rest = held + script.rpartition(";")[2]
    if rest.strip():
        yield rest


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: cell for column, cell in zip(cursor.description, row, strict=True)}


def _authorize(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_DENY if action in _DENIED else sqlite3.SQLITE_OK


def open_database(image: bytes, max_bytes: int, is_late: Callable[[], bool]) -> Database:
    """Open a database image in memory.

    Args:
        image: A serialized database; empty for a new one.
        max_bytes: How large the database may grow.
        is_late: Asked every so many steps of a statement; True interrupts it.

    Returns:
        The connection.

    Raises:
        sqlite3.DatabaseError: The image is no database.
    """
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=Database)
    try:
        if image:
            if image[_VERSION_BYTES] == WAL_VERSION:  # an in-memory database has no write-ahead log to open
                image = image[:18] + DELETE_VERSION + image[20:]
            db.deserialize(image)
        db.execute("PRAGMA temp_store=2")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        page = db.execute("PRAGMA page_size").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={max(1, max_bytes // page)}")  # `deserialize` forgets an earlier one
        for category, value in LIMITS:
            db.setlimit(category, value)
    except BaseException:
        sqlite3.Connection.close(db)
        raise
    db.row_factory = _as_dict
    db.set_progress_handler(is_late, PROGRESS_OPERATIONS)
    db.set_authorizer(_authorize)
    return db
