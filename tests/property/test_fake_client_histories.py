"""The client without servers answers every history as the naive ledger does, and reads it back as that has it."""

import pytest
from hypothesis import given, settings

from creditlane import Account, AccountNotFound, Settings
from creditlane.schemas.results import microseconds_of, moment_of
from creditlane.testing import FakeClient, FakeClock, FakeLedger

from .histories import ACCOUNTS, EPOCH_US, LONG, Sent, answer_of_result, batches
from .naive_ledger import NaiveLedger

STORES = ("store_one", "store_two")
pytestmark = pytest.mark.timeout(3_600 if LONG else 300)


def balance(client: FakeClient, account_id: str) -> int | None:
    try:
        return client.balance(account_id)
    except AccountNotFound:
        return None


@settings(max_examples=500 if LONG else 30, deadline=None)
@given(parts=batches(max_size=40))
def test_every_answer_balance_entry_and_hold_is_the_naive_ledgers(parts: list[tuple[int, list[Sent]]]) -> None:
    """Given any history and a clock that is moved on, when it is sent through a client without servers, then each
    answer, balance and hold is right."""
    clock = FakeClock(moment_of(EPOCH_US))
    naive, ledger = NaiveLedger(), FakeLedger(clock)
    clients = [FakeClient(Settings(store=store), ledger=ledger) for store in STORES]

    for now_us, part in parts:
        # This clock does not go back.
        clock.move_to(max(clock.now(), moment_of(now_us)))
        for store, command in part:
            result = clients[store].wait(clients[store].enqueue(command))

            # Between two decisions a microsecond passes.
            decided_us = microseconds_of(result.decided_at or clock.now())
            assert answer_of_result(result) == naive.submit(STORES[store], command.model_dump(), decided_us)

    naive.end_holds(microseconds_of(clock.now()))
    for client, name in zip(clients, STORES, strict=True):
        for account in client.accounts():
            check_account(client, account, naive, name)
        unopened = [account for account in ACCOUNTS if (name, account) not in naive.accounts]
        assert [balance(client, account) for account in unopened] == [None] * len(unopened)


def check_account(client: FakeClient, account: Account, naive: NaiveLedger, name: str) -> None:
    """Check that what is read of an account is what the naive ledger has."""
    entries = list(client.entries(account.id))
    assert account.balance == naive.balance(name, account.id)
    assert account.held == naive.held(name, account.id)
    assert account.available == naive.available(name, account.id)
    assert len(entries) == len(naive.entries(name, account.id))
    assert all(entry in client.transaction(entry.transaction_id).entries for entry in entries)
    assert {hold.id: (hold.status, hold.remaining, hold.captured) for hold in client.holds(account.id)} == {
        identifier: (hold["status"], hold["left"], hold["captured"])
        for identifier, hold in naive.holds(name, account.id).items()
    }
