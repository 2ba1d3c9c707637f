"""The order of one account: reads, refusals and changes of state, each at a position that its time allows. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from .records import NEVER, Operation, Row
from .timelines import STATUS_AFTER, Span, Spans, Timeline

Sequences = Mapping[tuple[str, int], int]

#: The states in which a change is applied, or a command refused with this code.
_ALLOWED = {
    "open_account": {"absent"},
    "freeze": {"active"},
    "unfreeze": {"frozen"},
    "close": {"active", "frozen"},
    "account_frozen": {"frozen"},
    "account_closed": {"closed"},
    "account_not_frozen": {"active"},
    "account_overdrawn": {"active", "frozen"},
    "account_not_found": {"absent"},
    "account_exists": {"active", "frozen", "closed"},
    "insufficient_balance": {"active"},
    "hold": {"active"},
    "extend": {"active"},
    "void": {"active", "frozen"},
    "expiry": {"active", "frozen"},
    "account_has_holds": {"active", "frozen"},
    "capture_exceeds_hold": {"active"},
    "expires_at_out_of_range": {"active"},
    "hold_not_found": {"active", "frozen"},
    "hold_captured": {"active", "frozen"},
    "hold_voided": {"active", "frozen"},
    "hold_expired": {"active", "frozen"},
}
#: What the state of an account must have been for a transaction to fail at it.
_OBSTACLES = {"account_frozen": "frozen", "account_closed": "closed", "account_not_found": "absent"}


class Anomaly(NamedTuple):
    """Something that contradicts a guarantee."""

    kind: str
    where: str
    contradicts: str


class Seen(NamedTuple):
    """What an operation says of an account: the balance, or the very position."""

    began: int
    ended: int
    balance: int
    #: Empty for a decision, which has a position of its own: `place_decisions` judges it.
    what: str
    position: int | None = None
    #: Positions before this one are excluded by what was asked for.
    lowest: int = 0


def check_account(
    timeline: Timeline, reads: Iterable[Operation], timelines: Mapping[str, Timeline], sequences: Sequences
) -> Iterator[Anomaly]:
    """Check everything that happened on one account against the order of its rows."""
    yield from check_entries(timeline)
    yield from check_acceptance(timeline, sequences)
    yield from check_reads(timeline, reads)
    yield from check_decisions(timeline, sequences)
    yield from check_obstacles(timeline, timelines)


def check_entries(timeline: Timeline) -> Iterator[Anomaly]:
    """Check that entries count up and add up, and that none stands before one that was answered before it began."""
    balance, latest, latest_us = 0, Span(), 0
    for number, row in enumerate(timeline.entries, 1):
        balance += row.side * (row.amount or 0)
        if row.seq != number or row.balance != balance or row.balance - row.held < -row.limit:
            yield Anomaly("entries_do_not_add_up", str(row), f"should be entry {number}, balance {balance}")
            balance = row.balance
        left = row.balance - row.held + row.limit
        if row.asked is not None and row.amount != row.asked and (left != 0 or (row.amount or 0) > row.asked):
            yield Anomaly("partial_debit", str(row), f"{row.asked} was asked for, and {left} is left")
        span = timeline.span_of(row)
        if span.known < latest.began:
            yield Anomaly("order", str(row), "it was answered before an entry began that stands before it")
        if row.created_us < latest_us:
            yield Anomaly("time_goes_back", str(row), f"the entry before it is at {latest_us}")
        latest, latest_us = max(latest, span), max(latest_us, row.created_us)
    for number, row in enumerate(timeline.decisions, 1):
        if row.seq != -number:
            yield Anomaly("decision_missing", str(row), f"should be decision {-number}")


def check_acceptance(timeline: Timeline, sequences: Sequences) -> Iterator[Anomaly]:
    """Check that what was accepted on the account's lane before another was sent was also decided before it."""
    own = [row for row in (*timeline.entries, *timeline.decisions) if row.first is None]
    if all(row.position in sequences for row in own):
        own.sort(key=lambda row: sequences[row.position])
    else:
        own = [row for row in own if row.seq > 0]
    latest, latest_us = Span(), 0
    for row in own:
        span = timeline.span_of(row)
        if span.accepted < latest.began:
            yield Anomaly("acceptance_order", str(row), "it was accepted before a command was sent that came before it")
        if row.created_us < latest_us:
            yield Anomaly("time_goes_back", str(row), f"what was decided before it is at {latest_us}")
        latest, latest_us = max(latest, span), max(latest_us, row.created_us)


