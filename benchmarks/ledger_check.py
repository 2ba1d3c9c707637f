"""Whether the ledger holds what was measured. A benchmark that measured something else must fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import psycopg
import redis

from ..audit.whole import verify
from ..lanes.keys import Keys
from ..schemas.installation import MAX_PARTITIONS
from ..schemas.kinds import Kind
from ..schemas.settings import Settings
from .load import AMOUNT, INITIAL_BALANCE
from .plan import BenchmarkFailed

#: Debits applied, everything else than opened accounts and applied debits, and dead letters.
_COUNTS = f"""
select count(*) filter (where kind = {Kind.DEBIT:d} and seq > 0),
       count(*) filter (where rejection is not null or seq < 0 or kind not in ({Kind.OPEN_ACCOUNT:d}, {Kind.DEBIT:d})),
       (select count(*) from dead_letters)
from journal
"""  # noqa: S608
#: The current balance of every account.
_BALANCES = """
select 'cca_' || replace(account_id::text, '-', ''), latest.balance_after::bigint
from accounts cross join lateral (
    select balance_after from journal
    where journal.store_id = accounts.store_id and journal.account_id = accounts.account_id and seq > 0
    order by seq desc limit 1
) as latest
"""


def check_ledger(settings: Settings, accounts: Sequence[str], debited: Counter[str]) -> None:
    """Check that these accounts, and no others, were debited as often as this, and that nothing is left over.

    Raises:
        BenchmarkFailed: the ledger or the lanes say otherwise.
    """
    with psycopg.connect(settings.require_database_url()) as connection:
        counts = connection.execute(_COUNTS).fetchone()
        balances: dict[str, int] = dict(connection.execute(_BALANCES).fetchall())
    if counts != (debited.total(), 0, 0):
        raise BenchmarkFailed(
            f"the ledger has (debits, others, dead letters) {counts} instead of {(debited.total(), 0, 0)}"
        )
    expected = {account: INITIAL_BALANCE - AMOUNT * debited[account] for account in accounts}
    if balances != expected:
        wrong = [account for account, balance in expected.items() if balances.get(account) != balance]
        raise BenchmarkFailed(f"{len(wrong)} balances are not what was debited, e.g. of {wrong[:1]}")
    if left := commands_on_lanes(settings):
        raise BenchmarkFailed(f"{left} commands are still on the lanes")
    report = verify(settings.require_database_url())
    if report.discrepancies:
        raise BenchmarkFailed(f"verify finds {report.discrepancies} discrepancies: {report.failed[0].claim}")


def check_kept_results(settings: Settings, expected: int) -> None:
    """Check that so many results are kept under poll keys.

    Raises:
        BenchmarkFailed: there are more or fewer.
    """
    pattern = f"{settings.redis_prefix}:{{p*}}:result:*"
    with redis.Redis.from_url(settings.require_redis_url(), protocol=2) as client:
        # A scan may give a key twice.
        kept = len(set(client.scan_iter(match=pattern, count=5_000)))
    if kept != expected:
        raise BenchmarkFailed(f"{kept} results are kept in Redis instead of {expected}")


def commands_on_lanes(settings: Settings) -> int:
    """Return how many commands no worker has decided yet."""
    keys = Keys(settings.redis_prefix)
    with redis.Redis.from_url(settings.require_redis_url(), protocol=2) as client:
        pipeline = client.pipeline(transaction=False)
        for partition in range(MAX_PARTITIONS):
            pipeline.xlen(keys.lane(partition))
        return sum(pipeline.execute())
