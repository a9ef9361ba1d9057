"""Opens the file behind a store: connections, their settings, and the checks before anything is read or written.

SQLite settings and why: WAL, so that readers never wait for a writer; `synchronous=FULL`, so that a committed unit
survives power loss too (a unit takes seconds to make, the fsync milliseconds); a busy timeout, so that several writer
processes take turns; every writing transaction begins IMMEDIATE, because one that upgrades from reading fails at once
when another writer came first.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from envsynth.errors import StoreError
from envsynth.store.failures import explain, explained
from envsynth.store.postgres import DRIVER, WRITE
from envsynth.store.schema import without_password

_MAGIC = b"SQLite format 3\x00"
_log = logging.getLogger(__name__)


def locate(place: str | Path) -> Path | URL:
    """Tell a file from a database URL.

    Args:
        place: A path, a `sqlite:///` URL, or the URL of another database.

    Returns:
        The absolute path of an SQLite file, or the URL of another database.

    Raises:
        StoreError: the URL is malformed, or names no file.
    """
    if isinstance(place, str) and "://" in place:
        url = _parsed(place)
        if url.get_backend_name() != "sqlite":
            return url
        place = url.database or ":memory:"
    if str(place) in ("", ":memory:"):
        raise StoreError(f"a store is a file, not {str(place)!r}: several processes share it; give a path")
    return Path(place).absolute()


def _parsed(place: str) -> URL:
    url, why = None, None
    try:
        url = make_url(place)
    except (ArgumentError, ValueError) as error:
        why = error
    # After a second @ part of the password would be taken for host and database, and be shown as such.
    if url is None or (url.get_backend_name() != "sqlite" and place.count("@") > 1):
        # The text may hold a password, and so may what SQLAlchemy says of it.
        raise StoreError(
            f"malformed database URL {without_password(place)!r}: give a path, sqlite:///PATH or "
            f"{DRIVER}://USER@HOST:PORT/DATABASE (write /, @ and : of a password as %2F, %40 and %3A)"
        ) from why
    return url


def check_file(path: Path, *, readonly: bool) -> None:
    """Refuse a path that cannot be a store, before SQLite touches it.

    Args:
        path: Where the store is or shall be.
        readonly: Whether it must exist already.

    Raises:
        StoreError: the folder is missing, the path is a folder, there is no file (read-only), or the file is no
            SQLite database.
    """
    if path.is_dir():
        raise StoreError(f"store {path} is a folder: give the path of a file in it, such as {path / 'envsynth.db'}")
    if not path.exists():
        if readonly:
            raise StoreError(f"there is no store at {path}: make one with `envsynth synthesize`, or give another path")
        if not path.parent.is_dir():
            raise StoreError(f"store {path}: its folder {path.parent} does not exist: make it, or give another path")
        return
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"store {path} cannot be read: {error.strerror}: check its permissions") from error
    if not readonly and not os.access(path, os.W_OK):
        # Found now, not when the first unit of a long run is to be committed.
        raise StoreError(f"store {path} may not be written: change its permissions, or open it with readonly=True")
    if head != _MAGIC and (head or readonly):
        what = "is empty" if not head else "is no SQLite database"
        raise StoreError(f"{path} {what}, so it is no envsynth store: give the path of a store, or move the file away")


def sqlite_engine(path: Path, *, readonly: bool, timeout_s: float) -> Engine:
    """Make the engine of an SQLite file.

    Args:
        path: The file; created when absent, unless `readonly`.
        readonly: Whether nothing may be written.
        timeout_s: Seconds to wait for another writer.

    Returns:
        The engine; it opens connections when they are needed.

    Raises:
        StoreError: read-only, and the file cannot be read without writing beside it.
    """
    uri = _readonly_uri(path, timeout_s) if readonly else f"file:{quote(str(path))}?mode=rwc"

    def connect() -> sqlite3.Connection:
        # isolation_level=None: sqlite3 begins no transactions of its own, `_begin` below does.
        connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _readonly_uri(path: Path, timeout_s: float) -> str:
    uri = f"file:{quote(str(path))}?mode=ro"
    try:
        _probe(uri, timeout_s)
    except sqlite3.Error as error:
        code = error.sqlite_errorcode & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise explain(error, str(path), "open") from error
    else:
        return uri
    # A store in WAL mode wants its `-shm` file, which a read-only folder cannot get. Without a `-wal` file all data
    # is in the main file and nobody writes, so SQLite may take it as immutable.
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"store {path} cannot be read from a read-only folder, because {log.name} holds changes that are not in "
            "the main file yet: open it once for writing, or copy both files to a folder that you may write"
        )
    uri += "&immutable=1"
    with explained(str(path), "open"):
        _probe(uri, timeout_s)
    return uri


def _probe(uri: str, timeout_s: float) -> None:
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.close()


def use_wal(engine: Engine, where: str) -> None:
    """Put an SQLite store into WAL mode; it stays so.

    Args:
        engine: Engine of the store.
        where: The store, for messages.
    """
    connection = engine.raw_connection()
    try:
        mode = connection.cursor().execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            mode = connection.cursor().execute("PRAGMA journal_mode = WAL").fetchone()[0]
    finally:
        connection.close()
    if mode != "wal":
        _log.warning(
            "store %s keeps journal mode %r: its file system cannot share memory, so readers wait for writers",
            where,
            mode,
        )
