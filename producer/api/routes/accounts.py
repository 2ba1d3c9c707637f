"""The operations on accounts: open, show, list, balance, entries, freeze, unfreeze, close, credit, debit, reverse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from ....schemas.commands import OpenAccount, Text
from ....schemas.kinds import Kind
from ....schemas.results import Result, microseconds_of
from ....schemas.tickets import Ticket
from ...ledger.rows import AccountRow
from ..auth import Store
from ..deps import BodyWrites, DryRunParameter, KeylessWrites, RequestReads, RequestStore, RequestWrites
from ..errors import not_found
from ..models.ledger import (
    ACCOUNT_EXAMPLE,
    AccountBody,
    AccountList,
    BalanceBody,
    CreateAccount,
    DebitMovement,
    EntryList,
    Movement,
    ReverseTransaction,
    TransactionBody,
)
from ..openapi.responses import deciding, reading
from ..paging import WindowParameters
from ..reads import Reads, parse_moment
from ..result_bodies import opened_account, single_transaction
from ..reversal_requests import reverse
from ..writes import Writes, body_answer, queued_answer

router: APIRouter = APIRouter(prefix="/v1/customer-credits/accounts", tags=["Accounts"])

AccountPath = Annotated[str, Path(alias="id", description="Id of the account.", examples=[ACCOUNT_EXAMPLE])]


@router.post(
    "",
    status_code=Kind.OPEN_ACCOUNT.record.http_status,
    operation_id="createCustomerCreditsAccount",
    summary="Open an account",
    responses=deciding(Kind.OPEN_ACCOUNT, AccountBody, "account_closed", "idempotency_key_mismatch"),
)
async def create_account(body: CreateAccount, store: RequestStore, writes: BodyWrites) -> Response:
    """Open an account for a customer, with its initial balance in one step, or not at all."""
    outcome = await writes.decide(
        OpenAccount,
        idempotency_key=writes.key(body.idempotency_key, "open"),
        customer_id=body.customer_id,
        name=body.name,
        unit_label=body.unit_label,
        initial_balance=body.initial_balance or "0",
        metadata=body.metadata,
        callback_url=body.callback_url,
        dry_run=body.dry_run,
    )
    if isinstance(outcome, Ticket):
        return queued_answer(outcome)
    return body_answer(
        opened_account(body, outcome, store.public_id), Kind.OPEN_ACCOUNT.record.http_status, replayed=outcome.replayed
    )


@router.get(
    "",
    operation_id="listCustomerCreditsAccounts",
    summary="List accounts",
    responses=reading(AccountList),
)
async def list_accounts(
    reads: RequestReads,
    window: WindowParameters,
    customer_id: Annotated[Text | None, Query(description="Only the accounts of this customer.")] = None,
) -> Response:
    """List the store's accounts, newest first, in whatever state they are."""
    page = await reads.list_accounts(window, customer_id)
    return body_answer(AccountList(data=page.data, has_more=page.has_more))


@router.get(
    "/{id}",
    operation_id="getCustomerCreditsAccount",
    summary="Show an account",
    responses=reading(AccountBody, "not_found"),
)
async def get_account(account_id: AccountPath, reads: RequestReads) -> Response:
    """Show an account and what is on it. Frozen and closed accounts stay readable for ever."""
    return body_answer(await _account(reads, account_id))


@router.get(
    "/{id}/balance",
    operation_id="getCustomerCreditsAccountBalance",
    summary="Show a balance, now or at a moment",
    responses=reading(BalanceBody, "not_found"),
)
async def get_account_balance(
    account_id: AccountPath,
    reads: RequestReads,
    at: Annotated[
        str | None,
        Query(
            description="A moment in ISO 8601, inclusive; UTC unless it says otherwise. Before the account was opened "
            "the balance is `0`, in the future it is the current one. What can still change is not shown: a moment "
            "that near is answered as of the latest one that cannot change any more, and `as_of` says which.",
            json_schema_extra={"format": "date-time"},
            examples=["2026-03-01T12:30:00Z"],
        ),
    ] = None,
) -> Response:
    """Show the account's current balance, or the one it had at a moment."""
    moment = None if at is None else parse_moment(at)
    found = await (reads.balance(account_id) if moment is None else reads.balance_at(account_id, moment))
    if found is None:
        raise not_found()
    return body_answer(found)


@router.get(
    "/{id}/entries",
    operation_id="listCustomerCreditsAccountEntries",
    summary="List an account's entries",
    responses=reading(EntryList, "not_found"),
)
async def list_entries(account_id: AccountPath, reads: RequestReads, window: WindowParameters) -> Response:
    """List what moved on the account, newest first."""
    await _require(reads, account_id)
    page = await reads.list_entries(account_id, window)
    return body_answer(EntryList(data=page.data, has_more=page.has_more))


@router.post(
    "/{id}/freeze",
    operation_id="freezeCustomerCreditsAccount",
    summary="Freeze an account",
    responses=deciding(Kind.FREEZE, AccountBody, "idempotency_key_mismatch"),
)
async def freeze_account(
    account_id: AccountPath, reads: RequestReads, writes: RequestWrites, *, dry_run: DryRunParameter = False
) -> Response:
    """Stop all movement on an active account."""
    return await _change(Kind.FREEZE, account_id, reads, writes, dry_run=dry_run)


