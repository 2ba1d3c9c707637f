"""What is asked for each delivery is answered from an index, however much is pending, and whatever Postgres knows."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from creditlane.worker.webhooks import sql

from ...query_plans import nodes_of

ENDPOINTS, EVENTS, WANTED = 20, 3_000, 64
ACCOUNTS, ENTRIES = 500, 20

FILL = f"""
create function id(n bigint) returns uuid language sql immutable as $$ select lpad(to_hex(n), 32, '0')::uuid $$;
insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret, sender, sender_until)
select 1, id(n), 1, 1, 'https://example.com/' || n, 'whsec_AAAA', 'me', now() from generate_series(1, {ENDPOINTS}) as n;
insert into events (store_id, event_id, event_type, created_at, body)
select 1, id(n), 'credits.granted', now(), repeat('x', 500) from generate_series(1, {EVENTS}) as n;
insert into deliveries (store_id, endpoint_id, event_id, status, created_at, next_attempt_at)
select 1, id(e), id(n), 1, now(), now() from generate_series(1, {ENDPOINTS}) as e, generate_series(1, {EVENTS}) as n;
insert into accounts
    (store_id, account_id, customer_id, name, name_key, unit_label, status, overdraft_limit, created_at, updated_at)
select 1, id(n), n::text, n::text, n::text, '', 1, 0, now(), now() from generate_series(1, {ACCOUNTS}) as n;
insert into journal (store_id, kind, side, seq, created_at, account_id, amount, balance_after, idempotency_key)
select 1, 2, 1, seq, now(), id(n), 1, seq, n || ' ' || seq
from generate_series(1, {ACCOUNTS}) as n, generate_series(1, {ENTRIES}) as seq;
insert into outbox (store_id, accounts, seqs, sequences, callbacks)
select 1, array_agg(id(n)), array_agg(3), array_agg(3),
       jsonb_agg(jsonb_build_object('url', 'https://a.example', 'account_id', 'cca_' || id(n), 'seq', 3, 'sequence', 3))
from generate_series(1, {WANTED}) as n;
"""

ATTEMPTS = {
    "stores": [1] * WANTED,
    "endpoints": [UUID(int=1)] * WANTED,
    "events": [UUID(int=n) for n in range(1, WANTED + 1)],
    "attempts": [0] * WANTED,
    "statuses": [2] * WANTED,
    "delays": [0.0] * WANTED,
    "response_statuses": [200] * WANTED,
    "latencies": [5] * WANTED,
    "bodies": ["ok"] * WANTED,
    "errors": [None] * WANTED,
}
DUE = {"stores": [1], "endpoints": [UUID(int=2)], "limits": [WANTED], "held": ["{}"], "sender": "me"}
STATEMENTS = {
    "results": (sql.WRITE_ATTEMPTS, ATTEMPTS, {"deliveries_pkey"}, WANTED),
    "next ones": (sql.READ_DUE, DUE, {"deliveries_due_idx", "events_pkey"}, WANTED),
    "endpoints": (
        sql.TAKE_ENDPOINTS,
        {
            "limit": 4,
            "also_failing": True,
            "sender": "me",
            "seconds": 30.0,
            "room": 750,
            "failing_room": 375,
            "stores": [1],
            "rooms": [730],
            "failing_rooms": [375],
        },
        {"deliveries_due_idx"},
        ENDPOINTS,
    ),
    "items": (sql.READ_ITEMS, {"stores": [1], "ids": [1]}, {"journal_pkey", "accounts_pkey"}, WANTED),
    "callbacks": (sql.READ_CALLBACKS, {"stores": [1], "ids": [1]}, {"journal_pkey"}, WANTED),
}
RELATIONS = {"deliveries", "events", "journal", "accounts"}


@pytest.fixture(scope="module", params=["unknown", "analyzed"])
def pending(request: pytest.FixtureRequest, database_server: Any, template_database: str) -> Iterator[Any]:
    """Many deliveries, of which the planner knows nothing yet, or everything."""
    name = f"creditlane_{request.param}_{template_database[-12:]}"
    url = database_server.create_database(name, template=template_database)
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        for relation in RELATIONS:
            connection.execute(f"alter table {relation} set (autovacuum_enabled = false)".encode())
        connection.execute(FILL.encode())
        if request.param == "analyzed":
            connection.execute("analyze")
        yield connection
    database_server.drop_database(name)


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_backlog_is_not_walked_through(pending: Any, name: str) -> None:
    statement, values, indexes, rows = STATEMENTS[name]

    row = pending.execute(f"explain (analyze, format json) {statement}".encode(), values).fetchone()

    reads = [
        node
        for node in nodes_of(row[0][0]["Plan"])
        if node.get("Relation Name") in RELATIONS and node["Node Type"] != "ModifyTable"
    ]
    assert {node.get("Index Name") for node in reads} == indexes
    for node in reads:
        assert node["Actual Rows"] * node["Actual Loops"] <= rows, node
        assert node.get("Rows Removed by Filter", 0) == 0, node
