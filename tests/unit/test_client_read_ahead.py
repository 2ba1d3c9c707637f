"""What is looked up together grows while tickets are asked for in order; only what never changes is kept."""

import weakref
from itertools import count

import pytest

from creditlane import Debit, Settings, Ticket
from creditlane.producer.client import read_ahead
from creditlane.producer.client.chunks import chunks_of
from creditlane.producer.client.enqueue import ChunkEnqueue
from creditlane.producer.client.pending_replies import MAX_PAGES, PAGE_NUMBERS, PendingReplies
from creditlane.producer.client.read_ahead import ReadAhead
from creditlane.producer.client.tickets import Tickets
from creditlane.schemas.journal import Announcement
from creditlane.schemas.results import Result

#: Smaller than what is in force, since it takes time to make bulks.
MAX_TICKETS = 10_000
MAX_LATEST_BULKS = 8
MAX_BULKS = 32
ACCOUNT = "cca_" + "0" * 31 + "1"
STORE = "store_default"


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("MAX_TICKETS", "MAX_LATEST_BULKS", "MAX_BULKS"):
        monkeypatch.setattr(read_ahead, limit, globals()[limit])


def bulk_of(size: int, first_number: int = 1) -> Tickets:
    tickets = Tickets(STORE, "producer", kept=False)
    commands = (Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key=f"k{n}") for n in range(size))
    for chunk in chunks_of(commands, STORE, 8):
        enqueue = ChunkEnqueue(chunk, Settings(), "producer", first_number + len(tickets), keep=False)
        enqueue.entries = [b"5-%d" % position for position in range(len(chunk))]
        tickets.append(enqueue)
    return tickets


def result_of(ticket: Ticket, status: str = "applied") -> Result:
    return Result(status=status, account_id=ticket.account_id, idempotency_key=ticket.idempotency_key)


def test_the_plainest_loop_over_a_bulk_needs_few_reads() -> None:
    # Given a bulk of which the caller has kept only the tickets, and not their sequence
    ahead, bulk = ReadAhead(), bulk_of(10_000)
    ahead.remember(bulk)
    tickets = list(bulk)
    del bulk

    reads = 0
    for ticket in tickets:
        if (known := ahead.known(ticket)) is not None:
            assert known.idempotency_key == ticket.idempotency_key
            continue
        reads += 1
        window = ahead.window(ticket)
        assert window[0] == ticket
        ahead.keep(window, [result_of(each) for each in window])

    assert reads < 25


def test_tickets_that_are_asked_for_here_and_there_are_looked_up_alone() -> None:
    ahead, bulk = ReadAhead(), bulk_of(1_000)
    ahead.remember(bulk)

    assert [len(ahead.window(bulk[position])) for position in (500, 20, 700, 21)] == [1, 1, 1, 1]


def test_what_may_still_change_is_not_kept() -> None:
    ahead, bulk = ReadAhead(), bulk_of(4)
    applied, rejected, dead, undecided = bulk

    found = [result_of(applied), result_of(rejected, "rejected"), result_of(dead, "dead_lettered"), None]
    ahead.keep(bulk, found)
    ahead.keep([undecided], [result_of(undecided, "queued")])

    assert [ahead.known(ticket) is not None for ticket in bulk] == [True, True, False, False]


def test_a_ticket_of_another_request_under_the_same_number_gets_nothing() -> None:
    ahead, bulk, other = ReadAhead(), bulk_of(2), bulk_of(2)[1]
    ahead.keep(bulk, [result_of(ticket) for ticket in bulk])
    forged = Ticket(STORE, ACCOUNT, "another", other.lane_entry, other.fingerprint, False, "producer", other.number)

    assert ahead.known(forged) is None
    assert ahead.window(forged) == [forged]


def test_bulks_that_nobody_holds_are_remembered_up_to_a_limit() -> None:
    ahead, numbers = ReadAhead(), count(1, 3_000)
    bulks = [bulk_of(3_000, next(numbers)) for _ in range(5)]
    held = [weakref.ref(bulk) for bulk in bulks]
    for bulk in bulks:
        ahead.remember(bulk)
    del bulk
    bulks.clear()

    assert sum(len(bulk) for ref in held if (bulk := ref()) is not None) <= MAX_TICKETS