@router.post(
    "/{id}/unfreeze",
    operation_id="unfreezeCustomerCreditsAccount",
    summary="Unfreeze an account",
    responses=deciding(Kind.UNFREEZE, AccountBody, "idempotency_key_mismatch"),
)
async def unfreeze_account(
    account_id: AccountPath, reads: RequestReads, writes: RequestWrites, *, dry_run: DryRunParameter = False
) -> Response:
    """Let a frozen account move again."""
    return await _change(Kind.UNFREEZE, account_id, reads, writes, dry_run=dry_run)


@router.post(
    "/{id}/close",
    operation_id="closeCustomerCreditsAccount",
    summary="Close an account",
    responses=deciding(Kind.CLOSE, AccountBody, "idempotency_key_mismatch"),
)
async def close_account(
    account_id: AccountPath, reads: RequestReads, writes: RequestWrites, *, dry_run: DryRunParameter = False
) -> Response:
    """Close an account for good; 409 while it is below zero. It stays readable, and its name is free again."""
    return await _change(Kind.CLOSE, account_id, reads, writes, dry_run=dry_run)


@router.post(
    "/{id}/credit",
    status_code=Kind.CREDIT.record.http_status,
    operation_id="creditCustomerCreditsAccount",
    summary="Credit an account",
    responses=deciding(Kind.CREDIT, TransactionBody, "idempotency_key_mismatch"),
)
async def credit_account(
    account_id: AccountPath, body: Movement, store: RequestStore, reads: RequestReads, writes: BodyWrites
) -> Response:
    """Add to the account's balance."""
    return await move(Kind.CREDIT, account_id, body, store, reads, writes)


@router.post(
    "/{id}/debit",
    status_code=Kind.DEBIT.record.http_status,
    operation_id="debitCustomerCreditsAccount",
    summary="Debit an account",
    responses=deciding(Kind.DEBIT, TransactionBody, "idempotency_key_mismatch"),
)
async def debit_account(
    account_id: AccountPath, body: DebitMovement, store: RequestStore, reads: RequestReads, writes: BodyWrites
) -> Response:
    """Take from the account's balance; 422 if it is not there."""
    return await move(Kind.DEBIT, account_id, body, store, reads, writes)


@router.post(
    "/{id}/reverse",
    status_code=Kind.REVERSE.record.http_status,
    operation_id="reverseCustomerCreditsAccountTransaction",
    summary="Reverse a transaction of an account",
    responses=deciding(Kind.REVERSE, TransactionBody, "idempotency_key_mismatch"),
)
async def reverse_account_transaction(
    account_id: AccountPath, body: ReverseTransaction, reads: RequestReads, writes: KeylessWrites
) -> Response:
    """Undo a transaction that touches this account, on every account it touched, by a new, opposite one.

    Without an amount all that is left of it, and later calls get the first answer. With one so much of it.
    """
    await _require(reads, account_id)
    return await reverse(body.transaction_id, body, reads, writes, account_id=account_id, dry_run=body.dry_run)


async def _account(reads: Reads, account_id: str) -> AccountBody:
    account = await reads.account(account_id)
    if account is None:
        raise not_found()
    return account


async def _require(reads: Reads, account_id: str) -> None:
    """End with 404 where there is no such account, before any key is used up for it."""
    if await reads.missing_accounts([account_id]):
        raise not_found()


async def move(kind: Kind, account_id: str, body: Movement, store: Store, reads: Reads, writes: Writes) -> Response:
    """Credit or debit the account, and answer with the transaction, or with where to ask for it."""
    key = writes.key(body.idempotency_key)
    await _require(reads, account_id)
    outcome = await writes.decide(
        kind.record.model,
        account_id=account_id,
        amount=body.amount,
        reference=body.reference,
        idempotency_key=key,
        metadata=body.metadata,
        callback_url=body.callback_url,
        dry_run=body.dry_run,
        **({"allow_partial": True} if isinstance(body, DebitMovement) and body.allow_partial else {}),
    )
    if isinstance(outcome, Ticket):
        return queued_answer(outcome)
    transaction = single_transaction(outcome, store.public_id, body.metadata)
    return body_answer(transaction, kind.record.http_status, replayed=outcome.replayed)


async def _change(kind: Kind, account_id: str, reads: Reads, writes: Writes, *, dry_run: bool) -> Response:
    account = await reads.account_row(account_id)
    if account is None:
        raise not_found()
    key = writes.key(None, kind.word)
    outcome = await writes.decide(kind.record.model, account_id=account_id, idempotency_key=key, dry_run=dry_run)
    if isinstance(outcome, Ticket):
        return queued_answer(outcome)
    changed = reads.body_of(_changed(account, kind, outcome))
    changed.dry_run = True if outcome.dry_run else None
    return body_answer(changed, kind.record.http_status, replayed=outcome.replayed)


def _changed(account: AccountRow, kind: Kind, result: Result) -> AccountRow:
    """Return the account as the change left it, whatever has happened since."""
    status = kind.record.status_after or account.status
    decided_at = result.decided_at or datetime.now(UTC)
    return account._replace(status=status, balance=str(result.balance or 0), updated_us=microseconds_of(decided_at))
