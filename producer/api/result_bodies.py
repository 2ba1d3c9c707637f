"""What an applied result is shown as: made from the request and its published result alone, without another read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ...schemas.accounts import AccountState
from ...schemas.identifiers import entry_id, position_of
from ...schemas.kinds import Kind
from ...schemas.results import Result, moment_text
from ...schemas.statuses import Status
from .errors import Problem
from .models.holds import HoldBody
from .models.ledger import DRY_RUN_ID, AccountBody, CreateAccount, EntryBody, TransactionBody


def opened_account(body: CreateAccount, result: Result, store_id: str) -> AccountBody:
    """Return the account as it was opened. A replay is of the same request, so the body has the rest."""
    moment = moment_text(result.decided_at or datetime.now(UTC))
    # Without an overdraft: nobody asks for one over HTTP.
    state = AccountState(Status.ACTIVE, result.balance or 0, overdraft_limit=0)
    return AccountBody(
        id=DRY_RUN_ID if result.dry_run and not result.replayed else result.account_id,
        store_id=store_id,
        customer_id=body.customer_id,
        name=body.name,
        unit_label=body.unit_label,
        status="active",
        balance=str(state.balance),
        held=str(state.held),
        available=str(state.available),
        metadata=body.metadata,
        created_at=moment,
        updated_at=moment,
        dry_run=result.dry_run or None,
    )


def single_transaction(result: Result, store_id: str, metadata: dict[str, str] | None) -> TransactionBody:
    """Return the transaction of one entry that a credit or debit made, or would have made."""
    if result.entries is not None:
        return dry_transaction(result, store_id, metadata)
    identifier = result.transaction_id or ""
    position = position_of(identifier)
    if position is None or result.side is None:
        raise Problem("internal_error")
    moment = moment_text(result.decided_at or datetime.now(UTC))
    entry = EntryBody(
        id=entry_id(position.account_id, position.seq),
        transaction_id=identifier,
        account_id=position.account_id,
        side=result.side,
        amount=str(result.amount),
        balance_after=str(result.balance),
        reference=result.reference or "",
        created_at=moment,
    )
    return TransactionBody(
        id=identifier,
        store_id=store_id,
        reference=result.reference or "",
        idempotency_key=result.idempotency_key,
        reversal_of=None,
        entries=[entry],
        metadata=metadata,
        created_at=moment,
        shortfall=None if result.shortfall is None else str(result.shortfall),
        dry_run=result.dry_run or None,
    )


def dry_transaction(result: Result, store_id: str, metadata: dict[str, str] | None) -> TransactionBody:
    """Return the transaction that there would have been, of any number of entries."""
    moment = moment_text(result.decided_at or datetime.now(UTC))
    return TransactionBody(
        id=DRY_RUN_ID,
        store_id=store_id,
        reference=result.reference or "",
        idempotency_key=result.idempotency_key,
        reversal_of=result.reversal_of,
        entries=[
            EntryBody(
                id=DRY_RUN_ID,
                transaction_id=DRY_RUN_ID,
                account_id=entry.account_id,
                side=entry.side,
                amount=str(entry.amount),
                balance_after=str(entry.balance_after),
                reference=result.reference or "",
                created_at=moment,
            )
            for entry in result.entries or ()
        ],
        metadata=metadata,
        created_at=moment,
        shortfall=None if result.shortfall is None else str(result.shortfall),
        dry_run=True,
    )


def placed_hold(result: Result, metadata: dict[str, str] | None) -> HoldBody:
    """Return the hold as it was made, or would be, whatever has become of it since."""
    amount = str(result.amount)
    if result.expires_at is None:
        raise Problem("internal_error")
    return HoldBody(
        id=result.hold_id or DRY_RUN_ID,
        account_id=result.account_id,
        status="open",
        amount=amount,
        captured="0",
        remaining=amount,
        reference=result.reference or "",
        metadata=metadata,
        expires_at=moment_text(result.expires_at),
        created_at=moment_text(result.decided_at or datetime.now(UTC)),
        ended_at=None,
        dry_run=result.dry_run or None,
    )


def changed_hold(hold: HoldBody, kind: Kind, result: Result) -> HoldBody:
    """Return the hold as it was read after a change of this kind, or as it would be where that was a dry run."""
    if not result.dry_run:
        return hold
    changes: dict[str, Any] = {"dry_run": True}
    if not result.replayed and kind is Kind.VOID:
        changes |= {
            "status": "voided",
            "remaining": "0",
            "ended_at": moment_text(result.decided_at or datetime.now(UTC)),
        }
    elif not result.replayed and result.expires_at is not None:
        changes["expires_at"] = moment_text(result.expires_at)
    return hold.model_copy(update=changes)
