"""Runs the versions over the connection that `creditlane.schemas.migrate` opened."""

from alembic import context

from creditlane.schemas.webhook_tables import outbox

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=outbox.metadata)
with context.begin_transaction():
    context.run_migrations()
