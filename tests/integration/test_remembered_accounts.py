"""What a worker remembers of accounts is never older than its lease."""

from collections.abc import Iterator

import psycopg
import pytest

from creditlane.schemas.commands import AnyCommand, Debit, Freeze, OpenAccount
from creditlane.schemas.encoding import encode_command
from creditlane.schemas.identifiers import derive_account_id
from creditlane.schemas.settings import DEFAULT_STORE
from creditlane.worker.applier import Applier
from creditlane.worker.ledger import Verdict
from creditlane.worker.requests import Batch, parse_request
from creditlane.worker.store import LedgerStore

ACCOUNT = derive_account_id(DEFAULT_STORE, "open")


@pytest.fixture
def first_and_second(database_url: str) -> Iterator[tuple[Applier, Applier]]:
    """Two workers' appliers, each with a connection of its own. No leases are checked."""
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as other:
        yield Applier(LedgerStore(one, "first")), Applier(LedgerStore(other, "second"))


def apply(applier: Applier, command: AnyCommand, *, owned: dict[int, int]) -> Verdict:
    request = parse_request(3, b"1-1", [b"c", encode_command(command, DEFAULT_STORE)])
    (verdict,) = applier.apply(Batch([request], {}, owned))
    return verdict


def debit(key: str) -> Debit:
    return Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key=key)


def test_a_status_that_another_owner_set_in_between_is_seen_when_the_lane_comes_back(
    first_and_second: tuple[Applier, Applier],
) -> None:
    # Given a worker that remembers an active account well past its first, careful batches
    first, second = first_and_second
    opening = OpenAccount(account_id=ACCOUNT, customer_id="c", idempotency_key="open", initial_balance=100)
    apply(first, opening, owned={3: 1})
    for number in range(5):
        apply(first, debit(f"before-{number}"), owned={3: 1})
    # When the lane goes to another worker, which freezes the account, and comes back under a new epoch
    apply(second, Freeze(account_id=ACCOUNT, idempotency_key="freeze"), owned={3: 2})
    verdict = apply(first, debit("after"), owned={3: 3})
    # Then the debit meets the frozen account
    assert verdict.row is not None
    assert verdict.row.rejection == "account_frozen"


def test_a_balance_that_another_consumer_moved_is_noticed_even_without_a_change_of_lease(
    first_and_second: tuple[Applier, Applier],
) -> None:
    # Given a worker that remembers a balance of 95
    first, second = first_and_second
    opening = OpenAccount(account_id=ACCOUNT, customer_id="c", idempotency_key="open", initial_balance=100)
    apply(first, opening, owned={3: 1})
    for number in range(5):
        apply(first, debit(f"before-{number}"), owned={3: 1})
    # When a second consumer takes one by mistake
    apply(second, debit("stolen"), owned={3: 1})
    # Then the next debit stands on what is really there
    verdict = apply(first, debit("after"), owned={3: 1})
    assert verdict.row is not None
    assert verdict.row.balance_after == 93
