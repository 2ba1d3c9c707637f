"""What the HTTP API reads: keys by their id, and what worker processes count."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Find a key by its id alone, before its store is known, and keep a worker's numbers beside its sign of life."""
    op.create_index("api_keys_key_id_idx", "api_keys", ["key_id"])
    op.add_column("workers", sa.Column("numbers", JSONB, comment="what it has counted since it started"))
