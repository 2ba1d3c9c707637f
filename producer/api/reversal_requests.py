"""Reversing a transaction: refused at once while the books forbid it, else sent to its lane as a new attempt."""

from __future__ import annotations

from fastapi import Response

from ...schemas.commands import Reverse
from ...schemas.errors import AccountClosed, AccountFrozen, Unavailable
from ...schemas.identifiers import position_of
from ...schemas.kinds import Kind
from ...schemas.results import Result
from ...schemas.tickets import Ticket
from .errors import Problem, not_found
from .reads import Reads, ReversalView
from .result_bodies import dry_transaction
from .writes import Writes, body_answer, queued_answer


async def reverse(
    identifier: str, reads: Reads, writes: Writes, *, account_id: str | None = None, dry_run: bool = False
) -> Response:
    """Reverse the transaction, which must touch the account if one is named.

    Raises:
        Problem: there is no such transaction, or it cannot be reversed.
    """
    param = "id" if account_id is None else "transaction_id"
    view = await reads.reversal_view(identifier)
    position = position_of(identifier)
    if view is None or position is None:
        raise not_found(param)
    if account_id not in {None, *(entry.account_id for entry in view.transaction.entries)}:
        raise not_found(param)
    if not view.is_decided:
        _refuse_early(view)
    outcome = await writes.decide(Reverse, account_id=position.account_id, transaction_id=identifier, dry_run=dry_run)
    return await transaction_answer(Kind.REVERSE, outcome, reads, writes)


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
    taken: dict[str, int] = {}
    for entry in view.transaction.entries:
        amount = int(entry.amount) if entry.side == "credit" else -int(entry.amount)
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
