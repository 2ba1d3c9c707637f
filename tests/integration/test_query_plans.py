"""What is asked of a grown ledger is answered from its two indexes: no statement reads the journal through."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from creditlane.producer.ledger import command_reads, holds, queries
from creditlane.producer.ledger import reads as ledger_reads
from creditlane.producer.ledger.queries import of_named_store
from creditlane.producer.operations import lane_problems
from creditlane.schemas.statuses import HoldStatus
from creditlane.worker.store import sql

from ..query_plans import nodes_of

ACCOUNTS = 1_000
ENTRIES = 100
#: Accounts, keys or entries that one statement asks for: a small batch, as at a low load.
WANTED = 200

#: Entries of the busiest account, number 1.
BUSY_ENTRIES = 20_000
#: Holds of each of some accounts.
ENDED_HOLDS, OPEN_HOLDS = 100, 50
#: The first of the accounts that have any.
HOLDER = 801

#: Accounts with some entries and refusals each, one with very many, and dead letters.
FILL = f"""
create function account(n bigint) returns uuid language sql immutable as $$ select lpad(to_hex(n), 32, '0')::uuid $$;
insert into accounts
select 1, account(n), 'customer ' || n, 'main', 'main', 'credits', 1, 0, now(), now()
from generate_series(1, {ACCOUNTS}) as n;
insert into journal
    (store_id, kind, side, seq, created_at, account_id, amount, balance_after, idempotency_key, reference)
select 1, 2, 1, seq, now(), account(n), 1, seq, 'key ' || n || ' ' || seq, 'reference ' || n
from generate_series(1, {ACCOUNTS}) as n,
     generate_series(1, case n when 1 then {BUSY_ENTRIES} else {ENTRIES} end) as seq;
insert into journal
    (store_id, kind, side, seq, created_at, account_id, amount, balance_after, idempotency_key, rejection)
select 1, 3, -1, -seq, now(), account(n), 999, {ENTRIES}, 'no ' || n || ' ' || seq, 'insufficient_balance'
from generate_series(1, {ACCOUNTS}) as n, generate_series(1, 3) as seq;
insert into holds (store_id, status, seq, created_at, expires_at, ended_at, account_id, amount, captured,
                   remaining, reference)
select 1, case when is_open then 1 else 2 end, seq, now(), now() + interval '1 day',
       case when not is_open then now() end, account(n), 5, 5, case when is_open then 5 else 0 end, 'r'
from generate_series({HOLDER}, {HOLDER} + 99) as n, generate_series(1, {ENDED_HOLDS + OPEN_HOLDS}) as seq,
     lateral (select seq > {ENDED_HOLDS} as is_open) as state;
insert into dead_letters (store_id, dead_letter_id, partition, lane_entry, payload, idempotency_key, code, reason)
select 1, gen_random_uuid(), 0, n || '-0', '', 'dead ' || n, 'undecodable', '' from generate_series(1, 20000) as n;
"""


@pytest.fixture(scope="module")
def grown(database_server: Any, template_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A ledger of some 120,000 rows the planner knows it after a while."""
    name = f"creditlane_plans_{template_database[-12:]}"
    url = database_server.create_database(name, template=template_database)
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(FILL.encode())
        connection.execute("vacuum analyze")
        yield connection
    database_server.drop_database(name)


