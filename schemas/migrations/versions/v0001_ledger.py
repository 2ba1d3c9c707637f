"""The ledger: installation, stores, keys, accounts, journal, dead letters, workers and leases."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_moment = sa.DateTime(timezone=True)
_key_text = sa.Text(collation="C")
_now = sa.text("now()")


def upgrade() -> None:
    """Create every table of the first release."""
    _create_tenants()
    _create_accounts()
    _create_journal()
    _protect_journal()
    _create_dead_letters()
    _create_leases()


def _create_tenants() -> None:
    op.create_table(
        "installation",
        sa.Column("only_row", sa.Boolean, primary_key=True, server_default=sa.text("true")),
        sa.Column("partitions", sa.SmallInteger, nullable=False),
        sa.Column("created_at", _moment, nullable=False, server_default=_now),
        sa.CheckConstraint("only_row", name="one_row"),
        sa.CheckConstraint("partitions between 1 and 1024", name="partitions_range"),
        comment="One row: what is fixed when the database is initialised.",
    )
    op.create_table(
        "stores",
        sa.Column("store_id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("public_id", _key_text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", _moment, nullable=False, server_default=_now),
        sa.CheckConstraint("public_id ~ '^store_[0-9A-Za-z_]{1,58}$'", name="public_id_form"),
        comment="A store is a tenant: it sees only what is its own.",
    )
    op.create_table(
        "api_keys",
        sa.Column("store_id", sa.Integer, sa.ForeignKey("stores.store_id"), nullable=False),
        sa.Column("key_id", _key_text, nullable=False),
        sa.Column(
            "key_hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the key; the key itself is stored nowhere"
        ),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", _moment, nullable=False, server_default=_now),
        sa.Column("revoked_at", _moment),
        sa.PrimaryKeyConstraint("store_id", "key_id"),
        sa.CheckConstraint("octet_length(key_hash) = 32", name="hash_length"),
        comment="API keys, hashed. The key_id is the part of the key that is not secret.",
    )
    op.execute("insert into stores (public_id, name) values ('store_default', 'Default store')")


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("store_id", sa.Integer, sa.ForeignKey("stores.store_id"), nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("name_key", sa.Text, nullable=False, comment="the name trimmed and case-folded: what must be unique"),
        sa.Column("unit_label", sa.Text, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False, comment="1 active, 2 frozen, 3 closed"),
        sa.Column("overdraft_limit", sa.Numeric, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("updated_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "account_id"),
        sa.CheckConstraint("status between 1 and 3", name="status_range"),
        sa.CheckConstraint(
            "overdraft_limit >= 0 and overdraft_limit = trunc(overdraft_limit)", name="overdraft_limit_whole"
        ),
        sa.CheckConstraint("updated_at >= created_at", name="updated_after_created"),
        comment="What an account is. Its balance is the balance_after of its latest entry in the journal.",
    )
    op.create_index(
        "accounts_open_name_key",
        "accounts",
        ["store_id", "customer_id", "name_key"],
        unique=True,
        postgresql_where=sa.text("status <> 3"),
    )


def _create_journal() -> None:
    op.create_table(
        "journal",
        sa.Column("store_id", sa.Integer, nullable=False),
        sa.Column(
            "kind", sa.SmallInteger, nullable=False, comment="what was asked for, see creditlane.schemas.journal.Kind"
        ),
        sa.Column("side", sa.SmallInteger, nullable=False, comment="1 credit, -1 debit, 0 neither"),
        sa.Column(
            "seq", sa.BigInteger, nullable=False, comment="above 0: an entry; below 0: a decision that moved nothing"
        ),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("reversal_of", sa.BigInteger, comment="seq of the entry of this account that a reversal undoes"),
        sa.Column("amount", sa.Numeric),
        sa.Column("balance_after", sa.Numeric, nullable=False),
        sa.Column("overdraft_limit", sa.Numeric, comment="the account's limit at that moment, null for none"),
        sa.Column("idempotency_key", _key_text, nullable=False),
        sa.Column("reference", sa.Text),
        sa.Column("rejection", sa.Text, comment="why it was rejected; null if it was applied"),
        sa.Column("content", JSONB, comment="the rest of what was asked for"),
        sa.PrimaryKeyConstraint("store_id", "account_id", "seq"),
        sa.CheckConstraint("seq <> 0", name="seq_not_zero"),
        sa.CheckConstraint("amount > 0 and amount = trunc(amount)", name="amount_whole_and_positive"),
        sa.CheckConstraint("balance_after >= -coalesce(overdraft_limit, 0)", name="never_below_limit"),
        sa.CheckConstraint("seq < 0 or (rejection is null and amount is not null and side <> 0)", name="entry_moves"),
        sa.CheckConstraint("kind between 1 and 7 and side between -1 and 1", name="kind_and_side_range"),
        sa.CheckConstraint("(kind = 4 and seq > 0) = (reversal_of is not null)", name="reversal_names_original"),
        comment="One row a decided command. Only ever appended to.",
    )
    op.create_index("journal_idempotency_key", "journal", ["store_id", "idempotency_key"], unique=True)


def _protect_journal() -> None:
    # Statement triggers: they cost an insert nothing, and history cannot be rewritten by mistake.
    op.execute(
        """
        create function refuse_to_rewrite_history() returns trigger language plpgsql as $$
        begin
            raise exception 'rows of journal are never updated or deleted; correct a mistake with a reversal';
        end $$
        """
    )
    op.execute(
        """
        create trigger journal_is_append_only before update or delete or truncate on journal
        for each statement execute function refuse_to_rewrite_history()
        """
    )


def _create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("store_id", sa.Integer, nullable=False, comment="0 where the bytes do not tell"),
        sa.Column("dead_letter_id", sa.Uuid, nullable=False),
        sa.Column("partition", sa.SmallInteger, nullable=False),
        sa.Column("lane_entry", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False, comment="the command as it stood on the lane"),
        sa.Column("idempotency_key", _key_text, comment="null where the bytes do not tell"),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", _moment, nullable=False, server_default=_now),
        sa.Column("replayed_at", _moment),
        sa.PrimaryKeyConstraint("store_id", "dead_letter_id"),
        comment="Commands that could not be decided, with the reason. Nothing is lost.",
    )
    op.create_index("dead_letters_key_idx", "dead_letters", ["store_id", "idempotency_key"])


def _create_leases() -> None:
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("process_id", sa.Integer, nullable=False),
        sa.Column("started_at", _moment, nullable=False, server_default=_now),
        sa.Column("expires_at", _moment, nullable=False),
        comment="Worker processes that have shown life. One whose expires_at is past owns nothing.",
    )
    op.create_table(
        "leases",
        sa.Column("partition", sa.SmallInteger, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("worker_id", sa.Text, comment="null: nobody's"),
        sa.CheckConstraint("partition >= 0", name="partition_range"),
        sa.CheckConstraint("epoch >= 0", name="epoch_range"),
        comment="Who applies a partition's commands. The epoch grows with every change of owner.",
    )
