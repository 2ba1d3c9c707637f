"""The pure ledger: what a command does to an account. No clock, no socket, no database.

`decide_all` walks a batch in lane order over a `BatchState`, and changes nothing but that. A rule takes the account as
it stands and gives the account as it stands afterwards, with the row that records the decision; `transactions` has the
rules for several accounts, `reversals` those of undoing them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from ...lanes.encoding import LaneCommand, PlainCommand
from ...schemas.accounts import AccountState
from ...schemas.commands import Credit, Debit, OpenAccount
from ...schemas.errors import AccountHasHolds, AccountOverdrawn, IdempotencyKeyMismatch, MaxBalanceExceeded
from ...schemas.identifiers import Position
from ...schemas.journal import NAME_TAKEN_BY, JournalRow, Refusal
from ...schemas.kinds import CREDIT_SIDE, DEBIT_SIDE, KIND_OF_WORD, SPANNING, SPANNING_WORDS, Kind, content_of_row
from ...schemas.statuses import Status
from .dry_runs import decide_with_dry_runs
from .entries import move, note
from .holds import capture, extend, hold, release_ended, void
from .limits import content_of_full, room_below_max, set_limit
from .partial_debits import debit_what_is_there
from .reversals import reversal_of
from .state import NO_ACCOUNT, OBSTACLES, AccountKey, AddressedCommand, BatchState, Decision, Outcome
from .transactions import accounts_of, decide_transaction

AccountRule = Callable[[int, Any, AccountState, BatchState, int], Decision]
TransactionRule = Callable[[int, LaneCommand, BatchState, int], Outcome]
_RuleT = TypeVar("_RuleT")

#: Reference of the transaction that seeds an account.
INITIAL_BALANCE_REFERENCE = "initial_balance"

_ACTIVE, _FROZEN, _CLOSED = int(Status.ACTIVE), int(Status.FROZEN), int(Status.CLOSED)
_CLOSABLE = {_ACTIVE, _FROZEN}
_OPEN_ACCOUNT, _CREDIT, _DEBIT = int(Kind.OPEN_ACCOUNT), int(Kind.CREDIT), int(Kind.DEBIT)


def decide_all(commands: Iterable[AddressedCommand], batch: BatchState, now_us: int) -> list[Outcome]:
    """Decide commands in order; the batch's state is brought up to date along the way, but for dry runs."""
    if batch.has_dry_runs:
        return decide_with_dry_runs(commands, batch, now_us, _decide_in_order, _release_for_dry_run)
    return _decide_in_order(commands, batch, now_us)


def _decide_in_order(
    commands: Iterable[AddressedCommand], batch: BatchState, now_us: int, decided_before: int = 0
) -> list[Outcome]:
    accounts, known, outcomes, account_rules = batch.accounts, batch.known, [], _ACCOUNT_RULES
    holders = batch.holders
    for account, command in commands:
        store_id = account[0]
        key = (store_id, command.idempotency_key)
        first = known.get(key)
        if first is not None:
            outcomes.append(_answer_again(command, first, batch))
            continue
        if holders:
            _release_ended(account, command, batch, now_us, decided_before + len(outcomes))
        rule = account_rules.get(command.kind)
        if rule is None:
            outcome = _TRANSACTION_RULES[command.kind](store_id, command, batch, now_us)
            if outcome.row is not None and not outcome.replayed:
                # A whole reversal that was made has another key than the attempt, whose own stays unused.
                known[store_id, outcome.row.idempotency_key] = outcome.row
            outcomes.append(outcome)
            continue
        state, row = rule(store_id, command, accounts[account], batch, now_us)
        accounts[account] = state
        known[key] = row
        if batch.has_reversals and row.seq > 0:
            batch.originals[store_id, Position(row.account_id, row.seq)] = row
        outcomes.append(Outcome(row))
    return outcomes


def _release_for_dry_run(addressed: AddressedCommand, batch: BatchState, now_us: int) -> None:
    _release_ended(*addressed, batch, now_us, 0)


def _release_ended(account: AccountKey, command: LaneCommand, batch: BatchState, now_us: int, outcome: int) -> None:
    """Release what has ended by now on every account that the command touches."""
    touched = {account}
    if command.kind in SPANNING_WORDS:
        touched |= accounts_of(account[0], command, batch.originals)
    for key in sorted(touched & batch.holders):
        release_ended(key, batch, now_us, outcome)


def _answer_again(command: LaneCommand, first: JournalRow, batch: BatchState) -> Outcome:
    differing = differing_fields(command, first)
    if not differing:
        return Outcome(first, replayed=True)
    # The attempt that made a whole reversal uses up no key of its own, which a part may have taken since.
    made = reversal_of(first.store_id, command, batch)
    if made is not None:
        return Outcome(made, replayed=True)
    message = f"The idempotency key was used before with another {', '.join(differing)}; send a new key."
    return Outcome(None, refusal=Refusal(IdempotencyKeyMismatch.code, message, {"fields": differing}))


def differing_fields(command: LaneCommand, row: JournalRow) -> list[str]:
    """Return the names of what this command asks for otherwise than the one that the row records."""
    if KIND_OF_WORD[command.kind] != row.kind:
        return ["kind"]
    content = content_of_row(row)
    differing = [name for name in command.content_fields if getattr(command, name) != content[name]]
    return differing if command.account_id == row.account_id else ["account_id", *differing]


