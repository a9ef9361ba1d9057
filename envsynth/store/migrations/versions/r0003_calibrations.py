"""Calibrations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of calibrations; nothing else changes."""
    op.create_table(
        "calibration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(32), nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("route", sa.String(16), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("c", sa.Integer(), nullable=False),
        sa.Column("json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calibration"),
        sa.ForeignKeyConstraint(["task"], ["task_version.hash"], name="fk_calibration_task_task_version"),
    )
    op.create_index("ix_calibration_task", "calibration", ["task"])
    op.create_index("ix_calibration_actor", "calibration", ["actor"])


def downgrade() -> None:
    """Refuse: a store only moves forward."""
    raise NotImplementedError("a store only moves forward; restore a copy instead")
