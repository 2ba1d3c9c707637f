"""The putting of a chunk on its lanes: what is refused, repeated or split never changes the order on a lane."""

from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from creditlane import Debit, LaneFull, Settings, Ticket, Unavailable
from creditlane.producer.client.chunks import Chunk
from creditlane.producer.client.enqueue import ChunkEnqueue
from creditlane.producer.client.tickets import Tickets

STORE = "store_default"
ACCOUNTS = ["cca_" + f"{number:032x}" for number in range(4)]


def enqueue_of(count: int, *, partitions: int = 8, lane_limit: int = 1_000, first_number: int = 1) -> ChunkEnqueue:
    chunk = Chunk(STORE, partitions)
    for number in range(count):
        account_id = ACCOUNTS[number % len(ACCOUNTS)]
        key = f"key_{first_number + number}"
        chunk.add(Debit(account_id=account_id, amount=1, reference="r", idempotency_key=key))
    return ChunkEnqueue(chunk, Settings(lane_limit=lane_limit), "producer", first_number, keep=False)


def entries_for(call: tuple[Any, ...], prefix: str) -> list[bytes]:
    """Answer as the script does: an id for each pair of number and command."""
    return [f"{prefix}-{position}".encode() for position in range((len(call) - 12) // 2)]


def test_a_round_makes_one_call_for_each_lane() -> None:
    enqueue = enqueue_of(40, partitions=4)

    calls = enqueue.calls()

    lanes = [call[3] for call in calls]
    assert len(lanes) == len(set(lanes)) == len(enqueue.chunk.lanes)
    assert sum((len(call) - 12) // 2 for call in calls) == 40


def test_only_the_lanes_that_refused_are_called_again() -> None:
    enqueue = enqueue_of(40, partitions=4)
    first, *rest = enqueue.calls()

    accepted = enqueue.settle([b"commands", *(entries_for(call, "1") for call in rest)])

    assert accepted == enqueue.accepted == 40 - (len(first) - 12) // 2
    assert not enqueue.is_done
    assert enqueue.calls() == [first]


def test_more_than_a_lane_may_hold_goes_in_pieces_one_after_the_other() -> None:
    enqueue = enqueue_of(10, partitions=1, lane_limit=4)
    sizes = []

    while not enqueue.is_done:
        (call,) = enqueue.calls()
        sizes.append((len(call) - 12) // 2)
        enqueue.settle([entries_for(call, str(len(sizes)))])

    assert sizes == [4, 4, 2]
    assert enqueue.entries == [b"1-0", b"1-1", b"1-2", b"1-3", b"2-0", b"2-1", b"2-2", b"2-3", b"3-0", b"3-1"]


def test_a_forgotten_script_is_noticed_and_nothing_counts_as_accepted() -> None:
    enqueue = enqueue_of(4, partitions=1)
    before = enqueue.calls()

    accepted = enqueue.settle([NoScriptError("No matching script")])

    assert (accepted, enqueue.script_is_missing) == (0, True)
    assert enqueue.calls() == before


def test_a_redis_that_refuses_to_write_is_unavailable() -> None:
    enqueue = enqueue_of(4, partitions=1)
    enqueue.calls()

    with pytest.raises(Unavailable, match="OOM"):
        enqueue.settle([ResponseError("OOM command not allowed")])

    assert enqueue.accepted == 0


@pytest.mark.parametrize(
    ("full", "said"),
    [
        (b"commands", "limit of 9 commands"),
        (b"bytes", "limit of 268435456 bytes"),
        (b"store commands", "This store has its share of what the lane of partition 0 may hold (commands)"),
        (b"store bytes", "This store has its share of what the lane of partition 0 may hold (bytes)"),
    ],
)
def test_a_full_lane_is_named_with_what_it_has_no_room_for_and_what_had_been_accepted(full: bytes, said: str) -> None:
    enqueue = enqueue_of(4, partitions=1, lane_limit=9)
    enqueue.calls()
    enqueue.settle([full])

    error = enqueue.lane_full(accepted_before=20)

    assert isinstance(error, LaneFull)
    assert (error.partition, error.accepted) == (0, 20)
    assert said in str(error)


def accepted(count: int, first_number: int) -> ChunkEnqueue:
    enqueue = enqueue_of(count, first_number=first_number)
    enqueue.settle([entries_for(call, f"170000000000{number}") for number, call in enumerate(enqueue.calls())])
    return enqueue


def test_packed_tickets_are_the_tickets() -> None:
    tickets = Tickets(STORE, "producer", kept=True)
    enqueues = [accepted(10, 1), accepted(7, 50)]
    for enqueue in enqueues:
        tickets.append(enqueue)

    expected = [
        Ticket(STORE, *fields, True, "producer", enqueue.first_number + position)
        for enqueue in enqueues
        for position, fields in enumerate(
            zip(
                enqueue.chunk.accounts,
                enqueue.chunk.keys,
                (entry.decode() for entry in enqueue.entries),
                enqueue.chunk.fingerprints,
                strict=True,
            )
        )
    ]
    assert list(tickets) == expected
    assert [tickets[position] for position in range(len(tickets))] == expected
    assert tickets[-1] == expected[-1]
    assert tickets[8:13] == expected[8:13]
    assert [tickets.position_of(ticket.number) for ticket in expected] == list(range(17))
    assert [tickets.position_of(number) for number in (0, 11, 49, 57)] == [None] * 4
    assert tickets.number_span == (1, 56)
    with pytest.raises(IndexError):
        tickets[17]


def test_a_packed_ticket_takes_less_than_a_hundred_bytes() -> None:
    tickets = Tickets(STORE, "producer", kept=False)
    tickets.append(accepted(1_000, 1))

    (page,) = tickets._pages
    held = sum(len(column) for column in (page.keys, page.entries, page.accounts, page.fingerprints))
    assert held / len(tickets) < 80
