"""Random histories of commands, made so that they meet: few accounts, keys and names, and amounts of every size."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from creditlane.schemas.commands import (
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    OpenAccount,
    Post,
    PostEntry,
    Reverse,
    Unfreeze,
)
from creditlane.schemas.journal import Announcement
from creditlane.schemas.results import Result, result_of_announcement

from .naive_ledger import Answer

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
limits = st.sampled_from([0, 0, 0, 1, 30, 10**1_000 - 1])


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
    + ["freeze"] * 2
    + ["unfreeze"] * 3
    + ["close"]
)
CHANGING = (
    ["open"] * 8 + ["credit"] * 6 + ["post"] * 3 + ["reverse"] + ["freeze"] * 4 + ["unfreeze"] * 3 + ["close"] * 4
)


@st.composite
def sent(draw: st.DrawFn, accounts: Sequence[str], label: str, kinds: Sequence[str]) -> Sent:
    """Return a command for one of the accounts. Keys and customers carry the label, so that two labels never meet."""
    # One busy account and one busy store: histories that meet say more than ones that do not.
    store = draw(st.sampled_from([0, 0, 0, 1]))
    account = draw(st.sampled_from([accounts[0], accounts[0], *accounts]))
    # A few keys that are used again and again, with the same content or another, and many that are not.
    number = draw(st.one_of(st.integers(0, 10**9), st.integers(7, 10**9), st.integers(7, 10**9), st.integers(0, 6)))
    kind = draw(st.sampled_from(kinds))
    if kind == "reverse":
        seq = draw(st.sampled_from([1, 1, 2, 2, 3, 3, 4, 5, 99]))
        owner = draw(st.sampled_from([account, account, account, *accounts]))
        transaction = f"cct_{owner[4:]}{seq:x}"
        attempt = f"reversal:{transaction}:{label}-{number}"
        return Sent(store, Reverse(account_id=account, transaction_id=transaction, idempotency_key=attempt))
    fields: dict[str, Any] = {"account_id": account, "idempotency_key": f"{label}-{number}"}
    if kind in {"credit", "debit"}:
        fields |= {"amount": draw(amounts), "reference": draw(st.sampled_from(REFERENCES))}
        return Sent(store, Credit(**fields) if kind == "credit" else Debit(**fields))
    if kind == "post":
        return Sent(store, draw(posting(accounts, account, fields["idempotency_key"])))
    if kind == "open":
        customer = draw(st.sampled_from([f"{label}-ann", f"{label}-bob"]))
        fields |= {"customer_id": customer, "name": draw(st.sampled_from(NAMES)), "overdraft_limit": draw(limits)}
        return Sent(store, OpenAccount(**fields, initial_balance=draw(st.one_of(st.just(0), amounts))))
    return Sent(store, {"freeze": Freeze, "unfreeze": Unfreeze, "close": Close}[kind](**fields))


@st.composite
def posting(draw: st.DrawFn, accounts: Sequence[str], busy: str, key: str) -> Post:
    """Return a post of a few transfers, in any order of its entries; some lack an entry and do not balance."""
    sides = st.sampled_from([busy, busy, accounts[0], accounts[0], *accounts])
    entries = []
    # Mostly one small transfer between accounts that are there: of the others, few are applied.
    size = draw(st.sampled_from([1, 1, 1, 2, 3]))
    affordable = st.one_of(st.integers(1, 3), st.integers(1, 3), amounts)
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
def histories(draw: st.DrawFn, accounts: Sequence[str] = ACCOUNTS, label: str = "k", max_size: int = 40) -> list[Sent]:
    """Return a history over these accounts, most of them open, in which some commands come again."""
    kinds = draw(st.sampled_from([MOVING, CHANGING]))
    # What changes accounts needs some that are not open yet.
    history = [
        Sent(store, draw(opening(account, label)))
        for store in (0, 1)
        for account in accounts
        if account == accounts[0] or (kinds is MOVING and draw(st.integers(0, 3)) > 0)
    ]
    size = draw(st.integers(0, max_size))
    history += draw(st.lists(sent(accounts, label, kinds), min_size=size, max_size=size))
    for again, later in draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=6)):
        repeated = again % len(history)
        history.insert(repeated + 1 + later % (len(history) - repeated), history[repeated])
    return history


def opening(account_id: str, label: str) -> st.SearchStrategy[OpenAccount]:
    """Return an opening under a key of its own."""
    return st.builds(
        OpenAccount,
        account_id=st.just(account_id),
        idempotency_key=st.just(f"{label}-open-{account_id}"),
        customer_id=st.sampled_from([f"{label}-ann", f"{label}-bob"]),
        name=st.sampled_from(NAMES),
        initial_balance=st.one_of(st.just(0), amounts),
        overdraft_limit=limits,
    )


@st.composite
def batches(draw: st.DrawFn, max_size: int = 40) -> list[list[Sent]]:
    """Return a history cut into batches at random positions."""
    return cut(draw, draw(histories(max_size=max_size)))


def cut(draw: st.DrawFn, history: list[Sent]) -> list[list[Sent]]:
    """Return the history in pieces: of one command or a few, of many, or all in one."""
    parts, start = [], 0
    longest = draw(st.sampled_from([1, 2, 4, 16, 100]))
    while start < len(history):
        size = draw(st.integers(1, longest)) if longest < 100 else longest
        parts.append(history[start : start + size])
        start += size
    return parts


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
        replayed=result.replayed,
        differing=tuple(result.error.details.get("fields", ())) if result.error else (),
    )
