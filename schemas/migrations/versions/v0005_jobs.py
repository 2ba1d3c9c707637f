"""Work beside the lanes: schedules and runs, commands with a due time, statistics, exports, reconciliations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"

_MOMENT = sa.DateTime(timezone=True)
_KEY_TEXT = sa.Text(collation="C")
_NOW = sa.text("now()")


def upgrade() -> None:
    """Make room for scheduled work, and let the journal be read by time."""
    _create_runs()
    _create_due_commands()
    _create_statistics()
    _create_exports()
    _create_reconciliations()
    # A few bytes per range of pages, so that the writing of rows does not feel it. Small ranges: a look at the latest
    # minutes reads few pages more than these have.
    op.create_index(
        "journal_created_idx",
        "journal",
        ["created_at"],
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": "on"},
    )


def _create_runs() -> None:
    op.create_table(
        "scheduled_jobs",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("schedule", sa.Text, nullable=False, comment="as cron writes it, in UTC"),
        sa.Column("next_due_at", _MOMENT, nullable=False),
        comment="What is to be done again and again, and when next.",
    )
    op.create_table(
        "job_runs",
        sa.Column("run_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column(
            "status",
            sa.SmallInteger,
            nullable=False,
            server_default=sa.text("1"),
            comment="1 due, 2 running, 3 done, 4 failed",
        ),
        sa.Column("owner", sa.Text, comment="the process that does it now"),
        sa.Column("owner_until", _MOMENT, comment="when another may take over"),
        sa.Column(
            "attempts", sa.SmallInteger, nullable=False, server_default=sa.text("0"), comment="processes that took it"
        ),
        sa.Column(
            "enqueues",
            sa.Integer,
            nullable=False,
            server_default=sa.text("0"),
            comment="jobs in RQ that were made for it",
        ),
        sa.Column("enqueued_at", _MOMENT, comment="when its job in RQ was last seen to"),
        sa.Column("started_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("arguments", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("progress", JSONB, comment="how far it is, and where whoever takes over goes on"),
        sa.Column("outcome", JSONB),
        sa.Column("error", sa.Text),
        sa.UniqueConstraint("name", "due_at", name="job_runs_due_key"),
        sa.CheckConstraint("status between 1 and 4", name="status_range"),
        sa.CheckConstraint(
            "(status = 2) = (owner is not null) and (owner is null) = (owner_until is null)", name="owned"
        ),
        sa.CheckConstraint("(status in (3, 4)) = (finished_at is not null)", name="finished"),
        comment="One row a job and due time, so that each is done once.",
    )
    op.create_index("job_runs_unfinished_idx", "job_runs", ["name"], postgresql_where=sa.text("status in (1, 2)"))


def _create_due_commands() -> None:
    op.create_table(
        "due_commands",
        sa.Column("store_id", sa.Integer, sa.ForeignKey("stores.store_id"), nullable=False),
        sa.Column("idempotency_key", _KEY_TEXT, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("command", sa.LargeBinary, nullable=False, comment="as it will stand on the lane"),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=_NOW),
        sa.Column("enqueued_at", _MOMENT, comment="when it was put on its lane"),
        sa.PrimaryKeyConstraint("store_id", "idempotency_key"),
        comment="Commands that are put on their lanes at a due time.",
    )
    op.create_index("due_commands_due_idx", "due_commands", ["due_at"], postgresql_where=sa.text("enqueued_at is null"))


def _create_statistics() -> None:
    op.create_table(
        "statistics",
        sa.Column("store_id", sa.Integer, nullable=False),
        sa.Column("taken_at", _MOMENT, nullable=False),
        sa.Column("covered_until", _MOMENT, nullable=False, comment="journal rows from before this are counted"),
        sa.Column(
            "recounted_at", _MOMENT, nullable=False, comment="when all rows were last counted, not only the new ones"
        ),
        sa.Column("accounts", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("balance", sa.Numeric, nullable=False, comment="the sum over all accounts"),
        sa.Column("entries_last_hour", sa.BigInteger, nullable=False),
        sa.Column("entries_last_day", sa.BigInteger, nullable=False),
        sa.Column("outbox_rows", sa.BigInteger, nullable=False),
        sa.Column("pending_deliveries", sa.BigInteger, nullable=False),
        sa.Column("failed_deliveries", sa.BigInteger, nullable=False),
        sa.Column("disabled_endpoints", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("store_id", "taken_at"),
        comment="Each store, minute by minute.",
    )
    op.create_index("statistics_taken_idx", "statistics", ["taken_at"])


def _create_exports() -> None:
    op.create_table(
        "exports",
        sa.Column("store_id", sa.Integer, sa.ForeignKey("stores.store_id"), nullable=False),
        sa.Column("export_id", sa.Uuid, nullable=False),
        sa.Column("period_from", _MOMENT, nullable=False),
        sa.Column("period_until", _MOMENT, nullable=False, comment="exclusive"),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False, comment="the file or directory that is made"),
        sa.Column("position", JSONB, comment="what is written and on the disk: where to go on"),
        sa.Column("created_at", _MOMENT, nullable=False, server_default=_NOW),
        sa.Column("finished_at", _MOMENT),
        sa.PrimaryKeyConstraint("store_id", "export_id"),
        sa.CheckConstraint("format in ('csv', 'parquet')", name="format_known"),
        sa.CheckConstraint("period_from < period_until", name="period_forward"),
        comment="Exports of entries, and how far they are.",
    )
    op.create_index(
        "exports_unfinished_key",
        "exports",
        ["store_id", "output", "format", "period_from", "period_until"],
        unique=True,
        postgresql_where=sa.text("finished_at is null"),
    )


def _create_reconciliations() -> None:
    op.create_table(
        "reconciliations",
        sa.Column("run_id", sa.BigInteger, primary_key=True, comment="the run of a job that made it"),
        sa.Column("kind", sa.SmallInteger, nullable=False, comment="1 new rows, 2 the whole ledger"),
        sa.Column("covered_from", _MOMENT, comment="of new rows: those from this moment on"),
        sa.Column("covered_until", _MOMENT, nullable=False, comment="and before this one"),
        sa.Column("finished_at", _MOMENT, nullable=False, server_default=_NOW),
        sa.Column("rows", sa.BigInteger, nullable=False, comment="journal rows that were checked"),
        sa.Column("discrepancies", sa.BigInteger, nullable=False),
        sa.Column("findings", JSONB, nullable=False, comment="the first of each check"),
        sa.CheckConstraint("kind in (1, 2)", name="kind_range"),
        comment="Proofs of the books that ran by themselves.",
    )
    op.create_index("reconciliations_latest_idx", "reconciliations", ["kind", "finished_at"])
