"""Reads a lane: is a ticket's command there, and how many of an account are. Pure; the clients move the bytes."""

from __future__ import annotations

from typing import Any

import msgspec

from ...lanes.encoding import fingerprint
from ...lanes.keys import COMMAND_FIELD, Keys
from ...lanes.routing import partition_of
from ...schemas.tickets import Ticket
from .redis_exchange import Call, refuse_errors
from .reply_stream import ReplyStream

#: Lane entries that one read takes while counting.
PAGE_ENTRIES = 1_000


class _Sender(msgspec.Struct):
    store_id: str
    account_id: str


_decode_sender = msgspec.json.Decoder(_Sender).decode


def entry_call(ticket: Ticket, keys: Keys, partitions: int) -> Call:
    """Return the call that reads the ticket's own entry of its lane."""
    lane = keys.lane(partition_of(ticket.account_id, partitions))
    return ("XRANGE", lane, ticket.lane_entry, ticket.lane_entry)


def is_on_lane(ticket: Ticket, answer: Any) -> bool:
    """Whether the answer to `entry_call` holds the ticket's command."""
    return any(fingerprint(_command_in(fields)) == ticket.fingerprint for _entry, fields in answer)


def poll_stream(ticket: Ticket, keys: Keys, partitions: int) -> ReplyStream | None:
    """Return the stream under the ticket's poll key, or None if its result is not kept there."""
    if not ticket.kept and not ticket.dry_run:
        return None
    partition = partition_of(ticket.account_id, partitions)
    if ticket.dry_run:
        return ReplyStream(keys.dry_run_result(partition, ticket.store_id, ticket.lane_entry))
    return ReplyStream(keys.result(partition, ticket.store_id, ticket.idempotency_key))


class PendingCount:
    """Counts one account's commands on its lane, a page at a time."""

    def __init__(self, lane: str, store_id: str, account_id: str) -> None:
        self.count: int = 0
        self._lane = lane
        self._sender = _Sender(store_id, account_id)
        self._account = account_id.encode()
        self._start: bytes | None = b"-"

    @property
    def is_done(self) -> bool:
        """Whether the whole lane has been counted."""
        return self._start is None

    def page_call(self) -> Call:
        """Return the call that reads the next page."""
        return ("XRANGE", self._lane, self._start or b"-", b"+", "COUNT", PAGE_ENTRIES)

    def take(self, answers: list[Any]) -> None:
        """Count the page in the answer to `page_call`."""
        (page,) = refuse_errors(answers)
        self.count += sum(self._is_wanted(_command_in(fields)) for _entry, fields in page)
        self._start = b"(" + page[-1][0] if len(page) == PAGE_ENTRIES else None

    def _is_wanted(self, encoded: bytes) -> bool:
        # Most commands are others'; those are not worth decoding.
        if self._account not in encoded:
            return False
        try:
            return _decode_sender(encoded) == self._sender
        except msgspec.MsgspecError:
            return False


def _command_in(fields: list[bytes]) -> bytes:
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == COMMAND_FIELD:
            return value
    return b""
