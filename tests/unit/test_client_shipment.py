"""The putting of a chunk on its lanes: what is refused, repeated or split never changes the order on a lane."""

from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from creditlane import Debit, LaneFull, Settings, Ticket, Unavailable
from creditlane.producer.client.chunks import Chunk
from creditlane.producer.client.enqueue import Shipment
from creditlane.producer.client.tickets import Tickets

STORE = "store_default"
ACCOUNTS = ["cca_" + f"{number:032x}" for number in range(4)]


def shipment_of(count: int, *, partitions: int = 8, lane_limit: int = 1_000, first_number: int = 1) -> Shipment:
    chunk = Chunk(STORE, partitions)
    for number in range(count):
        account_id = ACCOUNTS[number % len(ACCOUNTS)]
        key = f"key_{first_number + number}"
        chunk.add(Debit(account_id=account_id, amount=1, reference="r", idempotency_key=key))
    return Shipment(chunk, Settings(lane_limit=lane_limit), "producer", first_number, keep=False)


def entries_for(call: tuple[Any, ...], prefix: str) -> list[bytes]:
    """Answer as the script does: an id for each pair of number and command."""
    return [f"{prefix}-{place}".encode() for place in range((len(call) - 12) // 2)]


def test_a_round_makes_one_call_for_each_lane() -> None:
    shipment = shipment_of(40, partitions=4)

    calls = shipment.calls()

    lanes = [call[3] for call in calls]
    assert len(lanes) == len(set(lanes)) == len(shipment.chunk.lanes)
    assert sum((len(call) - 12) // 2 for call in calls) == 40


def test_only_the_lanes_that_refused_are_called_again() -> None:
    shipment = shipment_of(40, partitions=4)
    first, *rest = shipment.calls()

    accepted = shipment.settle([b"commands", *(entries_for(call, "1") for call in rest)])

    assert accepted == shipment.accepted == 40 - (len(first) - 12) // 2
    assert not shipment.is_done
    assert shipment.calls() == [first]


def test_more_than_a_lane_may_hold_goes_in_pieces_one_after_the_other() -> None:
    shipment = shipment_of(10, partitions=1, lane_limit=4)
    sizes = []

    while not shipment.is_done:
        (call,) = shipment.calls()
        sizes.append((len(call) - 12) // 2)
        shipment.settle([entries_for(call, str(len(sizes)))])

    assert sizes == [4, 4, 2]
    assert shipment.entries == [b"1-0", b"1-1", b"1-2", b"1-3", b"2-0", b"2-1", b"2-2", b"2-3", b"3-0", b"3-1"]


def test_a_forgotten_script_is_noticed_and_nothing_counts_as_accepted() -> None:
    shipment = shipment_of(4, partitions=1)
    before = shipment.calls()

    accepted = shipment.settle([NoScriptError("No matching script")])

    assert (accepted, shipment.script_is_missing) == (0, True)
    assert shipment.calls() == before


def test_a_redis_that_refuses_to_write_is_unavailable() -> None:
    shipment = shipment_of(4, partitions=1)
    shipment.calls()

    with pytest.raises(Unavailable, match="OOM"):
        shipment.settle([ResponseError("OOM command not allowed")])

    assert shipment.accepted == 0


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
    shipment = shipment_of(4, partitions=1, lane_limit=9)
    shipment.calls()
    shipment.settle([full])

    error = shipment.lane_full(accepted_before=20)

    assert isinstance(error, LaneFull)
    assert (error.partition, error.accepted) == (0, 20)
    assert said in str(error)


def shipped(count: int, first_number: int) -> Shipment:
    shipment = shipment_of(count, first_number=first_number)
    shipment.settle([entries_for(call, f"170000000000{number}") for number, call in enumerate(shipment.calls())])
    return shipment


def test_packed_tickets_are_the_tickets() -> None:
    tickets = Tickets(STORE, "producer", kept=True)
    shipments = [shipped(10, 1), shipped(7, 50)]
    for shipment in shipments:
        tickets.append(shipment)

    expected = [
        Ticket(STORE, *fields, True, "producer", shipment.first_number + place)
        for shipment in shipments
        for place, fields in enumerate(
            zip(
                shipment.chunk.accounts,
                shipment.chunk.keys,
                (entry.decode() for entry in shipment.entries),
                shipment.chunk.fingerprints,
                strict=True,
            )
        )
    ]
    assert list(tickets) == expected
    assert [tickets[place] for place in range(len(tickets))] == expected
    assert tickets[-1] == expected[-1]
    assert tickets[8:13] == expected[8:13]
    assert [tickets.position_of(ticket.number) for ticket in expected] == list(range(17))
    assert [tickets.position_of(number) for number in (0, 11, 49, 57)] == [None] * 4
    assert tickets.number_span == (1, 56)
    with pytest.raises(IndexError):
        tickets[17]


def test_a_packed_ticket_takes_less_than_a_hundred_bytes() -> None:
    tickets = Tickets(STORE, "producer", kept=False)
    tickets.append(shipped(1_000, 1))

    (page,) = tickets._pages
    held = sum(len(column) for column in (page.keys, page.entries, page.accounts, page.fingerprints))
    assert held / len(tickets) < 80
