"""The tables of the work beside the lanes: schedules and their runs, commands with a due time, and what the work finds.

`ledger.py` has the ledger's, `webhooks.py` those of the webhooks.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ..statuses import StoredProofKind, StoredRunStatus, legend, listed, span
from .ledger import metadata

_moment = DateTime(timezone=True)
_key_text = Text(collation="C")
_now = text("now()")

scheduled_jobs: Table = Table(
    "scheduled_jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("schedule", Text, nullable=False, comment="as cron writes it, in UTC"),
    Column("next_due_at", _moment, nullable=False),
    comment="What is to be done again and again, and when next.",
)

job_runs: Table = Table(
    "job_runs",
    metadata,
    Column("run_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("due_at", _moment, nullable=False),
    Column(
        "status",
        SmallInteger,
        nullable=False,
        server_default=text(str(int(StoredRunStatus.DUE))),
        comment=legend(StoredRunStatus),
    ),
    Column("owner", Text, comment="the process that does it now"),
    Column("owner_until", _moment, comment="when another may take over"),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0"), comment="processes that took it"),
    Column("enqueues", Integer, nullable=False, server_default=text("0"), comment="jobs in RQ that were made for it"),
    Column("enqueued_at", _moment, comment="when its job in RQ was last seen to"),
    Column("started_at", _moment),
    Column("finished_at", _moment),
    Column("arguments", JSONB, nullable=False, server_default=text("'{}'")),
    Column("progress", JSONB, comment="how far it is, and where whoever takes over goes on"),
    Column("outcome", JSONB),
    Column("error", Text),
    UniqueConstraint("name", "due_at", name="job_runs_due_key"),
    CheckConstraint(f"status {span(StoredRunStatus)}", name="status_range"),
    CheckConstraint(
        f"(status = {StoredRunStatus.RUNNING:d}) = (owner is not null) and (owner is null) = (owner_until is null)",
        name="owned",
    ),
    CheckConstraint(
        f"(status in {listed({StoredRunStatus.DONE, StoredRunStatus.FAILED})}) = (finished_at is not null)",
        name="finished",
    ),
    Index(
        "job_runs_unfinished_idx",
        "name",
        postgresql_where=text(f"status in {listed({StoredRunStatus.DUE, StoredRunStatus.RUNNING})}"),
    ),
    comment="One row a job and due time, so that each is done once.",
)

due_commands: Table = Table(
    "due_commands",
    metadata,
    Column("store_id", Integer, ForeignKey("stores.store_id"), nullable=False),
    Column("idempotency_key", _key_text, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("command", LargeBinary, nullable=False, comment="as it will stand on the lane"),
    Column("due_at", _moment, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=_now),
    Column("enqueued_at", _moment, comment="when it was put on its lane"),
    PrimaryKeyConstraint("store_id", "idempotency_key"),
    Index("due_commands_due_idx", "due_at", postgresql_where=text("enqueued_at is null")),
    comment="Commands that are put on their lanes at a due time.",
)

statistics: Table = Table(
    "statistics",
    metadata,
    Column("store_id", Integer, nullable=False),
    Column("taken_at", _moment, nullable=False),
    Column("covered_until", _moment, nullable=False, comment="journal rows from before this are counted"),
    Column("recounted_at", _moment, nullable=False, comment="when all rows were last counted, not only the new ones"),
    Column("accounts", BigInteger, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("entries_last_hour", BigInteger, nullable=False),
    Column("entries_last_day", BigInteger, nullable=False),
    Column("outbox_rows", BigInteger, nullable=False),
    Column("pending_deliveries", BigInteger, nullable=False),
    Column("failed_deliveries", BigInteger, nullable=False),
    Column("disabled_endpoints", BigInteger, nullable=False),
    PrimaryKeyConstraint("store_id", "taken_at"),
    Index("statistics_taken_idx", "taken_at"),
    comment="Each store, minute by minute.",
)

exports: Table = Table(
    "exports",
    metadata,
    Column("store_id", Integer, ForeignKey("stores.store_id"), nullable=False),
    Column("export_id", Uuid, nullable=False),
    Column("period_from", _moment, nullable=False),
    Column("period_until", _moment, nullable=False, comment="exclusive"),
    Column("format", Text, nullable=False),
    Column("output", Text, nullable=False, comment="the file or directory that is made"),
    Column("position", JSONB, comment="what is written and on the disk: where to go on"),
    Column("created_at", _moment, nullable=False, server_default=_now),
    Column("finished_at", _moment),
    PrimaryKeyConstraint("store_id", "export_id"),
    CheckConstraint("format in ('csv', 'parquet')", name="format_known"),
    CheckConstraint("period_from < period_until", name="period_forward"),
    Index(
        "exports_unfinished_key",
        "store_id",
        "output",
        "format",
        "period_from",
        "period_until",
        unique=True,
        postgresql_where=text("finished_at is null"),
    ),
    comment="Exports of entries, and how far they are.",
)

reconciliations: Table = Table(
    "reconciliations",
    metadata,
    Column("run_id", BigInteger, primary_key=True, comment="the run of a job that made it"),
    Column("kind", SmallInteger, nullable=False, comment="1 new rows, 2 the whole ledger"),
    Column("covered_from", _moment, comment="of new rows: those from this moment on"),
    Column("covered_until", _moment, nullable=False, comment="and before this one"),
    Column("finished_at", _moment, nullable=False, server_default=_now),
    Column("rows", BigInteger, nullable=False, comment="journal rows that were checked"),
    Column("discrepancies", BigInteger, nullable=False),
    Column("findings", JSONB, nullable=False, comment="the first of each check"),
    CheckConstraint(f"kind in {listed(StoredProofKind)}", name="kind_range"),
    Index("reconciliations_latest_idx", "kind", "finished_at"),
    comment="Proofs of the books that ran by themselves.",
)
