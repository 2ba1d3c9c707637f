"""What is known of a ticket's command, judged from what the ledger and the dead letters hold under its key. Pure.

A key may belong to another request than the ticket's. The journal keeps what was asked for, so the command can be
encoded once more and compared by its fingerprint; another command's result is never given out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from ...lanes.encoding import encode_command, fingerprint
from ...schemas.accounts import Account, AccountState, features_of
from ...schemas.commands import (
    MAX_REVERSAL_KEY_CHARACTERS,
    REVERSAL_KEY_PREFIX,
    Command,
    Hold,
    OpenAccount,
    SetLimit,
    Void,
    reversal_key,
)
from ...schemas.errors import (
    CommandDeadLettered,
    IdempotencyKeyMismatch,
    InvalidCommand,
    OutcomeUnknown,
    UpgradeUnfinished,
)
from ...schemas.holds import AccountHold
from ...schemas.identifiers import is_account_id
from ...schemas.journal import Announcement, JournalRow, Refusal
from ...schemas.kinds import KIND_OF_WORD, Kind, content_of_row
from ...schemas.results import Result, as_dry_run, result_of_announcement, result_of_refusal, result_of_row
from ...schemas.statuses import Status
from ...schemas.tickets import Ticket
from ..ledger.command_reads import DeadLetterRow

#: By how much the clocks of Redis and Postgres may differ, in milliseconds.
MAX_CLOCK_DIFFERENCE_MS = 1_000

_KEY = re.compile(rf"[^\x00]{{1,{MAX_REVERSAL_KEY_CHARACTERS}}}")
#: An id of a stream entry; both parts fit in 64 bits.
_LANE_ENTRY = re.compile(r"[0-9]{1,15}-[0-9]{1,19}")


def own_ticket(ticket: Ticket | str, store_id: str) -> Ticket:
    """Return the ticket, parsed if it comes as text, if it is one of this store's.

    Raises:
        InvalidCommand: it is no ticket, or another store's.
    """
    if isinstance(ticket, str):
        ticket = Ticket.parse(ticket)
    if not isinstance(ticket, Ticket):
        raise InvalidCommand(f"ticket: must be a Ticket or its text, not {type(ticket).__name__}", field="ticket")
    if ticket.store_id != store_id:
        raise InvalidCommand("ticket: belongs to another store", field="ticket")
    is_plausible = (
        is_account_id(ticket.account_id)
        and _LANE_ENTRY.fullmatch(ticket.lane_entry)
        and _KEY.fullmatch(ticket.idempotency_key)
    )
    if not is_plausible:
        raise InvalidCommand("ticket: must be the text that str(ticket) gave", field="ticket")
    return ticket


def resolve(ticket: Ticket, row: JournalRow | None, letters: Sequence[DeadLetterRow]) -> Result | None:
    """Return what became of the ticket's command; None if it is not decided as far as these rows show.

    A dry run leaves none of them: only what was there before it can be its answer.
    """
    if row is not None and (not ticket.dry_run or _was_decided_before(ticket, row)):
        return _result_of(ticket, row)
    letters = _own_letters(ticket, letters)
    for letter in reversed(letters):
        if not letter.replayed:
            refusal = Refusal(CommandDeadLettered.code, f"{CommandDeadLettered().message} Reason: {letter.reason}")
            return result_of_refusal(refusal, ticket.account_id, ticket.idempotency_key)
    # A replayed dry run says what would happen now, and to whoever replayed it.
    return queued(ticket) if letters and not ticket.dry_run else None


def keys_of(ticket: Ticket) -> list[str]:
    """Return the keys under which the journal may have the ticket's command: its own, and that of a whole reversal."""
    key = ticket.idempotency_key
    return [key, reversal_key(key)] if key.startswith(REVERSAL_KEY_PREFIX) else [key]


def resolve_all(
    tickets: Sequence[Ticket], rows: Mapping[str, JournalRow], letters: Iterable[DeadLetterRow]
) -> list[Result | None]:
    """Return what became of each ticket's command, from rows by key and the dead letters of all, oldest first."""
    by_key: dict[str, list[DeadLetterRow]] = {}
    for letter in letters:
        by_key.setdefault(letter.idempotency_key, []).append(letter)
    return [
        resolve(
            ticket,
            _row_of(ticket, rows),
            by_key.get(ticket.idempotency_key, ()),
        )
        for ticket in tickets
    ]


