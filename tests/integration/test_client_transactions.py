"""The clients post transactions of several entries, attach metadata, and reverse whole transactions."""

from collections.abc import Callable

import pytest

from creditlane import (
    AccountNotFound,
    Client,
    Debit,
    IdempotencyKeyMismatch,
    InsufficientBalance,
    InvalidCommand,
    OpenAccount,
    Post,
    PostEntry,
    Settings,
    TransactionNotFound,
    UnbalancedTransaction,
)

pytestmark = [pytest.mark.usefixtures("running_worker"), pytest.mark.conformance]

DEADLINE_SECONDS = 60.0
METADATA = {"zone": "eu", "a": "1", "longer name": "x", "b": ""}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})


def transfer(source: str, target: str, amount: int) -> list[dict[str, object]]:
    return [
        {"account_id": source, "side": "debit", "amount": amount},
        {"account_id": target, "side": "credit", "amount": amount},
    ]


def test_a_transaction_of_several_entries_moves_all_or_nothing(client: Client) -> None:
    ann = client.open_account(customer_id="ann", initial_balance=100)
    bob = client.open_account(customer_id="bob")

    done = client.post(transfer(ann.id, bob.id, 30), reference="gift", idempotency_key="gift")
    again = client.post(transfer(ann.id, bob.id, 30), reference="gift", idempotency_key="gift")
    with pytest.raises(InsufficientBalance):
        client.post(transfer(ann.id, bob.id, 71), reference="gift", idempotency_key="too much")
    with pytest.raises(UnbalancedTransaction):
        client.post(
            [
                PostEntry(account_id=ann.id, side="debit", amount=1),
                PostEntry(account_id=bob.id, side="credit", amount=2),
            ],
            reference="gift",
            idempotency_key="unbalanced",
        )

    assert (done.transaction_id, done.balance, done.replayed) == (again.transaction_id, 70, False)
    assert again.replayed
    assert (client.balance(ann.id), client.balance(bob.id)) == (70, 30)


def test_entries_of_one_transaction_carry_its_id_and_key_on_every_account(client: Client) -> None:
    ann = client.open_account(customer_id="ann", initial_balance=100)
    bob = client.open_account(customer_id="bob")

    done = client.post(transfer(ann.id, bob.id, 30), reference="gift", idempotency_key="gift")
    (entry,) = client.entries(bob.id)

    assert (entry.transaction_id, entry.idempotency_key, entry.reference) == (done.transaction_id, "gift", "gift")
    assert (entry.side, entry.amount, entry.balance_after, entry.reversal_of) == ("credit", 30, 30, None)


def test_a_transaction_is_reversed_by_whichever_of_its_accounts(client: Client) -> None:
    ann = client.open_account(customer_id="ann", initial_balance=100)
    bob = client.open_account(customer_id="bob")
    cat = client.open_account(customer_id="cat")
    done = client.post(transfer(ann.id, bob.id, 30), reference="gift", idempotency_key="gift")

    with pytest.raises(TransactionNotFound):
        client.reverse(cat.id, str(done.transaction_id))
    undone = client.reverse(bob.id, str(done.transaction_id))
    again = client.reverse(ann.id, str(done.transaction_id))

    assert undone.reversal_of == done.transaction_id
    assert (again.transaction_id, again.replayed) == (undone.transaction_id, True)
    assert (client.balance(ann.id), client.balance(bob.id)) == (100, 0)
    assert [entry.reversal_of for entry in client.entries(bob.id)] == [done.transaction_id, None]


def test_metadata_is_kept_with_an_account_and_is_part_of_the_request(client: Client) -> None:
    account = client.open_account(customer_id="ann", initial_balance=100, metadata=METADATA)

    client.debit(account.id, 1, reference="r", idempotency_key="k", metadata=METADATA)
    again = client.debit(account.id, 1, reference="r", idempotency_key="k", metadata=dict(reversed(METADATA.items())))
    with pytest.raises(IdempotencyKeyMismatch) as caught:
        client.debit(account.id, 1, reference="r", idempotency_key="k", metadata={"zone": "us"})

    assert account.metadata == client.account(account.id).metadata == METADATA
    assert again.replayed
    assert caught.value.details == {"fields": ["metadata"]}


def test_results_of_posts_and_of_metadata_are_found_in_postgres(
    make_client: Callable[[Settings], Client], settings: Settings
) -> None:
    client = make_client(settings)
    ann = client.open_account(customer_id="ann", initial_balance=100)
    bob = client.open_account(customer_id="bob")
    commands = [
        Post(reference="r", idempotency_key="post", metadata=METADATA, entries=transfer(ann.id, bob.id, 1)),  # type: ignore[arg-type]
        Debit(account_id=ann.id, amount=1, reference="r", idempotency_key="debit", metadata=METADATA),
        OpenAccount(customer_id="cat", idempotency_key="open", metadata=METADATA),
        Debit(store_id=settings.store, account_id=ann.id, amount=1, reference="r", idempotency_key="with store"),
    ]
    tickets = [str(ticket) for ticket in client.enqueue_many(commands)]
    client.close()

    # Another process, to which nothing was announced.
    other = make_client(settings)
    results = [other.wait(ticket, DEADLINE_SECONDS) for ticket in tickets]

    assert [result.status for result in results] == ["applied"] * len(commands)


@pytest.mark.parametrize("entries", [[], [{"account_id": "cca_" + "0" * 32, "side": "debit", "amount": 1}]])
def test_a_transaction_needs_two_entries(client: Client, entries: list[dict[str, object]]) -> None:
    with pytest.raises(InvalidCommand) as caught:
        client.post(entries, reference="r", idempotency_key="k")

    assert caught.value.field == "entries"


def test_a_transaction_with_an_unknown_account_moves_nothing(client: Client) -> None:
    ann = client.open_account(customer_id="ann", initial_balance=100)

    with pytest.raises(AccountNotFound):
        client.post(transfer(ann.id, "cca_" + "0" * 32, 1), reference="r", idempotency_key="k")

    assert client.balance(ann.id) == 100
