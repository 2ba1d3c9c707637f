"""The operations on an account's limits: setting any of them, and the older one for the balance that is watched."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from ....schemas.commands import LimitName, SetLimit
from ....schemas.kinds import Kind
from ....schemas.results import Result, microseconds_of
from ....schemas.tickets import Ticket
from ...ledger.rows import AccountRow
from ..deps import BodyWrites, RequestReads, RequestWrites
from ..errors import not_found
from ..models.ledger import AccountBody, AccountSettings, SetLimitBody
from ..openapi.responses import deciding, writing
from ..reads import Reads
from ..writes import Writes, body_answer, queued_answer
from .accounts import AccountPath

router: APIRouter = APIRouter(prefix="/v1/customer-credits/accounts", tags=["Accounts"])

LimitPath = Annotated[
    LimitName,
    Path(
        description="`credit_limit`: how far below zero debits may take the account. `max_balance`: what no credit may "
        "take the balance above. `low_balance`: falling below it is sent to webhooks as `balance.low`.",
        examples=["max_balance"],
    ),
]


@router.put(
    "/{id}/limits/{limit}",
    operation_id="setCustomerCreditsAccountLimit",
    summary="Set a limit of an account",
    responses=deciding(Kind.SET_LIMIT, AccountBody, "idempotency_key_mismatch"),
)
async def put_limit(
    account_id: AccountPath, limit: LimitPath, body: SetLimitBody, reads: RequestReads, writes: BodyWrites
) -> Response:
    """Set a limit of the account in its turn among its commands, or take it away. A frozen account's can be set."""
    key = writes.key(body.idempotency_key, Kind.SET_LIMIT.word)
    asked = {"callback_url": body.callback_url, "dry_run": body.dry_run}
    return await _set_limit(account_id, limit, body.amount, key, reads, writes, **asked)


@router.patch(
    "/{id}",
    operation_id="updateCustomerCreditsAccount",
    summary="Watch an account's balance",
    responses=writing(
        AccountBody, Kind.SET_LIMIT.record.http_status, "not_found", "account_closed", "idempotency_key_mismatch"
    ),
)
async def update_account(
    account_id: AccountPath, body: AccountSettings, reads: RequestReads, writes: RequestWrites
) -> Response:
    """Set the balance below which `balance.low` is sent to webhooks, or take it away: its limit `low_balance`."""
    key = writes.key(None, Kind.SET_LIMIT.word)
    return await _set_limit(account_id, "low_balance", body.low_balance, key, reads, writes)


async def _set_limit(
    account_id: str,
    limit: LimitName,
    amount: str | None,
    key: str,
    reads: Reads,
    writes: Writes,
    **asked: Any,
) -> Response:
    account = await reads.account_row(account_id)
    if account is None:
        raise not_found()
    outcome = await writes.decide(
        SetLimit, account_id=account_id, limit=limit, amount=amount, idempotency_key=key, **asked
    )
    if isinstance(outcome, Ticket):
        return queued_answer(outcome)
    changed = reads.body_of(_with_limit(account, limit, amount, outcome))
    changed.dry_run = True if outcome.dry_run else None
    return body_answer(changed, Kind.SET_LIMIT.record.http_status, replayed=outcome.replayed)


def _with_limit(account: AccountRow, limit: LimitName, amount: str | None, result: Result) -> AccountRow:
    """Return the account as the change left it. A replay is of the same request, so that says what was set."""
    decided_at = result.decided_at or datetime.now(UTC)
    account = account._replace(balance=str(result.balance or 0), updated_us=microseconds_of(decided_at))
    match limit:
        case "credit_limit":
            return account._replace(overdraft_limit=amount or "0")
        case "max_balance":
            return account._replace(max_balance=amount)
        case "low_balance":
            return account._replace(low_balance=amount)
