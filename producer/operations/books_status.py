"""What the scheduled jobs have found out of late: each store's totals, and whether the ledger is right."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import psycopg
from psycopg.rows import class_row
from pydantic import BaseModel, ConfigDict

from ...lanes.postgres.errors import translated
from ...lanes.postgres.sessions import connect
from ...schemas.settings import Settings
from ...schemas.statuses import StoredProofKind, StoredRunStatus, listed
from ..client.ledger_sessions import read_limits
from ..ledger.read_limits import SESSION_NAME
from .webhook_sealing import SecretCount, count_secrets

READ_STATISTICS = """
select public_id as store_id, accounts, entries, entries_last_hour, entries_last_day, outbox_rows,
    pending_deliveries, failed_deliveries, disabled_endpoints, taken_at,
    extract(epoch from greatest(clock_timestamp() - covered_until, '0'))::float8 as age_seconds
from statistics join stores using (store_id)
where taken_at = (select max(taken_at) from statistics)
order by store_id
"""

_DUE, _RUNNING, _FAILED = int(StoredRunStatus.DUE), int(StoredRunStatus.RUNNING), int(StoredRunStatus.FAILED)
_NOT_DONE = listed(set(StoredRunStatus) - {StoredRunStatus.DONE})

#: The latest proof of the whole ledger, and all proofs of new rows since then together: what one of them has found is
#: not over because the next finds nothing.
READ_RECONCILIATIONS = f"""
with whole as (
    select covered_until, finished_at, rows, discrepancies from reconciliations
    where kind = {StoredProofKind.WHOLE:d} order by finished_at desc, run_id desc limit 1
), recent as (
    select min(covered_from) as covered_from, max(covered_until) as covered_until, max(finished_at) as finished_at,
        sum(rows)::bigint as rows, sum(discrepancies)::bigint as discrepancies
    from reconciliations
    where kind = {StoredProofKind.RECENT:d} and finished_at > coalesce((select finished_at from whole), '-infinity')
), proof as (
    select 'whole' as kind, null::timestamptz as covered_from, whole.* from whole
    union all
    select 'recent', recent.* from recent where finished_at is not null
)
select kind, covered_from, covered_until, finished_at, rows, discrepancies,
    extract(epoch from greatest(clock_timestamp() - finished_at, '0'))::float8 as age_seconds
from proof
"""  # noqa: S608

#: How it stands with the job that proves new rows: its latest run, unless that is over, or when it is due next. No row
#: where no process has ever asked what is due.
READ_NEXT_PROOF = f"""
select case when run.status in {_NOT_DONE} then run.due_at else schedule.next_due_at end as due_at,
    case when run.status = {_RUNNING} then 'running' when run.status = {_FAILED} then 'failed'
        when run.status = {_DUE} or schedule.next_due_at <= clock_timestamp() then 'due' else 'scheduled' end as state
from scheduled_jobs as schedule
left join lateral (
    select due_at, status from job_runs where job_runs.name = schedule.name order by run_id desc limit 1
) as run on true
where schedule.name = 'verify-recent'
"""  # noqa: S608


class StoreStatistics(BaseModel):
    """One store, as it was counted last."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    store_id: str
    accounts: int
    entries: int
    entries_last_hour: int
    entries_last_day: int
    #: What is not sent yet: rows of the outbox, and deliveries.
    outbox_rows: int
    pending_deliveries: int
    #: Deliveries whose attempts are used up.
    failed_deliveries: int
    disabled_endpoints: int
    taken_at: datetime
    #: How long ago the newest row was made that is counted.
    age_seconds: float


class Reconciliation(BaseModel):
    """Proofs of the ledger that ran by themselves: the latest of the whole ledger, or all of new rows since then."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    kind: Literal["recent", "whole"]
    covered_from: datetime | None
    covered_until: datetime
    finished_at: datetime
    rows: int
    discrepancies: int
    age_seconds: float


class NextProof(BaseModel):
    """How it stands with the proof of new rows that is next, or that was tried last and failed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    due_at: datetime
    #: `due` where its time has come and no process has begun it.
    state: Literal["scheduled", "due", "running", "failed"]


class BooksReport(BaseModel):
    """What is known of the whole ledger; empty while no jobs have run."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    statistics: list[StoreStatistics]
    reconciliations: list[Reconciliation]
    #: None: no process of the jobs has ever run.
    next_proof: NextProof | None
    #: How the signing secrets of webhooks are kept; None: the role may not read them, or there are too many.
    webhook_secrets: SecretCount | None


def read_books(settings: Settings) -> BooksReport:
    """Return what the latest jobs found out.

    Raises:
        ConfigurationError: Postgres is not set, or not migrated.
        Unavailable: Postgres cannot be reached.
    """
    with (
        translated("client", "owner", only_reads=True),
        connect(settings.require_database_url(), name=SESSION_NAME, limits=read_limits()) as connection,
    ):
        statistics = connection.cursor(row_factory=class_row(StoreStatistics)).execute(READ_STATISTICS).fetchall()
        proofs = connection.cursor(row_factory=class_row(Reconciliation)).execute(READ_RECONCILIATIONS).fetchall()
        next_proof = connection.cursor(row_factory=class_row(NextProof)).execute(READ_NEXT_PROOF).fetchone()
        secrets = _secrets(connection)
    return BooksReport(statistics=statistics, reconciliations=proofs, next_proof=next_proof, webhook_secrets=secrets)


def _secrets(connection: psycopg.Connection[tuple[Any, ...]]) -> SecretCount | None:
    try:
        return count_secrets(connection)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled):
        return None
