"""What callers look for is checked before anything is asked."""

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from creditlane import AsyncClient, Client, Debit, InvalidCommand, Settings

#: Nothing is asked, so nothing has to be there.
SETTINGS = Settings(redis_url="redis://localhost:1/0", database_url="postgresql://localhost:1/none")
ACCOUNT = "cca_" + "0" * 32
DUE = Debit(account_id=ACCOUNT, amount=1, reference="r", idempotency_key="k")
BEFORE_EVERY_YEAR = datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))

BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("customer_id", "find_account", {"customer_id": ""}),
    ("customer_id", "find_account", {"customer_id": "a\0b"}),
    ("customer_id", "accounts", {"customer_id": "a\0b"}),
    ("customer_id", "ensure_account", {"customer_id": "x" * 1_000}),
    ("name", "find_account", {"customer_id": "ann", "name": "  "}),
    ("name", "ensure_account", {"customer_id": "ann", "name": ""}),
    ("initial_balance", "ensure_account", {"customer_id": "ann", "initial_balance": -1}),
    ("reference", "transactions", {"reference": ""}),
    ("reference", "transactions", {"reference": 7}),
    ("transaction_id", "transaction", {"transaction_id": ACCOUNT}),
    ("at", "balance_at", {"account_id": ACCOUNT, "at": datetime(2026, 1, 1)}),  # noqa: DTZ001
    ("at", "balance_at", {"account_id": ACCOUNT, "at": BEFORE_EVERY_YEAR}),
    ("at", "balance_at", {"account_id": ACCOUNT, "at": "2026-01-01T00:00:00Z"}),
    ("at", "balance_at", {"account_id": ACCOUNT, "at": date(2026, 1, 1)}),
    ("at", "balance_at", {"account_id": ACCOUNT, "at": None}),
    ("at", "schedule", {"command": DUE, "at": datetime(2026, 1, 1)}),  # noqa: DTZ001
    ("at", "schedule", {"command": DUE, "at": BEFORE_EVERY_YEAR}),
    ("at", "schedule", {"command": DUE, "at": "2026-01-01T00:00:00Z"}),
    ("account_id", "balance_at", {"account_id": "ann", "at": datetime(2026, 1, 1, tzinfo=UTC)}),
]
NAMES = [f"{method} {number}" for number, (_, method, _) in enumerate(BAD)]


@pytest.mark.parametrize(("field", "method", "arguments"), BAD, ids=NAMES)
def test_what_can_be_nothing_of_the_ledger_is_refused_and_named(
    field: str, method: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidCommand) as caught:
        getattr(Client(SETTINGS), method)(**arguments)

    assert caught.value.field == field


@pytest.mark.parametrize(("field", "method", "arguments"), BAD, ids=NAMES)
def test_the_asyncio_client_refuses_the_same(field: str, method: str, arguments: dict[str, Any]) -> None:
    async def ask() -> None:
        outcome = getattr(AsyncClient(SETTINGS), method)(**arguments)
        await outcome

    with pytest.raises(InvalidCommand) as caught:
        asyncio.run(ask())

    assert caught.value.field == field
