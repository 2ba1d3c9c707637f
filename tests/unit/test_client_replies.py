"""Announcements reach those who wait for them, each once, whenever they come and whoever else waits."""

import itertools
import threading
from concurrent.futures import Future

import pytest

from creditlane import InvalidCommand, Ticket
from creditlane.lanes.backoff import growing_pauses
from creditlane.producer.client import collect as roll_call
from creditlane.producer.client import pending_replies as reply_desk
from creditlane.producer.client.collect import Patience, RollCall
from creditlane.producer.client.pending_replies import Inbox, ReplyDesk
from creditlane.producer.client.reply_stream import ReplyStream
from creditlane.schemas.journal import Announcement, Refusal, encode_announcements
from creditlane.schemas.results import Result

STORE = "store_default"
ACCOUNT = "cca_" + "0" * 31 + "1"


def news(number: int) -> Announcement:
    return Announcement(number, None, refusal=Refusal("insufficient_balance", f"news {number}"))


def ticket(number: int, *, producer_id: str = "me", store_id: str = STORE) -> Ticket:
    return Ticket(store_id, ACCOUNT, f"key_{number}", f"1-{number}", "f" * 16, False, producer_id, number)


@pytest.fixture
def desk() -> ReplyDesk[Future[Announcement]]:
    return ReplyDesk(Future)


def test_an_announcement_keeps_the_promise_made_before_it(desk: ReplyDesk[Future[Announcement]]) -> None:
    promise = desk.expect(7)

    desk.deliver([news(6), news(7)])

    assert promise.result(0) == news(7)


def test_an_announcement_that_came_first_is_there_for_who_asks_late_and_again(
    desk: ReplyDesk[Future[Announcement]],
) -> None:
    desk.deliver([news(7)])

    assert [desk.expect(7).result(0), desk.expect(7).result(0)] == [news(7), news(7)]


def test_two_who_wait_for_one_command_both_get_its_result(desk: ReplyDesk[Future[Announcement]]) -> None:
    promises = [desk.expect(7), desk.expect(7)]

    desk.deliver([news(7), news(7)])

    assert [promise.result(0) for promise in promises] == [news(7), news(7)]


def test_who_gives_up_leaves_nothing_behind(desk: ReplyDesk[Future[Announcement]]) -> None:
    kept, dropped = desk.expect(7), desk.expect(7)

    desk.forget(7, dropped)
    desk.deliver([news(7)])

    assert kept.done()
    assert not dropped.done()
    assert not desk._promises


