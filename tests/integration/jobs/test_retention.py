"""What is over and old is forgotten, and nothing else."""

from typing import Any

import pytest

from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.tasks import retention

from .ledger_rows import LATELY, add_entries, run_now

#: Two endpoints with twelve deliveries each: of four ages, in three states. Endpoint 2 has no delivery of event 1.
FILL = """
insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret)
select 1, lpad(n::text, 32, '0')::uuid, 1, n, 'https://example.com', 'whsec_x' from generate_series(1, 2) as n;
insert into events (store_id, event_id, event_type, created_at, body)
select 1, lpad((10 * age + status)::text, 32, '0')::uuid, 'credits.granted', now() - age * interval '11 days', '{}'
from generate_series(1, 4) as age, generate_series(1, 3) as status;
insert into deliveries (store_id, endpoint_id, event_id, status, created_at, next_attempt_at)
select 1, lpad(endpoint::text, 32, '0')::uuid, lpad((10 * age + status)::text, 32, '0')::uuid,
    case endpoint when 1 then status else 2 end, now() - age * interval '11 days',
    case when endpoint = 1 and status = 1 then now() end
from generate_series(1, 2) as endpoint, generate_series(1, 4) as age, generate_series(1, 3) as status
"""


@pytest.fixture(autouse=True)
def _here(environment: dict[str, str], connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment
    monkeypatch.setattr(retention, "SLICE_ROWS", 1)
    for statement in FILL.split(";"):
        connection.execute(statement.encode())


def numbers(connection: Connection, statement: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in connection.execute(statement.encode()).fetchall()]


def deliveries(connection: Connection) -> list[tuple[int, ...]]:
    """Return what is left of the deliveries: endpoint, event, status."""
    statement = (
        "select ltrim(translate(endpoint_id::text, '-', ''), '0'), "
        "ltrim(translate(event_id::text, '-', ''), '0'), status from deliveries order by 1, 2"
    )
    return numbers(connection, statement)


def events(connection: Connection) -> list[int]:
    statement = "select ltrim(translate(event_id::text, '-', ''), '0') from events order by 1"
    return [event for (event,) in numbers(connection, statement)]


def test_old_deliveries_that_are_over_go_with_their_events(connection: Connection) -> None:
    """Given deliveries of 11, 22, 33 and 44 days, when more than 30 days are forgotten, then those that are delivered
    or failed are gone, those that are pending are left, and an event is left as long as one of its deliveries is."""
    result = run_now(connection, "retention")

    assert deliveries(connection) == [
        *[(1, event, event % 10) for event in (11, 12, 13, 21, 22, 23, 31, 41)],
        *[(2, event, 2) for event in (11, 12, 13, 21, 22, 23)],
    ]
    assert events(connection) == [11, 12, 13, 21, 22, 23, 31, 41]
    assert (result["deliveries"], result["events"]) == (4 + 6, 4)


def test_the_age_is_a_setting(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITLANE_WEBHOOK_RETENTION_DAYS", "20")
    run_now(connection, "retention")

    assert events(connection) == [11, 12, 13, 21, 31, 41]


def test_done_again_nothing_more_goes(connection: Connection) -> None:
    run_now(connection, "retention")
    left = deliveries(connection), events(connection)

    result: dict[str, Any] = run_now(connection, "retention")

    assert {value for name, value in result.items() if name != "run"} == {0}
    assert (deliveries(connection), events(connection)) == left


def test_origins_of_callbacks_go_with_the_last_of_their_deliveries(connection: Connection) -> None:
    """Given endpoints and origins with and without deliveries, then of those without the origins are gone, unless a
    process is just delivering to one."""
    connection.execute(
        "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret, sender, sender_until) "
        "select 1, lpad(n::text, 32, '0')::uuid, case n when 3 then 1 else 2 end, 1, 'https://example.com:' || n, "
        "'whsec_x', case n when 7 then 'somebody' end, case n when 7 then now() + interval '1 hour' end "
        "from generate_series(3, 8) as n"
    )
    connection.execute(
        "update webhook_endpoints set kind = 2, url = 'https://example.com' where url not like '%:%'"
        " and endpoint_id = lpad('2', 32, '0')::uuid"
    )

    result = run_now(connection, "retention")

    left = numbers(
        connection, "select ltrim(translate(endpoint_id::text, '-', ''), '0') from webhook_endpoints order by 1"
    )
    assert left == [(1,), (2,), (3,), (7,)]
    assert result["origins"] == 4


def test_the_ledger_and_what_is_to_come_stay(connection: Connection) -> None:
    """Given old commands of which one was never put on its lane, and old outbox rows, then ledger and command stay."""
    add_entries(connection, 1, range(1, 6), LATELY)
    connection.execute(
        "insert into due_commands (store_id, idempotency_key, account_id, command, due_at, created_at, enqueued_at) "
        "select 1, n::text, gen_random_uuid(), '', now() - interval '1 year', now() - interval '1 year', "
        "case n when 1 then now() - interval '300 days' end from generate_series(1, 2) as n"
    )
    connection.execute(
        "insert into outbox (store_id, created_at, accounts, seqs, sequences) "
        "select 1, now() - n * interval '20 days', '{}', '{}', '{}' from generate_series(1, 3) as n"
    )

    result = run_now(connection, "retention")

    assert (result["due_commands"], result["outbox_rows"]) == (1, 2)
    assert connection.execute("select idempotency_key from due_commands").fetchall() == [("2",)]
    assert connection.execute("select (select count(*) from journal), (select count(*) from accounts)").fetchone() == (
        5,
        1,
    )


def test_runs_statistics_and_proofs_are_thinned(connection: Connection) -> None:
    """Given a year of them, then the latest are left, of proofs those that found something too, and the statistics of
    every quarter of an hour for a week."""
    connection.execute(
        "insert into job_runs (name, due_at, status, finished_at) "
        "select name, now() - n * interval '1 day', status, now() - n * interval '1 day' "
        "from generate_series(1, 40) as n, (values ('a', 3), ('b', 4), ('c', 3)) as kinds (name, status) "
        "where name <> 'c' or n = 40"
    )
    connection.execute(
        "insert into reconciliations (run_id, kind, covered_until, finished_at, rows, discrepancies, findings) "
        "select n, 1, now(), now() - n * interval '40 days', 1, (n = 5)::int, '[]' from generate_series(1, 6) as n"
    )
    connection.execute(
        "insert into statistics select 1, date_trunc('hour', now()) - n * interval '1 minute', now(), now(), 0, 0, 0, "
        "0, 0, 0, 0, 0 from generate_series(1, 20000) as n where n < 300 or n > 19700"
    )

    run_now(connection, "retention")

    left = "select name, count(*) from job_runs where name in ('a', 'b', 'c') group by name order by name"
    assert connection.execute(left).fetchall() == [("a", 2), ("b", 29), ("c", 1)]
    assert connection.execute("select run_id from reconciliations order by 1").fetchall() == [(1,), (2,), (5,)]
    ages = connection.execute(
        "select count(*) filter (where taken_at < now() - interval '8 days'), "
        "bool_and(extract(minute from taken_at)::int % 15 = 0) filter (where taken_at < now() - interval '2 hours'), "
        "count(*) filter (where taken_at >= now() - interval '2 hours') between 59 and 120 from statistics"
    ).fetchone()
    assert ages == (0, True, True)
