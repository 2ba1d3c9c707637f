"""Random histories of commands, made so that they meet: few accounts, keys and names, and amounts of every size."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from creditlane.schemas.commands import (
    Capture,
    Close,
    Command,
    Credit,
    Debit,
    Extend,
    Freeze,
    Hold,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    SetLimit,
    Unfreeze,
    Void,
)
from creditlane.schemas.journal import Announcement
from creditlane.schemas.results import Result, result_of_announcement
from creditlane.worker.ledger.state import Outcome

from .naive_ledger import Answer, NaiveLedger

#: `make test` takes few examples; the long form takes its time.
LONG = os.environ.get("CREDITLANE_TEST_LONG") == "1"

#: Two accounts on lane 1 and two on lane 6 of 8.
ACCOUNTS = [f"cca_{number:032x}" for number in (3, 8, 6, 13)]
NAMES = [
    "main",
    " Main ",
    "MAIN",
    "Straße",
    "STRASSE",
    "caf\u00e9",
    "CAFE\u0301",
    "\u03b0",
    "\u03ab\u0301",
    "m\u200bain",
    "tab\tand\\N",
]
REFERENCES = ["request", "line\nfeed", "\\", "\u00fc\U0001f600 \u2028", "'; drop table journal"]

#: Small mostly, so that they meet; else of any number of digits up to the longest.
amounts = st.integers(1, 24).flatmap(
    lambda small: st.just(small) if small <= 20 else st.integers(1, 1_000).map(lambda digits: 10**digits - 1)
)
#: Mostly what is there.
affordable = st.one_of(st.integers(1, 3), st.integers(1, 3), amounts)
rarely = st.sampled_from([False, False, False, True])
limits = st.sampled_from([0, 0, 0, 1, 30, 10**1_000 - 1])

#: When the clock begins that a history moves, in microseconds since 1970, as all times here.
EPOCH_US = 1_800_000_000_000_000
SECOND_US = 1_000_000
#: By how much the clock moves between two batches: mostly on, and sometimes back, as far as a clock is set or farther.
steps = st.sampled_from(
    [0, 0, 1, SECOND_US, SECOND_US, 5 * SECOND_US - 1, 60 * SECOND_US, 8 * 86_400 * SECOND_US, -1, -SECOND_US, -(10**9)]
)
#: Number of a transaction or hold that is not there.
UNKNOWN = 99

#: When holds end: while a history goes on that moves its clock, and long after any other.
SOON = st.one_of(
    st.sampled_from([None, 1, 5, 60]),
    st.sampled_from([1, 5, 60, 61, 9 * 86_400, 400 * 86_400]).map(
        lambda seconds: datetime.fromtimestamp(EPOCH_US // SECOND_US, UTC) + timedelta(seconds=seconds)
    ),
)
LATE = st.sampled_from([None, 3_600, 366 * 86_400])


class Sent(NamedTuple):
    """A command as one store sends it."""

    store: int
    command: Command


#: Kinds as often as they keep a history interesting: one that moves money, and one that changes accounts.
MOVING = (
    ["open"] * 3
    + ["credit"] * 8
    + ["debit"] * 8
    + ["post"] * 8
    + ["reverse"] * 8
    + ["set_limit"] * 4
    + ["freeze"] * 2
    + ["unfreeze"] * 3
    + ["close"]
)
HOLDING = (
    ["hold"] * 14
    + ["capture"] * 10
    + ["void"] * 3
    + ["extend"] * 4
    + ["credit"] * 2
    + ["debit"] * 4
    + ["post"] * 3
    + ["reverse"] * 3
    + ["set_limit"] * 2
    + ["freeze", "unfreeze", "close"]
)
CHANGING = (
    ["open"] * 8 + ["credit"] * 6 + ["post"] * 3 + ["reverse"] + ["freeze"] * 4 + ["unfreeze"] * 3 + ["close"] * 4
)


@st.composite
def sent(
    draw: st.DrawFn, accounts: Sequence[str], label: str, kinds: Sequence[str], ends: st.SearchStrategy[Any]
) -> Sent:
    """Return a command for one of the accounts. Keys and customers carry the label, so that two labels never meet."""
    # One busy account and one busy store: histories that meet say more than ones that do not.
    store = draw(st.sampled_from([0, 0, 0, 1]))
    account = draw(st.sampled_from([accounts[0], accounts[0], *accounts]))
    # A few keys that are used again and again, with the same content or another, and many that are not.
    number = draw(st.one_of(st.integers(0, 10**9), st.integers(7, 10**9), st.integers(7, 10**9), st.integers(0, 6)))
    kind = draw(st.sampled_from(kinds))
    if kind == "reverse":
        seq = draw(st.sampled_from([1, 1, 2, 2, 3, 3, 4, 5, UNKNOWN]))
        owner = draw(st.sampled_from([account, account, account, *accounts]))
        transaction = f"cct_{owner[4:]}{seq:x}"
        attempt = f"reversal:{transaction}:{label}-{number}"
        part = draw(st.one_of(st.none(), affordable))
        names = {"account_id": account, "transaction_id": transaction, "idempotency_key": attempt}
        return Sent(store, Reverse(**names, amount=part))
    fields: dict[str, Any] = {"account_id": account, "idempotency_key": f"{label}-{number}"}
    if kind in {"credit", "debit"}:
        fields |= {"amount": draw(amounts), "reference": draw(st.sampled_from(REFERENCES))}
        return Sent(store, Credit(**fields) if kind == "credit" else Debit(**fields, allow_partial=draw(rarely)))
    if kind in {"hold", "capture", "void", "extend"}:
        return Sent(store, draw(about_hold(kind, account, fields["idempotency_key"], ends)))
    if kind == "post":
        return Sent(store, draw(posting(accounts, account, fields["idempotency_key"])))
    if kind == "open":
        customer = draw(st.sampled_from([f"{label}-ann", f"{label}-bob"]))
        fields |= {"customer_id": customer, "name": draw(st.sampled_from(NAMES)), "overdraft_limit": draw(limits)}
        return Sent(store, OpenAccount(**fields, initial_balance=draw(st.one_of(st.just(0), amounts))))
    if kind == "set_limit":
        fields["limit"] = draw(st.sampled_from(["credit_limit", "max_balance", "max_balance", "low_balance"]))
        fields["amount"] = draw(st.one_of(st.none(), st.integers(0, 40)))
    models = {"freeze": Freeze, "unfreeze": Unfreeze, "close": Close, "set_limit": SetLimit}
    return Sent(store, models[kind](**fields))


@st.composite
def about_hold(draw: st.DrawFn, kind: str, account: str, key: str, ends: st.SearchStrategy[Any]) -> Command:
    """Return a hold, or what is done with one of the first decisions of the account, which may be a hold."""
    end = draw(ends)
    until: dict[str, Any] = {"expires_at" if isinstance(end, datetime) else "expires_in_seconds": end}
    if kind == "hold":
        reference = draw(st.sampled_from(REFERENCES))
        return Hold(account_id=account, idempotency_key=key, amount=draw(affordable), reference=reference, **until)
    hold_id = f"cch_{account[4:]}{draw(st.sampled_from([1, 1, 1, 2, 2, 3, 4, 5, UNKNOWN])):x}"
    if kind == "void":
        return Void(hold_id=hold_id, idempotency_key=key)
    if kind == "extend":
        return Extend(
            hold_id=hold_id, idempotency_key=key, **(until if end is not None else {"expires_in_seconds": 90})
        )
    return Capture(
        hold_id=hold_id,
        idempotency_key=key,
        amount=draw(st.one_of(st.none(), affordable)),
        final=draw(st.booleans()),
        allow_overage=draw(st.booleans()),
        reference=draw(st.sampled_from([None, *REFERENCES])),
    )


@st.composite
def posting(draw: st.DrawFn, accounts: Sequence[str], busy: str, key: str) -> Post:
    """Return a post of a few transfers, in any order of its entries; some lack an entry and do not balance."""
    sides = st.sampled_from([busy, busy, accounts[0], accounts[0], *accounts])
    entries = []
    # Mostly one small transfer between accounts that are there: of the others, few are applied.
    size = draw(st.sampled_from([1, 1, 1, 2, 3]))
    for source, target, amount in draw(st.lists(st.tuples(sides, sides, affordable), min_size=size, max_size=size)):
        entries.append({"account_id": source, "side": "debit", "amount": amount})
        entries.append({"account_id": target, "side": "credit", "amount": amount})
    entries = draw(st.permutations(entries))
    if len(entries) > 2 and draw(st.integers(0, 9)) == 0:
        entries.pop()
    return Post(
        idempotency_key=key,
        reference=draw(st.sampled_from(REFERENCES)),
        entries=tuple(map(PostEntry.model_validate, entries)),
    )


@st.composite
def histories(
    draw: st.DrawFn,
    accounts: Sequence[str] = ACCOUNTS,
    label: str = "k",
    max_size: int = 40,
    ends: st.SearchStrategy[Any] = LATE,
    of: Sequence[list[str]] = (MOVING, HOLDING, CHANGING),
) -> list[Sent]:
    """Return a history over these accounts, most of them open, in which some commands come again."""
    kinds = draw(st.sampled_from(of))
    # What changes accounts needs some that are not open yet.
    history = [
        Sent(store, draw(opening(account, label, st.just(30) if kinds is HOLDING else st.one_of(st.just(0), amounts))))
        for store in (0, 1)
        for account in accounts
        if account == accounts[0] or (kinds is not CHANGING and draw(st.integers(0, 3)) > 0)
    ]
    size = draw(st.integers(0, max_size))
    history += draw(st.lists(sent(accounts, label, kinds, ends), min_size=size, max_size=size))
    history = [
        Sent(store, command.model_copy(update={"dry_run": draw(rarely) and draw(rarely)}))
        for store, command in meeting(history)
    ]
    for again, later, dry in draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), rarely), max_size=6)):
        repeated = again % len(history)
        store, command = history[repeated]
        # Some come again for a trial, or for real after one.
        command = command.model_copy(update={"dry_run": not command.dry_run}) if dry else command
        history.insert(repeated + 1 + later % (len(history) - repeated), Sent(store, command))
    return history


def meeting(history: list[Sent]) -> list[Sent]:
    """Return the history with its reversals, and what is done with holds, aimed at what is there by then.

    Their numbers say at which of it. What is there is guessed, by a ledger whose clock stands still.
    """
    naive, met = NaiveLedger(), []
    for store, command in history:
        name = str(store)
        met.append(Sent(store, aimed_at(command, [a for (owner, _), a in naive.accounts.items() if owner == name])))
        naive.submit(name, met[-1].command.model_dump())
    return met


def aimed_at(command: Command, accounts: list[dict[str, Any]]) -> Command:
    """Return the command with the id of a hold or of a transaction of these accounts, if it has one of them."""
    if isinstance(command, Capture | Void | Extend):
        # Open ones first, so that little is asked of those that have ended.
        holds = sorted((hold["status"] != "open", id_) for a in accounts for id_, hold in a["holds"].items())
        found = chosen(command.hold_id, [id_ for _, id_ in holds])
        return command.model_copy(update={"hold_id": found, "account_id": f"cca_{found[4:36]}"})
    if isinstance(command, Reverse):
        made = [entry["id"] for account in accounts for entry in account["entries"] if entry["legs"]]
        found = chosen(command.transaction_id, made)
        attempt = command.idempotency_key.replace(command.transaction_id, found)
        names = {"account_id": f"cca_{found[4:36]}", "transaction_id": found, "idempotency_key": attempt}
        return Reverse(**names, amount=command.amount)
    return command


def chosen(identifier: str, candidates: list[str]) -> str:
    """Return which one the number in the identifier says; the identifier itself where it is to be unknown."""
    number = int(identifier[36:], 16)
    return identifier if number == UNKNOWN or not candidates else candidates[(number - 1) % len(candidates)]


def opening(account_id: str, label: str, balance: st.SearchStrategy[int]) -> st.SearchStrategy[OpenAccount]:
    """Return an opening under a key of its own."""
    return st.builds(
        OpenAccount,
        account_id=st.just(account_id),
        idempotency_key=st.just(f"{label}-open-{account_id}"),
        customer_id=st.sampled_from([f"{label}-ann", f"{label}-bob"]),
        name=st.sampled_from(NAMES),
        initial_balance=balance,
        overdraft_limit=limits,
    )


@st.composite
def batches(
    draw: st.DrawFn,
    max_size: int = 40,
    ends: st.SearchStrategy[Any] = SOON,
    of: Sequence[list[str]] = (MOVING, HOLDING, CHANGING),
) -> list[tuple[int, list[Sent]]]:
    """Return a history cut into batches at random positions, each with the time at which it is decided."""
    parts, now_us = [], EPOCH_US
    moves = draw(st.lists(steps, min_size=1, max_size=10))
    for number, part in enumerate(cut(draw, draw(histories(max_size=max_size, ends=ends, of=of)))):
        now_us += moves[number % len(moves)]
        parts.append((now_us, part))
    return parts


def cut(draw: st.DrawFn, history: list[Sent]) -> list[list[Sent]]:
    """Return the history in pieces: of one command or a few, of many, or all in one."""
    parts, start = [], 0
    longest = draw(st.sampled_from([1, 2, 4, 16, 100]))
    while start < len(history):
        size = draw(st.integers(1, longest)) if longest < 100 else longest
        parts.append(history[start : start + size])
        start += size
    return parts


def announced(outcome: Outcome) -> Announcement:
    """Return what is announced of an outcome."""
    further = outcome.further if outcome.dry_run else ()
    return Announcement(0, outcome.row, outcome.replayed, outcome.refusal, dry_run=outcome.dry_run, further=further)


def answer_of(announcement: Announcement, command: Command) -> Answer:
    """Return what was announced, as the naive ledger would put it."""
    return answer_of_result(result_of_announcement(announcement, str(command.account_id), command.idempotency_key))


def answer_of_result(result: Result) -> Answer:
    """Return the result as the naive ledger would put it."""
    return Answer(
        status=result.status,
        code=result.error.code if result.error else None,
        transaction_id=result.transaction_id,
        side=result.side,
        amount=result.amount,
        balance=result.balance,
        reference=result.reference,
        reversal_of=result.reversal_of,
        hold_id=result.hold_id,
        replayed=result.replayed,
        differing=tuple(result.error.details.get("fields", ())) if result.error else (),
        shortfall=result.shortfall,
        dry_run=result.dry_run,
        entries=None
        if result.entries is None
        else tuple((entry.account_id, entry.side, entry.amount, entry.balance_after) for entry in result.entries),
    )
