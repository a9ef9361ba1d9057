"""Brings the tables of a store to the revision that this build writes, in one transaction."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, inspect

from envsynth.errors import StoreError
from envsynth.store.engine import WRITE
from envsynth.store.failures import explained
from envsynth.store.postgres import check_encoding, compare_by_bytes
from envsynth.store.rows import Row
from envsynth.store.schema import APPLICATION_ID, HEAD, refuse_newer

MIGRATIONS = Path(__file__).parent / "migrations"
"""Alembic's script folder; it ships with the package."""


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration of the store's revisions, on `connection` if one is given."""
    config = Config()
    # ConfigParser reads `%` as an interpolation; a path may hold one.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def revision_of(connection: Connection, where: str) -> str | None:
    """Read which revision a database carries.

    Args:
        connection: Open connection.
        where: The store, for messages.

    Returns:
        The revision, or None when the database is empty.

    Raises:
        StoreError: there are tables, but not those of a store.
        SchemaTooNew: the revision is unknown to this build.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    sqlite = connection.dialect.name == "sqlite"
    marked = not sqlite or connection.exec_driver_sql("PRAGMA application_id").scalar() == APPLICATION_ID
    found: object = None
    if marked and "alembic_version" in tables:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if not isinstance(found, str):
        names = ", ".join(sorted(tables)[:5])
        raise StoreError(
            f"{where} is a database but no envsynth store (tables: {names}): give the path of a store, or a new path"
        )
    refuse_newer(found, where)
    return found


def upgrade(engine: Engine, where: str, target: str = HEAD) -> None:
    """Create or upgrade the tables; processes that do so at once take turns.

    Args:
        engine: Engine of the store.
        where: The store, for messages.
        target: Revision to reach.

    Raises:
        StoreError: the database refused, or rows would break a foreign key afterwards; nothing changed then.
    """
    with explained(where, f"bring the schema to revision {target!r}"), engine.connect() as plain:
        connection = plain.execution_options(**{WRITE: True})
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            # Copying a table (Alembic's batch mode) drops the old one; with foreign keys on that would delete rows.
            # The setting cannot change inside a transaction, so it goes to the driver directly.
            _pragma(connection, "foreign_keys = OFF")
        try:
            with connection.begin():
                if revision_of(connection, where) == target:
                    return
                if not sqlite:
                    check_encoding(connection, where)
                command.upgrade(alembic_config(connection), target)
                if not sqlite:
                    compare_by_bytes(connection, list(Row.metadata.tables))
                if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
                    raise StoreError(
                        f"store {where}: rows would break foreign keys after the upgrade: {broken[:3]}; nothing was "
                        "changed: restore a copy, or report this"
                    )
        finally:
            if sqlite:
                _pragma(connection, "foreign_keys = ON")


def _pragma(connection: Connection, setting: str) -> None:
    cursor = connection.connection.cursor()
    cursor.execute(f"PRAGMA {setting}")
    cursor.close()
