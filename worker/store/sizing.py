"""How much goes into one transaction: bounded by commands, rows and bytes, and by what the last ones took.

A bound in commands alone says nothing of what a transaction costs: one post writes up to a hundred rows, one credit may
carry a hundred kilobytes of metadata, and a row is as long as the balance on it. Pure but for the clock it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import cast

import msgspec

from ...lanes.encoding import LaneCommand, PlainCommand
from ...schemas.commands import Expiry, Post
from ...schemas.kinds import SPANNING_WORDS, Kind
from ..lanes.entries import LaneEntry

#: Most bytes of one transaction: what stands on the lanes and the rows that are written, as far as it can be known.
MAX_TRANSACTION_BYTES = 8_000_000
#: Most rows of a transaction with a post or a reversal in it: all the lanes that it touches stand still meanwhile.
MAX_SPANNING_ROWS = 1_000
#: Rows that a reversal is taken to write. How many entries it undoes is known only when they are read.
REVERSAL_ROWS = 10
#: Rows that a dry run is taken to cost, though it writes none: it is decided against a copy of the batch's state, which
#: is the longer the more commands are in the batch.
DRY_RUN_ROWS = 8
#: Bytes of a row that is written, before the first has been.
FIRST_ROW_BYTES = 250
#: How long a transaction that touches other lanes should hold them, in seconds.
SPANNING_SECONDS = 0.1
#: Rows below which nothing is made smaller because it took long. What so few take is the time of the commit itself,
#: with a distant standby or a slow disk, which smaller parts would only pay more often. What times out is halved still.
FEW_ROWS = 100
#: What a share grows by when a full transaction got through in time: twice as much takes 35 of them.
GROWTH = 1.02
#: Times that a command alone may time out before it is to blame, if others get through meanwhile.
MAX_LONE_TIMEOUTS = 4
#: The same where nothing else was there to get through.
MAX_TIMEOUTS_UNPROVEN = 10
#: Entries whose time-outs are remembered: nothing is heard of those that another worker decides.
MAX_LONE = 1_000

#: Share of what was learnt of rows that is kept where they have become shorter.
_FORGETTING = 0.9
_POST, _REVERSE, _EXPIRY = Kind.POST.word, Kind.REVERSE.word, Kind.EXPIRY.word
_command_of, _payload_of = attrgetter("command"), attrgetter("payload")


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What some entries are taken to cost together."""

    entries: int
    rows: int
    bytes: int
    #: There is a post or a reversal among them.
    spans: bool


class _Lone(msgspec.Struct):
    """An entry that timed out alone."""

    timeouts: int
    #: Transactions that were committed before its first time-out.
    commits: int


