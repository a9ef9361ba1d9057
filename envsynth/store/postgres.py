"""The engine of a store in PostgreSQL, for runs whose writers are on several machines.

It promises what the SQLite file promises. Writers take turns by one lock of the database, held for the inserts of one
transaction: so "is it there? else insert" is right here too, without a retry. Text compares by bytes, as in SQLite, so
that lists have the same order whatever the locale of the server. A writer that stops in the middle of a transaction
loses it after a while, and the others go on.
"""

from __future__ import annotations

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from envsynth.errors import MissingExtra, StoreError
from envsynth.store.schema import APPLICATION_ID

WRITE = "envsynth_write"
"""Execution option of a connection whose transactions write."""
DRIVER = "postgresql+psycopg"
CONNECT_S = 10
"""Seconds that the server has to accept a connection."""
STALLED_S = 60
"""Seconds that a writer may do nothing within a transaction."""
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Notice within a minute that the server's machine is gone."""
_SERVER_KEEPALIVE = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""The server notices as soon that ours is, and lets the others write."""


def shown(url: URL) -> str:
    """Return a URL for messages: no password, and of the query only where the server is."""
    kept = {key: value for key, value in url.query.items() if key in ("host", "port")}
    return url.set(query=kept).render_as_string(hide_password=True)


def postgres_engine(url: URL, *, readonly: bool, timeout_s: float) -> Engine:
    """Make the engine of a PostgreSQL database.

    Args:
        url: SQLAlchemy URL.
        readonly: Whether nothing may be written.
        timeout_s: Seconds to wait for another writer.

    Returns:
        The engine; it opens connections when they are needed.

    Raises:
        StoreError: the URL is of another database or driver.
        MissingExtra: the driver is not installed.
    """
    if url.get_backend_name() not in ("postgresql", "postgres") or url.drivername.partition("+")[2] not in (
        "",
        "psycopg",
    ):
        raise StoreError(
            f"no driver for store {shown(url)}: a store is an SQLite file or a database of PostgreSQL; give a path or "
            f"{DRIVER}://USER@HOST/DATABASE"
        )
    options = f"-c default_transaction_read_only=on {_SERVER_KEEPALIVE}" if readonly else _SERVER_KEEPALIVE
    given = url.query.get("options", ())
    arguments = {
        "connect_timeout": CONNECT_S,
        "application_name": "envsynth",
        "client_encoding": "utf8",
        "options": " ".join((*((given,) if isinstance(given, str) else given), options)),
        **_KEEPALIVE,
    }
    try:
        engine = create_engine(
            url.set(drivername=DRIVER).difference_update_query(["options"]),
            connect_args=arguments,
            # Whatever the server's default: a writer must see what others committed while it waited for its turn.
            isolation_level="READ COMMITTED",
            # Units take minutes; a connection that died meanwhile is replaced.
            pool_pre_ping=True,
        )
    except ImportError as error:
        raise MissingExtra(
            f"store {shown(url)} needs the driver psycopg, which is not installed: pip install 'envsynth[postgres]'"
        ) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError(f"store {shown(url)} cannot be opened: {error}") from error

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(WRITE, False):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {max(1, round(1000 * timeout_s))}")
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {1000 * STALLED_S}")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPLICATION_ID})")

    event.listen(engine, "begin", begin)
    return engine


_ENCODING = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"
_BY_LOCALE = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND data_type IN ('character varying', 'text')
  AND collation_name IS DISTINCT FROM 'C' AND table_name = ANY(%s)
ORDER BY table_name, column_name
"""


def check_encoding(connection: Connection, where: str) -> None:
    """Refuse a database that cannot hold all text.

    Args:
        connection: Open connection.
        where: The store, for the message.

    Raises:
        StoreError: its encoding is another one than UTF-8.
    """
    found = connection.exec_driver_sql(_ENCODING).scalar()
    if found != "UTF8":
        raise StoreError(
            f"store {where} has the encoding {found}, in which not every text can be kept: make a database with "
            "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, and give that"
        )


def compare_by_bytes(connection: Connection, tables: list[str]) -> None:
    """Let the text of new tables compare by bytes, not by the server's locale.

    Args:
        connection: Connection inside the transaction that made them.
        tables: All tables of a store.
    """
    for table, column in connection.exec_driver_sql(_BY_LOCALE, (tables,)).all():
        kind = connection.exec_driver_sql(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
            (f'"{table}"', column),
        ).scalar()
        connection.exec_driver_sql(f'ALTER TABLE "{table}" ALTER COLUMN "{column}" TYPE {kind} COLLATE "C"')
