"""Announcements reach those who wait for them, each once, whenever they come and whoever else waits."""

import itertools
import threading
from concurrent.futures import Future

import pytest

from creditlane import InvalidCommand, Ticket
from creditlane.lanes.backoff import growing_pauses
from creditlane.producer.client import collect, pending_replies
from creditlane.producer.client.collect import ResultCollector, WaitPolicy
from creditlane.producer.client.pending_replies import Inbox, PendingReplies
from creditlane.producer.client.reply_stream import ReplyStream
from creditlane.schemas.journal import Announcement, Refusal, encode_announcements
from creditlane.schemas.results import Result

STORE = "store_default"
ACCOUNT = "cca_" + "0" * 31 + "1"


def announcement(number: int) -> Announcement:
    return Announcement(number, None, refusal=Refusal("insufficient_balance", f"announcement {number}"))


def ticket(number: int, *, producer_id: str = "me", store_id: str = STORE) -> Ticket:
    return Ticket(store_id, ACCOUNT, f"key_{number}", f"1-{number}", "f" * 16, False, producer_id, number)


@pytest.fixture
def pending() -> PendingReplies[Future[Announcement]]:
    return PendingReplies(Future)


def test_an_announcement_resolves_the_future_made_before_it(pending: PendingReplies[Future[Announcement]]) -> None:
    future = pending.expect(7)

    pending.deliver([announcement(6), announcement(7)])

    assert future.result(0) == announcement(7)


def test_an_announcement_that_came_first_is_there_for_who_asks_late_and_again(
    pending: PendingReplies[Future[Announcement]],
) -> None:
    pending.deliver([announcement(7)])

    assert [pending.expect(7).result(0), pending.expect(7).result(0)] == [announcement(7), announcement(7)]


def test_two_who_wait_for_one_command_both_get_its_result(pending: PendingReplies[Future[Announcement]]) -> None:
    futures = [pending.expect(7), pending.expect(7)]

    pending.deliver([announcement(7), announcement(7)])

    assert [future.result(0) for future in futures] == [announcement(7), announcement(7)]


def test_who_gives_up_leaves_nothing_behind(pending: PendingReplies[Future[Announcement]]) -> None:
    kept, dropped = pending.expect(7), pending.expect(7)

    pending.forget(7, dropped)
    pending.deliver([announcement(7)])

    assert kept.done()
    assert not dropped.done()
    assert not pending._futures


