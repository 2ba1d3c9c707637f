"""Judges a history: what clients saw, beside the books at the end. Pure; every finding says what it contradicts.

Ordered by what they check: keys, accounts (`orders` has the order of each), moments, the outbox, calls.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .holds import check_holds, hold_id
from .orders import Anomaly, check_account, check_reversals
from .records import NEVER, Books, Operation, Row, content_of, content_of_row
from .timelines import ACCEPTANCES, ANSWERS, Spans, Timeline, key_of

#: Balances that the API shows are as of the whole of a millisecond.
MILLISECOND_US = 1_000
#: How much longer than its timeout a call may take, in seconds: the machine may be busy.
MARGIN_SECONDS = 3.0


class History(NamedTuple):
    """All that is judged, in the forms in which it is judged."""

    operations: Sequence[Operation]
    books: Books
    spans: Spans
    timelines: Mapping[str, Timeline]
    by_key: Mapping[str, Row]


def history_of(operations: Sequence[Operation], books: Books) -> History:
    """Return the history of these operations and books."""
    spans = Spans(operations, books.rows)
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for row in books.rows:
        rows[row.account].append(row)
    timelines = {account: Timeline(account, of_account, spans.of) for account, of_account in rows.items()}
    return History(operations, books, spans, timelines, {row.key: row for row in books.rows if row.first is None})


def check(
    operations: Sequence[Operation],
    books: Books,
    *,
    closed_sets: Iterable[Sequence[str]] = (),
    margin_seconds: float = MARGIN_SECONDS,
) -> list[Anomaly]:
    """Return everything that is wrong with the history; accounts of a closed set pay only among themselves."""
    history = history_of(operations, books)
    found = [*check_keys(history), *check_trials(history), *check_rows(history)]
    reads = reads_by_account(history)
    sequences = {(each.account, each.seq): each.sequence for each in books.published}
    for account, timeline in history.timelines.items():
        found += check_account(timeline, reads.get(account, []), history.timelines, sequences)
        found += check_holds(timeline, sequences, [hold for hold in books.holds if hold.account == account])
    found += check_reversals(books.rows, history.timelines, history.spans)
    found += check_moments(history)
    for accounts in closed_sets:
        found += check_closed_set(history, accounts)
    return [*found, *check_sequences(books), *check_calls(operations, margin_seconds)]


def check_keys(history: History) -> Iterator[Anomaly]:
    """Check every answer against the one row of its key: one effect, first answer again, mismatches, nothing lost."""
    attempts: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.sends or operation.op == "wait":
            request = operation.request if operation.sends else operation.request["command"]
            attempts[key_of(request)].append(operation)
    refused = refused_reversals(history.books)
    for key, operations in attempts.items():
        row = history.by_key.get(key)
        for operation in operations:
            yield from check_answer(operation, row, refused.get(key, []), history.books.dead)
        yield from check_unavailable(operations, row, refused.get(key, []))
        yield from check_replays(operations, row)


def check_trials(history: History) -> Iterator[Anomaly]:
    """Check that trials have left nothing, and were answered as such: each had a key that nothing else had."""
    for operation in history.operations:
        if operation.is_dry and operation.key in history.by_key:
            yield Anomaly("trial_left_a_row", str(operation), f"in the books: {history.by_key[operation.key]}")
        if operation.is_dry and operation.outcome.get("transaction") is not None:
            yield Anomaly("trial_made_something", str(operation), "nothing that was tried has an id")


def refused_reversals(books: Books) -> Mapping[str, list[Row]]:
    """Return the refused attempts to reverse each transaction, by the key of the reversal."""
    refused: defaultdict[str, list[Row]] = defaultdict(list)
    for row in books.rows:
        if row.kind == "reverse" and row.rejection is not None:
            refused[":".join(row.key.split(":", 2)[:2])].append(row)
    return refused


def check_answer(operation: Operation, row: Row | None, refused: list[Row], dead: set[str]) -> Iterator[Anomaly]:
    """Check one answer to a command."""
    request = operation.request if operation.sends else operation.request["command"]
    if operation.kind in ANSWERS and request["op"] == "reverse":
        yield from check_reversal_answer(operation, row, refused)
    elif operation.kind in ANSWERS:
        yield from check_decision_answer(operation, row, content_of(request))
    elif operation.kind == "accepted" and row is None and not refused and request.get("key") not in dead:
        yield Anomaly("accepted_and_lost", str(operation), "neither in the journal nor among the dead letters")
    elif operation.kind == "lost":
        yield Anomaly("reported_as_lost", str(operation), f"the key's row is {row}")


def check_decision_answer(operation: Operation, row: Row | None, content: list[Any]) -> Iterator[Anomaly]:
    """Check the answer to any other command: the key's row is what was asked for, or the answer says that it is not."""
    code = operation.outcome.get("code")
    same = row is not None and content_of_row(row) == content
    if code == "idempotency_key_mismatch":
        if row is None or same:
            yield Anomaly("wrong_mismatch", str(operation), f"the key's row is {row}")
    elif code in {"not_found", "hold_not_found"} and "http" in operation.outcome:
        # The API looks for an account or a hold before it uses up a key: that it was not there is judged as a read.
        return
    elif row is None:
        yield Anomaly("answer_without_row", str(operation), "nothing in the books has this key")
    elif not same:
        yield Anomaly("mismatch_not_reported", str(operation), f"the key belongs to {row}")
    else:
        yield from check_row_answered(operation, row)


