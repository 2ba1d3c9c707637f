"""What is decided and subscribed to stands in the outbox, once, in order, exactly when it stands in the journal."""

from collections.abc import Iterator

import psycopg
import pytest

from creditlane.lanes.routing import partition_of
from creditlane.schemas.commands import (
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    Unfreeze,
)
from creditlane.worker.store.transaction import PartitionsLost

from ..conftest import PARTITIONS
from .direct_store import DirectStore, add_store, codes
from .outbox_reading import change_status, published_positions, read_outbox, subscribe

ANN, BOB, CAT = ("cca_" + letter * 32 for letter in "abc")
URL = "https://example.com/hook?a=b"
FIRST = f"cct_{ANN[4:]}2"


@pytest.fixture
def store(database_url: str) -> Iterator[DirectStore]:
    with DirectStore(database_url) as store:
        yield store


def opening(account_id: str, initial_balance: int = 100) -> OpenAccount:
    return OpenAccount(
        account_id=account_id,
        idempotency_key=f"open {account_id}",
        customer_id="c",
        name=account_id,
        initial_balance=initial_balance,
    )


def debit(key: str, amount: int = 5, account_id: str = ANN, **more: str) -> Debit:
    return Debit(account_id=account_id, idempotency_key=key, amount=amount, reference="r", **more)  # type: ignore[arg-type]


def transfer(key: str, *entries: tuple[str, str, int], **more: str) -> Post:
    sides = tuple(PostEntry(account_id=account, side=side, amount=amount) for account, side, amount in entries)  # type: ignore[arg-type]
    return Post(idempotency_key=key, reference="r", entries=sides, **more)  # type: ignore[arg-type]


#: One command for each sort of event, and the position in the journal that records it.
HISTORY: list[tuple[Command, int]] = [
    (opening(ANN), 1),
    (debit("d"), 2),
    (Credit(account_id=ANN, idempotency_key="c", amount=3, reference="r"), 3),
    (Reverse(account_id=ANN, transaction_id=FIRST), 4),
    (debit("too much", 1_000), -1),
    (Freeze(account_id=ANN, idempotency_key="f"), -2),
    (debit("frozen"), -3),
    (Unfreeze(account_id=ANN, idempotency_key="u"), -4),
    (debit("after"), 5),
    (Close(account_id=ANN, idempotency_key="x"), -5),
]


@pytest.mark.parametrize(
    ("events", "seqs"),
    [
        ((), [1, 2, 3, 4, -1, -2, -3, -4, 5, -5]),
        (("credits.granted",), [1, 3]),
        (("credits.consumed",), [2, 5]),
        (("credits.reversed",), [4]),
        (("account.created",), [1]),
        (("account.frozen", "account.unfrozen"), [-2, -4]),
        (("account.closed",), [-5]),
        (("balance.low",), [2, 5]),
        (("command.rejected",), [-1, -3]),
    ],
)
@pytest.mark.parametrize("in_one_batch", [True, False])
def test_what_is_subscribed_to_is_published_in_order_with_its_number_in_the_account(
    store: DirectStore, database_url: str, events: tuple[str, ...], seqs: list[int], in_one_batch: bool
) -> None:
    subscribe(database_url, *events)
    commands = [command for command, _ in HISTORY]

    for batch in [commands] if in_one_batch else [[command] for command in commands]:
        store.apply(*batch)

    order = [seq for _, seq in HISTORY]
    assert published_positions(database_url) == [(ANN, seq, order.index(seq) + 1) for seq in seqs]
    assert store.ledger_store.take_outbox_written()
    assert not store.ledger_store.take_outbox_written()


def test_an_account_that_opens_with_nothing_is_published_as_created_and_not_as_granted(
    store: DirectStore, database_url: str
) -> None:
    add_store(database_url, "store_b")
    subscribe(database_url, "account.created")
    subscribe(database_url, "credits.granted", store="store_b")

    store.apply(opening(ANN, 0))
    store.apply(opening(BOB, 0), store="store_b")

    assert [(row.store, row.positions) for row in read_outbox(database_url)] == [("store_default", [(ANN, -1, 1)])]


def test_a_store_without_endpoints_leaves_nothing(store: DirectStore, database_url: str) -> None:
    add_store(database_url, "store_b")
    subscribe(database_url)

    store.apply(opening(ANN), debit("d"), debit("too much", 1_000), store="store_b")

    assert read_outbox(database_url) == []
    assert not store.ledger_store.take_outbox_written()


