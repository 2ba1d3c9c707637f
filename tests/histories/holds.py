"""The holds of one account, followed along all that was decided on it, in the order in which it was. Pure.

Each hold is open until it is used up, voided, or has ended; then nothing can be done with it. What is open is what the
account holds, at every row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from .orders import Anomaly, Sequences
from .records import Row, StoredHold
from .timelines import Timeline

#: Refusals that say of a hold how it has ended.
_ENDED = {"hold_captured": "captured", "hold_voided": "voided", "hold_expired": "expired"}
#: What is decided elsewhere, too, and has one time for all its accounts.
_SPANNING = frozenset({"post", "reverse"})


@dataclass
class FollowedHold:
    """A hold, as the rows so far have made it."""

    left: int
    ends_us: int
    status: str = "open"
    captured: int = 0


def check_holds(timeline: Timeline, sequences: Sequences, stored: Sequence[StoredHold]) -> Iterator[Anomaly]:
    """Check every row of the account against the holds that were open by then, and what is stored of them."""
    rows = [*timeline.entries, *timeline.decisions]
    if not all(row.position in sequences for row in rows):
        # Without the order nothing can be said; that a row was not published is found elsewhere.
        return
    holds: dict[str, FollowedHold] = {}
    for row in sorted(rows, key=lambda row: sequences[row.position]):
        yield from _check_row(row, holds)
        held = sum(hold.left for hold in holds.values())
        if row.held != held:
            yield Anomaly("held_does_not_add_up", str(row), f"it has {row.held} held, and {held} is left of open holds")
    found = {hold_id(each.account, each.number): (each.status, each.captured, each.remaining) for each in stored}
    followed = {identifier: (hold.status, hold.captured, hold.left) for identifier, hold in holds.items()}
    for identifier in sorted(found.keys() | followed.keys()):
        if found.get(identifier) != followed.get(identifier):
            kept, made = found.get(identifier), followed.get(identifier)
            yield Anomaly("hold_differs", identifier, f"stored as {kept}, and its rows make it {made}")


def _check_row(row: Row, holds: dict[str, FollowedHold]) -> Iterator[Anomaly]:
    """Check one row and bring the holds up to date."""
    overlooked = [name for name, hold in holds.items() if hold.status == "open" and hold.ends_us <= row.created_us]
    if overlooked and row.kind != "expiry" and row.kind not in _SPANNING:
        yield Anomaly("end_overlooked", str(row), f"{overlooked[0]} had ended before")
    if row.kind == "hold" and row.rejection is None:
        holds[hold_id(row.account, -row.seq)] = FollowedHold(row.amount or 0, _moment_us(row))
    elif row.kind in {"capture", "void", "extend", "expiry"}:
        yield from _check_use(row, holds.get(row.content["hold_id"]))
    elif row.kind == "close":
        is_holding = any(hold.status == "open" for hold in holds.values())
        if row.rejection in {None, "account_has_holds"} and is_holding != (row.rejection is not None):
            yield Anomaly("wrong_closing", str(row), f"holds were {'' if is_holding else 'not '}open")


def _check_use(row: Row, hold: FollowedHold | None) -> Iterator[Anomaly]:
    """Check what was done with a hold, or why nothing was."""
    status = "not_found" if hold is None else hold.status
    if row.rejection is not None:
        expected = "not_found" if row.rejection == "hold_not_found" else _ENDED.get(row.rejection)
        is_wrong = expected is not None and expected != status
        if row.rejection in {"capture_exceeds_hold", "expires_at_out_of_range"}:
            is_wrong = status != "open" or (row.kind == "capture" and (row.amount or 0) <= (hold.left if hold else 0))
        if is_wrong:
            yield Anomaly("wrong_refusal_of_hold", str(row), f"the hold was {status}")
        return
    if hold is None or hold.status != "open":
        yield Anomaly("ended_hold_used", str(row), f"the hold was {status}")
        return
    if (row.kind == "expiry") != (hold.ends_us <= row.created_us):
        yield Anomaly("wrong_side_of_end", str(row), f"the hold ended at {hold.ends_us}")
    if row.kind == "extend":
        hold.ends_us = _moment_us(row)
    elif row.kind == "capture":
        amount = row.amount or 0
        if amount > hold.left and not row.content["allow_overage"]:
            yield Anomaly("captured_beyond_hold", str(row), f"{hold.left} was left")
        hold.captured += amount
        hold.left = 0 if row.content["final"] else max(0, hold.left - amount)
        hold.status = "open" if hold.left else "captured"
    else:
        hold.left, hold.status = 0, "voided" if row.kind == "void" else "expired"


def hold_id(account: str, number: int) -> str:
    """Return the id of the hold that this decision of the account made."""
    return f"cch_{account[4:]}{number:x}"


def _moment_us(row: Row) -> int:
    moment = datetime.fromisoformat(row.content["ends_at"])
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
