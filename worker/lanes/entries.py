"""What stands on a lane, taken apart: a command to decide, or bytes that are no command."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

import msgspec

from ...lanes.encoding import LaneCommand, decode_command
from ...lanes.keys import COMMAND_FIELD, KEEP_FIELD, REPLY_FIELD
from ...schemas.errors import UndecodableCommand

#: Longest id of a producer. It goes into the name of a key.
MAX_PRODUCER_ID_BYTES = 64
#: Longest number of a command, in digits: what fits a bigint.
MAX_NUMBER_DIGITS = 18
#: A command and who wants to hear of it, each with its name.
FIELDS_OF_MOST = 4


class LaneEntry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a lane."""

    partition: int
    #: Id of the entry in the lane's stream.
    entry_id: bytes
    #: The command as it stood on the lane.
    payload: bytes
    #: None if the payload is no command; `flaw` then says why.
    command: LaneCommand | None
    flaw: str | None
    #: Producer process that wants to hear of it, and the number it goes by there.
    producer_id: str | None
    number: int
    #: The result shall be kept under a poll key.
    keep: bool


class Batch(msgspec.Struct, frozen=True):
    """What was read in one go, lane by lane, and the epochs under which the lanes were owned then."""

    entries: list[LaneEntry]
    epochs: Mapping[int, int]
    #: Number of the Redis session that it was read in; None if that is not known.
    session: int | None = None
    #: Lanes on which entries that are not in the batch may stand between those that are.
    gaps: frozenset[int] = frozenset()

    def first(self, count: int) -> Batch:
        """Return its first entries as a batch of their own."""
        entries = self.entries[:count]
        partitions = {entry.partition for entry in entries}
        epochs = {p: epoch for p, epoch in self.epochs.items() if p in partitions}
        return msgspec.structs.replace(self, entries=entries, epochs=epochs)

    def without(self, partitions: Collection[int]) -> Batch:
        """Return what is left of it without these lanes."""
        entries = [entry for entry in self.entries if entry.partition not in partitions]
        epochs = {p: epoch for p, epoch in self.epochs.items() if p not in partitions}
        return msgspec.structs.replace(self, entries=entries, epochs=epochs)

    def after(self, count: int) -> Batch:
        """Return what is left of it without its first entries. All its lanes stay noted until that is done."""
        return msgspec.structs.replace(self, entries=self.entries[count:])

    def with_last(self, partition: int) -> Batch:
        """Return it with the entries of one lane behind all others."""
        entries = sorted(self.entries, key=lambda entry: entry.partition == partition)
        return msgspec.structs.replace(self, entries=entries)


def parse_entry(partition: int, entry_id: bytes, fields: list[bytes]) -> LaneEntry:
    """Return what a stream entry stands for. Never raises: whatever is wrong is in `flaw`."""
    payload: bytes | None
    reply: bytes | None
    # As nearly all are written; to look at each field costs a tenth of all that is done here.
    if len(fields) == FIELDS_OF_MOST and fields[0] == COMMAND_FIELD and fields[2] == REPLY_FIELD:
        payload, reply, keep = fields[1], fields[3], False
    else:
        payload, reply, keep = _values_of(fields)
    producer_id, number = _parse_reply(reply)
    if payload is None:
        raw = b" ".join(fields)
        return LaneEntry(partition, entry_id, raw, None, "the entry has no field c", producer_id, number, keep)
    try:
        command = decode_command(payload)
    except UndecodableCommand as error:
        return LaneEntry(partition, entry_id, payload, None, error.message, producer_id, number, keep)
    return LaneEntry(partition, entry_id, payload, command, None, producer_id, number, keep)


def _values_of(fields: list[bytes]) -> tuple[bytes | None, bytes | None, bool]:
    """Return the command and who wants to hear of it, as far as they are there, and whether to keep the result."""
    names_and_values = iter(fields)
    values = dict(zip(names_and_values, names_and_values, strict=True))
    return values.get(COMMAND_FIELD), values.get(REPLY_FIELD), KEEP_FIELD in values


def _parse_reply(field: bytes | None) -> tuple[str | None, int]:
    """Return who wants to hear of it, or nobody if the field is missing or malformed."""
    if field is None:
        return None, 0
    name, _, number = field.rpartition(b"/")
    # A longer one is not even remembered as none.
    producer_id = _producer_id(name) if len(name) <= MAX_PRODUCER_ID_BYTES else None
    if producer_id is None or not number.isdigit() or len(number) > MAX_NUMBER_DIGITS:
        return None, 0
    return producer_id, int(number)


@lru_cache(maxsize=1_024)
def _producer_id(name: bytes) -> str | None:
    """Return a producer's id, if it is one."""
    return name.decode() if name.isalnum() else None
