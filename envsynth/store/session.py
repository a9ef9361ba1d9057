"""What all halves of an open store share: its engine, its sessions, how it is closed."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Engine
from sqlmodel import Session
from sqlmodel.sql.expression import SelectOfScalar

from envsynth.errors import StoreError
from envsynth.record import Record
from envsynth.store import queries
from envsynth.store.engine import WRITE
from envsynth.store.failures import explained
from envsynth.store.rows import CalibrationRow, RejectionRow, ReportRow, TrajectoryRow

R = TypeVar("R", bound=Record)
K = TypeVar("K", ReportRow, RejectionRow, TrajectoryRow, CalibrationRow)


class OpenStore:
    """An open store without its verbs.

    Args:
        engine: Engine of the store.
        where: Path or URL without password, for messages.
        readonly: Whether nothing may be written.
    """

    def __init__(self, engine: Engine, where: str, *, readonly: bool) -> None:
        self._engine = engine
        self._where = where
        self._readonly = readonly
        self._pid = os.getpid()

    @property
    def where(self) -> str:
        """Path or URL (without password) of the store."""
        return self._where

    @property
    def readonly(self) -> bool:
        """Whether it was opened for reading only."""
        return self._readonly

    def close(self) -> None:
        """Close all connections; the last process to close an SQLite store folds its write-ahead log into the file."""
        with explained(self._where, "close"):
            self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _records(self, session: Session, query: SelectOfScalar[K], record: type[R], what: str) -> list[R]:
        rows = session.exec(query)
        return [queries.parsed(record, row.json_text, row.hash, what, self._where) for row in rows]

    def _check_writable(self, doing: str) -> None:
        if self._readonly:
            raise StoreError(f"cannot {doing}: store {self._where} was opened read-only; open it with readonly=False")

    @contextmanager
    def _session(self, doing: str, *, write: bool = False) -> Generator[Session, None, None]:
        if write:
            self._check_writable(doing)
        if os.getpid() != self._pid:
            # A forked child must not use its parent's SQLite connections.
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        with explained(self._where, doing), self._engine.connect() as plain:
            connection = plain.execution_options(**{WRITE: write})
            with connection.begin(), Session(connection) as session:
                yield session
                session.flush()