def test_what_nobody_asks_for_is_bounded_and_the_oldest_goes_first(
    desk: ReplyDesk[Future[Announcement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_desk, "MAX_RECENT", 3)

    desk.deliver([news(number) for number in range(1, 6)])

    assert list(desk._recent) == [3, 4, 5]


def test_an_inbox_gets_what_it_covers_from_before_and_after(desk: ReplyDesk[Future[Announcement]]) -> None:
    desk.deliver([news(1), news(2)])
    inbox = Inbox(lambda number: number in {1, 3}, threading.Event())

    desk.subscribe(inbox)
    desk.deliver([news(3), news(4)])

    assert inbox.bell.is_set()
    assert inbox.take() == [news(1), news(3)]
    assert not inbox.bell.is_set()


def test_an_inbox_that_is_not_emptied_is_bounded(
    desk: ReplyDesk[Future[Announcement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_desk, "MAX_INBOX", 2)
    inbox = Inbox(lambda _number: True, threading.Event())
    desk.subscribe(inbox)

    desk.deliver([news(number) for number in range(1, 6)])

    assert inbox.take() == [news(1), news(2)]


def test_a_stream_is_read_on_from_the_last_entry_also_after_one_that_cannot_be_read() -> None:
    stream = ReplyStream("replies")
    batch = encode_announcements([news(1)])

    assert list(stream.take([[[b"replies", [[b"5-0", [b"a", batch]]]]]])) == [[news(1)]]
    with pytest.raises(ValueError, match="JSON"):
        list(stream.take([[[b"replies", [[b"6-0", [b"a", b"no json"]]]]]]))

    assert stream.wait_call()[-1] == b"6-0"
    assert list(stream.take([None])) == []


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 3_600.0])
def test_a_blocking_read_never_waits_for_ever(seconds: float) -> None:
    call = ReplyStream("replies").wait_call(seconds)

    assert 0 < int(call[call.index("BLOCK") + 1]) <= 2_000


def test_each_command_of_a_roll_call_gets_its_result_once() -> None:
    roll = RollCall([ticket(1), ticket(2), ticket(1)], STORE, "me")

    results = [roll.claim(item) for item in (news(1), news(1), news(3), news(2))]

    assert [result.idempotency_key if result else None for result in results] == ["key_1", None, None, "key_2"]
    assert roll.remaining == 0


def test_numbers_of_another_producer_are_not_taken_for_ones_own() -> None:
    roll = RollCall([ticket(1, producer_id="other")], STORE, "me")

    assert not roll.has_own
    assert not roll.covers(1)
    assert roll.claim(news(1)) is None


def test_sweeps_come_round_to_every_undecided_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "LOOKUP_KEYS", 2)
    roll = RollCall([str(ticket(number)) for number in range(9)], STORE, "me")

    asked = [place for _ in range(12) for place in roll.sweep().positions]

    assert set(asked) == set(range(9))


def test_a_sweep_gives_out_only_final_results_and_none_twice() -> None:
    roll = RollCall([ticket(number) for number in (1, 2, 3)], STORE, "me")
    sweep = roll.sweep()
    roll.claim(news(1))
    applied, queued = (
        Result(status=status, account_id=ACCOUNT, idempotency_key="key")  # type: ignore[arg-type]
        for status in ("applied", "queued")
    )

    assert roll.settle(sweep, [applied, applied, queued]) == [applied]
    assert roll.remaining == 1
    assert roll.unknown(5.0).ticket == ticket(3)


@pytest.mark.parametrize("thing", ["nonsense", "cmd_", 5, None, ticket(1, store_id="store_other")])
def test_what_is_no_ticket_of_this_store_is_refused_before_anything_is_awaited(thing: object) -> None:
    with pytest.raises(InvalidCommand, match="ticket"):
        RollCall([thing], STORE, "me")  # type: ignore[list-item]


def test_patience_with_a_deadline_ends_at_the_deadline() -> None:
    patience = Patience(100.0, 5.0, has_own=True)

    assert patience.wait_seconds(104.9) <= 0.11
    assert patience.spent_seconds(104.9) is None
    assert patience.spent_seconds(105.0) == 5.0


def test_patience_without_a_deadline_ends_after_a_long_silence_only() -> None:
    patience = Patience(0.0, None, has_own=True)

    patience.note(0, swept=True, now=10.0)
    patience.note(1, swept=False, now=60.0)
    patience.note(0, swept=True, now=65.0)

    assert patience.spent_seconds(124.9) is None
    assert patience.spent_seconds(125.0) == 60.0


def test_postgres_is_asked_again_at_once_only_where_it_just_had_something() -> None:
    patience = Patience(0.0, None, has_own=True)

    patience.note(1, swept=True, now=1.0)
    after_a_find = patience.wait_seconds(1.0)
    patience.note(1, swept=False, now=2.0)
    after_news = patience.wait_seconds(2.0)

    assert after_a_find == 0.0
    assert after_news >= 0.5


def test_pauses_grow_to_their_limit_and_are_never_nothing() -> None:
    pauses = list(itertools.islice(growing_pauses(0.05, 1.0), 12))

    assert all(0.025 <= pause <= 1.0 for pause in pauses)
    assert pauses[0] <= 0.05
    assert pauses[-1] >= 0.5
