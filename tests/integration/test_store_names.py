"""The name of an open account is its customer's own, whoever opens it, in whatever batch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from creditlane.schemas.commands import AnyCommand, Close, Freeze, OpenAccount

from .direct_store import DirectStore, add_store, codes

ANN, BOB, CAT = (f"cca_{letter * 32}" for letter in "abc")
_numbers = count()


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
    database_url: str, store: DirectStore, commands: list[AnyCommand], expected: list[str], careful: bool
) -> None:
    """Given commands that free and take one name, when they come in one batch or one by one, then the results agree."""
    add_store(database_url, "store_other")

    assert codes(store.apply(*commands, careful=careful)) == expected
    assert [codes(store.apply(command, store="store_other"))[0] for command in commands] == expected


def test_concurrent_openings_of_one_name_have_one_winner(database_url: str) -> None:
    """Given two workers, when they open accounts of the same names at once, in opposite orders, then each name is given
    once and neither waits for ever."""
    names = [f"name {number}" for number in range(20)]

    def open_all(worker: int) -> list[str]:
        ordered = names if worker == 0 else names[::-1]
        batch = [opening(f"cca_{worker}{position:031x}", name) for position, name in enumerate(ordered)]
        with DirectStore(database_url, f"worker {worker}") as store:
            return codes(store.apply(*batch, careful=True))

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(open_all, range(2)))

    assert sorted(results[0] + results[1]) == ["account_name_taken"] * 20 + ["applied"] * 20
    assert [one == "applied" for one in results[0]] == [other != "applied" for other in reversed(results[1])]
