"""Counts what `status` shows of each store: every minute the new rows of the journal on top of what was there before.

Once a day all rows are counted anew, so that whatever was missed does not stay missed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ....schemas.kinds import Kind
from ....schemas.statuses import StoredDeliveryStatus, StoredEndpointKind, StoredEndpointStatus
from ..database import Connection
from ..runs import Outcome, Run
from ..watermark import read_watermark

#: Before every row.
BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
#: How old a count of all rows may be.
RECOUNT_AFTER = timedelta(hours=24)

READ_LATEST = """
select store_id, covered_until, recounted_at, accounts, entries from statistics
where taken_at = (select max(taken_at) from statistics)
"""

#: Per store: accounts opened, and entries. What they moved is of many units and cannot be added up.
COUNT_ROWS = f"""
select store_id, count(*) filter (where kind = {Kind.OPEN_ACCOUNT:d} and rejection is null),
    count(*) filter (where seq > 0)
from journal where created_at >= %(since)s and created_at < %(until)s
group by store_id
"""  # noqa: S608

#: Entries of each store at the last count before this moment.
READ_ENTRIES_BEFORE = """
select store_id, entries from statistics
where taken_at = (select max(taken_at) from statistics where covered_until <= %(moment)s)
"""

INSERT_STATISTICS = f"""
insert into statistics (store_id, taken_at, covered_until, recounted_at, accounts, entries, entries_last_hour,
    entries_last_day, outbox_rows, pending_deliveries, failed_deliveries, disabled_endpoints)
select store_id, now(), %(until)s, %(recounted_at)s, coalesce(accounts, 0), coalesce(entries, 0),
    coalesce(last_hour, 0), coalesce(last_day, 0),
    (select count(*) from outbox where outbox.store_id = stores.store_id),
    (select count(*) from deliveries where deliveries.store_id = stores.store_id
        and status = {StoredDeliveryStatus.PENDING:d}),
    (select count(*) from deliveries where deliveries.store_id = stores.store_id
        and status = {StoredDeliveryStatus.FAILED:d}),
    (select count(*) from webhook_endpoints as endpoint
     where endpoint.store_id = stores.store_id
        and kind = {StoredEndpointKind.ENDPOINT:d} and status = {StoredEndpointStatus.DISABLED:d})
from stores
left join unnest(%(stores)s::integer[], %(accounts)s::bigint[], %(entries)s::bigint[],
    %(last_hour)s::bigint[], %(last_day)s::bigint[])
    as total (store_id, accounts, entries, last_hour, last_day) using (store_id)
"""  # noqa: S608


class Total(NamedTuple):
    """What a store has."""

    accounts: int = 0
    entries: int = 0

    def plus(self, other: Total) -> Total:
        """Return both together."""
        return Total(self.accounts + other.accounts, self.entries + other.entries)


class Count(NamedTuple):
    """All stores at one moment."""

    until: datetime
    recounted_at: datetime
    totals: dict[int, Total]


def perform(run: Run) -> Outcome:
    """Count, and keep the count."""
    count = counted(run.connection)
    stores = list(count.totals)
    values = {
        "until": count.until,
        "recounted_at": count.recounted_at,
        "stores": stores,
        "accounts": [total.accounts for total in count.totals.values()],
        "entries": [total.entries for total in count.totals.values()],
        "last_hour": _since(run.connection, count, timedelta(hours=1)),
        "last_day": _since(run.connection, count, timedelta(days=1)),
    }
    entries = sum(total.entries for total in count.totals.values())
    return Outcome(
        {"stores": len(stores), "entries": entries},
        lambda connection: _keep(connection, values),
    )


def counted(connection: Connection) -> Count:
    """Return the totals up to the watermark: the latest ones and what is new, or all of it counted anew."""
    until = read_watermark(connection)
    rows = connection.execute(READ_LATEST).fetchall()
    if not rows or until - rows[0][2] >= RECOUNT_AFTER:
        return Count(until, until, _count(connection, None, until))
    _, covered_until, recounted_at, *_ = rows[0]
    totals = {store: Total(accounts, entries) for store, _, _, accounts, entries in rows}
    # After a clock went back: what is counted is not counted again.
    until = max(until, covered_until)
    for store, new in _count(connection, covered_until, until).items():
        totals[store] = totals.get(store, Total()).plus(new)
    return Count(until, recounted_at, totals)


def _count(connection: Connection, since: datetime | None, until: datetime) -> dict[int, Total]:
    rows = connection.execute(COUNT_ROWS, {"since": since or BEFORE_ALL, "until": until}).fetchall()
    return {store: Total(accounts, entries) for store, accounts, entries in rows}


def _since(connection: Connection, count: Count, period: timedelta) -> list[int]:
    """Return how many entries this period has brought to each store: what it has now less what it had then."""
    then = count.until - period
    before: dict[int, int] = dict(connection.execute(READ_ENTRIES_BEFORE, {"moment": then}).fetchall())
    if before:
        return [total.entries - before.get(store, 0) for store, total in count.totals.items()]
    lately = _count(connection, then, count.until)
    return [lately.get(store, Total()).entries for store in count.totals]


def _keep(connection: Connection, values: dict[str, Any]) -> None:
    connection.execute(INSERT_STATISTICS, values)
