"""Alembic's entry: runs the migrations on the connection that `runner` hands over."""

from __future__ import annotations

from alembic import context

from fleet.migrations import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
