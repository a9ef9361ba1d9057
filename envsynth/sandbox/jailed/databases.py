"""Connections that untrusted code gets: an in-memory database whose transaction belongs to the sandbox.

Each call runs inside a savepoint, so that a call that fails leaves no trace. Code may still use the usual idioms:
`commit()`, `rollback()`, `with db:` and `executescript()` work within the call; `BEGIN`, `COMMIT`, `ROLLBACK` and
`ATTACH` as SQL text are refused. This keeps honest code atomic; the kernel, not SQLite, keeps hostile code in.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Literal

from envsynth.sandbox.jailed.pages import changed_pages

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
_SCHEMA_NUMBER = slice(40, 44)

_TEMPORARY = (
    sqlite3.SQLITE_CREATE_TEMP_TABLE,
    sqlite3.SQLITE_CREATE_TEMP_INDEX,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite3.SQLITE_CREATE_TEMP_VIEW,
)

_ASKING = ("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list")
"""Pragmas whose argument says what to look at; any other with an argument changes a setting."""

_SOILING = (
    "create_aggregate", "create_collation", "create_function", "create_window_function", "set_authorizer",
    "set_progress_handler", "set_trace_callback", "setlimit",
)  # fmt: skip
"""Methods that change the connection, which the next episode may get."""

_DENIED = (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)


_execute = sqlite3.Connection.execute


class Database(sqlite3.Connection):
    """A connection inside the jail; rows are plain dictionaries."""

    _part_open = False
    _waiting = False  # whether a call has begun whose savepoint is not open yet
    origin: Template | None = None
    """What `rewind` goes back to; None when it cannot."""
    restoring = False
    """Whether the sandbox itself replaces the contents, which SQLite does by way of ATTACH."""
    is_soiled = False
    """Whether code has made temporary tables or functions or changed a setting: they belong to the connection, not to
    its contents."""

    def authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        """Say whether a statement may be prepared."""
        if self.restoring:
            return sqlite3.SQLITE_OK
        if action in _TEMPORARY or (action == sqlite3.SQLITE_PRAGMA and second and first not in _ASKING):
            self.is_soiled = True
        return sqlite3.SQLITE_DENY if action in _DENIED else sqlite3.SQLITE_OK

    def hold_foreign_keys(self) -> None:
        """Make foreign keys hold; SQLite ignores this inside a transaction."""
        self.restoring = True
        try:
            self.execute("PRAGMA foreign_keys = ON")
        finally:
            self.restoring = False

    def load(self, image: bytes | memoryview, max_bytes: int) -> None:
        """Fill a database that nothing was done with yet.

        Args:
            image: A serialized database; empty for none.
            max_bytes: How large it may grow.

        Raises:
            sqlite3.DatabaseError: The image is no database.
        """
        self.restoring = True
        try:
            if image:
                if image[_VERSION_BYTES] == WAL_VERSION:  # an in-memory database has no write-ahead log to open
                    image = b"".join((image[:18], DELETE_VERSION, image[20:]))
                self.deserialize(image)
            self.execute("SELECT count(*) FROM sqlite_master").fetchone()  # finds out whether it is a database
            self.execute(f"PRAGMA max_page_count={max(1, max_bytes // _page_size(image))}")  # forgotten otherwise
        finally:
            self.restoring = False

    def _is_altered(self) -> bool:
        """Whether something was changed that other contents would not replace."""
        converts = self.row_factory is not _as_dict or self.text_factory is not str
        return self.is_soiled or converts or self.isolation_level is not None

    def mark_origin(self, template: Template) -> None:
        """Let `rewind` come back to what the database holds now, the contents of a template."""
        self.execute("SAVEPOINT world_scope")
        self.origin = template

    def leave_origin(self) -> bool:
        """Make ready for other contents.

        Returns:
            Whether it is; False when something is left that other contents would not replace.
        """
        self.origin = None
        if self._is_altered():
            return False
        try:
            if self.in_transaction:
                self.execute("ROLLBACK TO world_scope")
                self.execute("RELEASE world_scope")
        except sqlite3.OperationalError:  # code has released it
            return False
        return not self.in_transaction

    def rewind(self) -> bool:
        """Go back to the origin, at the price of the pages that were changed.

        Statements stay compiled, which a new connection or new contents would undo.

        Returns:
            Whether it was done; False when something is left that this does not undo.
        """
        if self._is_altered():
            return False
        try:
            _execute(self, "ROLLBACK TO world_scope")
        except sqlite3.OperationalError:  # code has released it
            return False
        return True

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

    def _open_scope(self) -> None:
        if self._waiting:
            self._waiting = False
            _execute(self, "SAVEPOINT call_scope")

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement inside the call's savepoint; a SELECT needs none."""
        if self._waiting and not sql.startswith("SELECT "):
            self._open_scope()
        cursor = _execute(self, sql, parameters)
        if self.row_factory is _as_dict and cursor.description is not None:
            cursor.row_factory = _rows_of(sql, cursor.description)
        return cursor

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        """Run a statement for each set of parameters inside the call's savepoint."""
        self._open_scope()
        return super().executemany(sql, parameters)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Make a cursor; what it will run is not known, so the call's savepoint is opened."""
        self._open_scope()
        return super().cursor(*arguments, **options)

    def blobopen(self, *arguments: Any, **options: Any) -> Any:
        """Open a blob, which may be written to, inside the call's savepoint."""
        self._open_scope()
        return super().blobopen(*arguments, **options)

    def executescript(self, script: str) -> sqlite3.Cursor:
        """Run several statements inside the call's savepoint (the inherited method would end it)."""
        cursor = self.cursor()
        for statement in _statements(script):
            cursor.execute(statement)
        return cursor

    def begin_call(self) -> None:
        """Begin a call; its savepoint is opened before its first statement that is no SELECT."""
        self._part_open = False
        self._waiting = True

    def end_call(self) -> None:
        """Keep what the call did."""
        if self._waiting:
            self._waiting = False
        else:
            _execute(self, "RELEASE call_scope")

    def undo_call(self) -> None:
        """Undo what the call did."""
        if self._waiting:
            self._waiting = False
        elif self.in_transaction:
            try:
                self._roll_back()
            except sqlite3.DatabaseError:  # code has set an authorizer of its own, which refuses this
                sqlite3.Connection.set_authorizer(self, self.authorize)
                self._roll_back()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # code has released it: nothing is left to undo
            super().execute("ROLLBACK TO call_scope")
            super().execute("RELEASE call_scope")


