"""Lots and suspect clocks can be searched for; ingest workers tell that they work."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the mark of a suspect clock, the two partial indexes, and the workers' table.

    Rows that are here are marked by the device's own word alone.
    """
    op.add_column("inspection", sa.Column("clock_suspect", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute("UPDATE inspection SET clock_suspect = 1 WHERE time_source = 'suspect'")
    op.create_index(
        "ix_inspection_clock_suspect", "inspection", ["id"], unique=False, sqlite_where=sa.text("clock_suspect = 1")
    )
    op.create_index(
        "ix_inspection_lot", "inspection", ["lot", "id"], unique=False, sqlite_where=sa.text("lot IS NOT NULL")
    )
    op.create_table(
        "ingest_worker",
        sa.Column("share", sa.String(length=8), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("share", name=op.f("pk_ingest_worker")),
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("ingest_worker")
    op.drop_index("ix_inspection_lot", table_name="inspection")
    op.drop_index("ix_inspection_clock_suspect", table_name="inspection")
    with op.batch_alter_table("inspection") as table:
        table.drop_column("clock_suspect")
