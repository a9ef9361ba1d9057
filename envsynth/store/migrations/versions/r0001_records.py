"""Environments, task versions, gate reports, runs, rejections, trajectories."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from envsynth.store.schema import APPLICATION_ID

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables in an empty database and mark the file as a store."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    _create_records()
    _create_runs()
    _create_trajectories()


def _create_records() -> None:
    op.create_table(
        "environment",
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("slug", sa.String(80), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("category", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("n_tools", sa.Integer(), nullable=False),
        sa.Column("n_tables", sa.Integer(), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("previous", sa.String(32), nullable=True),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_environment"),
        sa.UniqueConstraint("slug", name="uq_environment_slug"),
    )
    _index("environment", "category", "previous")
    op.create_table(
        "task_version",
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("environment", sa.String(32), nullable=False),
        sa.Column("parent", sa.String(32), nullable=True),
        sa.Column("operator", sa.String(), nullable=True),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_task_version"),
        _reference("task_version", "environment", "environment", "hash"),
        _reference("task_version", "parent", "task_version", "hash"),
    )
    _index("task_version", "environment", "parent", "operator", "kind", "status")
    op.create_table(
        "gate_report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gate_report"),
        _reference("gate_report", "task", "task_version", "hash"),
    )
    _index("gate_report", "task")


def _create_runs() -> None:
    op.create_table(
        "run",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("command", sa.String(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_run"),
    )
    op.create_table(
        "run_unit",
        sa.Column("run", sa.String(200), nullable=False),
        sa.Column("unit", sa.Integer(), nullable=False),
        sa.Column("environment", sa.String(32), nullable=True),
        sa.Column("n_tasks", sa.Integer(), nullable=False),
        sa.Column("n_rejections", sa.Integer(), nullable=False),
        sa.Column("tasks", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "unit", name="pk_run_unit"),
        _reference("run_unit", "run", "run", "key"),
    )
    op.create_table(
        "rejection",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("run", sa.String(200), nullable=True),
        sa.Column("unit", sa.Integer(), nullable=True),
        sa.Column("environment", sa.String(32), nullable=True),
        sa.Column("parent", sa.String(32), nullable=True),
        sa.Column("operator", sa.String(), nullable=True),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rejection"),
        _reference("rejection", "run", "run", "key"),
    )
    _index("rejection", "hash", "run", "environment", "parent", "code")


def _create_trajectories() -> None:
    op.create_table(
        "trajectory",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
        sa.Column("environment", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("stop", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("n_turns", sa.Integer(), nullable=False),
        sa.Column("n_calls", sa.Integer(), nullable=False),
        sa.Column("json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trajectory"),
        sa.UniqueConstraint("hash", name="uq_trajectory_hash"),
        _reference("trajectory", "task", "task_version", "hash"),
        _reference("trajectory", "environment", "environment", "hash"),
    )
    _index("trajectory", "task", "environment", "actor")


def _reference(table: str, column: str, target: str, key: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{target}.{key}"], name=f"fk_{table}_{column}_{target}")


def _index(table: str, *columns: str) -> None:
    for column in columns:
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    """Refuse: a store only moves forward."""
    raise NotImplementedError("a store only moves forward; restore a copy instead")
