"""The name of an open account is its customer's own, whoever opens it, in whatever batch."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import psycopg
import pytest

from creditlane.schemas.commands import Close, Command, Freeze, OpenAccount

from .direct_store import DirectStore, add_store, codes

ANN, BOB, CAT = (f"cca_{letter * 32}" for letter in "abc")
_numbers = count()
#: How long what is awaited may take.
DEADLINE_SECONDS = 30


@pytest.fixture
def store(database_url: str) -> Iterator[DirectStore]:
    with DirectStore(database_url) as store:
        yield store


def opening(account_id: str, name: str = "main", customer: str = "customer") -> OpenAccount:
    key = f"open {next(_numbers)}"
    return OpenAccount(account_id=account_id, idempotency_key=key, customer_id=customer, name=name)


def closing(account_id: str) -> Close:
    return Close(account_id=account_id, idempotency_key=f"close {next(_numbers)}")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("main", "main"),
        ("main", "  main\t"),
        ("main", "MAIN"),
        ("Straße", "STRASSE"),
        ("caf\u00e9", "CAFE\u0301"),
        ("\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c3"),
    ],
)
@pytest.mark.parametrize("careful", [False, True])
def test_a_name_is_taken_in_whatever_way_it_is_written(
    store: DirectStore, first: str, second: str, careful: bool
) -> None:
    """Given an open account, when its customer opens another of the same name in other letters, then it is refused."""
    assert codes(store.apply(opening(ANN, first), careful=careful)) == ["applied"]

    assert codes(store.apply(opening(BOB, second), careful=careful)) == ["account_name_taken"]


@pytest.mark.parametrize(("first", "second"), [("main", "mai n"), ("a", "b"), ("cafe", "caf\u00e9"), ("1", "\u00b9")])
def test_names_that_differ_are_both_free(store: DirectStore, first: str, second: str) -> None:
    assert codes(store.apply(opening(ANN, first), opening(BOB, second))) == ["applied", "applied"]


def test_a_name_belongs_to_one_customer_of_one_store(store: DirectStore, database_url: str) -> None:
    """Given an account, when another customer, or another store, opens one of its name, then it opens."""
    add_store(database_url, "store_other")
    store.apply(opening(ANN))

    assert codes(store.apply(opening(BOB, customer="somebody else"))) == ["applied"]
    assert codes(store.apply(opening(ANN), store="store_other")) == ["applied"]


def test_the_first_of_one_batch_gets_the_name(store: DirectStore) -> None:
    assert codes(store.apply(opening(CAT), opening(ANN), opening(BOB))) == [
        "applied",
        "account_name_taken",
        "account_name_taken",
    ]


def test_a_refused_account_does_not_exist(store: DirectStore) -> None:
    """Given an opening refused for its name, then its id is still free for an opening under another name."""
    store.apply(opening(ANN))
    assert codes(store.apply(opening(BOB))) == ["account_name_taken"]

    assert codes(store.apply(Freeze(account_id=BOB, idempotency_key="freeze"))) == ["account_not_found"]
    assert codes(store.apply(opening(BOB, "second"))) == ["applied"]


@pytest.mark.parametrize("status", ["active", "frozen"])
def test_closing_gives_the_name_back(store: DirectStore, status: str) -> None:
    store.apply(opening(ANN))
    if status == "frozen":
        store.apply(Freeze(account_id=ANN, idempotency_key="freeze"))
        assert codes(store.apply(opening(BOB))) == ["account_name_taken"]
    store.apply(closing(ANN))

    assert codes(store.apply(opening(BOB))) == ["applied"]


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([opening(ANN), closing(ANN), opening(BOB)], ["applied", "applied", "applied"]),
        ([opening(ANN), opening(BOB), closing(ANN)], ["applied", "account_name_taken", "applied"]),
        (
            [opening(ANN), closing(ANN), opening(BOB), opening(CAT), closing(BOB), opening(CAT)],
            ["applied", "applied", "applied", "account_name_taken", "applied", "applied"],
        ),
        ([opening(ANN), opening(BOB), opening(BOB, "second")], ["applied", "account_name_taken", "applied"]),
        ([opening(ANN), opening(ANN, "second")], ["applied", "account_exists"]),
        ([opening(ANN), closing(ANN), opening(ANN)], ["applied", "applied", "account_exists"]),
    ],
)
def test_a_batch_gives_what_its_commands_one_by_one_give(
    database_url: str, store: DirectStore, commands: list[Command], expected: list[str], careful: bool
) -> None:
    """Given commands that free and take one name, when they come in one batch or one by one, then the results agree."""
    add_store(database_url, "store_other")

    assert codes(store.apply(*commands, careful=careful)) == expected
    assert [codes(store.apply(command, store="store_other"))[0] for command in commands] == expected


def test_concurrent_openings_of_one_name_have_one_winner(database_url: str) -> None:
    """Given two workers in the midst of opening accounts of the same names, in opposite orders, when they go on, then
    each name is given once, and neither waits for the other in a circle."""
    names = ["a", "k", "z"]

    def open_all(worker: int) -> list[str]:
        ordered = names if worker == 0 else names[::-1]
        batch = [opening(f"cca_{worker}{position:031x}", name) for position, name in enumerate(ordered)]
        with DirectStore(database_url, f"worker {worker}") as store:
            return codes(store.apply(*batch))[:: 1 if worker == 0 else -1]

    with psycopg.connect(database_url) as holder, ThreadPoolExecutor(2) as pool:
        # Whoever comes to k waits here.
        holder.execute(
            "insert into accounts values (1, gen_random_uuid(), 'customer', 'k', 'k', 'credits', 1, 0, now(), now())"
        )
        workers = [pool.submit(open_all, worker) for worker in range(2)]
        wait_for_waiting(database_url, len(workers))
        holder.rollback()
        results = [worker.result(DEADLINE_SECONDS) for worker in workers]

    assert [sorted(pair) for pair in zip(*results, strict=True)] == [["account_name_taken", "applied"]] * len(names)


def wait_for_waiting(database_url: str, count: int) -> None:
    """Return when this many sessions of the database wait for a lock."""
    statement = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    deadline = time.monotonic() + DEADLINE_SECONDS
    with psycopg.connect(database_url, autocommit=True) as watcher:
        while watcher.execute(statement).fetchone() != (count,):
            assert time.monotonic() < deadline, "the workers do not meet"
