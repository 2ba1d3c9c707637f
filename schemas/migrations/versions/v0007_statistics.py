"""Statistics without a balance of the whole store: accounts may be kept in units that cannot be added up."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Drop the sum over all accounts; no row is rewritten."""
    op.drop_column("statistics", "balance")
