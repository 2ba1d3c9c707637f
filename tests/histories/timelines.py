"""The history of one account as the journal has it, beside the times at which its changes were begun and known. Pure.

A position is a number of entries: at position p the account has the balance after its p-th entry. What was known to
somebody before an operation began lies before it, and what began after it ended lies after it; between both an
operation may have met any position.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from .records import NEVER, Operation, Row, content_of, content_of_row

#: Outcomes that prove that the command is decided.
ANSWERS = frozenset({"applied", "rejected"})
#: Outcomes that prove that it stands on its lane.
ACCEPTANCES = ANSWERS | {"accepted"}


class Span(NamedTuple):
    """When a command was first sent, when it was known to be accepted and to be decided."""

    began: int = 0
    accepted: int = NEVER
    known: int = NEVER


class Spans:
    """The span of each row of the journal."""

    def __init__(self, operations: Iterable[Operation], rows: Iterable[Row]) -> None:
        self._first = {row.position: row for row in rows if row.first is None}
        self._by_content: defaultdict[tuple[str, str], list[Operation]] = defaultdict(list)
        for operation in operations:
            if operation.sends or operation.op == "wait":
                request = operation.request if operation.sends else operation.request["command"]
                self._by_content[key_of(request), str(content_of(request))].append(operation)
        self._known: dict[tuple[str, int], Span] = {}

    def of(self, row: Row) -> Span:
        """Return the span of the row's command."""
        first = row if row.first is None else self._first.get(row.first, row)
        span = self._known.get(first.position)
        if span is None:
            span = self._known[first.position] = self._span(first)
        return span

    def attempts(self, row: Row) -> list[Operation]:
        """Return the operations that asked for what the row records, or the first one of its transaction."""
        row = row if row.first is None else self._first.get(row.first, row)
        if row.first is not None:
            return []
        key = ":".join(row.key.split(":", 2)[:2]) if row.kind == "reverse" else row.key
        return self._by_content.get((key, str(content_of_row(row))), [])

    def _span(self, row: Row) -> Span:
        attempts = self.attempts(row)
        # Attempts to reverse share one key here: which of them was refused by this very row is not known.
        decided = [] if row.kind == "reverse" and row.rejection else [a for a in attempts if _is_answer_of(a, row)]
        answered = [a.ended for a in decided]
        accepted = [a.ended for a in attempts if a.sends and (a.kind == "accepted" or a in decided)]
        if row.kind == "reverse":
            accepted = []
        began = [a.began for a in attempts if a.sends]
        return Span(min(began, default=0), min(accepted, default=NEVER), min(answered, default=NEVER))


def _is_answer_of(operation: Operation, row: Row) -> bool:
    """Return whether the operation was answered with this row. The API refuses what it finds no account for."""
    return (
        operation.kind == ("rejected" if row.rejection else "applied")
        and operation.outcome.get("code") == row.rejection
    )


def key_of(request: dict[str, object]) -> str:
    """Return the key by which the effect of a request is found."""
    return f"reversal:{request['transaction']}" if request["op"] == "reverse" else str(request["key"])


class Timeline:
    """The positions of one account."""

    def __init__(self, account: str, rows: Iterable[Row], span_of: Callable[[Row], Span]) -> None:
        self.account = account
        ordered = sorted(rows, key=lambda row: row.seq)
        self.entries = [row for row in ordered if row.seq > 0]
        self.decisions = [row for row in reversed(ordered) if row.seq < 0]
        self.balances = [0, *(row.balance for row in self.entries)]
        self.held = held_at(self.entries, self.decisions)
        self.limit = max((row.limit for row in ordered), default=0)
        self.span_of = span_of
        self._known = Frontier((span_of(row).known, position) for position, row in enumerate(self.entries, 1))
        begun = sorted((span_of(row).began, position) for position, row in enumerate(self.entries, 1))
        self._begun = [moment for moment, _ in begun]
        self._earliest = list(accumulate((position for _, position in reversed(begun)), min))
        self._seen: Frontier = Frontier(())
        self.changes = list(self._status_changes())

    @property
    def end(self) -> int:
        return len(self.entries)

    def learn(self, observations: Iterable[tuple[int, int]]) -> None:
        """Take in what somebody had seen: moments, and positions that were passed by then."""
        self._seen = Frontier(observations)

    def window(self, began: int, ended: int) -> range:
        """Return the positions that an operation of this time can have met."""
        lowest = max(self._known.before(began), self._seen.before(began))
        later = len(self._begun) - bisect_right(self._begun, ended)
        highest = self._earliest[later - 1] - 1 if later else self.end
        return range(lowest, highest + 1)

    def position_at(self, before_us: int) -> int:
        """Return how many entries were made before this moment, in microseconds since 1970."""
        return bisect_left([row.created_us for row in self.entries], before_us)

    def statuses(self, began: int, ended: int) -> set[str]:
        """Return every state in which an operation of this time can have met the account."""
        known = max((n for n, (_, span) in enumerate(self.changes, 1) if span.known < began), default=0)
        begun = min((n for n, (_, span) in enumerate(self.changes, 1) if span.began > ended), default=None)
        last = len(self.changes) if begun is None else begun - 1
        return {self.changes[n - 1][0] if n else "absent" for n in range(known, last + 1)}

    def _status_changes(self) -> Iterator[tuple[str, Span]]:
        if self.entries and self.entries[0].kind == "open_account":
            yield "active", self.span_of(self.entries[0])
        for row in self.decisions:
            if row.rejection is None and row.kind in STATUS_AFTER:
                yield STATUS_AFTER[row.kind], self.span_of(row)


def held_at(entries: Sequence[Row], decisions: Iterable[Row]) -> list[set[int]]:
    """Return by position what can have been held there: after the entry, and after the decisions that followed it."""
    held = [{0}, *({row.held} for row in entries)]
    for row in decisions:
        for position in range(len(held)) if row.before is None else [row.before]:
            held[position].add(row.held)
    return held


#: What an applied change makes of the account.
STATUS_AFTER = {"open_account": "active", "freeze": "frozen", "unfreeze": "active", "close": "closed"}


class Frontier:
    """The furthest position that was known at each moment."""

    def __init__(self, observations: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(observations)
        self._moments = [moment for moment, _ in ordered]
        self._furthest = list(accumulate((position for _, position in ordered), max))

    def before(self, moment: int) -> int:
        """Return the furthest position known before the moment; 0 if none was."""
        count = bisect_left(self._moments, moment)
        return self._furthest[count - 1] if count else 0
