"""Runs tools in plain CPython on a plain SQLite connection: what `jail_same` compares the jail with.

A program of its own, started as `python -S -s -P plain_runner.py`; it reads a job from standard input and prints what
each call gave. Nothing here comes from `envsynth`: what the jail promises is written down a second time, by other means.
A call is a transaction that begins by BEGIN and ends by COMMIT; what a failed call did is undone by going back to a copy
of the database.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sqlite3
import sys
import traceback
from typing import Any, Literal

MESSAGE_CHARS, SHOWN_CHARS = 500, 300


class Refusal(Exception):
    """What tools raise to refuse a call."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


class Plain(sqlite3.Connection):
    """A connection that is always inside a transaction, as calls see it in the jail."""

    def commit(self) -> None:
        """Commit, and begin again."""
        super().commit()
        self.execute("BEGIN")

    def rollback(self) -> None:
        """Roll back, and begin again."""
        super().rollback()
        self.execute("BEGIN")

    def __exit__(self, kind: Any, value: Any, trace: Any) -> Literal[False]:
        self.rollback() if kind else self.commit()
        return False

    def executescript(self, script: str) -> sqlite3.Cursor:
        """Run a script, and begin again: sqlite3 commits before it."""
        cursor = super().executescript(script)
        self.execute("BEGIN")
        return cursor

    def close(self) -> None:
        """Stay open, as the connection is not the tool's."""


def opened(image: bytes) -> Plain:
    """Open an image; rows are dictionaries and foreign keys hold."""
    db = sqlite3.connect(":memory:", isolation_level=None, factory=Plain)
    db.deserialize(image)
    db.execute("PRAGMA foreign_keys = ON")
    db.row_factory = lambda cursor, row: {column[0]: cell for column, cell in zip(cursor.description, row, strict=True)}
    return db


def rows_of(db: sqlite3.Connection) -> dict[str, Any]:
    """Digest all tables: number of rows and hash of their text, by name; and the schema."""
    found: dict[str, Any] = {}
    for item in db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall():
        rows = db.execute(f'SELECT * FROM "{item["name"]}"').fetchall()
        text = json.dumps([item["sql"], rows], default=bytes.hex)
        found[item["name"]] = [len(rows), hashlib.sha256(text.encode()).hexdigest()[:16]]
    return found


def plain_json(value: Any) -> str | None:
    """JSON text of a result, or None when it is no plain JSON."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError):
        return None

    def narrow(digits: str) -> int:
        if not -(2**63) <= int(digits) < 2**64:
            raise ValueError(digits)
        return int(digits)

    try:
        return json.dumps(json.loads(text, parse_int=narrow), ensure_ascii=False)
    except ValueError:
        return None


def explained(error: BaseException) -> list[str]:
    """How a call that raised is told to the host."""
    if isinstance(error, Refusal):
        return ["refused", error.code, error.message]
    places = [step for step in traceback.extract_tb(error.__traceback__) if step.filename.startswith("<")]
    where = f" (line {places[-1].lineno} of {places[-1].filename[1:-1]})" if places else ""
    message = (str(error)[:MESSAGE_CHARS] + where)[:SHOWN_CHARS]
    return ["raised", type(error).__name__, message]


class Runner:
    """The tools of one episode."""

    def __init__(self, image: bytes, sources: dict[str, str]) -> None:
        self.db = opened(image)
        self._sources = sources
        self._tools: dict[str, Any] = {}
        random.seed(0)

    def call(self, tool: str, arguments: dict[str, Any]) -> list[Any]:
        """Run one call; all or nothing."""
        before = self.db.serialize()
        self.db.execute("BEGIN")
        try:
            if tool not in self._tools:
                space: dict[str, Any] = {"__name__": f"tool_{tool}", "Refusal": Refusal}
                exec(compile(self._sources[tool], f"<tool {tool}>", "exec", dont_inherit=True), space)
                self._tools[tool] = space[tool]
            value = self._tools[tool](self.db, **arguments)
        except BaseException as error:  # noqa: BLE001 - whatever a tool raises is its outcome
            found = explained(error)
        else:
            text = plain_json(value)
            found = ["bad_result"] if text is None else ["ok", text]
        if found[0] == "ok":
            sqlite3.Connection.commit(self.db)
        else:
            sqlite3.Connection.close(self.db)
            self.db = opened(before)
        return found


def main() -> int:
    """Run the job of standard input."""
    job = json.load(sys.stdin)
    runner = Runner(base64.b64decode(job["image"]), job["sources"])
    found = [[runner.call(tool, arguments), rows_of(runner.db)] for tool, arguments in job["calls"]]
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
