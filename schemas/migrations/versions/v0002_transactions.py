"""Transactions of several entries, metadata, and finding transactions by their reference."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

_JOURNAL_COMMENT = "One row a decided command, and one for each further entry of a transaction. Only ever appended to."


def upgrade() -> None:
    """Let a transaction have further entries, each on its own account's row, without a key of its own."""
    op.add_column("accounts", sa.Column("metadata", JSONB, comment="what the caller attached, as text by text"))
    # A store's accounts, or a customer's, in the order of their opening, page by page.
    op.create_index("accounts_opened_idx", "accounts", ["store_id", "created_at", "account_id"])
    op.create_index("accounts_customer_idx", "accounts", ["store_id", "customer_id", "created_at", "account_id"])
    op.add_column(
        "journal",
        sa.Column("transaction_account", sa.Uuid, comment="of a further entry: account of the transaction's first"),
    )
    op.add_column(
        "journal",
        sa.Column("transaction_seq", sa.BigInteger, comment="of a further entry: seq of the transaction's first"),
    )
    op.alter_column("journal", "idempotency_key", nullable=True, comment="null on the further entries of a transaction")
    op.create_table_comment(
        "journal", _JOURNAL_COMMENT, existing_comment="One row a decided command. Only ever appended to."
    )
    op.drop_constraint("kind_and_side_range", "journal", type_="check")
    op.create_check_constraint("kind_and_side_range", "journal", "kind between 1 and 8 and side between -1 and 1")
    op.create_check_constraint(
        "further_entry_names_first",
        "journal",
        "(transaction_seq is null) = (transaction_account is null) "
        "and (transaction_seq is null) = (idempotency_key is not null) "
        "and (transaction_seq is null or (seq > 0 and kind in (4, 8)))",
    )
    op.create_index(
        "journal_reference_idx",
        "journal",
        ["store_id", "reference", "created_at"],
        postgresql_where=sa.text("seq > 0 and transaction_seq is null"),
    )
