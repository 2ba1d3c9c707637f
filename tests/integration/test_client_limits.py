"""Every client sets limits alike, and hears what stands in the way of one."""

import pytest

from creditlane import Client, CreditLimitInUse, InvalidCommand, MaxBalanceExceeded

pytestmark = pytest.mark.usefixtures("running_worker")


def test_limits_are_set_read_and_judged(client: Client) -> None:
    account = client.open_account(customer_id="ann", initial_balance=10).id

    assert client.set_limit(account, "credit_limit", "5").credit_limit == 5
    shown = client.set_limit(account, "max_balance", 12, idempotency_key="max")
    assert (shown.max_balance, shown.overdraft_limit, shown.available) == (12, 5, 15)
    with pytest.raises(MaxBalanceExceeded) as full:
        client.credit(account, 3, reference="r", idempotency_key="above")
    assert full.value.details == {"needed": "3", "room": "2", "max_balance": "12"}
    client.debit(account, 14, reference="r", idempotency_key="below zero")
    with pytest.raises(CreditLimitInUse) as used:
        client.set_limit(account, "credit_limit", None)
    assert used.value.details == {"used": "4"}

    tried = client.set_limit(account, "credit_limit", 7, dry_run=True)
    assert (tried.overdraft_limit, tried.available) == (7, 3)
    assert client.account(account).available == 1
    assert client.set_limit(account, "max_balance", None).max_balance is None
    with pytest.raises(InvalidCommand, match="limit: "):
        client.set_limit(account, "spend_limit", 1)  # type: ignore[arg-type]
