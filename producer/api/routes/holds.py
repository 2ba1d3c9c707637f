"""The operations on holds: set a part of a balance aside, capture it, void it, move its end, show and list them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from ....schemas.commands import Capture, Extend, Hold, Void
from ....schemas.errors import Unavailable
from ....schemas.holds import HoldStatusName
from ....schemas.kinds import Kind
from ....schemas.results import Result
from ....schemas.statuses import HoldStatus
from ....schemas.tickets import Ticket
from ..deps import BodyWrites, DryRunParameter, RequestReads, RequestStore, RequestWrites
from ..errors import not_found
from ..models.holds import (
    DEFAULT_END,
    HOLD_EXAMPLE,
    OPEN_HOLDS_LIMIT,
    CaptureHold,
    ExtendHold,
    HoldBody,
    HoldList,
    PlaceHold,
)
from ..models.ledger import TransactionBody
from ..openapi.responses import deciding, reading
from ..paging import WindowParameters
from ..reads import Reads
from ..result_bodies import changed_hold, placed_hold, single_transaction
from ..writes import Writes, body_answer, queued_answer
from .accounts import AccountPath

router: APIRouter = APIRouter(prefix="/v1/customer-credits", tags=["Holds"])

HoldPath = Annotated[str, Path(alias="id", description="Id of the hold.", examples=[HOLD_EXAMPLE])]


@router.post(
    "/accounts/{id}/holds",
    status_code=Kind.HOLD.record.http_status,
    operation_id="holdCustomerCredits",
    summary="Hold a part of a balance",
    description=f"Set a part of the balance aside, so that nothing else can take it. {DEFAULT_END} {OPEN_HOLDS_LIMIT}",
    responses=deciding(Kind.HOLD, HoldBody, "idempotency_key_mismatch"),
)
async def place_hold(account_id: AccountPath, body: PlaceHold, reads: RequestReads, writes: BodyWrites) -> Response:
    """Set a part of the balance aside."""
    key = writes.key(body.idempotency_key)
    if await reads.missing_accounts([account_id]):
        raise not_found()
    outcome = await writes.decide(
        Hold,
        account_id=account_id,
        amount=body.amount,
        reference=body.reference,
        idempotency_key=key,
        expires_in_seconds=body.expires_in_seconds,
        expires_at=body.expires_at,
        metadata=body.metadata,
        callback_url=body.callback_url,
        dry_run=body.dry_run,
    )
    if isinstance(outcome, Ticket):
        return queued_answer(outcome)
    return body_answer(placed_hold(outcome, body.metadata), Kind.HOLD.record.http_status, replayed=outcome.replayed)


@router.get(
    "/accounts/{id}/holds",
    operation_id="listCustomerCreditsHolds",
    summary="List an account's holds",
    responses=reading(HoldList, "not_found"),
)
async def list_holds(
    account_id: AccountPath,
    reads: RequestReads,
    window: WindowParameters,
    status: Annotated[HoldStatusName | None, Query(description="Only those of this status.")] = None,
) -> Response:
    """List the account's holds, newest first, in whatever state they are."""
    if await reads.missing_accounts([account_id]):
        raise not_found()
    page = await reads.list_holds(account_id, window, None if status is None else HoldStatus[status.upper()])
    return body_answer(HoldList(data=page.data, has_more=page.has_more))


@router.get(
    "/holds/{id}",
    operation_id="getCustomerCreditsHold",
    summary="Show a hold",
    responses=reading(HoldBody, "not_found"),
)
async def get_hold(hold_id: HoldPath, reads: RequestReads) -> Response:
    """Show a hold as it is now. Ended ones stay readable for ever."""
    return body_answer(await _hold(reads, hold_id))


@router.post(
    "/holds/{id}/capture",
    status_code=Kind.CAPTURE.record.http_status,
    operation_id="captureCustomerCreditsHold",
    summary="Capture a hold",
    responses=deciding(Kind.CAPTURE, TransactionBody, "idempotency_key_mismatch"),
)
async def capture_hold(
    hold_id: HoldPath, body: CaptureHold, store: RequestStore, reads: RequestReads, writes: BodyWrites
) -> Response:
    """Debit what the hold has set aside, whole or in parts. After the last part, what is left of it is released."""
    key = writes.key(body.idempotency_key)
    await _hold(reads, hold_id)
    outcome = await writes.decide(
        Capture,
        hold_id=hold_id,
        amount=body.amount,
        final=body.final,
        allow_overage=body.allow_overage,
        reference=body.reference,
        idempotency_key=key,
        metadata=body.metadata,
        callback_url=body.callback_url,
        dry_run=body.dry_run,
    )
    if isinstance(outcome, Ticket):
        return queued_answer(outcome)
    transaction = single_transaction(outcome, store.public_id, body.metadata)
    return body_answer(transaction, Kind.CAPTURE.record.http_status, replayed=outcome.replayed)


@router.post(
    "/holds/{id}/void",
    operation_id="voidCustomerCreditsHold",
    summary="Void a hold",
    responses=deciding(Kind.VOID, HoldBody, "idempotency_key_mismatch"),
)
async def void_hold(
    hold_id: HoldPath, reads: RequestReads, writes: RequestWrites, *, dry_run: DryRunParameter = False
) -> Response:
    """Release what is left of the hold, also on a frozen account."""
    key = writes.key(None, Kind.VOID.word)
    await _hold(reads, hold_id)
    outcome = await writes.decide(Void, hold_id=hold_id, idempotency_key=key, dry_run=dry_run)
    return await _changed(Kind.VOID, hold_id, outcome, reads, writes)


@router.post(
    "/holds/{id}/extend",
    operation_id="extendCustomerCreditsHold",
    summary="Move the end of a hold",
    responses=deciding(Kind.EXTEND, HoldBody, "idempotency_key_mismatch"),
)
async def extend_hold(hold_id: HoldPath, body: ExtendHold, reads: RequestReads, writes: BodyWrites) -> Response:
    """Move the end of an open hold, to later or to earlier."""
    key = writes.key(body.idempotency_key, Kind.EXTEND.word)
    await _hold(reads, hold_id)
    outcome = await writes.decide(
        Extend,
        hold_id=hold_id,
        expires_in_seconds=body.expires_in_seconds,
        expires_at=body.expires_at,
        idempotency_key=key,
        dry_run=body.dry_run,
    )
    return await _changed(Kind.EXTEND, hold_id, outcome, reads, writes)


async def _hold(reads: Reads, hold_id: str) -> HoldBody:
    """Return the hold, or end with 404 where there is none, before any key is used up for it."""
    found = await reads.hold(hold_id)
    if found is None:
        raise not_found()
    return found


async def _changed(kind: Kind, hold_id: str, outcome: Result | Ticket, reads: Reads, writes: Writes) -> Response:
    """Return the response to a change of the hold: with the hold as it is now, or would be."""
    if isinstance(outcome, Ticket):
        return queued_answer(outcome)
    with writes.reading_back():
        found = await reads.hold(hold_id)
        if found is None:
            raise Unavailable("The change is applied and the hold cannot be read yet.")
    return body_answer(changed_hold(found, kind, outcome), kind.record.http_status, replayed=outcome.replayed)
