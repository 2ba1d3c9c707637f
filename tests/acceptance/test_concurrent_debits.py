"""An account gives what it holds and no more, however many take from it at once over HTTP."""

import asyncio
from collections import Counter
from typing import Any

import httpx2

from creditlane import Settings
from creditlane.audit.whole import verify

ACCOUNTS = "/v1/customer-credits/accounts"
REPLAY = "x-idempotent-replay"
HELD = 300
#: Each with a key of its own; every fourth of them is sent twice, at the same time.
DEBITS = 400
REPEATED = range(0, DEBITS, 4)
#: How long a request may take before it counts as one that hangs, in seconds.
HANG_SECONDS = 60.0


async def debit_all_at_once(url: str, key: str, account_id: str) -> list[tuple[int, httpx2.Response]]:
    """Return the number and the answer of each debit."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(
        base_url=url, headers={"x-api-key": key}, timeout=HANG_SECONDS, limits=limits
    ) as http:

        async def debit(number: int) -> tuple[int, httpx2.Response]:
            body = {"amount": "1", "reference": "race", "idempotency_key": f"debit_{number}"}
            return number, await http.post(f"{ACCOUNTS}/{account_id}/debit", json=body)

        return await asyncio.gather(*map(debit, [*range(DEBITS), *REPEATED]))


def test_of_500_debits_at_once_exactly_300_take(serve_api: Any, settings: Settings) -> None:
    """Given an account that holds 300, when 500 debits of 1 come at once, 100 of them under a key that another has,
    then exactly 300 units leave, every other key is refused, and both requests of a key hear the same."""
    url, key = serve_api()
    with httpx2.Client(base_url=url, headers={"x-api-key": key}, timeout=HANG_SECONDS) as http:
        opened = http.post(ACCOUNTS, json={"customer_id": "cust_1", "initial_balance": str(HELD)})
        account = f"{ACCOUNTS}/{opened.json()['id']}"

        answers = asyncio.run(debit_all_at_once(url, key, opened.json()["id"]))

        balance = http.get(f"{account}/balance").json()["balance"]
        newest = http.get(f"{account}/entries", params={"limit": 1}).json()["data"][0]

    assert len(answers) == 500
    firsts = {number: answer for number, answer in answers if REPLAY not in answer.headers}
    repeats = [(number, answer) for number, answer in answers if REPLAY in answer.headers]
    assert Counter(answer.status_code for answer in firsts.values()) == {201: HELD, 422: DEBITS - HELD}
    assert {answer.json()["error"]["code"] for answer in firsts.values() if answer.status_code == 422} == {
        "insufficient_balance"
    }
    assert sorted(number for number, _ in repeats) == list(REPEATED)
    for number, answer in repeats:
        assert answer.status_code == firsts[number].status_code
        assert outcome_of(answer) == outcome_of(firsts[number])
    assert (balance, newest["balance_after"]) == ("0", "0")
    taken = {answer.json()["id"] for answer in firsts.values() if answer.status_code == 201}
    assert len(taken) == HELD
    report = verify(settings.require_database_url())
    assert (report.failed, report.entries, report.decisions) == ([], HELD + 1, DEBITS - HELD)


def outcome_of(answer: httpx2.Response) -> object:
    """Return what was decided: a transaction, or an error but for the request that it names."""
    body = answer.json()
    if answer.is_success:
        return body
    return body["status"], {name: value for name, value in body["error"].items() if name != "request_id"}