def _open_account(store_id: int, command: OpenAccount, state: AccountState, batch: BatchState, now_us: int) -> Decision:
    lane_command = cast("LaneCommand", command)
    taken_by = batch.names_taken.get((store_id, lane_command.account_id))
    content = _content_of_open(command, taken_by if state.status == NO_ACCOUNT else None)
    if state.status != NO_ACCOUNT:
        return note(store_id, lane_command, state, now_us, "account_exists", content=content)
    if (store_id, lane_command.account_id) in batch.names_taken:
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


def _credit(store_id: int, command: PlainCommand, state: AccountState, _batch: BatchState, now_us: int) -> Decision:
    amount, reference, content = command.amount, command.reference, _content_of_metadata(command)
    if state.status != _ACTIVE:
        obstacle = OBSTACLES[state.status]
        return note(store_id, command, state, now_us, obstacle, CREDIT_SIDE, amount, reference, content=content)
    if state.features is not None and (room := room_below_max(state)) is not None and amount > room:
        obstacle, content = MaxBalanceExceeded.code, content_of_full(state, content)
        return note(store_id, command, state, now_us, obstacle, CREDIT_SIDE, amount, reference, content=content)
    return move(store_id, command, state, now_us, CREDIT_SIDE, amount, reference, kind=_CREDIT, content=content)


def _content_of_metadata(command: PlainCommand | Credit | Debit) -> str | None:
    return None if command.metadata is None else msgspec.json.encode({"metadata": command.metadata}).decode()


def _debit(store_id: int, command: PlainCommand, state: AccountState, _batch: BatchState, now_us: int) -> Decision:
    if command.allow_partial:
        return debit_what_is_there(store_id, cast("LaneCommand", command), state, now_us)
    amount, reference, content = command.amount, command.reference, _content_of_metadata(command)
    covered = state.available >= amount
    if state.status != _ACTIVE or not covered:
        obstacle = OBSTACLES[state.status] if state.status != _ACTIVE else "insufficient_balance"
        return note(store_id, command, state, now_us, obstacle, DEBIT_SIDE, amount, reference, content=content)
    return move(store_id, command, state, now_us, DEBIT_SIDE, amount, reference, kind=_DEBIT, content=content)


def _freeze(store_id: int, command: LaneCommand, state: AccountState, _batch: BatchState, now_us: int) -> Decision:
    return _change_status(store_id, command, state, now_us, {_ACTIVE}, _FROZEN)


def _unfreeze(store_id: int, command: LaneCommand, state: AccountState, _batch: BatchState, now_us: int) -> Decision:
    return _change_status(store_id, command, state, now_us, {_FROZEN}, _ACTIVE)


def _close(store_id: int, command: LaneCommand, state: AccountState, _batch: BatchState, now_us: int) -> Decision:
    if state.status in _CLOSABLE and state.balance < 0:
        return note(store_id, command, state, now_us, AccountOverdrawn.code)
    if state.status in _CLOSABLE and state.held:
        return note(store_id, command, state, now_us, AccountHasHolds.code)
    return _change_status(store_id, command, state, now_us, _CLOSABLE, _CLOSED)


def _change_status(
    store_id: int, command: LaneCommand, state: AccountState, now_us: int, allowed: set[int], to_status: int
) -> Decision:
    if state.status not in allowed:
        return note(store_id, command, state, now_us, OBSTACLES[state.status])
    return note(store_id, command, msgspec.structs.replace(state, status=to_status), now_us)


def _post(store_id: int, command: LaneCommand, batch: BatchState, now_us: int) -> Outcome:
    row, *further = decide_transaction(store_id, command, batch, now_us)
    return Outcome(row, further=tuple(further))


def _reverse(store_id: int, command: LaneCommand, batch: BatchState, now_us: int) -> Outcome:
    made = reversal_of(store_id, command, batch)
    return _post(store_id, command, batch, now_us) if made is None else Outcome(made, replayed=True)


def _expire(_store_id: int, _command: LaneCommand, _batch: BatchState, _now_us: int) -> Outcome:
    # What has ended was released before, as before any command of the account.
    return Outcome(None)


def table_of(kinds: Collection[Kind], rules: Mapping[Kind, _RuleT]) -> dict[str, _RuleT]:
    """Return the rules by the words of their kinds.

    Raises:
        TypeError: a kind has no rule, or a rule is for none of the kinds.
    """
    if without_rule := sorted(kind.word for kind in set(kinds) - rules.keys()):
        raise TypeError(f"no rule decides {', '.join(without_rule)}")
    if without_kind := sorted(kind.word for kind in rules.keys() - set(kinds)):
        raise TypeError(f"a rule in the wrong table decides {', '.join(without_kind)}")
    return {kind.word: rule for kind, rule in rules.items()}


#: The rules of kinds that touch the account they are addressed to, and no other.
_ACCOUNT_RULES: dict[str, AccountRule] = table_of(
    set(Kind) - SPANNING - {Kind.EXPIRY},
    {
        Kind.OPEN_ACCOUNT: _open_account,
        Kind.CREDIT: _credit,
        Kind.DEBIT: _debit,
        Kind.FREEZE: _freeze,
        Kind.UNFREEZE: _unfreeze,
        Kind.CLOSE: _close,
        Kind.HOLD: hold,
        Kind.CAPTURE: capture,
        Kind.VOID: void,
        Kind.EXTEND: extend,
        Kind.SET_LIMIT: set_limit,
    },
)
#: The rules of those that may touch several, or leave no row of their own.
_TRANSACTION_RULES: dict[str, TransactionRule] = table_of(
    {*SPANNING, Kind.EXPIRY}, {Kind.POST: _post, Kind.REVERSE: _reverse, Kind.EXPIRY: _expire}
)