def check_reversal_answer(operation: Operation, row: Row | None, refused: list[Row]) -> Iterator[Anomaly]:
    """Check the answer to an attempt to reverse: attempts that were refused have rows of their own."""
    if operation.kind == "applied":
        if row is None:
            yield Anomaly("answer_without_row", str(operation), "nothing in the books has this key")
        else:
            yield from check_row_answered(operation, row)
        return
    codes = {_public(refusal.rejection) for refusal in refused}
    # The API refuses what the books forbid as they stand, without using up a key.
    if "http" not in operation.outcome and _public(operation.outcome["code"]) not in codes:
        yield Anomaly("answer_without_row", str(operation), f"refused attempts in the books: {sorted(map(str, codes))}")


def check_row_answered(operation: Operation, row: Row) -> Iterator[Anomaly]:
    """Check that the answer says what the row records."""
    outcome = operation.outcome
    if (operation.kind == "rejected") != (row.rejection is not None):
        yield Anomaly("answer_differs", str(operation), f"the books say {row}")
        return
    if row.rejection is not None and _public(outcome["code"]) != _public(row.rejection):
        yield Anomaly("answer_differs", str(operation), f"the books say {row}")
    expected = {"balance": row.balance, "seq": row.seq if row.seq > 0 else None}
    if row.rejection == "insufficient_balance" and "obstacle" not in row.content:
        expected = {"needed": row.amount, "available": row.balance - row.held + row.limit}
    elif row.rejection is not None or "account" in outcome:
        # An account that is read back is as it is now.
        expected = {}
    elif row.asked is not None:
        expected["shortfall"] = row.asked - (row.amount or 0)
    elif row.kind == "hold":
        expected = {"hold": hold_id(row.account, -row.seq)}
    for name, value in expected.items():
        if outcome.get(name) is not None and outcome[name] != value:
            yield Anomaly("answer_differs", str(operation), f"{name} is {value} in {row}")


def _public(code: str | None) -> str | None:
    return "not_found" if code in {"account_not_found", "transaction_not_found"} else code


def check_unavailable(operations: Sequence[Operation], row: Row | None, refused: list[Row]) -> Iterator[Anomaly]:
    """Check that what was said not to be accepted is not in the books, where no other attempt can have put it there."""
    sent = [operation for operation in operations if operation.sends]
    denied = [operation for operation in sent if operation.kind in {"unavailable", "refused"}]
    if not denied or len(denied) < len(sent) or (row is None and not refused):
        return
    if row is None or content_of_row(row) in [content_of(operation.request) for operation in sent]:
        yield Anomaly("unavailable_but_applied", str(denied[0]), f"in the books: {row or refused[0]}")


def check_replays(operations: Sequence[Operation], row: Row | None) -> Iterator[Anomaly]:
    """Check that a later answer says that it is one."""
    if row is None or row.kind == "reverse":
        return
    answers = [
        operation
        for operation in operations
        if operation.sends and operation.kind in ANSWERS and content_of(operation.request) == content_of_row(row)
    ]
    first = min((answer.ended for answer in answers), default=NEVER)
    for answer in answers:
        if answer.began > first and answer.outcome.get("replayed") is False:
            yield Anomaly("replay_not_reported", str(answer), "this key had been answered before")


def check_rows(history: History) -> Iterator[Anomaly]:
    """Check what the rows of a transaction are to each other, and that somebody asked for every row."""
    counts = Counter(row.key for row in history.books.rows if row.first is None)
    for key, count in counts.items():
        if count > 1:
            yield Anomaly("two_effects", key, f"{count} rows have this key")
    firsts = {row.position: row for row in history.books.rows if row.first is None}
    moved: defaultdict[tuple[str, int], int] = defaultdict(int)
    for row in history.books.rows:
        first = firsts.get(row.first or row.position)
        if first is None:
            yield Anomaly("leg_without_first", str(row), f"no entry at {row.first}")
            continue
        moved[first.position] += row.side * (row.amount or 0)
        if row.created_us != first.created_us:
            yield Anomaly("leg_at_other_moment", str(row), f"the first entry is at {first.created_us}")
        # A hold ends though nobody asks for it.
        if row.first is None and row.kind != "expiry" and not history.spans.attempts(row):
            yield Anomaly("nobody_asked", str(row), "no operation has this key and content")
    for position, total in moved.items():
        if firsts[position].kind == "post" and firsts[position].seq > 0 and total != 0:
            yield Anomaly("legs_do_not_balance", str(firsts[position]), f"they sum up to {total}")


