"""Pairs of a candidate and the active version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of pairs."""
    op.create_table(
        "shadow_pair",
        sa.Column("row", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("active_digest", sa.String(), nullable=False),
        sa.Column("inspection_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("received_at_us", sa.BigInteger(), nullable=False),
        sa.Column("station", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("rate", sa.Float(), nullable=False),
        sa.Column("active_verdict", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("disagreed", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("row", name=op.f("pk_shadow_pair")),
        sa.UniqueConstraint("digest", "device", "inspection_id", name="uq_shadow_pair_part"),
    )
    op.create_index("ix_shadow_pair_device", "shadow_pair", ["device", "digest"], unique=False)
    op.create_index(
        "ix_shadow_pair_disagreed",
        "shadow_pair",
        ["digest", "inspection_id", "device"],
        unique=False,
        sqlite_where=sa.text("disagreed = 1"),
    )


def downgrade() -> None:
    """Take it away again."""
    op.drop_table("shadow_pair")
