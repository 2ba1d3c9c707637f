"""Transfers that go round in rings lock the same accounts in every order, across workers: none of them is in the way.

A transaction is decided in the lane of its first account, so two transfers between the same accounts in opposite
directions are decided by two workers at the same time, each holding what the other wants.
"""

import asyncio
import itertools
import logging
import random
import time
from collections import Counter
from typing import Any

import httpx2
import pytest

from creditlane import Settings
from creditlane.audit.whole import verify

from .extent import LONG

#: Logs the rate: pytest -o log_cli=true -o log_cli_level=info
log = logging.getLogger(__name__)

ACCOUNTS = "/v1/customer-credits/accounts"
TRANSACTIONS = "/v1/customer-credits/transactions"
#: How long the transfers go on, in seconds.
SECONDS = 60.0 if LONG else 8.0
MEMBERS = 50
CONNECTIONS = 32
HELD = 1_000
#: Accounts of one ring: short ones meet most often.
RING_SIZES = (2, 3, 5, MEMBERS)
HANG_SECONDS = 60.0

pytestmark = pytest.mark.timeout(300)


class Traffic:
    """Transfers in rings among some accounts, from many connections, and what was answered."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self.accounts: list[str] = []
        self.answers: Counter[tuple[int, str | None]] = Counter()
        self.slowest_seconds = 0.0

    async def open(self) -> None:
        for number in range(MEMBERS):
            body = {"customer_id": f"cust_{number}", "initial_balance": str(HELD)}
            answer = await self._http.post(ACCOUNTS, json=body)
            assert answer.status_code == 201, answer.text
            self.accounts.append(answer.json()["id"])

    async def run(self) -> float:
        """Return the rate: answered transactions a second."""
        started = time.monotonic()
        await asyncio.gather(*(self._go_round(number, started + SECONDS) for number in range(CONNECTIONS)))
        return self.answers.total() / (time.monotonic() - started)

    async def balances(self) -> list[int]:
        found = [await self._http.get(f"{ACCOUNTS}/{account}/balance") for account in self.accounts]
        return [int(answer.json()["balance"]) for answer in found]

    async def _go_round(self, connection: int, end: float) -> None:
        """Send one transfer after the other round one ring after the other, half of the connections backwards."""
        choice = random.Random(connection)
        for number in itertools.count():
            ring = choice.sample(self.accounts, choice.choice(RING_SIZES))
            if connection % 2:
                ring.sort(key=self.accounts.index, reverse=connection % 4 == 1)
            for step, entries in enumerate(transfers_of(ring, choice)):
                if time.monotonic() >= end:
                    return
                await self._post(f"{connection}:{number}:{step}", entries)

    async def _post(self, key: str, entries: list[dict[str, str]]) -> None:
        started = time.monotonic()
        body = {"reference": "ring", "idempotency_key": key, "entries": entries}
        answer = await self._http.post(TRANSACTIONS, json=body)
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
        self.answers[answer.status_code, answer.json().get("error", {}).get("code")] += 1


def transfers_of(ring: list[str], choice: random.Random) -> list[list[dict[str, str]]]:
    """Return the entries of the transfers from each account to the next, and of one among all of a small ring."""
    amount = str(choice.randint(1, HELD // 2))
    pairs = list(zip(ring, ring[1:] + ring[:1], strict=True))
    singly = [[entry(source, "debit", amount), entry(target, "credit", amount)] for source, target in pairs]
    if len(ring) < MEMBERS:
        singly.append([side for transfer in singly for side in transfer])
    return singly


def entry(account_id: str, side: str, amount: str) -> dict[str, str]:
    return {"account_id": account_id, "side": side, "amount": amount}


async def go_round(url: str, key: str) -> tuple[Traffic, float, list[int]]:
    """Let the traffic run against an API, and return it with its rate and the balances after it."""
    limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    headers = {"x-api-key": key}
    async with httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=HANG_SECONDS) as http:
        traffic = Traffic(http)
        await traffic.open()
        rate = await traffic.run()
        return traffic, rate, await traffic.balances()


def test_no_deadlock_reaches_a_caller_and_the_sum_never_changes(serve_api: Any, settings: Settings) -> None:
    """Given two workers that share the lanes, when 50 accounts send each other money in rings from 32 connections, then
    every transfer is applied or refused for want of money, and there is as much money after it as before."""
    traffic, rate, balances = asyncio.run(go_round(*serve_api(workers=2)))

    log.info("%d transactions a second, the slowest in %.3f s: %s", rate, traffic.slowest_seconds, traffic.answers)
    assert set(traffic.answers) <= {(201, None), (422, "insufficient_balance")}
    assert traffic.answers[201, None] > 10 * CONNECTIONS
    assert sum(balances) == MEMBERS * HELD
    assert min(balances) >= 0
    report = verify(settings.require_database_url())
    assert report.failed == []
    assert report.decisions == traffic.answers[422, "insufficient_balance"]
