"""Webhooks: endpoints, the outbox that the ledger writes, and what became of every delivery."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0004"
down_revision = "0003"

_MOMENT = sa.DateTime(timezone=True)
_KEY_TEXT = sa.Text(collation="C")


def upgrade() -> None:
    """Make room for news: who wants which, what happened, and who was told."""
    op.add_column(
        "installation",
        sa.Column(
            "subscriptions_version",
            sa.BigInteger,
            nullable=False,
            server_default=sa.text("0"),
            comment="grows with every change of what endpoints subscribe to",
        ),
    )
    op.add_column(
        "accounts",
        sa.Column("low_balance", sa.Numeric, comment="crossing below it is told as balance.low; null: never"),
    )
    op.add_column("accounts", sa.Column("low_balance_since", _MOMENT, comment="when that was set"))
    op.create_check_constraint(
        "low_balance_whole",
        "accounts",
        "low_balance is null or (low_balance = trunc(low_balance) and low_balance_since is not null)",
    )
    _create_endpoints()
    _create_events()
    _create_deliveries()


def _create_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("store_id", sa.Integer, sa.ForeignKey("stores.store_id"), nullable=False),
        sa.Column("endpoint_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False, comment="1 endpoint, 2 the callbacks to one origin"),
        sa.Column("status", sa.SmallInteger, nullable=False, comment="1 enabled, 2 disabled, 3 deleted"),
        sa.Column("url", sa.Text, nullable=False, comment="of callbacks: their origin"),
        sa.Column("name", sa.Text),
        sa.Column(
            "events", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'"), comment="empty: every event"
        ),
        sa.Column("secret", sa.Text, nullable=False, comment="whsec_ and the key in base64"),
        sa.Column("previous_secret", sa.Text),
        sa.Column("previous_secret_until", _MOMENT, comment="until then both secrets sign"),
        sa.Column("disabled_reason", sa.Text),
        sa.Column("failing_since", _MOMENT, comment="null: the latest attempt succeeded"),
        sa.Column("paused_until", _MOMENT, comment="the endpoint asked to be left alone until then"),
        sa.Column("sender", sa.Text, comment="the process that delivers to it now"),
        sa.Column("sender_until", _MOMENT, comment="when another may take over"),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.text("now()")),
        sa.Column("updated_at", _MOMENT, nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("store_id", "endpoint_id"),
        sa.CheckConstraint("kind in (1, 2) and status between 1 and 3", name="kind_and_status_range"),
        sa.CheckConstraint("secret like 'whsec\\_%'", name="secret_form"),
        comment="Where news go. The secrets are needed in the clear to sign with.",
    )
    op.create_index(
        "webhook_endpoints_origin_key",
        "webhook_endpoints",
        ["store_id", "url"],
        unique=True,
        postgresql_where=sa.text("kind = 2"),
    )
    op.create_table(
        "callback_secrets",
        sa.Column("store_id", sa.Integer, sa.ForeignKey("stores.store_id"), primary_key=True),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("previous_secret", sa.Text),
        sa.Column("previous_secret_until", _MOMENT),
        sa.CheckConstraint("secret like 'whsec\\_%'", name="secret_form"),
        comment="What a store's callbacks are signed with.",
    )


def _create_events() -> None:
    op.create_table(
        "outbox",
        sa.Column("store_id", sa.Integer, nullable=False),
        sa.Column("outbox_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=sa.text("now()")),
        sa.Column("accounts", ARRAY(sa.Uuid), nullable=False, comment="of each journal row that is news: its account,"),
        sa.Column("seqs", ARRAY(sa.BigInteger), nullable=False, comment="its seq,"),
        sa.Column(
            "sequences", ARRAY(sa.BigInteger), nullable=False, comment="and how many decisions its account had by then"
        ),
        sa.Column("callbacks", JSONB, comment="results that are to be sent to a URL that came with the command"),
        sa.PrimaryKeyConstraint("store_id", "outbox_id"),
        sa.CheckConstraint(
            "cardinality(accounts) = cardinality(seqs) and cardinality(seqs) = cardinality(sequences)",
            name="columns_match",
        ),
        comment="One row a batch and store: what it made that somebody subscribes to. Gone once it is fanned out.",
    )
    # Compressing random bytes would cost more than writing them.
    for column in ("accounts", "seqs", "sequences"):
        op.execute(f"alter table outbox alter column {column} set storage external")
    op.create_table(
        "events",
        sa.Column("store_id", sa.Integer, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("body", sa.Text, nullable=False, comment="what is sent, byte for byte"),
        sa.PrimaryKeyConstraint("store_id", "event_id"),
        comment="What happened, as it is told. Kept for as long as its deliveries.",
    )
    op.create_index("events_created_idx", "events", ["created_at"], postgresql_using="brin")


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("store_id", sa.Integer, nullable=False),
        sa.Column("endpoint_id", sa.Uuid, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False, comment="1 pending, 2 delivered, 3 failed"),
        sa.Column("attempts", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("response_status", sa.SmallInteger, comment="of the latest attempt; null: there was no response"),
        sa.Column("latency_ms", sa.Integer),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("next_attempt_at", _MOMENT, comment="of a pending one"),
        sa.Column("last_attempt_at", _MOMENT),
        sa.Column("url", sa.Text, comment="of a callback: where it goes"),
        sa.Column("response_body", sa.Text, comment="the beginning of it"),
        sa.Column("error", sa.Text, comment="why the latest attempt failed without a response"),
        sa.PrimaryKeyConstraint("store_id", "endpoint_id", "event_id"),
        sa.ForeignKeyConstraint(
            ["store_id", "endpoint_id"], ["webhook_endpoints.store_id", "webhook_endpoints.endpoint_id"]
        ),
        sa.CheckConstraint("status between 1 and 3 and attempts >= 0", name="status_range"),
        sa.CheckConstraint("(status = 1) = (next_attempt_at is not null)", name="pending_has_next"),
        comment="One event to one endpoint, and how the attempts went.",
    )
    op.create_index(
        "deliveries_due_idx",
        "deliveries",
        ["store_id", "endpoint_id", "next_attempt_at"],
        postgresql_where=sa.text("status = 1"),
    )
    op.create_index("deliveries_latest_idx", "deliveries", ["store_id", "endpoint_id", "created_at", "event_id"])
    op.create_index(
        "deliveries_failed_idx",
        "deliveries",
        ["store_id", "endpoint_id", "created_at", "event_id"],
        postgresql_where=sa.text("status = 3"),
    )
