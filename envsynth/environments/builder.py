"""What builds a database inside a tools worker: loaded there as source text; the host only reads this file.

It imports only the standard library. Failures come back as data, so that the host can name the table and the row.
"""

from __future__ import annotations

import sqlite3
from typing import Any


def create_tables(db: Any, statements: list[list[str]]) -> dict[str, Any] | None:
    """Create tables from `[name, sql]` pairs; return `{table, message}` for the first that fails."""
    for name, sql in statements:
        try:
            db.execute(sql)
        except sqlite3.Error as error:
            return {"table": name, "row": None, "message": str(error)}
    return None


def insert_rows(db: Any, table: str, sql: str, rows: list[list[Any]], start: int) -> dict[str, Any] | None:
    """Insert rows; return `{table, row, message}` for the first that fails; `start` is the index of the first row."""
    for offset, row in enumerate(rows):
        try:
            db.execute(sql, row)
        except sqlite3.Error as error:
            return {"table": table, "row": start + offset, "message": str(error)}
    return None


def check_references(db: Any) -> dict[str, Any] | None:
    """Return `{table, row, message}` for the first row whose foreign key points nowhere."""
    try:
        violations = list(db.execute("PRAGMA foreign_key_check"))
    except sqlite3.Error as error:
        return {"table": "(foreign keys)", "row": None, "message": str(error)}
    for found in violations:
        table, rowid, parent = found["table"], found["rowid"], found["parent"]
        before = f'SELECT count(*) AS n FROM "{table}" WHERE rowid < ?'
        row = next(iter(db.execute(before, (rowid,))))["n"]
        return {
            "table": table,
            "row": row,
            "message": f"references a row of {parent!r} that does not exist",
        }
    return None