def test_what_nobody_asks_for_is_bounded_and_the_oldest_goes_first(
    pending: PendingReplies[Future[Announcement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_replies, "MAX_RECENT", 3)

    pending.deliver([announcement(number) for number in range(1, 6)])

    assert list(pending._recent) == [3, 4, 5]


def test_an_inbox_gets_what_it_covers_from_before_and_after(pending: PendingReplies[Future[Announcement]]) -> None:
    pending.deliver([announcement(1), announcement(2)])
    inbox = Inbox(lambda number: number in {1, 3}, threading.Event())

    pending.subscribe(inbox)
    pending.deliver([announcement(3), announcement(4)])

    assert inbox.event.is_set()
    assert inbox.take() == [announcement(1), announcement(3)]
    assert not inbox.event.is_set()


def test_an_inbox_that_is_not_emptied_is_bounded(
    pending: PendingReplies[Future[Announcement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_replies, "MAX_INBOX", 2)
    inbox = Inbox(lambda _number: True, threading.Event())
    pending.subscribe(inbox)

    pending.deliver([announcement(number) for number in range(1, 6)])

    assert inbox.take() == [announcement(1), announcement(2)]


def test_a_stream_is_read_on_from_the_last_entry_also_after_one_that_cannot_be_read() -> None:
    stream = ReplyStream("replies")
    batch = encode_announcements([announcement(1)])

    assert list(stream.take([[[b"replies", [[b"5-0", [b"a", batch]]]]]])) == [[announcement(1)]]
    with pytest.raises(ValueError, match="JSON"):
        list(stream.take([[[b"replies", [[b"6-0", [b"a", b"no json"]]]]]]))

    assert stream.wait_call()[-1] == b"6-0"
    assert list(stream.take([None])) == []


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 3_600.0])
def test_a_blocking_read_never_waits_for_ever(seconds: float) -> None:
    call = ReplyStream("replies").wait_call(seconds)

    assert 0 < int(call[call.index("BLOCK") + 1]) <= 2_000


def test_each_command_that_is_collected_gets_its_result_once() -> None:
    collector = ResultCollector([ticket(1), ticket(2), ticket(1)], STORE, "me")

    results = [collector.claim(item) for item in (announcement(1), announcement(1), announcement(3), announcement(2))]

    assert [result.idempotency_key if result else None for result in results] == ["key_1", None, None, "key_2"]
    assert collector.remaining == 0


def test_numbers_of_another_producer_are_not_taken_for_ones_own() -> None:
    collector = ResultCollector([ticket(1, producer_id="other")], STORE, "me")

    assert not collector.has_own
    assert not collector.covers(1)
    assert collector.claim(announcement(1)) is None


def test_passes_come_round_to_every_undecided_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "LOOKUP_KEYS", 2)
    collector = ResultCollector([str(ticket(number)) for number in range(9)], STORE, "me")

    asked = [position for _ in range(12) for position in collector.next_lookup().positions]

    assert set(asked) == set(range(9))


def test_a_pass_gives_out_only_final_results_and_none_twice() -> None:
    collector = ResultCollector([ticket(number) for number in (1, 2, 3)], STORE, "me")
    lookup = collector.next_lookup()
    collector.claim(announcement(1))
    applied, queued = (
        Result(status=status, account_id=ACCOUNT, idempotency_key="key")  # type: ignore[arg-type]
        for status in ("applied", "queued")
    )

    assert collector.settle(lookup, [applied, applied, queued]) == [applied]
    assert collector.remaining == 1
    assert collector.unknown(5.0).ticket == ticket(3)


@pytest.mark.parametrize("thing", ["nonsense", "cmd_", 5, None, ticket(1, store_id="store_other")])
def test_what_is_no_ticket_of_this_store_is_refused_before_anything_is_awaited(thing: object) -> None:
    with pytest.raises(InvalidCommand, match="ticket"):
        ResultCollector([thing], STORE, "me")  # type: ignore[list-item]


def test_a_wait_policy_with_a_deadline_ends_at_the_deadline() -> None:
    policy = WaitPolicy(100.0, 5.0, has_own=True)

    assert policy.wait_seconds(104.9) <= 0.11
    assert policy.spent_seconds(104.9) is None
    assert policy.spent_seconds(105.0) == 5.0


def test_a_wait_policy_without_a_deadline_ends_after_a_long_silence_only() -> None:
    policy = WaitPolicy(0.0, None, has_own=True)

    policy.note(0, asked=True, now=10.0)
    policy.note(1, asked=False, now=60.0)
    policy.note(0, asked=True, now=65.0)

    assert policy.spent_seconds(124.9) is None
    assert policy.spent_seconds(125.0) == 60.0


def test_postgres_is_asked_again_at_once_only_where_it_just_had_something() -> None:
    policy = WaitPolicy(0.0, None, has_own=True)

    policy.note(1, asked=True, now=1.0)
    after_a_find = policy.wait_seconds(1.0)
    policy.note(1, asked=False, now=2.0)
    after_an_announcement = policy.wait_seconds(2.0)

    assert after_a_find == 0.0
    assert after_an_announcement >= 0.5


def test_pauses_grow_to_their_limit_and_are_never_nothing() -> None:
    pauses = list(itertools.islice(growing_pauses(0.05, 1.0), 12))

    assert all(0.025 <= pause <= 1.0 for pause in pauses)
    assert pauses[0] <= 0.05
    assert pauses[-1] >= 0.5