def plan_of(connection: psycopg.Connection[Any], statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of the plan by which the statement was just run."""
    row = connection.execute(f"explain (analyze, format json) {statement}".encode(), values).fetchone()
    assert row is not None
    return list(nodes_of(row[0][0]["Plan"]))


def account(number: int) -> UUID:
    return UUID(int=number)


accounts = {"stores": [1] * WANTED, "accounts": [account(n) for n in range(1, WANTED + 1)]}
keys = [f"key {n} 7" for n in range(1, WANTED + 1)]

STORE = {"store": "store_default"}
PAGE = {"above": 0, "below": ledger_reads.ABOVE_EVERY_SEQ, "count": 50}
NEWEST = of_named_store(queries.LIST_LONE_ENTRIES)

STATEMENTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "worker: accounts of a batch": (sql.LOAD_ACCOUNTS, accounts, WANTED),
    "worker: one account": (sql.LOAD_ACCOUNTS, {"stores": [1], "accounts": [account(1)]}, 1),
    "worker: known keys": (sql.LOAD_KNOWN, {"stores": [1] * WANTED, "keys": keys}, WANTED),
    "worker: new keys": (sql.LOAD_KNOWN, {"stores": [1] * WANTED, "keys": [f"new {n}" for n in range(WANTED)]}, 0),
    "worker: originals of reversals": (sql.LOAD_ENTRIES, {**accounts, "seqs": [9] * WANTED}, WANTED),
    "worker: what is reversed": (
        sql.LOAD_REVERSED,
        {
            "stores": [1] * 20,
            "transactions": [f"cct_{n}" for n in range(20)],
            "wholes": [f"reversal:cct_{n}" for n in range(20)],
            "above": [f"reversal:cct_{n}:" for n in range(20)],
            "below": [f"reversal:cct_{n};" for n in range(20)],
        },
        20,
    ),
    "client: decisions": (command_reads.FIND_DECISIONS, {"store": "store_default", "keys": keys}, WANTED),
    "client: one decision": (command_reads.FIND_DECISIONS, {"store": "store_default", "keys": keys[:1]}, 1),
    "client: dead letters": (command_reads.FIND_DEAD_LETTERS, {"store": "store_default", "keys": ["dead 5"]}, 1),
    "client: an account": (of_named_store(queries.READ_ACCOUNTS), {**STORE, "accounts": [account(1)]}, 1),
    "client: newest entries": (NEWEST, {**STORE, "account": account(1), **PAGE}, 50),
    "client: older entries": (NEWEST, {**STORE, "account": account(1), **PAGE, "below": 9_000}, 50),
    "client: an account by its name": (
        of_named_store(queries.FIND_OPEN_ACCOUNT),
        {**STORE, "customer": "customer 7", "name_key": "main"},
        1,
    ),
    "client: accounts of a customer": (
        of_named_store(queries.list_accounts(of_customer=True, after=False, before=False)),
        {**STORE, "customer": "customer 7", "count": 50},
        1,
    ),
    "client: first accounts": (
        of_named_store(queries.list_accounts(of_customer=False, after=False, before=False)),
        {**STORE, "customer": None, "count": 50},
        50,
    ),
    "client: newest transactions of a reference": (
        of_named_store(queries.list_transactions(after=False, before=False)),
        {**STORE, "reference": "reference 7", "count": ENTRIES},
        ENTRIES,
    ),
    "client: newest open holds": (
        of_named_store(holds.list_holds(HoldStatus.OPEN, upwards=False)),
        {**STORE, "account": account(HOLDER), **PAGE},
        OPEN_HOLDS,
    ),
    "client: a hold": (of_named_store(holds.READ_HOLD), {**STORE, "account": account(HOLDER), "seq": 9}, 1),
    "client: a transaction": (of_named_store(queries.READ_ENTRY), {**STORE, "account": account(1), "seq": 9}, 1),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_what_grows_is_read_by_index(grown: psycopg.Connection[Any], name: str) -> None:
    """Given a grown ledger, when a statement of the hot path runs, then journal and dead letters are read by an index,
    and no more rows are read than are wanted."""
    statement, values, rows = STATEMENTS[name]

    plan = plan_of(grown, statement, values)

    reads = [node for node in plan if node.get("Relation Name") in {"journal", "dead_letters", "holds"}]
    assert plan[0]["Actual Rows"] == rows
    assert reads
    assert {node["Node Type"] for node in reads} <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
    for node in reads:
        assert node["Actual Rows"] * node["Actual Loops"] <= rows, node
        assert node.get("Rows Removed by Filter", 0) == 0, node


@pytest.mark.parametrize(("number", "found"), [(HOLDER, OPEN_HOLDS), (1, 0)])
def test_what_an_account_has_held_is_read_of_its_open_holds_alone(
    grown: psycopg.Connection[Any], number: int, found: int
) -> None:
    """Given accounts with ended and open holds, and others without, when an account is read, then no ended one is."""
    statement, values, _ = STATEMENTS["client: an account"]

    plan = plan_of(grown, statement, {**values, "accounts": [account(number)]})

    (read,) = [node for node in plan if node.get("Relation Name") == "holds"]
    assert (read["Index Name"], read["Actual Rows"], read.get("Rows Removed by Filter", 0)) == (
        "holds_open_idx",
        found,
        0,
    )


def test_the_balance_of_an_account_is_one_descent(grown: psycopg.Connection[Any]) -> None:
    """Given an account with many entries, when its balance is read, then one entry is read."""
    statement, values, _ = STATEMENTS["client: an account"]

    entry = next(node for node in plan_of(grown, statement, values) if node.get("Relation Name") == "journal")

    assert (entry["Index Name"], entry["Actual Rows"], entry["Scan Direction"]) == ("journal_pkey", 1, "Backward")


def test_an_accounts_balance_and_last_decision_are_one_descent_each(grown: psycopg.Connection[Any]) -> None:
    statement, values, _ = STATEMENTS["worker: one account"]

    found = [node for node in plan_of(grown, statement, values) if node.get("Relation Name") == "journal"]

    assert [(node["Index Name"], node["Actual Rows"]) for node in found] == [("journal_pkey", 1)] * 2


def test_entries_ahead_of_the_clock_are_read_in_the_summary(grown: psycopg.Connection[Any]) -> None:
    """Given a grown ledger, when a monitor asks for entries of the future, then only its last pages are read."""
    plan = plan_of(grown, lane_problems.READ_ENTRIES_AHEAD, {})

    (read,) = [node for node in plan if node.get("Relation Name") == "journal"]
    assert read["Node Type"] == "Bitmap Heap Scan"
    assert read.get("Rows Removed by Index Recheck", 0) < ACCOUNTS * ENTRIES / 20


def test_the_journal_has_three_indexes_and_a_summary(grown: psycopg.Connection[Any]) -> None:
    """Given the cost of an index for every row that is written, then the journal has these three and no fourth.

    A BRIN index has nothing of a row: it says of a range of pages from when to when its rows are.
    """
    statement = (
        "select indexname, indexdef like '% USING brin %' from pg_indexes where tablename = 'journal' order by 1"
    )
    found = dict(grown.execute(statement).fetchall())

    assert [name for name, is_summary in found.items() if not is_summary] == [
        "journal_idempotency_key",
        "journal_pkey",
        "journal_reference_idx",
    ]
    assert sum(found.values()) == 1
