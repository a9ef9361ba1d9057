"""Frozen suites."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables of suites; nothing else changes."""
    op.create_table(
        "suite",
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("checksum", sa.String(32), nullable=False),
        sa.Column("n_items", sa.Integer(), nullable=False),
        sa.Column("json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_suite"),
    )
    op.create_table(
        "suite_item",
        sa.Column("suite", sa.String(80), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("environment", sa.String(32), nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("suite", "position", name="pk_suite_item"),
        sa.UniqueConstraint("suite", "task", name="uq_suite_item_suite_task"),
        sa.ForeignKeyConstraint(["suite"], ["suite.name"], name="fk_suite_item_suite_suite"),
        sa.ForeignKeyConstraint(["environment"], ["environment.hash"], name="fk_suite_item_environment_environment"),
        sa.ForeignKeyConstraint(["task"], ["task_version.hash"], name="fk_suite_item_task_task_version"),
    )
    op.create_index("ix_suite_item_task", "suite_item", ["task"])


def downgrade() -> None:
    """Refuse: a store only moves forward."""
    raise NotImplementedError("a store only moves forward; restore a copy instead")