def test_several_endpoints_of_a_store_want_what_any_of_them_wants(store: DirectStore, database_url: str) -> None:
    subscribe(database_url, "command.rejected")
    subscribe(database_url, "account.created", "credits.consumed")

    store.apply(
        opening(ANN, 0), Credit(account_id=ANN, idempotency_key="c", amount=9, reference="r"), debit("d"), debit("e")
    )

    assert [seq for _, seq, _ in published_positions(database_url)] == [-1, 2, -2]


def test_an_endpoint_misses_nothing_that_is_sent_after_it_was_made(store: DirectStore, database_url: str) -> None:
    store.apply(opening(ANN))
    endpoint = subscribe(database_url)
    store.apply(debit("1"))
    change_status(database_url, endpoint, 2)
    store.apply(debit("2"))
    change_status(database_url, endpoint, 1)
    store.apply(debit("3"))

    assert published_positions(database_url) == [(ANN, 2, 2), (ANN, 4, 4)]


def test_a_batch_that_is_rolled_back_leaves_nothing(store: DirectStore, database_url: str) -> None:
    subscribe(database_url)
    store.apply(opening(ANN))

    with DirectStore(database_url, "another") as another:
        another.apply(debit("first"))
    with pytest.raises(psycopg.errors.UniqueViolation):
        store.apply(debit("collides"))
    with pytest.raises(PartitionsLost):
        store.apply(debit("lost"), epochs={partition_of(ANN, PARTITIONS): 7})
    store.apply(debit("collides"))

    assert published_positions(database_url) == [(ANN, 1, 1), (ANN, 2, 2), (ANN, 3, 3)]


def test_a_part_that_fails_takes_the_events_of_the_part_before_along(store: DirectStore, database_url: str) -> None:
    """Given a batch that is decided in two parts, when the second cannot be stored, then the first was not either."""
    store.apply(opening(ANN), debit("used"))
    subscribe(database_url)
    parts = [debit("d"), Close(account_id=ANN, idempotency_key="x"), opening(BOB)]

    with pytest.raises(psycopg.errors.UniqueViolation):
        store.apply(*parts, debit("used", account_id=BOB))

    assert read_outbox(database_url) == []
    store.apply(*parts)
    assert [row.positions for row in read_outbox(database_url)] == [[(ANN, 3, 3), (ANN, -1, 4)], [(BOB, 1, 1)]]


def test_a_command_that_is_delivered_again_is_no_event(store: DirectStore, database_url: str) -> None:
    subscribe(database_url)
    commands = [opening(ANN), debit("d"), debit("too much", 1_000)]

    store.apply(*commands, debit("d"))
    store.apply(*commands, debit("new"), careful=True)

    assert published_positions(database_url) == [(ANN, 1, 1), (ANN, 2, 2), (ANN, -1, 3), (ANN, 3, 4)]


def test_a_transaction_over_several_accounts_and_lanes_is_published_entry_by_entry(
    store: DirectStore, database_url: str
) -> None:
    store.apply(opening(ANN), opening(BOB), opening(CAT))
    subscribe(database_url)
    assert len({partition_of(account, PARTITIONS) for account in (ANN, BOB, CAT)}) > 1

    store.apply(
        debit("before", account_id=BOB),
        transfer("post", (ANN, "debit", 5), (BOB, "credit", 3), (ANN, "credit", 2)),
        debit("after", account_id=BOB),
        transfer("refused", (CAT, "debit", 500), (ANN, "credit", 500)),
        Reverse(account_id=ANN, transaction_id=FIRST),
    )

    assert published_positions(database_url) == [
        (BOB, 2, 2),
        (ANN, 2, 2),
        (BOB, 3, 3),
        (ANN, 3, 3),
        (BOB, 4, 4),
        (CAT, -1, 2),
        (ANN, 4, 4),
        (BOB, 5, 5),
        (ANN, 5, 5),
    ]


def test_two_stores_in_one_batch_have_a_row_each(store: DirectStore, database_url: str) -> None:
    """Given two stores with an account of the same id, when one batch moves both, then each hears of its own."""
    add_store(database_url, "store_b")
    add_store(database_url, "store_c")
    for name in ("store_default", "store_b"):
        subscribe(database_url, store=name)
    numbers = store.ledger_store.find_stores(["store_default", "store_b", "store_c"])

    store.ledger_store.transact(
        [((number, ANN), command) for command in (opening(ANN), debit("d")) for number in numbers.values()], {}
    )

    assert sorted(read_outbox(database_url)) == [
        ("store_b", [(ANN, 1, 1), (ANN, 2, 2)], None),
        ("store_default", [(ANN, 1, 1), (ANN, 2, 2)], None),
    ]