def reads_by_account(history: History) -> Mapping[str, list[Operation]]:
    """Return the operations that say something of an account as it was while they ran."""
    reads: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.is_dry:
            continue
        if (operation.kind == "read" and not is_past(operation)) or is_absence(operation, history):
            reads[operation.request["account"]].append(operation)
        elif operation.kind == "applied" and "account" in operation.outcome:
            reads[operation.outcome["account"]].append(operation)
    return reads


def is_absence(operation: Operation, history: History) -> bool:
    """Return whether somebody looked for the account and found none: a reader, or the API before it sent a command."""
    row = history.by_key.get(operation.key)
    is_decided = row is not None and row.rejection == "account_not_found"
    is_looked_for = (
        operation.op in {"credit", "debit", "hold", "freeze", "unfreeze", "close"} and "http" in operation.outcome
    )
    is_refused = is_looked_for and not is_decided and operation.outcome.get("code") == "not_found"
    return operation.kind == "absent" or is_refused


def is_past(operation: Operation) -> bool:
    """Return whether this read a balance as of a moment that was past by then; in the future it is the current one."""
    return operation.op == "read_at" and operation.request["at_us"] <= operation.ended_us


def check_moments(history: History) -> Iterator[Anomaly]:
    """Check that what was read as of a moment is what the books say of that moment, now that all is in them."""
    for operation in history.operations:
        if operation.kind != "read" or not is_past(operation):
            continue
        timeline = history.timelines.get(operation.request["account"])
        expected = 0
        if timeline is not None:
            expected = timeline.balances[timeline.position_at(operation.outcome["as_of_us"] + MILLISECOND_US)]
        if operation.outcome["balance"] != expected:
            yield Anomaly("moment_changed", str(operation), f"the books have {expected} at that moment")


def check_closed_set(history: History, accounts: Sequence[str]) -> Iterator[Anomaly]:
    """Check that the accounts have the same sum at every moment, in the books and in what was read as of one moment."""
    entries = sorted(
        (row.created_us, row.kind != "open_account", row.side * (row.amount or 0))
        for account in accounts
        if account in history.timelines
        for row in history.timelines[account].entries
    )
    total = sum(moved for _, is_later, moved in entries if not is_later)
    moments: Counter[int] = Counter()
    for moment, is_later, moved in entries:
        moments[moment] += moved if is_later else 0
    left = 0
    for moment, moved in sorted(moments.items()):
        left += moved
        if left != 0:
            yield Anomaly("books_do_not_add_up", accounts[0], f"{total + left} and not {total} at {moment}")
            break
    yield from _check_read_sums(history.operations, set(accounts), total)


def _check_read_sums(operations: Iterable[Operation], accounts: set[str], total: int) -> Iterator[Anomaly]:
    rounds: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.op == "read_at" and operation.kind == "read" and operation.request["account"] in accounts:
            rounds[operation.request["round"]].append(operation)
    for name, reads in rounds.items():
        moments = {read.outcome["as_of_us"] for read in reads}
        is_whole = {read.request["account"] for read in reads} == accounts
        if is_whole and len(moments) == 1 and all(map(is_past, reads)):
            found = sum(read.outcome["balance"] for read in reads)
            if found != total:
                yield Anomaly("sum_at_moment", f"{name} as of {moments.pop()}", f"{found} and not {total}")


def check_sequences(books: Books) -> Iterator[Anomaly]:
    """Check that the outbox numbers the rows of each account without a gap, and has none of them twice."""
    sequences: defaultdict[str, list[int]] = defaultdict(list)
    for account, _, sequence in books.published:
        sequences[account].append(sequence)
    rows = Counter(row.account for row in books.rows)
    for account, count in rows.items():
        numbers = Counter(sequences[account])
        twice = sorted(number for number, times in numbers.items() if times > 1)
        missing = sorted(set(range(1, count + 1)) - numbers.keys())
        if twice:
            yield Anomaly("sequence_twice", account, f"{twice} of {count}")
        if missing or max(numbers, default=0) > count:
            yield Anomaly("sequence_missing", account, f"{missing} of {count}, highest {max(numbers, default=0)}")
    published = {(account, seq) for account, seq, _ in books.published}
    for row in books.rows:
        if row.position not in published:
            yield Anomaly("row_not_published", str(row), "it is not in the outbox")


def check_calls(operations: Iterable[Operation], margin_seconds: float) -> Iterator[Anomaly]:
    """Check that every call ended in time, and in one of the ways that are documented."""
    for operation in operations:
        if operation.kind == "error":
            yield Anomaly("undocumented", str(operation), "no such outcome is documented")
        if operation.ended != NEVER and operation.seconds > operation.timeout + margin_seconds:
            yield Anomaly("late", str(operation), f"its timeout is {operation.timeout:g} s")


def summary_of(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return how many operations of each sort there were, and how they went."""
    counted = list(operations)
    return {
        "operations": len(counted),
        "by_operation": dict(Counter(operation.op for operation in counted).most_common()),
        "by_outcome": dict(Counter(operation.kind for operation in counted).most_common()),
        "accepted": sum(operation.kind in ACCEPTANCES for operation in counted),
    }
