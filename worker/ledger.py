"""The pure ledger: what a command does to an account. No clock, no socket, no database.

`decide` is the whole of the rules. It takes the account as it stands and gives the account as it stands afterwards
together with the row that records the decision. `decide_all` walks a batch in lane order over a `Book`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from ..schemas.commands import OpenAccount, Reverse
from ..schemas.encoding import LaneCommand, Movement
from ..schemas.errors import IdempotencyKeyMismatch
from ..schemas.identifiers import Position, position_of
from ..schemas.journal import CREDIT_SIDE, DEBIT_SIDE, NO_SIDE, JournalRow, Kind, Refusal, Status
from ..schemas.results import content_of_row

#: Reference of the transaction that seeds an account.
INITIAL_BALANCE_REFERENCE = "initial_balance"

_ACTIVE, _FROZEN, _CLOSED = int(Status.ACTIVE), int(Status.FROZEN), int(Status.CLOSED)
_NO_ACCOUNT = 0
_OPEN_ACCOUNT, _CREDIT, _DEBIT, _REVERSE = int(Kind.OPEN_ACCOUNT), int(Kind.CREDIT), int(Kind.DEBIT), int(Kind.REVERSE)


class AccountState(msgspec.Struct, frozen=True, gc=False):
    """An account as the ledger sees it between two commands."""

    status: int
    balance: int
    overdraft_limit: int
    #: Number of entries, which is also the seq of the latest one.
    entries: int
    #: Number of decisions that moved nothing; the latest one's seq is its negative.
    decisions: int
    #: When the latest of both was decided. Time never goes back along an account.
    latest_at_us: int


#: An id under which no account was opened.
UNOPENED = AccountState(_NO_ACCOUNT, 0, 0, 0, 0, 0)

AccountKey = tuple[int, str]
IdempotencyKey = tuple[int, str]
#: A command and the account that it is for.
AddressedCommand = tuple[AccountKey, LaneCommand]


class Book:
    """What a batch is decided against: everything of the ledger that its commands touch."""

    def __init__(self, accounts: dict[AccountKey, AccountState]) -> None:
        #: At least every account that the batch names, `UNOPENED` where there is none. Brought up to date.
        self.accounts = accounts
        #: The rows that hold an idempotency key of the batch already.
        self.known: dict[IdempotencyKey, JournalRow] = {}
        #: Entries that the batch wants to reverse, where they exist.
        self.originals: dict[tuple[int, Position], JournalRow] = {}
        #: Accounts that cannot be opened because the customer has an open one of that name.
        self.names_taken: set[AccountKey] = set()
        #: The batch reverses something, perhaps an entry that it makes itself.
        self.has_reversals = False


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of one command of a batch."""

    row: JournalRow | None
    replayed: bool = False
    refusal: Refusal | None = None


#: The account after a command, and the row that records it.
Decision = tuple[AccountState, JournalRow]

Rule = Callable[[int, Any, AccountState, Book, int], Decision]


def decide_all(commands: Iterable[AddressedCommand], book: Book, now_us: int) -> list[Verdict]:
    """Decide commands in order; the book is brought up to date along the way."""
    accounts, known, verdicts = book.accounts, book.known, []
    for account, command in commands:
        store_id = account[0]
        key = (store_id, command.idempotency_key)
        first = known.get(key)
        if first is not None:
            verdicts.append(_answer_again(command, first))
            continue
        state, row = _RULES[command.kind](store_id, command, accounts[account], book, now_us)
        accounts[account] = state
        known[key] = row
        if book.has_reversals and row.seq > 0:
            book.originals[store_id, Position(row.account_id, row.seq)] = row
        verdicts.append(Verdict(row))
    return verdicts


def decide(store_id: int, command: LaneCommand, state: AccountState, book: Book, now_us: int) -> Decision:
    """Decide one command whose key is new, on the account as it stands."""
    return _RULES[command.kind](store_id, command, state, book, now_us)


def _answer_again(command: LaneCommand, first: JournalRow) -> Verdict:
    differing = differing_fields(command, first)
    if not differing:
        return Verdict(first, replayed=True)
    message = f"The idempotency key was used before with another {', '.join(differing)}; send a new key."
    return Verdict(None, refusal=Refusal(IdempotencyKeyMismatch.code, message, {"fields": differing}))


def differing_fields(command: LaneCommand, row: JournalRow) -> list[str]:
    """Return the names of what this command asks for otherwise than the one that the row records."""
    if Kind[command.kind.upper()] != row.kind:
        return ["kind"]
    content = content_of_row(row)
    differing = [name for name in command.content_fields if getattr(command, name) != content[name]]
    return differing if command.account_id == row.account_id else ["account_id", *differing]


def _open_account(store_id: int, command: OpenAccount, state: AccountState, book: Book, now_us: int) -> Decision:
    content, lane_command = _content_of_open(command), cast("LaneCommand", command)
    if state.status != _NO_ACCOUNT:
        return _note(store_id, lane_command, state, now_us, "account_exists", content=content)
    if (store_id, lane_command.account_id) in book.names_taken:
        return _note(store_id, lane_command, state, now_us, "account_name_taken", content=content)
    opened = msgspec.structs.replace(state, status=_ACTIVE, overdraft_limit=command.overdraft_limit)
    if command.initial_balance == 0:
        return _note(store_id, lane_command, opened, now_us, content=content)
    return _move(
        store_id,
        lane_command,
        opened,
        now_us,
        CREDIT_SIDE,
        command.initial_balance,
        INITIAL_BALANCE_REFERENCE,
        kind=_OPEN_ACCOUNT,
        content=content,
    )