def test_a_batch_that_is_decided_in_parts_reports_them_in_order(store: DirectStore, database_url: str) -> None:
    subscribe(database_url)

    store.apply(opening(ANN), Close(account_id=ANN, idempotency_key="x"), opening(BOB), debit("d", account_id=BOB))

    assert [row.positions for row in read_outbox(database_url)] == [
        [(ANN, 1, 1), (ANN, -1, 2)],
        [(BOB, 1, 1), (BOB, 2, 2)],
    ]


def callback(key: str, seq: int | None, sequence: int | None, **more: object) -> dict[str, object]:
    return {
        "url": URL,
        "idempotency_key": key,
        "account_id": ANN,
        "seq": seq,
        "sequence": sequence,
        "refusal": None,
        **more,
    }


def test_a_callback_is_written_without_any_endpoint(store: DirectStore, database_url: str) -> None:
    add_store(database_url, "store_b")
    subscribe(database_url, store="store_b")

    store.apply(opening(ANN), debit("d", callback_url=URL), debit("plain"), debit("too much", 1_000, callback_url=URL))
    store.apply(debit("plain 2"))

    assert read_outbox(database_url) == [("store_default", [], [callback("d", 2, 2), callback("too much", -1, 4)])]
    assert store.ledger_store.take_outbox_written()


def test_callbacks_stand_beside_what_is_subscribed_to(store: DirectStore, database_url: str) -> None:
    subscribe(database_url, "credits.consumed")

    store.apply(opening(ANN), debit("d", callback_url=URL))

    assert read_outbox(database_url) == [("store_default", [(ANN, 2, 2)], [callback("d", 2, 2)])]


def test_a_repeated_command_is_called_back_with_the_first_result(store: DirectStore, database_url: str) -> None:
    other = "http://other.example:8080/"
    store.apply(opening(ANN), debit("d"))

    results = store.apply(debit("d", callback_url=URL), debit("d", callback_url=other), careful=True)

    assert [result.replayed for result in results] == [True, True]
    assert read_outbox(database_url) == [
        ("store_default", [], [callback("d", 2, None), callback("d", 2, None, url=other)])
    ]


def test_a_key_of_another_request_is_called_back_with_the_refusal(store: DirectStore, database_url: str) -> None:
    store.apply(opening(ANN), debit("d"))

    assert codes(store.apply(debit("d", 6, callback_url=URL), careful=True)) == ["idempotency_key_mismatch"]

    [row] = read_outbox(database_url)
    assert row.callbacks is not None
    refusal = row.callbacks[0].pop("refusal")
    assert row.callbacks == [{name: value for name, value in callback("d", None, None).items() if name != "refusal"}]
    assert (refusal["code"], refusal["details"]) == ("idempotency_key_mismatch", {"fields": ["amount"]})
    assert "another amount" in refusal["message"]


def test_every_kind_of_command_is_called_back(store: DirectStore, database_url: str) -> None:
    with_url = [command.model_copy(update={"callback_url": URL}) for command, _ in HISTORY]

    store.apply(*with_url)

    assert read_outbox(database_url) == [
        (
            "store_default",
            [],
            [
                callback(command.idempotency_key, seq, sequence)
                for sequence, (command, seq) in enumerate(HISTORY, start=1)
            ],
        )
    ]


def test_a_post_is_called_back_with_its_first_entry(store: DirectStore, database_url: str) -> None:
    store.apply(opening(ANN), opening(BOB))

    store.apply(transfer("p", (ANN, "debit", 5), (BOB, "credit", 5), callback_url=URL))
    store.apply(Reverse(account_id=ANN, transaction_id=FIRST, callback_url=URL, idempotency_key=f"reversal:{FIRST}:1"))
    store.apply(Reverse(account_id=ANN, transaction_id=FIRST, callback_url=URL, idempotency_key=f"reversal:{FIRST}:2"))

    assert [row.callbacks for row in read_outbox(database_url)] == [
        [callback("p", 2, 2)],
        [callback(f"reversal:{FIRST}:1", 3, 3)],
        [callback(f"reversal:{FIRST}:2", 3, None)],
    ]
