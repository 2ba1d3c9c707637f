"""Runs the versions over the connection that `creditlane.schemas.migrate` opened."""

from alembic import context

from creditlane.schemas.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
