"""What outbox rows cost the lanes: the same drains with an endpoint that subscribes to everything, and without any.

Only the lanes are measured: the workers write the outbox in the transactions of their batches. Nothing is delivered
here; no delivery process runs, and what is written is left lying there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from ..producer import Client
from ..schemas.settings import Settings
from .ledger_check import check_ledger
from .load import debits
from .plan import BenchmarkFailed
from .scenarios import Measurement, debited, drain

#: Whether somebody subscribes, drain by drain: in pairs, turned round each time, so that neither side has the younger
#: ledger or the warmer machine. Of each side's three the one in the middle counts: a machine may have a bad moment.
ROUNDS = (False, True, True, False, False, True)
#: Nobody is asked anything there.
ENDPOINT_URL = "https://webhooks.example/"

#: Rows of the journal that the outbox points to, and those of them that are there.
_POINTERS = """
select count(*), count(journal.seq)
from outbox cross join lateral unnest(accounts, seqs) as pointer (account_id, seq)
left join journal using (store_id, account_id, seq)
"""


@dataclass(frozen=True, slots=True)
class WebhookCost:
    """The same drains with and without an endpoint."""

    subscribed: Measurement
    unsubscribed: Measurement

    @property
    def cost_percent(self) -> float:
        """By how much the rate is lower with the endpoint, in percent; below zero if it is higher."""
        return 100 * (1 - self.subscribed.commands_per_second / self.unsubscribed.commands_per_second)


def measure_webhooks(settings: Settings, accounts: Sequence[str], commands: int, workers: int) -> WebhookCost:
    """Drain the same backlog again and again, with an endpoint and without, and check the ledger and the outbox.

    No delivery process runs: it would measure the machine's cores, not what the lanes pay.

    Raises:
        BenchmarkFailed: something else happened than what is measured.
    """
    drains: dict[bool, list[Measurement]] = {True: [], False: []}
    with Client(settings) as client:
        endpoint = client.webhooks.create(url=ENDPOINT_URL)
        for number, subscribed in enumerate(ROUNDS):
            client.webhooks.update(endpoint.id, status="enabled" if subscribed else "disabled")
            load = debits(accounts, commands, label=f"round{number}_")
            drains[subscribed].append(drain(settings, load, commands, workers))
    drained = debited(accounts, commands)
    check_ledger(settings, accounts, Counter({account: len(ROUNDS) * drained[account] for account in accounts}))
    check_outbox(settings, sum(ROUNDS) * commands)
    return WebhookCost(_middle(drains[True]), _middle(drains[False]))


def check_outbox(settings: Settings, expected: int) -> None:
    """Check that the outbox has events of so many rows of the journal, all of which are there.

    Raises:
        BenchmarkFailed: there are more or fewer.
    """
    with psycopg.connect(settings.require_database_url()) as connection:
        found = connection.execute(_POINTERS).fetchone()
    if found != (expected, expected):
        raise BenchmarkFailed(
            f"the outbox has (pointers, rows they point to) {found} instead of {(expected, expected)}"
        )


def _middle(drains: Sequence[Measurement]) -> Measurement:
    return sorted(drains, key=lambda drained: drained.commands_per_second)[len(drains) // 2]
