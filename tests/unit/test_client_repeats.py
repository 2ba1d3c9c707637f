"""An answer of the ledger is a repeat if that can be known: by what was sent before, or by clocks that are compared."""

from datetime import UTC, datetime, timedelta

import pytest

from creditlane import Ticket
from creditlane.producer.repeats import MAX_REQUESTS, Repeats
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


def told(repeats: Repeats, ticket: Ticket, result: Result) -> bool:
    found = repeats.told(ticket, result)
    assert found is not None
    return found.replayed


def test_of_a_request_that_was_sent_twice_the_later_is_the_repeat_however_soon_it_came() -> None:
    repeats, first, second = Repeats(), ticket_of(), ticket_of(ACCEPTED + 0.001)
    repeats.note(first)
    repeats.note(second)
    # Both were on the lane when they were decided
    decided = result_of(ACCEPTED + 0.5)

    assert [told(repeats, ticket, decided) for ticket in (first, second)] == [False, True]
    assert not told(repeats, ticket_of(ACCEPTED + 0.001, fingerprint="other"), decided)


def test_a_first_request_that_was_lost_does_not_make_a_repeat_of_the_second() -> None:
    # Given a request whose first entry a fail-over has lost, and that was sent again and decided once
    repeats, first, second = Repeats(), ticket_of(), ticket_of(ACCEPTED + 0.2)
    repeats.note(first)
    repeats.note(second)

    assert not told(repeats, second, result_of(ACCEPTED + 0.5))


def test_what_is_sent_again_after_its_result_was_announced_is_a_repeat() -> None:
    repeats, first, second = Repeats(), ticket_of(), ticket_of(ACCEPTED + 0.2)
    repeats.note(first)
    repeats.note_result(first)
    repeats.note(second)

    assert told(repeats, second, result_of(ACCEPTED + 0.1))


@pytest.mark.parametrize("ahead", [0.0, -0.3, -30.0])
def test_clocks_that_were_compared_tell_a_repeat_within_the_second(ahead: float) -> None:
    # Given a Postgres whose clock is right or behind, and a result that came 20 ms after its command was sent
    repeats = Repeats()
    repeats.learn(ticket_of(), result_of(ACCEPTED + ahead + 0.01), 0.02)

    # Then what was decided 100 ms before it was accepted is a repeat, and what was decided after is none
    assert told(repeats, ticket_of(ACCEPTED + 5), result_of(ACCEPTED + 5 + ahead - 0.1))
    assert not told(repeats, ticket_of(ACCEPTED + 5), result_of(ACCEPTED + 5 + ahead + 0.001))
    # Whatever a rule of thumb has made of it
    assert not told(repeats, ticket_of(ACCEPTED + 5), result_of(ACCEPTED + 5 + ahead, replayed=True))


@pytest.mark.parametrize("ahead", [0.3, 0.9, 30.0, 3_600.0])
def test_an_account_that_stands_ahead_of_the_clock_makes_no_repeats_of_what_is_new(ahead: float) -> None:
    # Given that the first result to come is of an account that a wrong clock has left in the future
    repeats = Repeats()
    repeats.learn(ticket_of(), result_of(ACCEPTED + ahead), 0.02)

    assert not told(repeats, ticket_of(), result_of(ACCEPTED + 0.001))


def test_an_account_in_the_future_leaves_the_rule_of_thumb_as_it_is() -> None:
    repeats = Repeats()
    repeats.learn(ticket_of(), result_of(ACCEPTED + 3_600), 0.02)

    # Given a Postgres that is 30 ms behind
    assert not told(repeats, ticket_of(), result_of(ACCEPTED - 0.03))


def test_a_repeat_teaches_nothing_that_is_not_so() -> None:
    repeats = Repeats()
    repeats.learn(ticket_of(), result_of(ACCEPTED - 3_600, replayed=True), 0.02)

    assert not told(repeats, ticket_of(), result_of(ACCEPTED + 0.001))


def test_a_clock_that_was_set_is_noticed_at_the_next_result() -> None:
    repeats = Repeats()
    repeats.learn(ticket_of(), result_of(ACCEPTED + 0.01), 0.02)

    # When Redis's clock is set an hour ahead
    repeats.learn(ticket_of(ACCEPTED + 3_600), result_of(ACCEPTED + 1), 0.02)

    assert not told(repeats, ticket_of(ACCEPTED + 3_600), result_of(ACCEPTED + 1))


def test_an_account_whose_time_is_ahead_of_the_clock_does_not_make_repeats_of_others() -> None:
    repeats = Repeats()
    repeats.learn(ticket_of(), result_of(ACCEPTED + 3_600), 0.02)
    repeats.learn(ticket_of(), result_of(ACCEPTED + 0.01), 0.02)

    assert not told(repeats, ticket_of(), result_of(ACCEPTED + 0.001))


def test_a_result_that_was_long_in_coming_teaches_nothing() -> None:
    repeats = Repeats()
    repeats.learn(ticket_of(), result_of(ACCEPTED), 5.0)

    assert told(repeats, ticket_of(), result_of(ACCEPTED - 2, replayed=True))


def test_without_anything_known_the_answer_stays_as_it_is() -> None:
    for replayed in (False, True):
        assert told(Repeats(), ticket_of(), result_of(ACCEPTED, replayed=replayed)) is replayed
    mismatch = result_of(ACCEPTED - 50, kind=None)
    repeats = Repeats()
    repeats.learn(ticket_of(), result_of(ACCEPTED), 0.0)
    assert not told(repeats, ticket_of(), mismatch)


def test_what_is_remembered_has_a_limit() -> None:
    repeats = Repeats()
    repeats.note(ticket_of(key="first"))
    for number in range(MAX_REQUESTS):
        repeats.note(ticket_of(key=str(number)))

    assert not told(repeats, ticket_of(ACCEPTED + 1, key="first"), result_of(ACCEPTED + 2))
