"""The putting of one chunk on its lanes, as a state machine without a socket; both clients drive it.

Each round sends to every lane that still wants something one call of the enqueue script. A lane never has two calls
under way, so its commands cannot overtake each other, whatever is refused or repeated.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeVar

from redis.exceptions import NoScriptError

from ...lanes.keys import Keys
from ...lanes.scripts import ENQUEUE_KEYS, ENQUEUE_SCRIPT, ENQUEUE_SHA1, LaneLimits, enqueue_header
from ...schemas.errors import LaneFull, OutcomeUnknown, Unavailable
from ...schemas.settings import Settings
from ...schemas.tickets import Ticket
from .chunks import Chunk
from .clocks import Clocks
from .redis_exchange import Call, refuse_errors

_RefusalT = TypeVar("_RefusalT", LaneFull, Unavailable)

#: The first and the longest pause before a full lane is tried again, in seconds: Redis has no event to wait for.
FULL_LANE_PAUSES = (0.01, 0.5)

#: Teaches Redis the script, after it has forgotten it in a restart.
LOAD_SCRIPT: Call = ("SCRIPT", "LOAD", ENQUEUE_SCRIPT)


class ChunkEnqueue:
    """One chunk until all of it is accepted."""

    def __init__(
        self,
        chunk: Chunk,
        settings: Settings,
        producer_id: str,
        first_number: int,
        *,
        keep: bool,
        share_of_free: int = 0,
        clocks: Clocks | None = None,
    ) -> None:
        self.chunk = chunk
        self.first_number = first_number
        #: Ids of the lane entries, by position in the chunk.
        self.entries: list[bytes] = [b""] * len(chunk)
        self.accepted: int = 0
        self.script_is_missing: bool = False
        #: An attempt got no answer: what is refused or not tried since may have been accepted then.
        self.is_doubtful: bool = False
        self._keys = Keys(settings.redis_prefix)
        self._limits = LaneLimits(settings.lane_limit, settings.lane_bytes, share_of_free)
        #: What the lanes that refused have no room for.
        self._full: dict[int, str] = {}
        self._producer_id = producer_id
        self._keep = keep
        self._waiting = dict(chunk.lanes)
        self._round: list[tuple[int, list[int]]] = []
        #: What is shown the time of Redis, and when this round was asked for.
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
        self._round = [
            (partition, positions[: self._limits.commands]) for partition, positions in self._waiting.items()
        ]
        return [self._call(partition, positions) for partition, positions in self._round]

    def settle(self, answers: Sequence[Any]) -> int:
        """Take the answers to the round's calls and return how many commands they accepted.

        Raises:
            Unavailable: Redis refuses to work; `accepted` says what it had taken before.
            OutcomeUnknown: the same, after an attempt that was not answered.
        """
        before = self.accepted
        self.script_is_missing = any(isinstance(answer, NoScriptError) for answer in answers)
        for (partition, positions), answer in zip(self._round, answers, strict=True):
            if isinstance(answer, list):
                self._accept(partition, positions, answer)
            elif isinstance(answer, bytes):
                self._full[partition] = answer.decode()
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
        return Ticket(store_id, *fields, self._keep, producer_id, self.first_number, bool(chunk.dry_runs))

    def lane_full(self, accepted_before: int) -> LaneFull | OutcomeUnknown:
        """Return the error that a lane of this chunk is full, with what its whole call had accepted."""
        partition = next(iter(self._waiting))
        accepted = accepted_before + self.accepted
        kept = f" {accepted} commands of this call had been accepted before." if accepted else ""
        message = f"{self._what_is_full(partition)}; try again shortly.{kept}"
        return self.doubted(LaneFull(message, partition=partition, accepted=accepted))

    def _what_is_full(self, partition: int) -> str:
        what = self._full.get(partition, "commands")
        if what.startswith("store"):
            return f"This store has its share of what the lane of partition {partition} may hold ({what[6:]})"
        limit = f"{self._limits.commands} commands" if what == "commands" else f"{self._limits.bytes} bytes"
        return f"The lane of partition {partition} is at its limit of {limit}"

    def doubted(self, error: _RefusalT) -> _RefusalT | OutcomeUnknown:
        """Return the error to end with: it must not say that nothing was accepted if something may have been."""
        if not self.is_doubtful:
            return error
        return OutcomeUnknown(
            f"{error.message} An attempt before that was not answered, so whether it was accepted is not known; "
            "send the command again as it was, under the same idempotency key: it has one effect."
        )

    def _accept(self, partition: int, positions: list[int], entries: list[bytes]) -> None:
        for position, entry in zip(positions, entries, strict=True):
            self.entries[position] = entry
        if self._clocks is not None and entries:
            self._clocks.note_redis(int(entries[-1].partition(b"-")[0]) / 1_000, self._asked)
        self.accepted += len(positions)
        rest = self._waiting[partition][len(positions) :]
        if rest:
            self._waiting[partition] = rest
        else:
            del self._waiting[partition]

    def _call(self, partition: int, positions: list[int]) -> Call:
        encoded, first_number = self.chunk.encoded, self.first_number
        header = enqueue_header(
            self._keys,
            partition,
            self._limits,
            self.chunk.store_id,
            producer_id=self._producer_id,
            keep=self._keep,
        )
        call: list[str | bytes | int] = ["EVALSHA", ENQUEUE_SHA1, ENQUEUE_KEYS, *header]
        for position in positions:
            call += (first_number + position, encoded[position])
        return tuple(call)