def _row_of(ticket: Ticket, rows: Mapping[str, JournalRow]) -> JournalRow | None:
    """Return the row that holds the ticket's key, or the whole reversal if the ticket's command is one."""
    own, *whole = keys_of(ticket)
    found = rows.get(own)
    if found is not None and _is_same_request(ticket, found):
        return found
    # Beside it a partial reversal may still be queued, whose key begins in the same way; or one may have come after a
    # whole one under the attempt's key, which that does not use up.
    return next((rows[key] for key in whole if key in rows and _is_same_request(ticket, rows[key])), found)


def is_decided(result: Result | None) -> bool:
    """Whether this is a final answer."""
    return result is not None and result.status != "queued"


def resolve_announced(ticket: Ticket, announcements: Iterable[Announcement]) -> Result | None:
    """Return the result that a poll key holds, if it is that of the ticket's own command.

    A poll key is named after the idempotency key alone, so it may hold the result of another request; or that of a
    later entry of the same one, which does not say whether the ticket's own was the first.
    """
    own = position_of_entry(ticket.lane_entry)
    for item in announcements:
        if ticket.dry_run or item.dry_run:
            # That of a dry run is kept by its lane entry, and is no answer to the command itself, nor the other way.
            if ticket.dry_run and item.dry_run and item.lane_entry == ticket.lane_entry:
                return result_of_announcement(item, ticket.account_id, ticket.idempotency_key)
            continue
        if item.refusal is not None and item.refusal.code == UpgradeUnfinished.code:
            # Nothing else knows of it, and it is no answer to what was sent before or later under the key.
            if item.lane_entry == ticket.lane_entry:
                return result_of_refusal(item.refusal, ticket.account_id, ticket.idempotency_key)
            continue
        if item.row is None or not _is_same_request(ticket, item.row):
            continue
        at = position_of_entry(item.lane_entry) if item.lane_entry else own
        if at <= own:
            return result_of_row(item.row, replayed=item.replayed or at < own)
    return None


def position_of_entry(lane_entry: str) -> tuple[int, int]:
    """Return where an entry stands in its lane: the milliseconds and the number in its id."""
    milliseconds, _, number = lane_entry.partition("-")
    return int(milliseconds), int(number)


def queued(ticket: Ticket) -> Result:
    """Return the result of a command that is accepted and not decided yet."""
    return Result(status="queued", account_id=ticket.account_id, idempotency_key=ticket.idempotency_key)


def lost(ticket: Ticket) -> OutcomeUnknown:
    """Return the error for a command that is neither on its lane nor in the ledger."""
    return OutcomeUnknown(
        f"The command of key {ticket.idempotency_key!r} is neither on its lane nor in the ledger nor among the dead "
        "letters: Redis has lost its data, or this ticket was never given out here. "
        "Send the command again as it was, under the same key.",
        ticket=ticket,
    )


def overdue(ticket: Ticket, seconds: float) -> OutcomeUnknown:
    """Return the error for a command without a result at the deadline."""
    return OutcomeUnknown(
        f"No result of key {ticket.idempotency_key!r} within {seconds:g} s. The command is accepted and may still "
        "apply: wait again with its ticket, or send it again as it was.",
        ticket=ticket,
    )


def unread(ticket: Ticket) -> OutcomeUnknown:
    """Return the error for a command that is applied, where what it has made cannot be read."""
    return OutcomeUnknown(
        f"The command of key {ticket.idempotency_key!r} is applied, and what it has made cannot be read now. "
        "Read it again later, or send the command again as it was, under the same key: it has one effect.",
        ticket=ticket,
    )


def account_as_opened(command: OpenAccount, result: Result, store_id: str) -> Account | None:
    """Return the account as its opening has left it; None if it was opened before and may have changed since."""
    if result.replayed or result.decided_at is None:
        return None
    state = AccountState(Status.ACTIVE, result.balance or 0, command.overdraft_limit)
    return Account(
        id=result.account_id,
        store_id=store_id,
        customer_id=command.customer_id,
        name=command.name,
        unit_label=command.unit_label,
        status="active",
        balance=state.balance,
        held=state.held,
        available=state.available,
        overdraft_limit=state.overdraft_limit,
        created_at=result.decided_at,
        updated_at=result.decided_at,
        metadata=command.metadata,
    )


