"""Deployments by the time they were made: a device makes the ids of its own by a clock that may be years off."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("ix_deployment_created_at_id", "deployment", ["created_at", "id"], unique=False)


def downgrade() -> None:
    """Take it away again."""
    op.drop_index("ix_deployment_created_at_id", table_name="deployment")
