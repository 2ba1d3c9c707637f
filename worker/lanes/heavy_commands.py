"""What of the lanes is held back: the heavy commands of a store, and whatever that store sends behind them.

A lane is in order for each store; nothing of one store depends on another's. So a heavy command, one that is kilobytes
long, must hold up its own store only: it stays where it is while what others have sent behind it is read on, and is
read when its turn comes. Only where to go on is remembered here, however much is held back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from ...lanes.keys import COMMAND_FIELD
from ..store.sizing import rows_of
from .entries import LaneEntry, parse_entry
from .entry_ids import before, order_of

#: Bytes above which a command is heavy: a post of some fifty entries, or metadata of some pages.
HEAVY_BYTES = 4_096

#: Bytes of a part of what is held back, with so many for each row: its lanes stand for a hundredth of a second or two.
HELD_BYTES = 30_000
HELD_ROW_BYTES = 100
#: The same where nobody else is at work.
HELD_BYTES_ALONE = 1_000_000
#: Entries to ask for at once of a lane on which something is held back: to begin with and after long ones, where nobody
#: else is at work, and at most; so many times more after an answer that left most of the room.
HELD_ENTRIES = 6
HELD_ENTRIES_ALONE = 32
MOST_HELD_ENTRIES = 1_536
MORE_HELD_ENTRIES = 4

#: An entry of a lane as Redis gives it. One that was deleted while it was read has no fields.
StreamEntry = tuple[bytes, list[bytes] | None]


class _Sender(msgspec.Struct):
    store_id: str = ""


_decode_sender = msgspec.json.Decoder(_Sender).decode


class _HeldLane(msgspec.Struct):
    """Of one lane: the stores that are held back, each from this entry on, and the entry behind which they go on."""

    stores: dict[str, tuple[int, int]]
    read_to: bytes
    #: Entries to ask for at once.
    count: int = HELD_ENTRIES


class HeavyCommands:
    """The lanes of one worker on which something is held back. No I/O."""

    def __init__(self) -> None:
        self._lanes: dict[int, _HeldLane] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __contains__(self, partition: int) -> bool:
        return partition in self._lanes

    @property
    def partitions(self) -> list[int]:
        """The lanes with something held back, the one first whose turn is longest ago."""
        return list(self._lanes)

    def sift(self, partition: int, raw: Iterable[StreamEntry]) -> list[LaneEntry]:
        """Return what of these entries is not held back, and note what is."""
        light = []
        for entry_id, fields in raw:
            held, store_id = self._lanes.get(partition), _store_of(fields)
            if held is not None and store_id in held.stores:
                continue
            if (len(fields[1]) if fields else 0) <= HEAVY_BYTES:
                light.append(parse_entry(partition, entry_id, fields or []))
            elif held is None:
                self._lanes[partition] = _HeldLane({store_id: order_of(entry_id)}, before(entry_id))
            else:
                held.stores[store_id] = order_of(entry_id)
        return light

    def start_of(self, partition: int) -> bytes:
        """Return the entry behind which what is held back on the lane goes on."""
        return self._lanes[partition].read_to

    def count_of(self, partition: int) -> int:
        """Return how many entries behind `start_of` to ask for."""
        return self._lanes[partition].count

    def take(
        self, partition: int, raw: Sequence[StreamEntry], end: bytes, room: int = HELD_BYTES, *, needs_one: bool = True
    ) -> tuple[list[LaneEntry], int]:
        """Return the next entries that were held back, as many as there is room for, and the room that is left.

        At least one, however long it is, if one is needed; without room for the next one, none is left.

        The entries are those behind `start_of`; none after `end` is looked at, for it was not read before. What of them
        was not held back is passed over: that was read when it came.
        """
        held, last, left = self._lanes[partition], order_of(end), room
        entries: list[LaneEntry] = []
        for entry_id, fields in raw:
            position = order_of(entry_id)
            if position > last:
                held.read_to = end
                break
            first = held.stores.get(_store_of(fields))
            if first is not None and position >= first:
                entry = parse_entry(partition, entry_id, fields or [])
                left -= len(entry.payload) + rows_of(entry) * HELD_ROW_BYTES
                if left < 0 and (entries or not needs_one):
                    break
                entries.append(entry)
            held.read_to = entry_id
        _adapt(held, raw, room, left)
        if entries or left >= 0:
            # Behind the other lanes, until it is their turn again.
            self._lanes[partition] = self._lanes.pop(partition)
        if order_of(held.read_to) >= last:
            self.release(partition)
        return entries, max(0, left)

    def release(self, partition: int) -> None:
        """Note that nothing is held back on this lane any more."""
        self._lanes.pop(partition, None)

    def keep(self, partitions: Collection[int]) -> None:
        """Forget the lanes that are not among these."""
        for partition in self._lanes.keys() - set(partitions):
            del self._lanes[partition]


def _adapt(held: _HeldLane, raw: Sequence[StreamEntry], room: int, left: int) -> None:
    """Ask for more at once where little was found in an answer that was short, and for few after a long one."""
    length = sum(lengths_of(raw))
    if length > max(room, HELD_BYTES):
        held.count = HELD_ENTRIES
    elif len(raw) >= held.count and max(length, room - left) < room // 2:
        held.count = min(MOST_HELD_ENTRIES, held.count * MORE_HELD_ENTRIES)


def lengths_of(raw: Sequence[StreamEntry]) -> list[int]:
    """Return how long the command of each of these entries is."""
    return [len(fields[1]) if fields else 0 for _, fields in raw]


def _store_of(fields: list[bytes] | None) -> str:
    """Return which store an entry is of; one name for all that does not say."""
    names_and_values = iter(fields or ())
    for name, value in zip(names_and_values, names_and_values, strict=True):
        if name == COMMAND_FIELD:
            try:
                return _decode_sender(value).store_id
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return ""
    return ""
