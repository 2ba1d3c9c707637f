"""The tables of webhooks: endpoints, the outbox, events and their deliveries. `ledger.py` has the ledger's."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..statuses import StoredDeliveryStatus, StoredEndpointKind, StoredEndpointStatus, legend, listed, span
from .ledger import metadata

_moment = DateTime(timezone=True)

webhook_endpoints: Table = Table(
    "webhook_endpoints",
    metadata,
    Column("store_id", Integer, ForeignKey("stores.store_id"), nullable=False),
    Column("endpoint_id", Uuid, nullable=False),
    Column("kind", SmallInteger, nullable=False, comment="1 endpoint, 2 the callbacks to one origin"),
    Column("status", SmallInteger, nullable=False, comment=legend(StoredEndpointStatus)),
    Column("url", Text, nullable=False, comment="of callbacks: their origin"),
    Column("name", Text),
    Column("events", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="empty: every event"),
    Column("secret", Text, nullable=False, comment="whsec_ and the key in base64"),
    Column("previous_secret", Text),
    Column("previous_secret_until", _moment, comment="until then both secrets sign"),
    Column("disabled_reason", Text),
    Column("failing_since", _moment, comment="null: the latest attempt succeeded"),
    Column("paused_until", _moment, comment="the endpoint asked to be left alone until then"),
    Column("sender", Text, comment="the process that delivers to it now"),
    Column("sender_until", _moment, comment="when another may take over"),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("updated_at", _moment, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("store_id", "endpoint_id"),
    CheckConstraint(
        f"kind in {listed(StoredEndpointKind)} and status {span(StoredEndpointStatus)}", name="kind_and_status_range"
    ),
    CheckConstraint("secret like 'whsec\\_%'", name="secret_form"),
    Index(
        "webhook_endpoints_origin_key",
        "store_id",
        "url",
        unique=True,
        postgresql_where=text(f"kind = {StoredEndpointKind.CALLBACKS:d}"),
    ),
    comment="Where news go. The secrets are needed in the clear to sign with.",
)

callback_secrets: Table = Table(
    "callback_secrets",
    metadata,
    Column("store_id", Integer, ForeignKey("stores.store_id"), primary_key=True),
    Column("secret", Text, nullable=False),
    Column("previous_secret", Text),
    Column("previous_secret_until", _moment),
    CheckConstraint("secret like 'whsec\\_%'", name="secret_form"),
    comment="What a store's callbacks are signed with.",
)

outbox: Table = Table(
    "outbox",
    metadata,
    Column("store_id", Integer, nullable=False),
    Column("outbox_id", BigInteger, Identity(always=True), nullable=False),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("accounts", ARRAY(Uuid), nullable=False, comment="of each journal row that is news: its account,"),
    Column("seqs", ARRAY(BigInteger), nullable=False, comment="its seq,"),
    Column("sequences", ARRAY(BigInteger), nullable=False, comment="and how many decisions its account had by then"),
    Column("callbacks", JSONB, comment="results that are to be sent to a URL that came with the command"),
    PrimaryKeyConstraint("store_id", "outbox_id"),
    CheckConstraint(
        "cardinality(accounts) = cardinality(seqs) and cardinality(seqs) = cardinality(sequences)",
        name="columns_match",
    ),
    comment="One row a batch and store: what it made that somebody subscribes to. Gone once it is fanned out.",
)

events: Table = Table(
    "events",
    metadata,
    Column("store_id", Integer, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("created_at", _moment, nullable=False),
    Column("body", Text, nullable=False, comment="what is sent, byte for byte"),
    PrimaryKeyConstraint("store_id", "event_id"),
    Index("events_created_idx", "created_at", postgresql_using="brin"),
    comment="What happened, as it is told. Kept for as long as its deliveries.",
)

deliveries: Table = Table(
    "deliveries",
    metadata,
    Column("store_id", Integer, nullable=False),
    Column("endpoint_id", Uuid, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("status", SmallInteger, nullable=False, comment=legend(StoredDeliveryStatus)),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("response_status", SmallInteger, comment="of the latest attempt; null: there was no response"),
    Column("latency_ms", Integer),
    Column("created_at", _moment, nullable=False),
    Column("next_attempt_at", _moment, comment="of a pending one"),
    Column("last_attempt_at", _moment),
    Column("url", Text, comment="of a callback: where it goes"),
    Column("response_body", Text, comment="the beginning of it"),
    Column("error", Text, comment="why the latest attempt failed without a response"),
    PrimaryKeyConstraint("store_id", "endpoint_id", "event_id"),
    ForeignKeyConstraint(["store_id", "endpoint_id"], ["webhook_endpoints.store_id", "webhook_endpoints.endpoint_id"]),
    CheckConstraint(f"status {span(StoredDeliveryStatus)} and attempts >= 0", name="status_range"),
    CheckConstraint(
        f"(status = {StoredDeliveryStatus.PENDING:d}) = (next_attempt_at is not null)", name="pending_has_next"
    ),
    Index(
        "deliveries_due_idx",
        "store_id",
        "endpoint_id",
        "next_attempt_at",
        postgresql_where=text(f"status = {StoredDeliveryStatus.PENDING:d}"),
    ),
    Index("deliveries_latest_idx", "store_id", "endpoint_id", "created_at", "event_id"),
    Index(
        "deliveries_failed_idx",
        "store_id",
        "endpoint_id",
        "created_at",
        "event_id",
        postgresql_where=text(f"status = {StoredDeliveryStatus.FAILED:d}"),
    ),
    comment="One event to one endpoint, and how the attempts went.",
)
