"""Debits an account and reads its balance through the client that openapi-python-client makes."""

import json
import os
from datetime import UTC, datetime

from client.api.accounts import debit_customer_credits_account, get_customer_credits_account_balance
from client.client import AuthenticatedClient
from client.models.balance_body import BalanceBody
from client.models.credits_granted_event import CreditsGrantedEvent
from client.models.debit_movement import DebitMovement
from client.models.transaction_body import TransactionBody

__all__ = ["CreditsGrantedEvent"]


def main() -> None:
    client = AuthenticatedClient(
        base_url=os.environ["API_URL"],
        token=os.environ["API_KEY"],
        prefix="",
        auth_header_name="x-api-key",
        timeout=60,
        raise_on_unexpected_status=True,
    )
    account = os.environ["ACCOUNT"]
    body = DebitMovement(amount="30", reference="python", idempotency_key=os.environ["IDEMPOTENCY_KEY"])
    assert isinstance(debit_customer_credits_account.sync(account, client=client, body=body), TransactionBody)
    now = get_customer_credits_account_balance.sync(account, client=client)
    later = get_customer_credits_account_balance.sync(account, client=client, at=datetime(2100, 1, 1, tzinfo=UTC))
    assert isinstance(now, BalanceBody)
    assert isinstance(later, BalanceBody)
    values = {
        "balance": now.balance,
        "updated_at": milliseconds(now.updated_at),
        "now_as_of": milliseconds(now.as_of),
        "later": later.balance,
        "later_as_of": milliseconds(later.as_of),
    }
    print(json.dumps(values))  # noqa: T201  # the test reads it


def milliseconds(moment: object) -> int | None:
    return round(moment.timestamp() * 1_000) if isinstance(moment, datetime) else None


main()