def _soiling(name: str) -> Any:
    inherited: Any = getattr(sqlite3.Connection, name)

    @functools.wraps(inherited)
    def method(self: Database, *given: Any, **named: Any) -> Any:
        self.is_soiled = True
        return inherited(self, *given, **named)

    return method


for _name in _SOILING:
    setattr(Database, _name, _soiling(_name))


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


_described: Any = None
_names: list[str] = []


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    """One row as a dictionary; the names are worked out once for all rows of a statement."""
    global _described, _names
    if cursor.description is not _described:
        _described = cursor.description
        _names = [column[0] for column in _described]
    return dict(zip(_names, row))  # noqa: B905 - both are of one statement, and this runs for every row


_MOST_STATEMENTS, _OFTEN = 500, 8
_uses: dict[str, list[Any]] = {}


def _rows_of(sql: str, description: Any) -> Callable[[sqlite3.Cursor, Any], dict[str, Any]]:
    """What makes rows of a statement dictionaries: compiled for its columns, once the statement has run several times."""
    known = _uses.get(sql)
    if known is None or known[0] != description:
        if len(_uses) >= _MOST_STATEMENTS:
            _uses.clear()
        _uses[sql] = [description, 1, _as_dict]
        return _as_dict
    if known[1] < _OFTEN:
        known[1] += 1
        if known[1] == _OFTEN:
            cells = ", ".join(f"{column[0]!r}: row[{number}]" for number, column in enumerate(description))
            known[2] = eval(f"lambda _, row: {{{cells}}}", {})  # noqa: S307 - the names are quoted
    return known[2]


def open_database(max_bytes: int, is_late: Callable[[], bool]) -> Database:
    """Open an empty database in memory.

    Args:
        max_bytes: How large it may grow.
        is_late: Asked every so many steps of a statement; True interrupts it.

    Returns:
        The connection.
    """
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=Database)
    db.execute("PRAGMA temp_store=2")
    db.load(b"", max_bytes)
    for category, value in LIMITS:
        db.setlimit(category, value)
    db.row_factory = _as_dict
    db.set_progress_handler(is_late, PROGRESS_OPERATIONS)
    db.set_authorizer(db.authorize)
    db.is_soiled = False
    return db


def _page_size(image: bytes | memoryview) -> int:
    size = int.from_bytes(image[16:18])
    return 65536 if size == 1 else size or 4096


class Template:
    """A database image from which databases are filled many times.

    A database that was deserialized cannot be read before its changes are committed, so that a world could not go back
    to its origin once its image was taken. One that was filled by a backup can.

    Args:
        image: A serialized database; empty for a new one.
        max_bytes: How large databases may grow.

    Raises:
        sqlite3.DatabaseError: The image is no database.
    """

    def __init__(self, image: bytes | memoryview, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._image = bytes(image)
        self._number = self._image[_SCHEMA_NUMBER]
        self._source = open_database(max_bytes, lambda: False)
        try:
            self._source.load(image, max_bytes)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free it; databases that were filled from it stay."""
        sqlite3.Connection.close(self._source)

    def fill(self, db: Database) -> None:
        """Replace the contents of a database that is outside any call and has nothing temporary."""
        db.restoring = True
        try:
            self._source.backup(db)
            db.execute(f"PRAGMA max_page_count={max(1, self._max_bytes // _page_size(self._image))}")
        finally:
            db.restoring = False

    def serialize(self, db: Database) -> bytes:
        """Serialize a database that was filled from here, so that equal contents are equal bytes.

        A backup counts up the number of the schema's version at each filling.
        """
        return _numbered(db.serialize(), self._number)

    def changes(self, db: Database) -> tuple[int, list[int], bytes]:
        """Compare a database that was filled from here with its image: bytes of its own, changed pages as in `pages`."""
        image = db.serialize()
        number = image[_SCHEMA_NUMBER]
        if number != self._image[_SCHEMA_NUMBER]:  # nearly all that are filled have one number: the image gets it, once
            self._image = _numbered(self._image, number if self._number else b"")
        if image == self._image:
            return len(image), [], b""
        return len(image), *changed_pages(_numbered(self._image, self._number), _numbered(image, self._number))


def _numbered(image: bytes, number: bytes) -> bytes:
    """An image with another number of its schema's version; with its own if there is none."""
    start, stop = _SCHEMA_NUMBER.start, _SCHEMA_NUMBER.stop
    return b"".join((image[:start], number, memoryview(image)[stop:])) if number else image
