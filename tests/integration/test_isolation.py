"""A store sees only what is its own, although all stores share tables, lanes and workers."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from creditlane import Client
from creditlane.schemas.commands import Close, Credit, Debit, Freeze, OpenAccount, Reverse
from creditlane.schemas.errors import AccountNotFound, InvalidCommand
from creditlane.schemas.settings import Settings

from .direct_store import DirectStore, add_store, codes

ANN = "cca_" + "a" * 32
ONE, OTHER = "store_one", "store_other"


@pytest.fixture
def store(database_url: str) -> Iterator[DirectStore]:
    """A worker's store, and two stores of customers that both opened an account of the same id, name and key."""
    for public_id in (ONE, OTHER):
        add_store(database_url, public_id)
    with DirectStore(database_url) as store:
        assert codes(store.apply(opening(100), store=ONE)) == ["applied"]
        assert codes(store.apply(opening(7), store=OTHER)) == ["applied"]
        yield store


def opening(balance: int) -> OpenAccount:
    return OpenAccount(account_id=ANN, idempotency_key="open", customer_id="ann", initial_balance=balance)


def debit(amount: int = 1, key: str = "same key") -> Debit:
    return Debit(account_id=ANN, idempotency_key=key, amount=amount, reference="r")


@pytest.mark.parametrize("careful", [False, True])
def test_one_key_in_two_stores_is_two_commands(store: DirectStore, careful: bool) -> None:
    one = store.apply(debit(30), store=ONE, careful=careful)[0]
    other = store.apply(debit(2), store=OTHER, careful=careful)[0]

    assert (one.balance, one.replayed) == (70, False)
    assert (other.balance, other.replayed) == (5, False)
    assert store.apply(debit(30), store=ONE, careful=True)[0].balance == 70
    assert store.apply(debit(2), store=OTHER, careful=True)[0].replayed


def test_one_account_id_in_two_stores_is_two_accounts(store: DirectStore) -> None:
    """Given one account id in two stores, when one of them is frozen and closed, then the other goes on."""
    store.apply(Freeze(account_id=ANN, idempotency_key="f"), store=ONE)
    assert codes(store.apply(debit(), store=ONE)) == ["account_frozen"]
    assert codes(store.apply(debit(), store=OTHER)) == ["applied"]

    store.apply(Close(account_id=ANN, idempotency_key="c"), store=ONE)
    assert codes(store.apply(debit(key="next"), store=OTHER)) == ["applied"]


def test_the_stores_do_not_share_money(store: DirectStore) -> None:
    assert codes(store.apply(debit(8), store=OTHER)) == ["insufficient_balance"]
    assert codes(store.apply(debit(100), store=ONE)) == ["applied"]


def test_a_transaction_of_another_store_cannot_be_reversed(store: DirectStore) -> None:
    """Given a transaction of the same id in two stores, when one reverses it, then the other's stands; one that is only
    in the other store is not found."""
    credited = Credit(account_id=ANN, idempotency_key="c", amount=5, reference="r")
    transaction_id = store.apply(credited, store=ONE)[0].transaction_id
    assert transaction_id is not None

    assert codes(store.apply(Reverse(account_id=ANN, transaction_id=transaction_id), store=OTHER)) == [
        "transaction_not_found"
    ]
    assert codes(store.apply(Reverse(account_id=ANN, transaction_id=transaction_id), store=ONE)) == ["applied"]
    assert store.apply(debit(), store=OTHER)[0].balance == 6


@pytest.mark.parametrize("careful", [False, True])
def test_both_stores_in_one_batch_stay_apart(store: DirectStore, careful: bool) -> None:
    """Given the same commands of two stores in one batch, then each is decided on its own store's account."""
    numbers = store.ledger_store.find_stores([ONE, OTHER])
    commands: Any = [((numbers[name], ANN), debit(key=f"k{n}")) for n in range(3) for name in (ONE, OTHER)]

    outcomes = store.ledger_store.transact(commands, {}, careful=careful)

    assert [outcome.row.balance_after for outcome in outcomes if outcome.row] == [99, 6, 98, 5, 97, 4]


@pytest.fixture
def clients(settings: Settings, store: DirectStore) -> Iterator[Callable[[str], Client]]:
    made: list[Client] = []

    def make(public_id: str) -> Client:
        client = Client(settings.model_copy(update={"store": public_id}))
        made.append(client)
        return client

    assert store
    yield make
    for client in made:
        client.close()


def test_a_client_reads_its_own_stores_account(clients: Callable[[str], Client]) -> None:
    assert clients(ONE).balance(ANN) == 100
    assert clients(OTHER).balance(ANN) == 7
    assert [entry.amount for entry in clients(OTHER).entries(ANN)] == [7]


def test_a_client_does_not_see_what_only_another_store_has(clients: Callable[[str], Client]) -> None:
    nobody = clients("store_default")

    with pytest.raises(AccountNotFound):
        nobody.account(ANN)
    with pytest.raises(AccountNotFound):
        nobody.balance(ANN)
    with pytest.raises(AccountNotFound):
        list(nobody.entries(ANN))


def test_a_ticket_opens_nothing_in_another_store(clients: Callable[[str], Client]) -> None:
    """Given the ticket of one store's command, when another store's client asks with it, then it is refused."""
    ticket = clients(ONE).enqueue(debit())

    with pytest.raises(InvalidCommand, match="another store"):
        clients(OTHER).result(str(ticket))


def test_a_client_cannot_send_in_anothers_name(clients: Callable[[str], Client]) -> None:
    with pytest.raises(InvalidCommand, match="store_id: must be left out or store_one") as refusal:
        clients(ONE).enqueue(debit().model_copy(update={"store_id": OTHER}))

    assert refusal.value.field == "store_id"


def test_every_unique_rule_of_a_growing_table_contains_the_store(database_url: str) -> None:
    """Given the tables that grow with use, then no unique rule reaches over two of the stores."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index "
            "where indisunique and indrelid::regclass::text in ('journal', 'accounts', 'dead_letters', 'api_keys')"
        ).fetchall()

    assert len(rows) == 6
    assert [name for name, definition in rows if "(store_id, " not in definition] == []
