"""Sets the balance below which an account must not fall unnoticed, with the SQL of it. Webhooks send `balance.low`."""

from __future__ import annotations

from uuid import UUID

from ...schemas.errors import AccountClosed, AccountNotFound
from ...schemas.statuses import Status
from ...schemas.webhooks import LowBalance
from ..ledger.statement import Rows, Statement
from .webhooks import checked

_STORE = "(select store_id from stores where public_id = %(store)s)"

#: The account's state, and whether its threshold was set: that of a closed one is not.
SET_LOW_BALANCE = f"""
with changed as (
    update accounts set low_balance = %(threshold)s::numeric,
        low_balance_since = case when %(threshold)s::numeric is null then null else clock_timestamp() end,
        updated_at = greatest(updated_at, clock_timestamp())
    where store_id = {_STORE} and account_id = %(account)s and status <> {Status.CLOSED:d}
    returning store_id
)
select a.status, changed.store_id is not null from accounts a left join changed using (store_id)
where a.store_id = {_STORE} and a.account_id = %(account)s
"""  # noqa: S608


def set_low_balance(store: str, account_id: str, threshold: int | str | None) -> Statement[None]:
    """Set the balance below which `balance.low` is sent; None: never.

    Raises:
        InvalidCommand: the threshold is no whole number from 0.
    """
    limit = None if threshold is None else str(checked(LowBalance, threshold=threshold).threshold)
    values = {"store": store, "account": UUID(account_id[4:]), "threshold": limit}

    def outcome(rows: Rows) -> None:
        if not rows:
            raise AccountNotFound(details={"account_id": account_id})
        if rows[0][0] == Status.CLOSED:
            raise AccountClosed(details={"account_id": account_id})

    return Statement((SET_LOW_BALANCE,), values, outcome)
