"""The pure ledger: what a command does to an account. No clock, no socket, no database.

`decide_all` walks a batch in lane order over a `Book`. A rule takes the account as it stands and gives the account as
it stands afterwards, with the row that records the decision; `transactions` has the rules for several accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from ...lanes.encoding import LaneCommand, Movement
from ...schemas.accounts import AccountState
from ...schemas.commands import Credit, Debit, OpenAccount
from ...schemas.errors import AccountOverdrawn, IdempotencyKeyMismatch
from ...schemas.identifiers import Position
from ...schemas.journal import CREDIT_SIDE, DEBIT_SIDE, NAME_TAKEN_BY, JournalRow, Kind, Refusal, Status
from ...schemas.results import content_of_row
from .entries import move, note
from .state import NO_ACCOUNT, OBSTACLES, AddressedCommand, Book, Decision, Verdict
from .transactions import decide_transaction, reversal_of

Rule = Callable[[int, Any, AccountState, Book, int], Decision]

#: Reference of the transaction that seeds an account.
INITIAL_BALANCE_REFERENCE = "initial_balance"

_ACTIVE, _FROZEN, _CLOSED = int(Status.ACTIVE), int(Status.FROZEN), int(Status.CLOSED)
_CLOSABLE = {_ACTIVE, _FROZEN}
_OPEN_ACCOUNT, _CREDIT, _DEBIT = int(Kind.OPEN_ACCOUNT), int(Kind.CREDIT), int(Kind.DEBIT)


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
        rule = _RULES.get(command.kind)
        if rule is None:
            first = reversal_of(store_id, command, book)
            if first is not None:
                verdicts.append(Verdict(first, replayed=True))
                continue
            row, *further = decide_transaction(store_id, command, book, now_us)
            # A reversal that was made has another key than the attempt.
            known[key] = known[store_id, row.idempotency_key] = row
            verdicts.append(Verdict(row, further=tuple(further)))
            continue
        state, row = rule(store_id, command, accounts[account], book, now_us)
        accounts[account] = state
        known[key] = row
        if book.has_reversals and row.seq > 0:
            book.originals[store_id, Position(row.account_id, row.seq)] = row
        verdicts.append(Verdict(row))
    return verdicts


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
    lane_command = cast("LaneCommand", command)
    taken_by = book.names_taken.get((store_id, lane_command.account_id))
    content = _content_of_open(command, taken_by if state.status == NO_ACCOUNT else None)
    if state.status != NO_ACCOUNT:
        return note(store_id, lane_command, state, now_us, "account_exists", content=content)
    if (store_id, lane_command.account_id) in book.names_taken:
        return note(store_id, lane_command, state, now_us, "account_name_taken", content=content)
    opened = msgspec.structs.replace(state, status=_ACTIVE, overdraft_limit=command.overdraft_limit)
    if command.initial_balance == 0:
        return note(store_id, lane_command, opened, now_us, content=content)
    return move(
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


def _content_of_open(command: OpenAccount, name_taken_by: str | None) -> str:
    fields = {name: getattr(command, name) for name in command.content_fields}
    fields["initial_balance"], fields["overdraft_limit"] = str(command.initial_balance), str(command.overdraft_limit)
    if command.metadata is None:
        del fields["metadata"]
    if name_taken_by is not None:
        fields[NAME_TAKEN_BY] = name_taken_by
    return msgspec.json.encode(fields).decode()


def _credit(store_id: int, command: Movement, state: AccountState, _book: Book, now_us: int) -> Decision:
    amount, reference, content = command.amount, command.reference, _content_of_metadata(command)
    if state.status != _ACTIVE:
        obstacle = OBSTACLES[state.status]
        return note(store_id, command, state, now_us, obstacle, CREDIT_SIDE, amount, reference, content=content)
    return move(store_id, command, state, now_us, CREDIT_SIDE, amount, reference, kind=_CREDIT, content=content)


def _content_of_metadata(command: Movement | Credit | Debit) -> str | None:
    return None if command.metadata is None else msgspec.json.encode({"metadata": command.metadata}).decode()


def _debit(store_id: int, command: Movement, state: AccountState, _book: Book, now_us: int) -> Decision:
    amount, reference, content = command.amount, command.reference, _content_of_metadata(command)
    covered = state.available >= amount
    if state.status != _ACTIVE or not covered:
        obstacle = OBSTACLES[state.status] if state.status != _ACTIVE else "insufficient_balance"
        return note(store_id, command, state, now_us, obstacle, DEBIT_SIDE, amount, reference, content=content)
    return move(store_id, command, state, now_us, DEBIT_SIDE, amount, reference, kind=_DEBIT, content=content)


def _freeze(store_id: int, command: LaneCommand, state: AccountState, _book: Book, now_us: int) -> Decision:
    return _change_status(store_id, command, state, now_us, {_ACTIVE}, _FROZEN)


def _unfreeze(store_id: int, command: LaneCommand, state: AccountState, _book: Book, now_us: int) -> Decision:
    return _change_status(store_id, command, state, now_us, {_FROZEN}, _ACTIVE)


def _close(store_id: int, command: LaneCommand, state: AccountState, _book: Book, now_us: int) -> Decision:
    if state.status in _CLOSABLE and state.balance < 0:
        return note(store_id, command, state, now_us, AccountOverdrawn.code)
    return _change_status(store_id, command, state, now_us, _CLOSABLE, _CLOSED)


def _change_status(
    store_id: int, command: LaneCommand, state: AccountState, now_us: int, allowed: set[int], to_status: int
) -> Decision:
    if state.status not in allowed:
        return note(store_id, command, state, now_us, OBSTACLES[state.status])
    return note(store_id, command, msgspec.structs.replace(state, status=to_status), now_us)


_RULES: dict[str, Rule] = {
    "open_account": _open_account,
    "credit": _credit,
    "debit": _debit,
    "freeze": _freeze,
    "unfreeze": _unfreeze,
    "close": _close,
}
