"""The putting of one chunk on its lanes, as a state machine without a socket; both clients drive it.

Each round sends to every lane that still wants something one call of the script below. A lane never has two calls
under way, so its commands cannot overtake each other, whatever is refused or repeated.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from redis.exceptions import NoScriptError

from ..schemas.errors import LaneFull, OutcomeUnknown, Unavailable
from ..schemas.keys import Keys
from ..schemas.settings import Settings
from ..schemas.tickets import Ticket
from .clocks import Clocks
from .outgoing import Chunk
from .wire import Call, refuse_errors

_RefusalT = TypeVar("_RefusalT", LaneFull, Unavailable)

#: The first and the longest pause before a full lane is tried again, in seconds: Redis has no event to wait for.
FULL_LANE_PAUSES = (0.01, 0.5)

#: KEYS[1]   the lane (stream)
#: ARGV[1]   most entries that the lane may hold
#: ARGV[2]   producer id: where to announce, with a number; "" to announce to nobody
#: ARGV[3]   "1" to keep the results under their poll keys, "" not to
#: ARGV[4…]  of each command, in order: its number, then its bytes
#: The fields of an entry are those of `keys`: c the command, r where to announce it, k whether to keep its result.
#: Returns the ids of the new entries, in order. If they do not all fit, adds none and returns the lane's length.
ENQUEUE_SCRIPT = """
local lane, limit, producer, keep = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3]
local length = redis.call('XLEN', lane)
if length + (#ARGV - 3) / 2 > limit then return length end
local ids = {}
for i = 4, #ARGV, 2 do
  local command, reply = ARGV[i + 1], producer .. '/' .. ARGV[i]
  if producer == '' then
    ids[#ids + 1] = redis.call('XADD', lane, '*', 'c', command)
  elseif keep == '' then
    ids[#ids + 1] = redis.call('XADD', lane, '*', 'c', command, 'r', reply)
  else
    ids[#ids + 1] = redis.call('XADD', lane, '*', 'c', command, 'r', reply, 'k', keep)
  end
end
return ids
"""
_SCRIPT_SHA1 = hashlib.sha1(ENQUEUE_SCRIPT.encode(), usedforsecurity=False).hexdigest()
#: Teaches Redis the script, after it has forgotten it in a restart.
LOAD_SCRIPT: Call = ("SCRIPT", "LOAD", ENQUEUE_SCRIPT)


class Shipment:
    """One chunk until all of it is accepted."""

    def __init__(
        self,
        chunk: Chunk,
        settings: Settings,
        producer_id: str,
        first_number: int,
        *,
        keep: bool,
        clocks: Clocks | None = None,
    ) -> None:
        self.chunk = chunk
        self.first_number = first_number
        #: Ids of the lane entries, by position in the chunk.
        self.entries: list[bytes] = [b""] * len(chunk)
        self.accepted = 0
        self.script_is_missing = False
        #: An attempt got no answer: what is refused or not tried since may have been accepted then.
        self.is_doubtful = False
        self._keys = Keys(settings.redis_prefix)
        self._limit = settings.lane_limit
        self._producer_id = producer_id
        self._keep = "1" if keep else ""
        self._waiting = dict(chunk.lanes)
        self._round: list[tuple[int, list[int]]] = []
        #: What Redis tells the time to, and when this round was asked for.
        self._clocks = clocks
        self._asked = 0.0

    @property
    def is_done(self) -> bool:
        """Whether every command is accepted."""
        return not self._waiting

    def calls(self) -> list[Call]:
        """Return the next round's calls, one for each lane that still wants something."""
        self._asked = time.monotonic()
        # More than a lane may hold could never be accepted in one piece.
        self._round = [(partition, places[: self._limit]) for partition, places in self._waiting.items()]
        return [self._call(partition, places) for partition, places in self._round]

    def settle(self, answers: Sequence[Any]) -> int:
        """Take the answers to the round's calls and return how many commands they accepted.

        Raises:
            Unavailable: Redis refuses to work; `accepted` tells what it had taken before.
            OutcomeUnknown: the same, after an attempt that was not answered.
        """
        before = self.accepted
        self.script_is_missing = any(isinstance(answer, NoScriptError) for answer in answers)
        for (partition, places), answer in zip(self._round, answers, strict=True):
            if isinstance(answer, list):
                self._accept(partition, places, answer)
        try:
            refuse_errors([answer for answer in answers if not isinstance(answer, NoScriptError)])
        except Unavailable as error:
            raise self.doubted(error) from None
        return self.accepted - before

    def note_silence(self) -> None:
        """Take note of an attempt that was sent and not answered."""
        self.is_doubtful = True

    def ticket(self, store_id: str, producer_id: str) -> Ticket:
        """Return the ticket of a chunk of one command."""
        chunk, entry = self.chunk, self.entries[0].decode()
        fields = chunk.accounts[0], chunk.keys[0], entry, chunk.fingerprints[0]
        return Ticket(store_id, *fields, bool(self._keep), producer_id, self.first_number)

    def lane_full(self, accepted_before: int) -> LaneFull | OutcomeUnknown:
        """Return the error that a lane of this chunk is full, with what its whole call had accepted."""
        partition = next(iter(self._waiting))
        accepted = accepted_before + self.accepted
        kept = f" {accepted} commands of this call had been accepted before." if accepted else ""
        message = (
            f"The lane of partition {partition} is at its limit of {self._limit} commands; try again shortly.{kept}"
        )
        return self.doubted(LaneFull(message, partition=partition, accepted=accepted))

    def doubted(self, error: _RefusalT) -> _RefusalT | OutcomeUnknown:
        """Return the error to end with: it must not say that nothing was accepted if something may have been."""
        if not self.is_doubtful:
            return error
        return OutcomeUnknown(
            f"{error.message} An attempt before that was not answered, so whether it was accepted is not known; "
            "send the command again as it was, under the same idempotency key: it has one effect."
        )

    def _accept(self, partition: int, places: list[int], entries: list[bytes]) -> None:
        for place, entry in zip(places, entries, strict=True):
            self.entries[place] = entry
        if self._clocks is not None and entries:
            self._clocks.note_redis(int(entries[-1].partition(b"-")[0]) / 1_000, self._asked)
        self.accepted += len(places)
        rest = self._waiting[partition][len(places) :]
        if rest:
            self._waiting[partition] = rest
        else:
            del self._waiting[partition]

    def _call(self, partition: int, places: list[int]) -> Call:
        encoded, first_number = self.chunk.encoded, self.first_number
        call: list[str | bytes | int] = ["EVALSHA", _SCRIPT_SHA1, 1, self._keys.lane(partition)]
        call += (self._limit, self._producer_id, self._keep)
        for place in places:
            call += (first_number + place, encoded[place])
        return tuple(call)
