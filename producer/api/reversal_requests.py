"""Reversing a transaction: refused at once while the books forbid it, else sent to its lane as a new attempt.

With an amount it has a key, as a debit has, under which the ledger alone decides.
"""

from __future__ import annotations

from fastapi import Response

from ...schemas.commands import Reverse
from ...schemas.errors import AccountClosed, AccountFrozen, Unavailable
from ...schemas.identifiers import position_of
from ...schemas.kinds import Kind
from ...schemas.results import Result
from ...schemas.tickets import Ticket
from .errors import Problem, not_found
from .idempotency_header import KEY_FIELD
from .models.ledger import ReversalRequest
from .reads import Reads, ReversalView
from .result_bodies import dry_transaction
from .writes import Writes, body_answer, queued_answer


async def reverse(
    identifier: str,
    request: ReversalRequest,
    reads: Reads,
    writes: Writes,
    *,
    account_id: str | None = None,
    dry_run: bool = False,
) -> Response:
    """Reverse the transaction, or the part of it that is asked for. It must touch the account if one is named.

    Raises:
        Problem: there is no such transaction, it cannot be reversed, or amount and key do not go together.
    """
    part = _part_of(request, writes)
    param = "id" if account_id is None else "transaction_id"
    view = await reads.reversal_view(identifier)
    position = position_of(identifier)
    if view is None or position is None:
        raise not_found(param)
    if account_id not in {None, *(entry.account_id for entry in view.transaction.entries)}:
        raise not_found(param)
    if not part and not view.is_decided:
        _refuse_early(view)
    outcome = await writes.decide(
        Reverse, account_id=position.account_id, transaction_id=identifier, dry_run=dry_run, **part
    )
    return await transaction_answer(Kind.REVERSE, outcome, reads, writes)


def _part_of(request: ReversalRequest, writes: Writes) -> dict[str, str]:
    """Return the fields of a partial reversal; none if it is a whole one, for which no header counts."""
    if request.amount is not None:
        writes.read_header()
        return {"amount": request.amount, KEY_FIELD: writes.key(request.idempotency_key)}
    if request.idempotency_key is not None:
        message = f"{KEY_FIELD}: belongs to an amount; a whole reversal is made once, leave the key out"
        raise Problem("validation_error", message, param=KEY_FIELD)
    return {}


async def transaction_answer(
    kind: Kind, outcome: Result | Ticket, reads: Reads, writes: Writes, metadata: dict[str, str] | None = None
) -> Response:
    """Return the response for a transaction that may have several entries: they are read back, if there are any."""
    if isinstance(outcome, Ticket):
        return queued_answer(outcome)
    if outcome.entries is not None:
        return body_answer(dry_transaction(outcome, reads.store_id, metadata), kind.record.http_status)
    with writes.reading_back():
        transaction = await reads.transaction(outcome.transaction_id or "")
        if transaction is None:
            raise Unavailable("The transaction is applied and cannot be read yet.")
    transaction.dry_run = True if outcome.dry_run else None
    return body_answer(transaction, kind.record.http_status, replayed=outcome.replayed)


def _refuse_early(view: ReversalView) -> None:
    """Refuse what the ledger would refuse as the books stand: a reversal by which an account ends below its limit.

    Each attempt has a key of its own, so one that the ledger refuses stands in the way of no other. But it costs a lane
    entry and leaves a row in the journal; what is read here costs neither. The ledger decides all the same.
    """
    if view.transaction.reversal_of is not None:
        raise Problem("reversal_not_reversible")
    if view.is_used_up:
        raise Problem("already_reversed")
    taken: dict[str, int] = {}
    for entry in view.transaction.entries:
        # Parts are undone of transactions of one entry only.
        left = int(entry.amount) - view.undone_in_parts
        amount = left if entry.side == "credit" else -left
        taken[entry.account_id] = taken.get(entry.account_id, 0) + amount
    for entry in view.transaction.entries:
        account = view.accounts[entry.account_id]
        if account.status != "active":
            error = AccountFrozen if account.status == "frozen" else AccountClosed
            raise Problem(error.code, f"{account.id}: {error().message}")
        needed = taken[account.id]
        if entry.side == "credit" and needed > int(account.available):
            message = f"{account.id} has {account.available} available, and {needed} is needed to reverse this."
            raise Problem("insufficient_balance", message)
