"""Alembic's entry: runs the revisions on the connection that `envsynth.store.migrate` opened.

The connection is inside a transaction already, so a migration that fails leaves the store as it was. For developers:
`alembic.command.revision` with the configuration of `envsynth.store.migrate.alembic_config` writes a new revision.
"""

from __future__ import annotations

from alembic import context

from envsynth.store.rows import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    # SQLite can change few things of a table in place; batch mode copies it instead.
    render_as_batch=True,
)

with context.begin_transaction():
    context.run_migrations()
