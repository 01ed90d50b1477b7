"""Pairs of a candidate and the active version; deployments made at the device; probation, hold text and drift."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of pairs, and let a deployment be of a version that the registry does not know.

    The runner has switched foreign keys off meanwhile and checks them after: SQLite makes the table of deployments
    anew, and the reports refer to it.
    """
    with op.batch_alter_table("deployment") as table:
        table.drop_constraint("fk_deployment_digest_model_version", type_="foreignkey")
        table.alter_column("release", existing_type=sa.BigInteger(), nullable=True)
        table.add_column(sa.Column("revision", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("origin", sa.String(length=16), server_default="fleet", nullable=False))
        table.add_column(sa.Column("by", sa.String(length=200), server_default="", nullable=False))
        table.add_column(sa.Column("hold_text", sa.String(length=500), server_default="", nullable=False))
        table.add_column(sa.Column("probation", sa.String(), nullable=True))
        table.add_column(sa.Column("installed_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE deployment SET installed_at = ended_at WHERE state IN ('succeeded', 'already_installed')")
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
    """Take them away again; deployments of versions that the registry does not know go, too."""
    op.drop_table("shadow_pair")
    unknown = "SELECT id FROM deployment WHERE release IS NULL OR digest NOT IN (SELECT digest FROM model_version)"
    op.execute(f"DELETE FROM deployment_report WHERE deployment_id IN ({unknown})")  # noqa: S608
    op.execute(f"DELETE FROM deployment WHERE id IN ({unknown})")  # noqa: S608
    with op.batch_alter_table("deployment") as table:
        for name in ("installed_at", "probation", "hold_text", "by", "origin", "revision"):
            table.drop_column(name)
        table.alter_column("release", existing_type=sa.BigInteger(), nullable=False)
        table.create_foreign_key("fk_deployment_digest_model_version", "model_version", ["digest"], ["digest"])