def account_as_changed(account: Account, command: Command, result: Result) -> Account:
    """Return the account as it was read after a command, or as it would be where that was a dry run."""
    if not result.dry_run or result.replayed:
        return account
    if isinstance(command, SetLimit):
        return _account_with_limit(account, command, result)
    status = KIND_OF_WORD[command.kind].record.status_after  # type: ignore[attr-defined]  # every kind's model has it
    if status is None:
        return account
    return account.model_copy(update={"status": status.name.lower(), "updated_at": result.decided_at})


def _account_with_limit(account: Account, command: SetLimit, result: Result) -> Account:
    if command.limit == "credit_limit":
        limit, features = command.amount or 0, features_of(account.held, None)
        # Whatever its status is.
        available = AccountState(0, account.balance, limit, features=features).available
        changed = {"overdraft_limit": limit, "available": available, "updated_at": result.decided_at}
        return account.model_copy(update=changed)
    return account.model_copy(update={command.limit: command.amount, "updated_at": result.decided_at})


def hold_as_made(command: Command, result: Result, store_id: str) -> AccountHold | None:
    """Return the hold as it was made, or would be; None if it was made before, and may have changed since."""
    if not isinstance(command, Hold) or result.replayed or result.decided_at is None or result.expires_at is None:
        return None
    return AccountHold(
        # A dry run makes none.
        id=result.hold_id or "",
        store_id=store_id,
        account_id=result.account_id,
        status="open",
        amount=command.amount,
        captured=0,
        remaining=command.amount,
        reference=command.reference,
        expires_at=result.expires_at,
        created_at=result.decided_at,
        metadata=command.metadata,
    )


def hold_as_changed(hold: AccountHold, command: Command, result: Result) -> AccountHold:
    """Return the hold as it was read after a command, or as it would be where that was a dry run."""
    if not result.dry_run or result.replayed:
        return hold
    if result.expires_at is not None:
        return hold.model_copy(update={"expires_at": result.expires_at})
    if isinstance(command, Void):
        return hold.model_copy(update={"status": "voided", "remaining": 0, "ended_at": result.decided_at})
    return hold


def _own_letters(ticket: Ticket, letters: Sequence[DeadLetterRow]) -> Sequence[DeadLetterRow]:
    """Return the dead letters that are this request, if the ticket's own lane entry is among them.

    Another letter of the same request may stem from an earlier attempt, while the ticket's entry is still queued.
    """
    letters = [letter for letter in letters if fingerprint(letter.payload) == ticket.fingerprint]
    return letters if any(letter.lane_entry == ticket.lane_entry for letter in letters) else ()


def _result_of(ticket: Ticket, row: JournalRow) -> Result:
    if _is_same_request(ticket, row):
        result = result_of_row(row, replayed=_was_decided_before(ticket, row))
    else:
        refusal = Refusal(IdempotencyKeyMismatch.code, IdempotencyKeyMismatch().message)
        result = result_of_refusal(refusal, ticket.account_id, ticket.idempotency_key)
    return as_dry_run(result, None, ()) if ticket.dry_run else result


def _was_decided_before(ticket: Ticket, row: JournalRow) -> bool:
    """Whether the row was there when the ticket's command was accepted: it is a repeat.

    A lane entry's id begins with Redis's time, a row has Postgres's. A repeat within the time by which the two clocks
    may differ is not kept apart here; an announcement says it exactly, and `replays` where the clocks were seen.
    """
    accepted_ms, _ = position_of_entry(ticket.lane_entry)
    return row.created_at_us < (accepted_ms - MAX_CLOCK_DIFFERENCE_MS) * 1_000


def _is_same_request(ticket: Ticket, row: JournalRow) -> bool:
    if row.idempotency_key not in keys_of(ticket) or row.account_id != ticket.account_id:
        return False
    fields = {"account_id": row.account_id, "idempotency_key": ticket.idempotency_key, **content_of_row(row)}
    if ticket.dry_run:
        fields["dry_run"] = True
    try:
        command = Kind(row.kind).record.model(**fields)
    except ValidationError:
        # What breaks a rule of today cannot be what a ticket of today was given for.
        return False
    return fingerprint(encode_command(command, ticket.store_id)) == ticket.fingerprint