def _content_of_open(command: OpenAccount) -> str:
    fields = {name: getattr(command, name) for name in command.content_fields}
    fields["initial_balance"], fields["overdraft_limit"] = str(command.initial_balance), str(command.overdraft_limit)
    return msgspec.json.encode(fields).decode()


def _credit(store_id: int, command: Movement, state: AccountState, _book: Book, now_us: int) -> Decision:
    amount, reference = command.amount, command.reference
    if state.status != _ACTIVE:
        return _note(store_id, command, state, now_us, _OBSTACLES[state.status], CREDIT_SIDE, amount, reference)
    return _move(store_id, command, state, now_us, CREDIT_SIDE, amount, reference, kind=_CREDIT)


def _debit(store_id: int, command: Movement, state: AccountState, _book: Book, now_us: int) -> Decision:
    amount, reference = command.amount, command.reference
    if state.status != _ACTIVE:
        return _note(store_id, command, state, now_us, _OBSTACLES[state.status], DEBIT_SIDE, amount, reference)
    if state.balance + state.overdraft_limit < amount:
        return _note(store_id, command, state, now_us, "insufficient_balance", DEBIT_SIDE, amount, reference)
    return _move(store_id, command, state, now_us, DEBIT_SIDE, amount, reference, kind=_DEBIT)


def _reverse(store_id: int, reversal: Reverse, state: AccountState, book: Book, now_us: int) -> Decision:
    command = cast("LaneCommand", reversal)
    if state.status != _ACTIVE:
        return _note(store_id, command, state, now_us, _OBSTACLES[state.status])
    position = position_of(reversal.transaction_id)
    original = book.originals.get((store_id, position)) if position else None
    if original is None or original.account_id != command.account_id:
        return _note(store_id, command, state, now_us, "transaction_not_found")
    side, amount, reference = -original.side, original.amount or 0, original.reference
    if original.kind == _REVERSE:
        return _note(store_id, command, state, now_us, "reversal_not_reversible", side, amount, reference)
    if side == DEBIT_SIDE and state.balance + state.overdraft_limit < amount:
        return _note(store_id, command, state, now_us, "insufficient_balance", side, amount, reference)
    return _move(store_id, command, state, now_us, side, amount, reference, kind=_REVERSE, reversal_of=original.seq)


def _freeze(store_id: int, command: LaneCommand, state: AccountState, _book: Book, now_us: int) -> Decision:
    return _change_status(store_id, command, state, now_us, {_ACTIVE}, _FROZEN)


def _unfreeze(store_id: int, command: LaneCommand, state: AccountState, _book: Book, now_us: int) -> Decision:
    return _change_status(store_id, command, state, now_us, {_FROZEN}, _ACTIVE)


def _close(store_id: int, command: LaneCommand, state: AccountState, _book: Book, now_us: int) -> Decision:
    return _change_status(store_id, command, state, now_us, {_ACTIVE, _FROZEN}, _CLOSED)


def _change_status(
    store_id: int, command: LaneCommand, state: AccountState, now_us: int, allowed: set[int], to_status: int
) -> Decision:
    if state.status not in allowed:
        return _note(store_id, command, state, now_us, _OBSTACLES[state.status])
    return _note(store_id, command, msgspec.structs.replace(state, status=to_status), now_us)


#: Why nothing can be done on an account of this status, where the command wanted another.
_OBSTACLES = {
    _NO_ACCOUNT: "account_not_found",
    _ACTIVE: "account_not_frozen",
    _FROZEN: "account_frozen",
    _CLOSED: "account_closed",
}


def _move(
    store_id: int,
    command: LaneCommand,
    state: AccountState,
    now_us: int,
    side: int,
    amount: int,
    reference: str | None,
    *,
    kind: int,
    reversal_of: int | None = None,
    content: str | None = None,
) -> Decision:
    """Record an entry. This is the hot path: structs are built by position."""
    balance = state.balance + side * amount
    limit = state.overdraft_limit
    if amount <= 0 or balance < -limit:
        raise ArithmeticError(f"{command.account_id}: {side * amount} on {state.balance} breaks the limit {limit}")
    seq = state.entries + 1
    at_us = max(state.latest_at_us, now_us)
    return (
        AccountState(state.status, balance, limit, seq, state.decisions, at_us),
        JournalRow(
            store_id,
            command.account_id,
            seq,
            kind,
            side,
            amount,
            balance,
            limit,
            command.idempotency_key,
            reference,
            reversal_of,
            at_us,
            None,
            content,
        ),
    )


def _note(
    store_id: int,
    command: LaneCommand,
    state: AccountState,
    now_us: int,
    rejection: str | None = None,
    side: int = NO_SIDE,
    amount: int | None = None,
    reference: str | None = None,
    *,
    content: str | None = None,
) -> Decision:
    """Record a decision that moves nothing: a change of state, or a rejection with what was asked for."""
    decisions = state.decisions + 1
    at_us = max(now_us, state.latest_at_us)
    row = JournalRow(
        store_id=store_id,
        account_id=command.account_id,
        seq=-decisions,
        kind=Kind[command.kind.upper()].value,
        side=side,
        amount=amount,
        balance_after=state.balance,
        overdraft_limit=state.overdraft_limit,
        idempotency_key=command.idempotency_key,
        reference=reference,
        reversal_of=None,
        created_at_us=at_us,
        rejection=rejection,
        content=content,
    )
    return msgspec.structs.replace(state, decisions=decisions, latest_at_us=at_us), row


_RULES: dict[str, Rule] = {
    "open_account": _open_account,
    "credit": _credit,
    "debit": _debit,
    "reverse": _reverse,
    "freeze": _freeze,
    "unfreeze": _unfreeze,
    "close": _close,
}
