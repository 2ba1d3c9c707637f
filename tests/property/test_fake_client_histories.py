"""The client without servers answers every history as the naive ledger does, and reads it back as that has it."""

from hypothesis import given, settings

from creditlane import AccountNotFound, Settings
from creditlane.testing import FakeClient, FakeLedger

from .histories import ACCOUNTS, CHANGING, LONG, MOVING, Sent, answer_of_result, histories
from .naive_ledger import NaiveLedger

STORES = ("store_one", "store_two")


def balance(client: FakeClient, account_id: str) -> int | None:
    try:
        return client.balance(account_id)
    except AccountNotFound:
        return None


@settings(max_examples=500 if LONG else 30, deadline=None)
@given(history=histories(max_size=40, of=(MOVING, CHANGING)))
def test_every_answer_balance_and_entry_is_the_naive_ledgers(history: list[Sent]) -> None:
    """Given any history, when it is sent through a client without servers, then each answer and balance is right."""
    naive, ledger = NaiveLedger(), FakeLedger()
    clients = [FakeClient(Settings(store=store), ledger=ledger) for store in STORES]

    results = [clients[sent.store].wait(clients[sent.store].enqueue(sent.command)) for sent in history]

    expected = [naive.submit(STORES[sent.store], sent.command.model_dump()) for sent in history]
    assert [answer_of_result(result) for result in results] == expected
    for client, store in zip(clients, STORES, strict=True):
        for account in client.accounts():
            entries = list(client.entries(account.id))
            assert account.balance == naive.balance(store, account.id)
            assert len(entries) == len(naive.entries(store, account.id))
            assert all(entry in client.transaction(entry.transaction_id).entries for entry in entries)
        unopened = [account for account in ACCOUNTS if (store, account) not in naive.accounts]
        assert [balance(client, account) for account in unopened] == [None] * len(unopened)
