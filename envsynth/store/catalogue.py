"""What Gymnasium needs of a store while it is being imported: slugs, read with the standard library alone.

`import gymnasium` loads our entry point in every program that uses Gymnasium, envsynth user or not. So nothing here
imports SQLModel or pydantic, nothing is written, and nothing raises: a damaged store costs a warning. `load_for_gym`,
which needs the records, is loaded when it is first asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from envsynth.errors import StoreError
from envsynth.store.schema import APPLICATION_ID, default_store_path, refuse_newer

if TYPE_CHECKING:
    from envsynth.store.loading import load_for_gym

__all__ = ["default_store_path", "load_for_gym", "stored_slugs"]

_log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 2.0
"""Seconds that a reader waits; a reader of a store in WAL mode never waits for a writer."""

_SLUGS = """
SELECT slug FROM environment AS e
WHERE EXISTS (SELECT 1 FROM task_version AS t WHERE t.environment = e.hash AND t.status <> 'failed')
ORDER BY slug
"""


def text_hash(text: str) -> str:
    """Hash a record's canonical JSON: the content hash of the record.

    Args:
        text: Canonical JSON.

    Returns:
        BLAKE2b-128 in hexadecimal.
    """
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def stored_slugs(path: str | Path) -> list[str]:
    """List the slugs of the environments of a store that have a task to play.

    Args:
        path: The store's file. A database URL gives an empty list: Gymnasium's registry knows files only.

    Returns:
        The slugs in alphabetical order; empty when there is no store, or when it cannot be read (then a warning is
        logged).
    """
    if "://" in str(path):
        return []
    file = Path(path)
    try:
        if not file.is_file():
            return []
        with reading(file) as connection:
            return [str(row[0]) for row in connection.execute(_SLUGS)]
    except (StoreError, sqlite3.Error, OSError) as error:
        _log.warning("environments of store %s are not registered with gymnasium: %s", file, error)
        return []


@contextmanager
def reading(file: Path) -> Generator[sqlite3.Connection, None, None]:
    """Open a store for reading with the standard library.

    Args:
        file: The store's file.

    Yields:
        A read-only connection.

    Raises:
        StoreError: the file is no store, or cannot be read.
        SchemaTooNew: a newer envsynth wrote it.
    """
    connection = _connect(file)
    try:
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        if mark != APPLICATION_ID:
            raise StoreError(f"{file} is no envsynth store: give the path of a store")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if row is None:
            raise StoreError(f"{file} carries no schema revision: restore a copy of the store")
        refuse_newer(str(row[0]), str(file))
        yield connection
    finally:
        connection.close()


def _connect(file: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(file.absolute()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        log = file.with_name(f"{file.name}-wal")
        cannot_open = error.sqlite_errorcode & 0xFF in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        )
        if not cannot_open or (log.exists() and log.stat().st_size):
            raise
        # A read-only folder: see `envsynth.store.engine` for why the file may be taken as immutable.
        return sqlite3.connect(f"{uri}&immutable=1", uri=True, timeout=BUSY_TIMEOUT_S)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def __getattr__(name: str) -> object:
    if name == "load_for_gym":
        return importlib.import_module("envsynth.store.loading").load_for_gym
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
