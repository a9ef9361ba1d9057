"""Turns the database's errors into ours: what happened, in which store, what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from envsynth.errors import StoreError

# By SQLite's primary result code (the low byte of the extended one).
_SQLITE = {
    sqlite3.SQLITE_BUSY: "another process kept the store locked for too long: wait for it to end, or end it, and run again",
    sqlite3.SQLITE_LOCKED: "another connection of this process keeps the store locked: close it and run again",
    sqlite3.SQLITE_FULL: "the disk is full; nothing of this step was written: free some space and run again",
    sqlite3.SQLITE_IOERR: "the disk refused to read or write (full, over quota, or failing); nothing of this step was "
    "written: check the disk and run again",
    sqlite3.SQLITE_READONLY: "the file or its folder cannot be written: change its permissions, open it with "
    "readonly=True, or give another path",
    sqlite3.SQLITE_PERM: "the file cannot be accessed: change its permissions or give another path",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that its folder exists and that you may write there",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a copy, or save what can be read with `sqlite3 FILE .recover`",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database: give the path of a store, or move the file away",
}

# By SQLSTATE of PostgreSQL, or its class (the first two characters).
_POSTGRES = {
    "55P03": "another process kept the store locked for too long: wait for it to end, or end it, and run again",
    "53100": "the disk of the server is full; nothing of this step was written: free some space and run again",
    "53": "the server has no connection or memory left; nothing of this step was written: run again later",
    "42501": "this user may not do that: ask for the rights to create and to write tables in this database",
    "25006": "the database takes no writes: it is a standby, or was opened with readonly=True",
    "25P03": "this process stood still in the middle of writing, and the server gave its turn to others; nothing of "
    "this step was written: run again",
    "57": "the server is being shut down; nothing of this step was written: run again when it is back",
    "08": "the connection to the server was lost: run again when it is back",
}
_UNREACHABLE = (
    "the server cannot be reached or refuses the connection: check that it runs, and host, port, user, database and "
    "password ($PGPASSWORD and ~/.pgpass are read)"
)


def _postgres(error: Exception, cause: BaseException | None) -> str | None:
    """Explain an error of PostgreSQL by its code; None when it has none that we know."""
    state: object = getattr(cause, "sqlstate", "no driver of PostgreSQL")
    if isinstance(state, str):
        return _POSTGRES.get(state) or _POSTGRES.get(state[:2])
    if not isinstance(error, OperationalError):
        return None
    return _POSTGRES["08"] if error.connection_invalidated else _UNREACHABLE


def explain(error: Exception, where: str, doing: str) -> StoreError:
    """Make the `StoreError` for an error of the database.

    Args:
        error: An error of SQLAlchemy or of `sqlite3`.
        where: The store, for the message.
        doing: What was tried, such as "add task 1f2e".

    Returns:
        The error to raise.
    """
    cause = error.orig if isinstance(error, DBAPIError) else error
    code: object = getattr(cause, "sqlite_errorcode", None)
    what = _SQLITE.get(code & 0xFF) if isinstance(code, int) else None
    what = what or _postgres(error, cause)
    if what is None:
        what = "the database refused; if this store is not yours to repair, report it with this message"
    return StoreError(f"cannot {doing} in store {where}: {what} ({_one_line(cause)})")


def _one_line(cause: object) -> str:
    return " ".join(str(cause).split())


@contextmanager
def explained(where: str, doing: str) -> Generator[None, None, None]:
    """Raise errors of the database within the block as `StoreError`.

    Args:
        where: The store, for the message.
        doing: What is tried, for the message.

    Yields:
        Nothing.

    Raises:
        StoreError: the database failed.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        failure = explain(error, where, doing)
        raise failure from error