class Sizing:
    """What one worker has learnt of how much gets through at once. It outlasts the connection to Postgres."""

    def __init__(self, *, batch_limit: int = 8_000, lease_seconds: float = 10.0) -> None:
        self._batch_limit = batch_limit
        #: What is longer under way than this is too big.
        self.timeout_seconds: float = lease_seconds / 2
        self._row_bytes = float(FIRST_ROW_BYTES)
        #: Shares of the bounds that get through in time, without and with transactions that touch other lanes.
        self._shares = {False: 1.0, True: 1.0}
        self._commits = 0
        self._lone: dict[tuple[int, bytes], _Lone] = {}

    def first_part(self, entries: Sequence[LaneEntry]) -> Cost:
        """Return how many of the first entries go into one transaction, at least one, and what they cost."""
        whole = self._cost_of_plain(entries)
        if whole is not None and self._filling(whole) <= self._shares[False]:
            return whole
        part = self._cost_of(entries[0])
        for entry in entries[1:]:
            one = self._cost_of(entry)
            longer = Cost(part.entries + 1, part.rows + one.rows, part.bytes + one.bytes, spans=part.spans or one.spans)
            if self._filling(longer) > self._shares[longer.spans]:
                break
            part = longer
        return part

    def note_commit(self, part: Cost, seconds: float, written: int) -> None:
        """Learn from a part that was committed after holding its lanes for so long, with rows of so many characters."""
        self._commits += 1
        if written:
            row_bytes = written / max(1, part.rows)
            self._row_bytes = max(row_bytes, self._row_bytes * _FORGETTING, FIRST_ROW_BYTES)
        filling, share = self._filling(part), self._shares[part.spans]
        least = min(1.0, FEW_ROWS / self._most_rows(spans=part.spans))
        wanted = SPANNING_SECONDS if part.spans and share > least else self.timeout_seconds / 2
        if seconds > wanted:
            self._shrink(part, max(0.1, wanted / seconds), least=min(share, least))
        elif filling > share / 2:
            self._shares[part.spans] = min(1.0, share * GROWTH)

    def note_too_big(self, part: Cost) -> None:
        """Learn from a part that did not get through: from now on half of it is tried."""
        self._shrink(part, 0.5)

    def _shrink(self, part: Cost, factor: float, *, least: float = 0.0) -> None:
        # There is nothing smaller than one entry, so its own size says nothing of how many would get through.
        if part.entries > 1:
            smaller = min(self._shares[part.spans], self._filling(part)) * factor
            self._shares[part.spans] = max(least, smaller)

    def note_lone_timeout(self, entry: LaneEntry) -> bool:
        """Count a time-out of an entry that was alone. Returns whether it is to blame, and not the environment."""
        lone = self._lone.setdefault((entry.partition, entry.entry_id), _Lone(0, self._commits))
        lone.timeouts += 1
        if len(self._lone) > MAX_LONE:
            del self._lone[next(iter(self._lone))]
        others_get_through = self._commits > lone.commits
        return lone.timeouts >= (MAX_LONE_TIMEOUTS if others_get_through else MAX_TIMEOUTS_UNPROVEN)

    def forget_lone(self, entry: LaneEntry) -> None:
        """Forget the time-outs of an entry that is decided now."""
        if self._lone:
            self._lone.pop((entry.partition, entry.entry_id), None)

    def _cost_of_plain(self, entries: Sequence[LaneEntry]) -> Cost | None:
        """Return the cost of nothing but plain movements, which are nearly all there is: a row for each."""
        if not set(map(type, map(_command_of, entries))) <= {PlainCommand}:
            return None
        count = len(entries)
        length = sum(map(len, map(_payload_of, entries)))
        return Cost(count, count, length + int(count * self._row_bytes), spans=False)

    def _cost_of(self, entry: LaneEntry) -> Cost:
        rows = rows_of(entry)
        return Cost(1, rows, len(entry.payload) + int(rows * self._row_bytes), spans=spans_accounts(entry))

    def _filling(self, part: Cost) -> float:
        """Return which share of its bounds a part fills; above 1 it is too much."""
        most_rows = self._most_rows(spans=part.spans)
        return max(part.entries / self._batch_limit, part.rows / most_rows, part.bytes / MAX_TRANSACTION_BYTES)

    def _most_rows(self, *, spans: bool) -> int:
        return MAX_SPANNING_ROWS if spans else self._batch_limit


def spans_accounts(entry: LaneEntry) -> bool:
    """Return whether the entry's command may touch accounts of other lanes."""
    return entry.command is not None and entry.command.kind in SPANNING_WORDS


def rows_of(entry: LaneEntry) -> int:
    """Return how many rows the entry is taken to write."""
    command = entry.command
    if command is None or type(command) is PlainCommand:
        return 1
    rows = _rows_written(command)
    return max(rows, DRY_RUN_ROWS) if command.dry_run else rows


def _rows_written(command: LaneCommand) -> int:
    if command.kind == _POST:
        return len(cast("Post", command).entries)
    if command.kind == _EXPIRY:
        return cast("Expiry", command).holds
    return REVERSAL_ROWS if command.kind == _REVERSE else 1
