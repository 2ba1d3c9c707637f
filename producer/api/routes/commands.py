"""Asking what became of a command."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from ....lanes.deadlines import deadline_in
from ....schemas.errors import InvalidCommand, OutcomeUnknown
from ....schemas.kinds import KIND_OF_WORD, Kind
from ....schemas.results import Result
from ....schemas.tickets import Ticket
from ...client._async.session import AsyncSession
from ...client.resolve import is_decided, own_ticket
from ..auth import check_again
from ..connections import Connections
from ..deps import RequestReads, RequestStore
from ..errors import COMMANDS_PATH, NOT_FOUND, Problem, detail_of, not_found, problem_of_rejection
from ..middleware.request_limits import waiting_slot
from ..models.commands import CommandBody
from ..models.ledger import COMMAND_EXAMPLE, ErrorDetailBody
from ..openapi.responses import reading
from ..reads import Reads
from ..result_bodies import changed_hold, dry_transaction, placed_hold
from ..writes import body_answer

#: Longest wait that one request may ask for, in seconds.
MAX_WAIT_SECONDS = 30.0
#: Said of an id of the right form and store whose command is nowhere.
LOST = (
    "This command is neither waiting nor decided: it was lost with Redis's data, or the id was never given out. "
    "Send the request again as it was, under the same idempotency key."
)

router: APIRouter = APIRouter(prefix=COMMANDS_PATH, tags=["Commands"])


@router.get(
    "/{id}",
    operation_id="getCustomerCreditsCommand",
    summary="Ask what became of a command",
    responses=reading(CommandBody, "not_found"),
)
async def get_command(
    request: Request,
    command_id: Annotated[
        str,
        Path(alias="id", description="Id from a 202, or from `error.command_id` of a 503.", examples=[COMMAND_EXAMPLE]),
    ],
    store: RequestStore,
    reads: RequestReads,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT_SECONDS, description="How long to wait for a result, in seconds.", examples=[5])
    ] = 0.0,
) -> Response:
    """Say whether the command is queued, applied (and what it made) or rejected (and why), waiting for it if asked."""
    try:
        ticket = own_ticket(command_id, store.public_id)
    except InvalidCommand:
        raise not_found() from None
    connections: Connections = request.app.state.connections
    session, deadline = connections.session, deadline_in(connections.settings.wait_timeout_seconds)
    try:
        result = await session.waiting.find(ticket, deadline, await session.waiting.poll_stream(ticket, deadline))
    except OutcomeUnknown:
        raise Problem(NOT_FOUND, LOST) from None
    if wait and not is_decided(result):
        with waiting_slot(request):
            result = await _wait(session, ticket, wait) or result
        await check_again(request)
    return body_answer(await _body_of(command_id, result, reads))


async def _wait(session: AsyncSession, ticket: Ticket, seconds: float) -> Result | None:
    try:
        return await session.waiting.wait_foreign(ticket, seconds)
    except OutcomeUnknown:
        # It is queued still: that is the answer.
        return None


async def _with_dry_run(body: CommandBody, result: Result, reads: Reads) -> CommandBody:
    """Show what there would have been, as far as its result says it: of an account to be opened that is nothing."""
    if result.entries and result.kind != Kind.OPEN_ACCOUNT.word:
        return body.model_copy(update={"transaction": dry_transaction(result, reads.store_id, None)})
    if result.hold_id is not None and (hold := await reads.hold(result.hold_id)):
        return body.model_copy(update={"hold": changed_hold(hold, KIND_OF_WORD[result.kind or ""], result)})
    if result.kind == Kind.HOLD.word:
        return body.model_copy(update={"hold": placed_hold(result, None)})
    kind = KIND_OF_WORD[result.kind or ""]
    account = await reads.account(result.account_id)
    if kind.record.status_after is None or kind is Kind.OPEN_ACCOUNT or account is None:
        return body
    status = kind.record.status_after.name.lower()
    return body.model_copy(update={"account": account.model_copy(update={"status": status, "dry_run": True})})


async def _body_of(command_id: str, result: Result, reads: Reads) -> CommandBody:
    body = CommandBody(id=command_id, status=result.status, kind=result.kind, dry_run=result.dry_run or None)
    if result.error is not None:
        problem = problem_of_rejection(result.error) if result.status == "rejected" else Problem("dead_lettered")
        return body.model_copy(update={"error": ErrorDetailBody(**detail_of(problem))})
    if result.status == "queued":
        return body
    if result.dry_run and not result.replayed:
        return await _with_dry_run(body, result, reads)
    # To open an account with an initial balance makes both; what was asked for is the account.
    if result.transaction_id is not None and result.kind != Kind.OPEN_ACCOUNT.word:
        return body.model_copy(update={"transaction": await reads.transaction(result.transaction_id)})
    if result.hold_id is not None:
        return body.model_copy(update={"hold": await reads.hold(result.hold_id)})
    return body.model_copy(update={"account": await reads.account(result.account_id)})
