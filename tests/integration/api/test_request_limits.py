"""Over HTTP: what is too much is refused with what to do, and nothing of it was accepted."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from creditlane import Settings
from creditlane.producer.api.middleware.rate_limits import RateLimits
from creditlane.producer.client._async.redis_connection import AsyncRedisWire
from creditlane.schemas.errors import RateLimited, Unavailable

from ..direct_store import add_store
from .requests_of import COMMANDS

MakeApi = Callable[[Settings], TestClient]
ACCOUNTS = "/v1/customer-credits/accounts"


def test_a_store_that_asks_too_often_learns_when_to_come_back(
    make_api: MakeApi, settings: Settings, make_key: Callable[..., str]
) -> None:
    api = make_api(settings.model_copy(update={"api_requests_per_second": 0.01, "api_burst": 2}))
    assert [api.get(ACCOUNTS).status_code for _ in range(2)] == [200, 200]

    refused = api.get(ACCOUNTS)

    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 100
    assert (refused.json()["error"]["type"], refused.json()["error"]["code"]) == ("rate_limit_error", "rate_limited")
    assert "0.01 requests a second, 2 at once" in refused.json()["error"]["message"]
    assert api.get(ACCOUNTS, headers={"x-api-key": make_key()}).status_code == 429, "another key of the same store"
    add_store(str(settings.database_url), "store_other")
    assert api.get(ACCOUNTS, headers={"x-api-key": make_key("store_other")}).status_code == 200
    assert api.get("/healthz").status_code == 200


def test_a_body_may_be_as_large_as_the_setting_says(make_api: MakeApi, settings: Settings) -> None:
    api = make_api(settings.model_copy(update={"api_body_bytes": 1_024}))

    refused = api.post(ACCOUNTS, content=b"x" * 1_025)
    taken = api.post(ACCOUNTS, content=b"x" * 1_024)

    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
    assert taken.status_code == 400


def test_a_wait_without_a_slot_is_refused_before_anything_is_accepted(
    make_api: MakeApi, settings: Settings, running_worker: object
) -> None:
    assert running_worker
    api = make_api(settings)
    account = api.post(ACCOUNTS, json={"customer_id": "c", "initial_balance": "10"}).json()["id"]
    body = {"amount": "1", "reference": "r", "idempotency_key": "k"}
    room = api.app.state.limits.waits  # type: ignore[attr-defined]
    room._slots = 0

    refused = api.post(f"{ACCOUNTS}/{account}/debit", json=body)
    room._slots = 1
    taken = api.post(f"{ACCOUNTS}/{account}/debit", json=body)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert taken.status_code == 201
    assert "x-idempotent-replay" not in taken.headers
    assert room._taken == {}


def test_a_batch_without_a_slot_is_refused_before_anything_is_accepted(
    make_api: MakeApi, settings: Settings, running_worker: object
) -> None:
    assert running_worker
    api = make_api(settings)
    account = api.post(ACCOUNTS, json={"customer_id": "c", "initial_balance": "10"}).json()["id"]
    line = {"kind": "debit", "account_id": account, "amount": "1", "reference": "r", "idempotency_key": "k"}
    slots = api.app.state.limits.batches  # type: ignore[attr-defined]
    slots._slots = 0

    refused = api.post(COMMANDS, content=json.dumps(line))
    slots._slots = 1
    taken = api.post(COMMANDS, content=json.dumps(line))

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "CREDITLANE_API_BATCHES" in refused.json()["error"]["message"]
    assert (taken.status_code, taken.json()["status"]) == (200, "queued")
    assert slots._taken == {}


async def served(rates: RateLimits, wire: AsyncRedisWire, wanted: int, store: str = "store_a") -> int:
    """Return how many requests of so many the store may make at once."""
    for number in range(wanted):
        try:
            await rates.take(store, wire)
        except RateLimited:
            return number
    return wanted


async def test_all_api_processes_together_let_a_store_make_so_many_requests(settings: Settings) -> None:
    """Given two processes, then together they let a store make what it may at once, and each a twentieth of it that it
    does not ask for; another store is not concerned; and a store that is refused is not asked about again and again."""
    few = settings.model_copy(update={"api_requests_per_second": 0.5, "api_burst": 200})
    wire = AsyncRedisWire(few.require_redis_url())
    calls = []
    exchange = wire.exchange

    async def counted(asked: Any, **options: Any) -> Any:
        calls.append(asked)
        return await exchange(asked, **options)

    wire.exchange = counted  # type: ignore[method-assign]
    try:
        first, second = RateLimits(few), RateLimits(few)
        together = await served(first, wire, 150) + await served(second, wire, 1_000)
        asked = len(calls)

        # A slow machine gets one more every two seconds.
        assert 220 <= together < 240
        assert await served(second, wire, 100) <= 1
        assert len(calls) <= asked + 2
        assert await served(second, wire, 150, "store_b") == 150
    finally:
        await wire.close()


async def test_who_asks_little_costs_redis_nothing_and_who_asks_much_a_call_for_many(settings: Settings) -> None:
    """Given the rate and burst that are set, then the first hundred requests of a store are let through without Redis,
    and the next fifty with one call."""
    calls = []

    class Wire:
        async def exchange(self, asked: Any, **_options: Any) -> list[int]:
            calls.append(asked)
            return [0]

    clock = [0.0]
    rates = RateLimits(settings, lambda: clock[0])
    burst, per_second = settings.api_burst // 20, int(settings.api_requests_per_second) // 20

    assert await served(rates, Wire(), burst) == burst  # type: ignore[arg-type]
    assert calls == []
    assert await served(rates, Wire(), 3 * per_second) == 3 * per_second  # type: ignore[arg-type]
    assert len(calls) == 3


async def test_without_redis_each_process_counts_alone(settings: Settings) -> None:
    few = settings.model_copy(update={"api_requests_per_second": 1.0, "api_burst": 100})
    asked = []

    class Silent:
        async def exchange(self, calls: Any, **_options: Any) -> list[Any]:
            asked.append(calls)
            raise Unavailable

    rates = RateLimits(few, lambda: 0.0)

    assert await served(rates, Silent(), 1_000) == 105  # type: ignore[arg-type]
    assert len(asked) == 1


@pytest.mark.parametrize("burst", [1, 7])
async def test_a_small_limit_is_exact(settings: Settings, burst: int) -> None:
    few = settings.model_copy(update={"api_requests_per_second": 0.001, "api_burst": burst})
    wire = AsyncRedisWire(few.require_redis_url())
    try:
        assert await served(RateLimits(few), wire, 100) == burst
        assert await served(RateLimits(few), wire, 100) == 0
    finally:
        await wire.close()
