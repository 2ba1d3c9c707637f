"""The operations on transactions: post one of several entries, show, find by reference, reverse."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from ....schemas.commands import Post, Text
from ....schemas.kinds import Kind
from ..deps import BodyWrites, DryRunParameter, KeylessWrites, RequestReads
from ..errors import not_found
from ..models.ledger import TRANSACTION_EXAMPLE, PostTransaction, ReversalRequest, TransactionBody, TransactionList
from ..openapi.responses import deciding, reading
from ..paging import WindowParameters
from ..reversal_requests import reverse, transaction_answer
from ..writes import body_answer

router: APIRouter = APIRouter(prefix="/v1/customer-credits/transactions", tags=["Transactions"])

TransactionPath = Annotated[str, Path(alias="id", description="Id of the transaction.", examples=[TRANSACTION_EXAMPLE])]


@router.post(
    "",
    status_code=Kind.POST.record.http_status,
    operation_id="postCustomerCreditsTransaction",
    summary="Post a transaction of several entries",
    responses=deciding(Kind.POST, TransactionBody, "idempotency_key_mismatch"),
)
async def post_transaction(body: PostTransaction, reads: RequestReads, writes: BodyWrites) -> Response:
    """Move amounts between accounts of the store, all or nothing."""
    key = writes.key(body.idempotency_key)
    account_ids = [entry.account_id for entry in body.entries]
    if missing := await reads.missing_accounts(account_ids):
        raise not_found(f"entries.{account_ids.index(missing[0])}.account_id")
    outcome = await writes.decide(
        Post,
        reference=body.reference,
        idempotency_key=key,
        entries=[entry.model_dump() for entry in body.entries],
        metadata=body.metadata,
        callback_url=body.callback_url,
        dry_run=body.dry_run,
    )
    return await transaction_answer(Kind.POST, outcome, reads, writes, body.metadata)


@router.get(
    "",
    operation_id="listCustomerCreditsTransactionsByReference",
    summary="Find transactions by their reference",
    responses=reading(TransactionList),
)
async def list_transactions_by_reference(
    reads: RequestReads,
    window: WindowParameters,
    reference: Annotated[Text, Query(description="The reference, exactly.", examples=["order_1001"])],
) -> Response:
    """List the transactions of a reference, newest first. A reversal has the reference of what it undoes."""
    page = await reads.list_transactions(reference, window)
    return body_answer(TransactionList(data=page.data, has_more=page.has_more))


@router.get(
    "/{id}",
    operation_id="getCustomerCreditsTransaction",
    summary="Show a transaction",
    responses=reading(TransactionBody, "not_found"),
)
async def get_transaction(transaction_id: TransactionPath, reads: RequestReads) -> Response:
    """Show a transaction with all its entries."""
    transaction = await reads.transaction(transaction_id)
    if transaction is None:
        raise not_found()
    return body_answer(transaction)


@router.post(
    "/{id}/reverse",
    status_code=Kind.REVERSE.record.http_status,
    operation_id="reverseCustomerCreditsTransaction",
    summary="Reverse a transaction",
    responses=deciding(Kind.REVERSE, TransactionBody, "idempotency_key_mismatch"),
)
async def reverse_transaction(
    transaction_id: TransactionPath,
    reads: RequestReads,
    writes: KeylessWrites,
    body: ReversalRequest | None = None,
    *,
    dry_run: DryRunParameter = False,
) -> Response:
    """Undo a transaction, on every account it touched, by an opposite one.

    Without an amount all that is left of it, and later calls get the first answer. With one so much of it.
    """
    body = body or ReversalRequest()
    return await reverse(transaction_id, body, reads, writes, dry_run=dry_run or body.dry_run)