def check_reads(timeline: Timeline, reads: Iterable[Operation]) -> Iterator[Anomaly]:
    """Check that everything that was seen was there while it was read, and that nobody saw less than before.

    The timeline learns what was seen, for what is checked after it.
    """
    seen = [*_seen_by_reads(timeline, reads), *_seen_by_refusals(timeline)]
    moments: list[int] = []
    furthest: list[int] = []
    for item in sorted(seen, key=lambda item: item.ended):
        before = bisect_left(moments, item.began)
        window = timeline.window(item.began, item.ended)
        lowest = max(window.start, item.lowest, furthest[before - 1] if before else 0)
        positions = [p for p in range(lowest, window.stop) if timeline.balances[p] == item.balance]
        if item.position is not None:
            positions = [p for p in positions if p == item.position]
        if not positions and not item.what:
            continue
        if not positions:
            known = timeline.balances[lowest : window.stop]
            yield Anomaly("stale_or_unreal", item.what, f"positions {lowest} to {window.stop - 1}: {known[:8]}")
            continue
        moments.append(item.ended)
        furthest.append(max(positions[0], furthest[-1] if furthest else 0))
    timeline.learn(zip(moments, furthest, strict=True))
    for read in reads:
        status = read.outcome.get("status", None if read.kind in {"read", "applied"} else "absent")
        if status is not None and status not in timeline.statuses(read.began, read.ended):
            allowed = sorted(timeline.statuses(read.began, read.ended))
            yield Anomaly("stale_status", str(read), f"the account was {' or '.join(allowed)}")


def _seen_by_reads(timeline: Timeline, reads: Iterable[Operation]) -> Iterator[Seen]:
    after = {row.key: row.seq for row in timeline.entries if row.first is None}
    for read in reads:
        if "balance" not in read.outcome:
            continue
        lowest = after.get(read.request.get("after", ""), 0)
        position = read.outcome.get("position")
        yield Seen(read.began, read.ended, read.outcome["balance"], str(read), position, lowest)


def _seen_by_refusals(timeline: Timeline) -> Iterator[Seen]:
    for row in timeline.decisions:
        span = timeline.span_of(row)
        if span.known != NEVER:
            yield Seen(span.began, span.known, row.balance, "")


def check_decisions(timeline: Timeline, sequences: Sequences) -> Iterator[Anomaly]:
    """Find for every decision, in their order, a position that its time, its balance and the account's state allow.

    Nothing moves while the account is frozen or closed, so two decisions on both sides of that have one position.
    """
    status, feasible = "absent", [0]
    opened_by_entry = bool(timeline.entries) and timeline.entries[0].kind == "open_account"
    for number, row in enumerate(timeline.decisions, 1):
        span = timeline.span_of(row)
        window = timeline.window(span.began, span.known)
        real = [p for p in window if timeline.balances[p] == row.balance]
        if not real:
            known = timeline.balances[window.start : window.stop][:8]
            yield Anomaly("stale_decision", str(row), f"the account had one of {known} while it was decided")
            feasible, status = list(window) or feasible, _status_after(row, status)
            continue
        states = {p: "active" if status == "absent" and opened_by_entry and p else status for p in real}
        right = [p for p in real if _is_right(row, states[p])]
        moves = status == "active" or (status == "absent" and opened_by_entry)
        placed = [p for p in right if (p >= feasible[0] if moves else p in feasible)]
        numbered = [p for p in placed if sequences.get(row.position, p + number) == p + number]
        timed = [p for p in numbered if _is_in_time(row, timeline.entries, p)]
        if not right:
            yield Anomaly("wrong_refusal", str(row), f"the account was {status}")
        elif not placed:
            yield Anomaly("decision_order", str(row), f"{status} at positions {feasible[:8]}, then at {right[:8]}")
        elif not numbered:
            yield Anomaly(
                "sequence_of_decision", str(row), f"published as number {sequences[row.position]}, not at {placed[:8]}"
            )
        elif not timed:
            around = [str(timeline.entries[n]) for n in (numbered[0] - 1, numbered[0]) if 0 <= n < timeline.end]
            yield Anomaly("time_against_order", str(row), f"it stands between {around}")
        feasible = timed or numbered or placed or right or real
        status = _status_after(row, "active" if status == "absent" and opened_by_entry and feasible[0] else status)
    if status in {"frozen", "closed"} and timeline.end not in feasible:
        yield Anomaly("moved_while_stopped", timeline.account, f"{status} at {feasible[:8]}, moved to {timeline.end}")


