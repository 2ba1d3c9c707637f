"""The tables of the ledger, with the constraints that check every invariant again in the database.

Every table that grows carries its store, and every primary key and unique constraint of it contains the store, so
Postgres can be distributed by store. What builds them is in `migrations/`; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ..kinds import ASKED, SPANNING, Kind
from ..statuses import HoldStatus, Status, legend, listed, span

#: Every constraint has a name that says what it protects, so that a violation explains itself.
metadata: MetaData = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ix": "%(table_name)s_%(column_0_name)s_idx",
    }
)

_moment = DateTime(timezone=True)
_key_text = Text(collation="C")

installation: Table = Table(
    "installation",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default=text("true")),
    Column("partitions", SmallInteger, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    CheckConstraint("only_row", name="one_row"),
    Column(
        "subscriptions_version",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="grows with every change of what endpoints subscribe to",
    ),
    Column(
        "required_release",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="workers of older releases get no lanes; only ever raised",
    ),
    CheckConstraint("partitions between 1 and 1024", name="partitions_range"),
    comment="One row: what is fixed when the database is initialised.",
)

stores: Table = Table(
    "stores",
    metadata,
    Column("store_id", Integer, Identity(always=True), primary_key=True),
    Column("public_id", _key_text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    CheckConstraint("public_id ~ '^store_[0-9A-Za-z_]{1,58}$'", name="public_id_form"),
    comment="A store is a tenant: it sees only what is its own.",
)

api_keys: Table = Table(
    "api_keys",
    metadata,
    Column("store_id", Integer, ForeignKey("stores.store_id"), nullable=False),
    Column("key_id", _key_text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, comment="SHA-256 of the key; the key itself is stored nowhere"),
    Column("name", Text, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("revoked_at", _moment),
    PrimaryKeyConstraint("store_id", "key_id"),
    CheckConstraint("octet_length(key_hash) = 32", name="hash_length"),
    # A request names its key before its store is known. Not unique, which would need the store; ids are random.
    Index("api_keys_key_id_idx", "key_id"),
    comment="API keys, hashed. The key_id is the part of the key that is not secret.",
)

accounts: Table = Table(
    "accounts",
    metadata,
    Column("store_id", Integer, ForeignKey("stores.store_id"), nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False, comment="the name trimmed and case-folded: what must be unique"),
    Column("unit_label", Text, nullable=False),
    Column("status", SmallInteger, nullable=False, comment=legend(Status)),
    Column("overdraft_limit", Numeric, nullable=False, server_default=text("0")),
    Column("created_at", _moment, nullable=False),
    Column("updated_at", _moment, nullable=False),
    Column("metadata", JSONB, comment="what the caller attached, as text by text"),
    Column("low_balance", Numeric, comment="crossing below it is told as balance.low; null: never"),
    Column("low_balance_since", _moment, comment="when that was set"),
    Column("max_balance", Numeric, comment="what no credit may take the balance above; null: nothing"),
    PrimaryKeyConstraint("store_id", "account_id"),
    CheckConstraint(
        "low_balance is null or (low_balance = trunc(low_balance) and low_balance_since is not null)",
        name="low_balance_whole",
    ),
    CheckConstraint(f"status {span(Status)}", name="status_range"),
    CheckConstraint("overdraft_limit >= 0 and overdraft_limit = trunc(overdraft_limit)", name="overdraft_limit_whole"),
    CheckConstraint("max_balance >= 0 and max_balance = trunc(max_balance)", name="max_balance_whole"),
    CheckConstraint("updated_at >= created_at", name="updated_after_created"),
    Index(
        "accounts_open_name_key",
        "store_id",
        "customer_id",
        "name_key",
        unique=True,
        postgresql_where=text(f"status <> {Status.CLOSED:d}"),
    ),
    Index("accounts_opened_idx", "store_id", "created_at", "account_id"),
    Index("accounts_customer_idx", "store_id", "customer_id", "created_at", "account_id"),
    comment="What an account is. Its balance is the balance_after of its latest entry in the journal.",
)

journal: Table = Table(
    "journal",
    metadata,
    # Fixed-width columns first: no padding in the row.
    Column("store_id", Integer, nullable=False),
    Column("kind", SmallInteger, nullable=False, comment="what was asked for, see creditlane.schemas.journal.Kind"),
    Column("side", SmallInteger, nullable=False, comment="1 credit, -1 debit, 0 neither"),
    Column("seq", BigInteger, nullable=False, comment="above 0: an entry; below 0: a decision that moved nothing"),
    Column("created_at", _moment, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("reversal_of", BigInteger, comment="seq of the entry of this account that a reversal undoes"),
    Column("amount", Numeric),
    Column("balance_after", Numeric, nullable=False),
    Column("overdraft_limit", Numeric, comment="the account's limit at that moment, null for none"),
    Column("idempotency_key", _key_text, comment="null on the further entries of a transaction"),
    Column("reference", Text),
    Column("rejection", Text, comment="why it was rejected; null if it was applied"),
    Column("content", JSONB, comment="the rest of what was asked for"),
    Column("transaction_account", Uuid, comment="of a further entry: account of the transaction's first"),
    Column("transaction_seq", BigInteger, comment="of a further entry: seq of the transaction's first"),
    Column(
        "entries_before",
        BigInteger,
        comment="of a decision that moved nothing: entries the account had by then; null before 0006",
    ),
    Column("held_after", Numeric, comment="what is set aside of the balance after it; null for nothing"),
    PrimaryKeyConstraint("store_id", "account_id", "seq"),
    Index("journal_idempotency_key", "store_id", "idempotency_key", unique=True),
    Index(
        "journal_created_idx",
        "created_at",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": "on"},
    ),
    CheckConstraint("seq <> 0", name="seq_not_zero"),
    CheckConstraint("amount > 0 and amount = trunc(amount)", name="amount_whole_and_positive"),
    CheckConstraint("balance_after >= -coalesce(overdraft_limit, 0)", name="never_below_limit"),
    CheckConstraint("seq < 0 or (rejection is null and amount is not null and side <> 0)", name="entry_moves"),
    CheckConstraint(f"kind {span(Kind)} and side between -1 and 1", name="kind_and_side_range"),
    CheckConstraint(
        f"(kind = {Kind.REVERSE:d} and seq > 0) = (reversal_of is not null)", name="reversal_names_original"
    ),
    CheckConstraint(
        "(transaction_seq is null) = (transaction_account is null) "
        "and (transaction_seq is null) = (idempotency_key is not null) "
        f"and (transaction_seq is null or (seq > 0 and kind in {listed(SPANNING)}))",
        name="further_entry_names_first",
    ),
    CheckConstraint("seq < 0 or entries_before is null", name="entries_before_decision"),
    CheckConstraint(
        "held_after > 0 and held_after = trunc(held_after) "
        "and balance_after - held_after >= -coalesce(overdraft_limit, 0)",
        name="held_is_covered",
    ),
    CheckConstraint(
        f"content is null or kind <> {Kind.DEBIT:d} or not content ? '{ASKED}' "
        f"or (content ->> '{ASKED}')::numeric >= amount",
        name="debit_within_asked",
    ),
    Index(
        "journal_reference_idx",
        "store_id",
        "reference",
        "created_at",
        postgresql_where=text("seq > 0 and transaction_seq is null"),
    ),
    comment="One row a decided command, and one for each further entry of a transaction. Only ever appended to.",
)

holds: Table = Table(
    "holds",
    metadata,
    Column("store_id", Integer, nullable=False),
    Column("status", SmallInteger, nullable=False, comment=legend(HoldStatus)),
    Column("seq", BigInteger, nullable=False, comment="of the decision that made it, which is -seq in the journal"),
    Column("created_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False, comment="when what is left of it is released by itself"),
    Column("ended_at", _moment, comment="when it was used up, voided or had expired; null while it is open"),
    Column("account_id", Uuid, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("captured", Numeric, nullable=False, server_default=text("0"), comment="what its captures took"),
    Column("remaining", Numeric, nullable=False, comment="what is set aside by it now"),
    Column("reference", Text, nullable=False),
    PrimaryKeyConstraint("store_id", "account_id", "seq"),
    CheckConstraint("seq > 0", name="seq_above_zero"),
    CheckConstraint(f"status {span(HoldStatus)}", name="status_range"),
    CheckConstraint("amount > 0 and amount = trunc(amount)", name="amount_whole_and_positive"),
    CheckConstraint("captured >= 0 and captured = trunc(captured)", name="captured_whole"),
    CheckConstraint("remaining between 0 and amount and remaining = trunc(remaining)", name="remaining_whole"),
    CheckConstraint(f"(status = {HoldStatus.OPEN:d}) = (remaining > 0)", name="open_while_remaining"),
    CheckConstraint(f"(status = {HoldStatus.OPEN:d}) = (ended_at is null)", name="ended_when_not_open"),
    CheckConstraint(f"status <> {HoldStatus.CAPTURED:d} or captured > 0", name="captured_takes"),
    CheckConstraint("expires_at > created_at", name="expires_after_created"),
    Index("holds_open_idx", "store_id", "account_id", "seq", postgresql_where=text(f"status = {HoldStatus.OPEN:d}")),
    # The same rows by another word, so that what asks for the open ones of an account is never answered from it: with
    # few holds, or many on one account, it can look as good to the planner, and is read from end to end.
    Index("holds_expiry_idx", "expires_at", "store_id", "account_id", "seq", postgresql_where=text("remaining > 0")),
    comment="What is set aside of balances: open ones, and what became of the others. An ended one never changes.",
)

dead_letters: Table = Table(
    "dead_letters",
    metadata,
    Column("store_id", Integer, nullable=False, comment="0 where the bytes do not tell"),
    Column("dead_letter_id", Uuid, nullable=False),
    Column("partition", SmallInteger, nullable=False),
    Column("lane_entry", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="the command as it stood on the lane"),
    Column("idempotency_key", _key_text, comment="null where the bytes do not tell"),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("replayed_at", _moment),
    PrimaryKeyConstraint("store_id", "dead_letter_id"),
    Index("dead_letters_key_idx", "store_id", "idempotency_key"),
    comment="Commands that could not be decided, with the reason. Nothing is lost.",
)

workers: Table = Table(
    "workers",
    metadata,
    Column("worker_id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("process_id", Integer, nullable=False),
    Column("started_at", _moment, nullable=False, server_default=text("now()")),
    Column("expires_at", _moment, nullable=False),
    Column("numbers", JSONB, comment="what it has counted since it started"),
    Column("lease_seconds", Float, comment="how long it may be silent, as it is set up; null before 0006"),
    Column(
        "stuck",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="it shows life but does not get on, so it owns nothing",
    ),
    Column("release", SmallInteger, comment="the number of its release; null: that of 0.1.0, which is 0"),
    comment="Worker processes that have shown life. One whose expires_at is past owns nothing.",
)

leases: Table = Table(
    "leases",
    metadata,
    Column("partition", SmallInteger, primary_key=True),
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("worker_id", Text, comment="null: nobody's"),
    Column(
        "reached",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="grows with every transaction of another lane that moved accounts of this one",
    ),
    CheckConstraint("partition >= 0", name="partition_range"),
    CheckConstraint("epoch >= 0", name="epoch_range"),
    comment="Who applies a partition's commands. The epoch grows with every change of owner.",
)
