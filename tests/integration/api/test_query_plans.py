"""Every read of the API walks indexes and touches few pages, on a store whose one account has most of the entries."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from creditlane.producer.api.connections import Connections

from .requests_of import ACCOUNTS, HOLDS, TRANSACTIONS

ENTRIES = 60_000
ACCOUNTS_COUNT = 5_000
#: Of the account with the most entries; the last of them are open.
HOLDS_COUNT, OPEN_HOLDS_COUNT = 20_000, 200
BIG = "0a" * 16
#: Pages that one statement may touch. The tables have thousands.
MAX_PAGES = 700
BUSY_REFERENCE = "usage"


def entry(seq: int) -> str:
    return f"cce_{BIG}{seq:x}"


def transaction(seq: int) -> str:
    return f"cct_{BIG}{seq:x}"


def hold(number: int) -> str:
    return f"cch_{BIG}{number:x}"


def account(number: int) -> str:
    return f"cca_{number:032x}"


@pytest.fixture
def books(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """One account with a minute of entries in each second, and many accounts of one customer and of others."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("alter table journal disable trigger all")
        connection.execute(
            "insert into journal (store_id, kind, side, seq, created_at, account_id, amount, balance_after, "
            "idempotency_key, reference) "
            "select 1, 2, 1, n, '2026-01-01'::timestamptz + n / 500 * interval '1 s', %(account)s::uuid, 1, n, "
            "'key ' || n, case when n %% 3 = 0 then 'r' || n else %(reference)s end from generate_series(1, %(n)s) n",
            {"account": BIG, "reference": BUSY_REFERENCE, "n": ENTRIES},
        )
        connection.execute(
            "insert into accounts (store_id, account_id, customer_id, name, name_key, unit_label, status, created_at, "
            "updated_at) select 1, lpad(to_hex(n), 32, '0')::uuid, 'c' || n %% 3, 'n' || n, 'n' || n, 'u', 1, "
            "'2026-01-01'::timestamptz + n / 100 * interval '1 s', now() from generate_series(1, %s) n",
            [ACCOUNTS_COUNT],
        )
        connection.execute(
            "insert into accounts (store_id, account_id, customer_id, name, name_key, unit_label, status, created_at, "
            "updated_at) values (1, %s::uuid, 'big', 'n', 'n', 'u', 1, '2025-01-01', now())",
            [BIG],
        )
        connection.execute(
            "insert into holds (store_id, status, seq, created_at, expires_at, ended_at, account_id, amount, captured, "
            "remaining, reference) select 1, case when is_open then 1 else 2 end, n, now(), now() + interval '1 day', "
            "case when not is_open then now() end, %(account)s::uuid, 1, 1, is_open::int, 'r' "
            "from generate_series(1, %(n)s) n, lateral (select n > %(n)s - %(open)s as is_open) state",
            {"account": BIG, "n": HOLDS_COUNT, "open": OPEN_HOLDS_COUNT},
        )
        connection.execute("vacuum analyze holds")
        connection.execute("vacuum analyze journal")
        connection.execute("vacuum analyze accounts")
        yield connection


PATHS = [
    f"{ACCOUNTS}/cca_{BIG}",
    f"{ACCOUNTS}/cca_{BIG}/balance",
    f"{ACCOUNTS}/cca_{BIG}/balance?at=2026-01-01T00:01:00Z",
    f"{ACCOUNTS}/cca_{BIG}/balance?at=2020-01-01",
    f"{ACCOUNTS}/cca_{BIG}/balance?at=2050-01-01",
    f"{ACCOUNTS}/cca_{BIG}/entries?limit=100",
    f"{ACCOUNTS}/cca_{BIG}/entries?limit=100&starting_after={entry(ENTRIES // 2)}",
    f"{ACCOUNTS}/cca_{BIG}/entries?limit=100&ending_before={entry(ENTRIES // 2)}",
    f"{ACCOUNTS}/cca_{BIG}/entries?limit=9&starting_after={entry(ENTRIES - 5)}&ending_before={entry(ENTRIES)}",
    f"{ACCOUNTS}?limit=100",
    f"{ACCOUNTS}?limit=100&starting_after={account(ACCOUNTS_COUNT // 2)}",
    f"{ACCOUNTS}?limit=100&ending_before={account(ACCOUNTS_COUNT // 2)}",
    f"{ACCOUNTS}?limit=100&customer_id=c1",
    f"{ACCOUNTS}?customer_id=c1&starting_after={account(ACCOUNTS_COUNT // 2)}",
    f"{ACCOUNTS}?customer_id=c1&ending_before={account(ACCOUNTS_COUNT // 2)}",
    f"{ACCOUNTS}?customer_id=nobody",
    f"{TRANSACTIONS}?reference={BUSY_REFERENCE}",
    f"{TRANSACTIONS}?limit=100&reference={BUSY_REFERENCE}&starting_after={transaction(ENTRIES // 2 + 1)}",
    f"{TRANSACTIONS}?limit=100&reference={BUSY_REFERENCE}&ending_before={transaction(ENTRIES // 2 + 1)}",
    f"{TRANSACTIONS}?reference=r300",
    f"{TRANSACTIONS}?reference=nothing",
    f"{TRANSACTIONS}/{transaction(ENTRIES // 2)}",
    f"{ACCOUNTS}/cca_{BIG}/holds?limit=100",
    f"{ACCOUNTS}/cca_{BIG}/holds?status=open&limit=100",
    f"{ACCOUNTS}/cca_{BIG}/holds?status=open&starting_after={hold(HOLDS_COUNT)}&ending_before={hold(1)}",
    f"{HOLDS}/{hold(HOLDS_COUNT // 2)}",
]


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    """Everything that the API reads of the books, as it comes."""
    seen: list[tuple[str, Mapping[str, Any]]] = []
    read = Connections.read

    async def note(self: Connections, statement: str, values: Mapping[str, Any], until: float | None = None) -> Any:
        if "api_keys" not in statement and "pg_locks" not in statement:
            seen.append((statement, values))
        return await read(self, statement, values, until)

    monkeypatch.setattr(Connections, "read", note)
    return seen


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def test_every_read_walks_indexes_and_touches_few_pages(
    api: TestClient, books: psycopg.Connection[Any], statements: list[tuple[str, Mapping[str, Any]]]
) -> None:
    for path in PATHS:
        statements.clear()
        answer = api.get(path)
        assert answer.status_code == 200, answer.text
        assert statements
        for statement, values in statements:
            explain = f"explain (analyze, buffers, format json) {statement}"
            record = books.execute(explain.encode(), values).fetchone()
            assert record is not None
            plan = record[0][0]["Plan"]
            scans = {node["Node Type"] for node in nodes(plan) if "Relation Name" in node}
            pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            assert scans <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, (
                f"{path}: {json.dumps(plan, indent=1)}"
            )
            assert pages < MAX_PAGES, f"{path} touches {pages} pages: {json.dumps(plan, indent=1)}"


def test_pages_of_a_busy_reference_meet_without_gap_or_overlap(api: TestClient, books: object) -> None:
    assert books is not None
    seen: list[str] = []
    parameters = {"reference": BUSY_REFERENCE, "limit": 100}
    for _ in range(8):
        page = api.get(TRANSACTIONS, params=parameters).json()
        seen += [item["id"] for item in page["data"]]
        parameters["starting_after"] = seen[-1]

    wanted = [transaction(seq) for seq in range(ENTRIES, 0, -1) if seq % 3][:800]
    assert seen == wanted