def _status_after(row: Row, status: str) -> str:
    return STATUS_AFTER.get(row.kind, status) if row.rejection is None else status


def _is_in_time(row: Row, entries: Sequence[Row], position: int) -> bool:
    """Return whether the decision's time lies between those of the entries before and after it."""
    after_previous = position == 0 or entries[position - 1].created_us <= row.created_us
    return after_previous and (position == len(entries) or row.created_us <= entries[position].created_us)


def _is_right(row: Row, status: str) -> bool:
    if row.content.get("obstacle", {}).get("account_id", row.account) != row.account:
        return True
    if row.kind == "reverse" and row.rejection == "insufficient_balance":
        return status == "active"
    allowed = _ALLOWED.get(row.rejection or row.kind)
    if allowed is not None and status not in allowed:
        return False
    is_short = row.rejection == "insufficient_balance" and "obstacle" not in row.content
    if is_short and row.asked is not None:
        return row.balance - row.held + row.limit <= 0
    return not is_short or (row.amount or 0) > row.balance - row.held + row.limit


def check_obstacles(timeline: Timeline, timelines: Mapping[str, Timeline]) -> Iterator[Anomaly]:
    """Check that what stood in the way of a transaction was there while it was decided, on whatever account."""
    for row in timeline.decisions:
        obstacle = row.content.get("obstacle")
        if obstacle is None or row.rejection is None:
            continue
        other = timelines.get(obstacle["account_id"])
        if other is None:
            continue
        span = timeline.span_of(row)
        if row.rejection in _OBSTACLES and _OBSTACLES[row.rejection] not in other.statuses(span.began, span.known):
            yield Anomaly("wrong_refusal", str(row), f"{other.account} was never in that state meanwhile")
        if row.rejection == "insufficient_balance" and row.kind == "post":
            yield from _check_shortfall(row, other, span)


def _check_shortfall(row: Row, other: Timeline, span: Span) -> Iterator[Anomaly]:
    needed, available = (int(row.content["obstacle"][name]) for name in ("needed", "available"))
    window = other.window(span.began, span.known)
    offsets = {0, *accumulate(_moved_by(row, other.account))}
    possible = {
        other.balances[p] - held + other.limit + offset for p in window for held in other.held[p] for offset in offsets
    }
    if available not in possible or needed <= available:
        known = sorted(possible)[:8]
        yield Anomaly("wrong_refusal", str(row), f"{other.account} had one of {known} available, {needed} needed")


def _moved_by(row: Row, account: str) -> Iterator[int]:
    for leg in row.content.get("entries", ()):
        if leg["account_id"] == account:
            yield int(leg["amount"]) * (1 if leg["side"] == "credit" else -1)


def check_reversals(rows: Sequence[Row], timelines: Mapping[str, Timeline], spans: Spans) -> Iterator[Anomaly]:
    """Check that a reversal was refused for want of balance only where the whole of it was not covered."""
    legs: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if row.seq > 0:
            legs.setdefault(row.first or row.position, []).append(row)
    for row in rows:
        if row.kind != "reverse" or row.rejection != "insufficient_balance":
            continue
        transaction = row.key.split(":", 2)[1]
        original = legs.get(("cca_" + transaction[4:36], int(transaction[36:], 16)), [])
        undone: dict[str, int] = {}
        for leg in original:
            undone[leg.account] = undone.get(leg.account, 0) - leg.side * (leg.amount or 0)
        span = spans.of(row)
        short = any(
            timelines[account].balances[p] - max(timelines[account].held[p]) + timelines[account].limit + moved < 0
            for account, moved in undone.items()
            for p in timelines[account].window(span.began, span.known)
        )
        if original and not short:
            yield Anomaly("wrong_refusal", str(row), f"every account covers the whole reversal: {undone}")
