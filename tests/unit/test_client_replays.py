"""An answer of the ledger is a repeat if that can be known: by what was sent before, or by clocks that are compared."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from creditlane import Ticket
from creditlane.producer.client.clocks import Clocks
from creditlane.producer.client.replays import MAX_REQUESTS, Replays
from creditlane.schemas.results import Result

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: When the command was accepted, by Redis, in seconds.
ACCEPTED = 1_000.0


def ticket_of(seconds: float = ACCEPTED, key: str = "key_1", fingerprint: str = "f") -> Ticket:
    return Ticket("store_default", "cca_" + "0" * 32, key, f"{int(seconds * 1_000)}-0", fingerprint)


def result_of(decided: float, *, replayed: bool = False, kind: str | None = "debit") -> Result:
    """Return the result of a decision at this second by Postgres, as the ledger's answer has it."""
    moment = EPOCH + timedelta(seconds=decided)
    return Result(
        status="applied", account_id="a", idempotency_key="key_1", kind=kind, replayed=replayed, decided_at=moment
    )


def seen(ahead: float) -> Clocks:
    """Return clocks that were both seen just now: Redis's a second past ACCEPTED, Postgres's ahead of it."""
    clocks, now = Clocks(), time.monotonic()
    clocks.note_redis(ACCEPTED + 1, now)
    clocks.note_postgres(ACCEPTED + 1 + ahead, now)
    return clocks


def is_repeat(repeats: Replays, ticket: Ticket, result: Result) -> bool:
    found = repeats.marked(ticket, result)
    assert found is not None
    return found.replayed


def test_of_a_request_that_was_sent_twice_the_later_is_the_repeat_however_soon_it_came() -> None:
    repeats, first, second = Replays(Clocks()), ticket_of(), ticket_of(ACCEPTED + 0.001)
    repeats.note(first)
    repeats.note(second)
    # Both were on the lane when they were decided
    decided = result_of(ACCEPTED + 0.5)

    assert [is_repeat(repeats, ticket, decided) for ticket in (first, second)] == [False, True]
    assert not is_repeat(repeats, ticket_of(ACCEPTED + 0.001, fingerprint="other"), decided)


def test_a_first_request_that_was_lost_does_not_make_a_repeat_of_the_second() -> None:
    # Given a request whose first entry a fail-over has lost, and that was sent again and decided once
    repeats, first, second = Replays(Clocks()), ticket_of(), ticket_of(ACCEPTED + 0.2)
    repeats.note(first)
    repeats.note(second)

    assert not is_repeat(repeats, second, result_of(ACCEPTED + 0.5))


def test_what_is_sent_again_after_its_result_was_announced_is_a_repeat() -> None:
    repeats, first, second = Replays(Clocks()), ticket_of(), ticket_of(ACCEPTED + 0.2)
    repeats.note(first)
    repeats.note_result(first)
    repeats.note(second)

    assert is_repeat(repeats, second, result_of(ACCEPTED + 0.1))


@pytest.mark.parametrize("ahead", [0.0, 0.3, 30.0, -0.3, -30.0])
def test_clocks_that_were_seen_show_a_repeat_within_the_second(ahead: float) -> None:
    # Given that both clocks were seen at the same moment
    repeats = Replays(seen(ahead))

    # Then what was decided 100 ms before it was accepted is a repeat, and what was decided after is none
    assert is_repeat(repeats, ticket_of(), result_of(ACCEPTED + ahead - 0.1))
    assert not is_repeat(repeats, ticket_of(), result_of(ACCEPTED + ahead + 0.001))
    # Whatever a rule of thumb has made of it
    assert not is_repeat(repeats, ticket_of(), result_of(ACCEPTED + ahead, replayed=True))


def test_an_entry_ahead_of_the_clock_of_redis_makes_no_repeat_of_what_is_new() -> None:
    # Given a lane whose ids stand an hour ahead, as after a clock that was set back
    repeats = Replays(seen(0.0))

    assert not is_repeat(repeats, ticket_of(ACCEPTED + 3_600), result_of(ACCEPTED, replayed=True))


def test_without_anything_known_the_answer_stays_as_it_is() -> None:
    for replayed in (False, True):
        assert is_repeat(Replays(Clocks()), ticket_of(), result_of(ACCEPTED, replayed=replayed)) is replayed
    mismatch = result_of(ACCEPTED - 50, kind=None)
    assert not is_repeat(Replays(seen(0.0)), ticket_of(), mismatch)


def test_what_is_remembered_has_a_limit() -> None:
    repeats = Replays(Clocks())
    repeats.note(ticket_of(key="first"))
    for number in range(MAX_REQUESTS):
        repeats.note(ticket_of(key=str(number)))

    assert not is_repeat(repeats, ticket_of(ACCEPTED + 1, key="first"), result_of(ACCEPTED + 2))
