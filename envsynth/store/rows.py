"""The tables of a store. Private: a row is never the record.

`json` holds the record's canonical JSON and is the truth; every other column is an index over it. `json` stands last
in its table, because SQLite keeps long text on overflow pages that a query of earlier columns never reads.
"""

# SQLModel declares `__tablename__` as a function; that a string is right too is not in its types.
# pyright: reportAssignmentType=false

from __future__ import annotations

from sqlalchemy import Column, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

# Constraint names are fixed, so that a later migration can name what it drops.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Row(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Base of the tables, with metadata of its own: a user's SQLModel tables never mix with ours."""


def _text() -> Column[str]:
    return Column("json", Text(), nullable=False)


class EnvironmentRow(Row, table=True):
    """One environment version."""

    __tablename__ = "environment"

    hash: str = Field(primary_key=True, max_length=32)
    slug: str = Field(max_length=80, unique=True)
    title: str
    category: str = Field(index=True)
    author: str
    n_tools: int
    n_tables: int
    n_rows: int
    # No foreign key: an augmented version may be stored where its predecessor is not.
    previous: str | None = Field(default=None, max_length=32, index=True)
    origin: str = Field(max_length=16)
    json_text: str = Field(sa_column=_text())


class TaskRow(Row, table=True):
    """One task version."""

    __tablename__ = "task_version"

    hash: str = Field(primary_key=True, max_length=32)
    environment: str = Field(foreign_key="environment.hash", max_length=32, index=True)
    parent: str | None = Field(default=None, foreign_key="task_version.hash", max_length=32, index=True)
    operator: str | None = Field(default=None, index=True)
    depth: int
    kind: str = Field(max_length=16, index=True)
    status: str = Field(max_length=16, index=True)
    origin: str = Field(max_length=16)
    json_text: str = Field(sa_column=_text())


class ReportRow(Row, table=True):
    """One gate report; a task has a history of them."""

    __tablename__ = "gate_report"

    id: int | None = Field(default=None, primary_key=True)
    hash: str = Field(max_length=32)
    task: str = Field(foreign_key="task_version.hash", max_length=32, index=True)
    ok: bool
    origin: str = Field(max_length=16)
    json_text: str = Field(sa_column=_text())


class RunRow(Row, table=True):
    """One run."""

    __tablename__ = "run"

    key: str = Field(primary_key=True, max_length=200)
    command: str
    params: str = Field(sa_column=Column("params", Text(), nullable=False))
    finished: bool = False


class UnitRow(Row, table=True):
    """One committed unit of a run."""

    __tablename__ = "run_unit"

    run: str = Field(primary_key=True, foreign_key="run.key", max_length=200)
    unit: int = Field(primary_key=True)
    # No foreign key: kept as said by the author even when the unit brought no environment of its own.
    environment: str | None = Field(default=None, max_length=32)
    n_tasks: int
    n_rejections: int
    tasks: str = Field(sa_column=Column("tasks", Text(), nullable=False))


class RejectionRow(Row, table=True):
    """One rejected draft. Its environment and parent need not be stored, so they are no foreign keys."""

    __tablename__ = "rejection"

    id: int | None = Field(default=None, primary_key=True)
    hash: str = Field(max_length=32, index=True)
    run: str | None = Field(default=None, foreign_key="run.key", max_length=200, index=True)
    unit: int | None = None
    environment: str | None = Field(default=None, max_length=32, index=True)
    parent: str | None = Field(default=None, max_length=32, index=True)
    operator: str | None = None
    stage: str
    code: str = Field(index=True)
    json_text: str = Field(sa_column=_text())


class TrajectoryRow(Row, table=True):
    """One episode."""

    __tablename__ = "trajectory"

    id: int | None = Field(default=None, primary_key=True)
    hash: str = Field(max_length=32, unique=True)
    task: str = Field(foreign_key="task_version.hash", max_length=32, index=True)
    environment: str = Field(foreign_key="environment.hash", max_length=32, index=True)
    actor: str = Field(index=True)
    stop: str = Field(max_length=16)
    status: str = Field(max_length=16)
    score: float | None = None
    n_turns: int
    n_calls: int
    json_text: str = Field(sa_column=_text())


class CalibrationRow(Row, table=True):
    """One calibration; a task has a history of them for each actor."""

    __tablename__ = "calibration"

    id: int | None = Field(default=None, primary_key=True)
    hash: str = Field(max_length=32)
    task: str = Field(foreign_key="task_version.hash", max_length=32, index=True)
    actor: str = Field(index=True)
    route: str = Field(max_length=16)
    n: int
    c: int
    json_text: str = Field(sa_column=_text())


class SuiteRow(Row, table=True):
    """One frozen suite."""

    __tablename__ = "suite"

    name: str = Field(primary_key=True, max_length=80)
    hash: str = Field(max_length=32)
    checksum: str = Field(max_length=32)
    n_items: int
    json_text: str = Field(sa_column=_text())


class SuiteItemRow(Row, table=True):
    """One task of a suite: keeps its tasks from ever being deleted behind its back."""

    __tablename__ = "suite_item"
    __table_args__ = (UniqueConstraint("suite", "task"),)

    suite: str = Field(primary_key=True, foreign_key="suite.name", max_length=80)
    position: int = Field(primary_key=True)
    environment: str = Field(foreign_key="environment.hash", max_length=32)
    task: str = Field(foreign_key="task_version.hash", max_length=32, index=True)
