"""Runs the versions over the connection that `creditlane.lanes.postgres.migrate` opened."""

from alembic import context

from creditlane.schemas.tables import jobs as job_tables
from creditlane.schemas.tables import webhooks as webhook_tables

# Either module puts its tables into the metadata of the ledger's.
TABLES = (webhook_tables.outbox, job_tables.job_runs)

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=TABLES[0].metadata)
with context.begin_transaction():
    context.run_migrations()
