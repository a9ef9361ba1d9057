"""Turns the database's errors into ours: what happened, in which store, what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

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
    if what is None:
        what = "the database refused; if this store is not yours to repair, report it with this message"
    return StoreError(f"cannot {doing} in store {where}: {what} ({cause})")


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