def test_small_bulks_that_nobody_holds_are_remembered_up_to_a_limit() -> None:
    ahead = ReadAhead()
    held = []
    for number in range(1, MAX_BULKS):
        bulk = bulk_of(1, number)
        ahead.remember(bulk)
        held.append(weakref.ref(bulk))
    del bulk

    assert sum(ref() is not None for ref in held) <= MAX_LATEST_BULKS


def test_an_empty_bulk_is_not_remembered() -> None:
    ahead, bulk = ReadAhead(), bulk_of(0)
    held = weakref.ref(bulk)
    ahead.remember(bulk)
    del bulk

    assert held() is None


def test_among_however_many_bulks_a_ticket_is_looked_for_in_a_few_hundred() -> None:
    # Given more bulks than that, all of them held
    ahead, reads = ReadAhead(), 0

    class Counted(Tickets):
        def position_of(self, number: int) -> int | None:
            nonlocal reads
            reads += 1
            return super().position_of(number)

    bulks = []
    for number in range(1, 4 * MAX_BULKS, 2):
        bulk = bulk_of(2, number)
        bulk.__class__ = Counted
        ahead.remember(bulk)
        bulks.append(bulk)

    # Then a ticket of the latest and one of none cost next to no read, and one of the first is looked up alone
    latest, stranger = bulks[-1][0], bulk_of(1, 10 * MAX_BULKS)[0]
    assert (ahead.window(latest), ahead.window(stranger)) == ([latest], [stranger])
    assert reads <= 2
    assert ahead.window(bulks[0][0]) == [bulks[0][0]]
    assert len(ahead._bulks) <= MAX_BULKS


def test_a_bulk_that_is_held_outlasts_small_ones_that_are_not() -> None:
    ahead, bulk = ReadAhead(), bulk_of(100)
    ahead.remember(bulk)
    for number in range(101, 101 + 2 * MAX_BULKS):
        ahead.remember(bulk_of(1, number))

    assert [len(ahead.window(bulk[position])) for position in (0, 1)] == [1, 2]


def test_bulks_whose_numbers_lie_between_each_other_are_kept_apart() -> None:
    # Given two bulks that were sent at the same time, chunk by chunk by turns
    ahead, bulks = ReadAhead(), (Tickets(STORE, "producer", kept=False), Tickets(STORE, "producer", kept=False))
    for first_number in range(1, 41, 10):
        part = bulk_of(10, first_number)
        bulks[first_number // 10 % 2]._pages += part._pages
        bulks[first_number // 10 % 2]._first_numbers += part._first_numbers
        bulks[first_number // 10 % 2]._starts.append(bulks[first_number // 10 % 2]._count)
        bulks[first_number // 10 % 2]._count += 10
    for bulk in bulks:
        ahead.remember(bulk)

    for bulk in bulks:
        assert [len(ahead.window(ticket)) for ticket in bulk[:3]] == [1, 2, 1]


def test_what_was_looked_up_alone_is_not_kept() -> None:
    ahead, tickets = ReadAhead(), list(bulk_of(100))
    for ticket in tickets:
        ahead.keep([ticket], [result_of(ticket)])

    assert [ticket for ticket in tickets if ahead.known(ticket)] == []


def test_what_was_announced_is_known_to_have_passed_also_when_it_is_forgotten() -> None:
    pending: PendingReplies = PendingReplies(object)  # type: ignore[type-arg, arg-type]
    pending.deliver([Announcement(7, None)])

    assert pending.has_passed(7)
    assert not pending.has_passed(8)

    # What is too long ago to be known is worth a read; what comes next is not
    pending.deliver([Announcement((page + 1) * PAGE_NUMBERS, None) for page in range(MAX_PAGES)])
    assert pending.has_passed(8)
    assert not pending.has_passed((MAX_PAGES + 1) * PAGE_NUMBERS)
