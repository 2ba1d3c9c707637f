"""Uses a ledger as an application does, until it is asked to stop: every kind of call, on accounts of all lanes.

It is run with each of the releases, so it imports nothing but the public names of the package. Arguments: what its keys
begin with, the file for what it did, a URL or `-`, the accounts. Each line of the file is one call: its key, what it
moved if it was applied, or what went wrong, which nothing may. The URL gets reversals. It prints which package it
has imported.
"""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import creditlane
from creditlane import Client, Credit, Debit, InsufficientBalance, Result

#: Pause between calls, in seconds: others use the machine, too.
PAUSE_SECONDS = 0.03
#: When a scheduled command is due, in seconds from its call.
DUE_SECONDS = 1.0
#: Commands that are sent at once.
BULK = 5
INITIAL_BALANCE = 10**9
#: More than any account ever has.
TOO_MUCH = 10**15

Moves = list[tuple[str, int]]


class Load:
    """What one program asks for. Every call gives what was moved."""

    def __init__(self, client: Client, name: str, accounts: list[str]) -> None:
        self._client = client
        self._name = name
        self._accounts = accounts
        self._calls: list[Callable[[str, str, str], Moves]] = [
            self.debit,
            self.credit,
            self.post,
            self.bulk,
            self.debit,
            self.reverse,
            self.refused,
            self.schedule,
            self.again,
        ]
        #: The latest debit: its key, its account and its transaction.
        self._latest: tuple[str, str, str] | None = None

    def open_accounts(self) -> None:
        """Open the accounts, or find that another program has."""
        for account in self._accounts:
            key = f"open {account}"
            self._client.open_account(
                account_id=account, customer_id=account, initial_balance=INITIAL_BALANCE, idempotency_key=key
            )

    def calls(self) -> Iterator[dict[str, Any]]:
        """Make one call after another, and yield what became of each."""
        for number in count():
            call = self._calls[number % len(self._calls)]
            key = f"{self._name} {number}"
            # There are not as many accounts as kinds of calls, so that each gets each kind in time.
            account, other = (self._accounts[(number + offset) % len(self._accounts)] for offset in (0, 1))
            line: dict[str, Any] = {"call": call.__name__, "key": key}
            try:
                yield {**line, "moved": call(key, account, other)}
            except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to know it
                yield {**line, "failed": repr(error)}

    def debit(self, key: str, account: str, _other: str) -> Moves:
        result = self._client.debit(account, 3, reference=key, idempotency_key=key)
        self._latest = key, account, str(result.transaction_id)
        return [(account, -3)]

    def credit(self, key: str, account: str, _other: str) -> Moves:
        ticket = self._client.enqueue(Credit(account_id=account, amount=7, reference=key, idempotency_key=key))
        self._client.balance(account, after=ticket)
        result = self._client.wait(ticket)
        if result.replayed:
            raise RuntimeError(f"{key}: replayed")
        return [(account, 7)]

    def post(self, key: str, account: str, other: str) -> Moves:
        entries = [
            {"account_id": account, "side": "debit", "amount": 2},
            {"account_id": other, "side": "credit", "amount": 2},
        ]
        self._client.post(entries, reference=key, idempotency_key=key)
        return [(account, -2), (other, 2)]

    def bulk(self, key: str, account: str, other: str) -> Moves:
        commands = [
            Debit(account_id=to, amount=1, reference=key, idempotency_key=f"{key} {number}")
            for number, to in enumerate([account, other] * BULK)
        ]
        results = list(self._client.wait_many(self._client.enqueue_many(commands, keep_results=True)))
        if [result.status for result in results] != ["applied"] * len(commands):
            raise RuntimeError(f"{key}: {results}")
        return [(account, -BULK), (other, -BULK)]

    def reverse(self, key: str, _account: str, _other: str) -> Moves:
        if self._latest is None:
            raise RuntimeError(f"{key}: nothing to reverse")
        _, account, transaction = self._latest
        result = self._client.reverse(account, transaction)
        return [] if result.replayed else [(account, 3)]

    def refused(self, key: str, account: str, _other: str) -> Moves:
        try:
            self._client.debit(account, TOO_MUCH, reference=key, idempotency_key=key)
        except InsufficientBalance:
            return []
        raise RuntimeError(f"{key}: applied")

    def schedule(self, key: str, account: str, _other: str) -> Moves:
        command = Credit(account_id=account, amount=5, reference=key, idempotency_key=key)
        self._client.schedule(command, at=datetime.now(UTC) + timedelta(seconds=DUE_SECONDS))
        return [(account, 5)]

    def again(self, key: str, _account: str, _other: str) -> Moves:
        if self._latest is None:
            raise RuntimeError(f"{key}: nothing to repeat")
        first, account, transaction = self._latest
        result: Result = self._client.debit(account, 3, reference=first, idempotency_key=first)
        if (result.replayed, str(result.transaction_id)) != (True, transaction):
            raise RuntimeError(f"{first}: first {transaction}, then {result}")
        return []


def main() -> None:
    name, path, url, *accounts = sys.argv[1:]
    print(creditlane.__file__, flush=True)  # noqa: T201 - the test reads it
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with Client.from_env() as client, Path(path).open("a", buffering=1) as file:
        if url != "-":
            client.webhooks.create(url=url, events=["credits.reversed"])
        load = Load(client, name, accounts)
        load.open_accounts()
        for line in load.calls():
            file.write(f"{json.dumps(line)}\n")
            if stopping.wait(PAUSE_SECONDS):
                break


if __name__ == "__main__":
    main()
