"""Holds under two workers: whoever comes first, nothing is taken twice, and what is held is nobody else's."""

import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg

from creditlane import Client, Settings
from creditlane.audit.whole import verify
from creditlane.lanes.routing import partition_of
from creditlane.local.processes import wait_until
from creditlane.schemas.errors import Rejected
from creditlane.worker.connections import connect_redis
from creditlane.worker.jobs.database import connect
from creditlane.worker.jobs.ended_holds import EndedHolds

StartWorker = Callable[[], "subprocess.Popen[bytes]"]

#: Far longer than it takes, since the machine may be busy.
DEADLINE_SECONDS = 30.0
SINK = "cca_" + "f" * 32


def start_two(start_worker: StartWorker, settings: Settings) -> None:
    for _ in range(2):
        start_worker()

    def owners() -> int:
        with psycopg.connect(settings.require_database_url()) as connection:
            (count,) = connection.execute("select count(distinct worker_id) from leases").fetchone() or (0,)
        return int(count)

    assert wait_until(lambda: owners() == 2, seconds=DEADLINE_SECONDS)


def open_accounts(client: Client, count: int) -> list[str]:
    """Open accounts with 10 credits each, on several lanes, and one that gets what the others lose."""
    accounts = [f"cca_{number:032x}" for number in range(1, count + 1)]
    assert len({partition_of(account, 8) for account in accounts}) > 2
    for account in [*accounts, SINK]:
        client.open_account(customer_id=account, account_id=account, initial_balance=0 if account == SINK else 10)
    return accounts


def code_of(ask: Callable[[], object]) -> str:
    try:
        ask()
    except Rejected as error:
        return error.code
    return "applied"


def all_at_once(steps: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(steps)) as threads:
        for done in [threads.submit(step) for step in steps]:
            done.result(DEADLINE_SECONDS)


def test_capture_void_end_and_another_lane_at_the_same_moment(start_worker: StartWorker, settings: Settings) -> None:
    """Given holds of all that is there, when one process captures, another voids, they end, and transactions of another
    account try to take the same, then each hold ends in one way and every credit is taken exactly once."""
    start_two(start_worker, settings)
    captured: dict[str, str] = {}
    voided: dict[str, str] = {}
    posted: dict[str, list[str]] = {}
    with Client(settings) as first, Client(settings) as second, Client(settings) as third:
        accounts = open_accounts(first, 9)
        holds = {
            account: first.hold(account, 10, reference="call", idempotency_key=f"h {account}", expires_in_seconds=1).id
            for account in accounts
        }

        def capture() -> None:
            for account in accounts[::2]:
                captured[account] = code_of(lambda of=account: first.capture(holds[of], idempotency_key=f"c {of}"))

        def void() -> None:
            for account in accounts[::-3]:
                voided[account] = code_of(lambda of=account: second.void(holds[of], idempotency_key=f"v {of}"))

        def post() -> None:
            def take(account: str) -> bool:
                tried = posted.setdefault(account, [])
                entries = (
                    {"account_id": SINK, "side": "credit", "amount": 10},
                    {"account_id": account, "side": "debit", "amount": 10},
                )
                key = f"p {account} {len(tried)}"
                tried.append(code_of(lambda: third.post(entries, reference="r", idempotency_key=key)))
                return tried[-1] == "applied" or third.balance(account) == 0

            assert wait_until(lambda: all([take(of) for of in accounts]), seconds=DEADLINE_SECONDS)  # noqa: C419

        def end() -> None:
            database, redis = connect(settings), connect_redis(settings.require_redis_url())
            ended = EndedHolds(settings, threading.Event())
            with database as connection, redis as client:
                statement = "select count(*) from holds where status = 1"
                assert wait_until(
                    lambda: (
                        ended.put_on_lanes(connection, client) >= 0 and connection.execute(statement).fetchone() == (0,)
                    ),
                    seconds=DEADLINE_SECONDS,
                )

        all_at_once([capture, void, post, end])

        for account in accounts:
            was_captured = captured.get(account) == "applied"
            assert third.balance(account) == 0
            assert posted[account].count("applied") == (0 if was_captured else 1)
            status = first.hold_by_id(holds[account]).status
            assert (status == "captured") == was_captured
            assert (status == "voided") == (voided.get(account) == "applied")
            assert not was_captured or voided.get(account) in {None, "hold_captured"}
        taken = sum(code == "applied" for code in captured.values())
        assert third.balance(SINK) == 10 * (len(accounts) - taken)
    assert verify(settings.require_database_url()).failed == []


def test_hold_closing_and_reversal_race(start_worker: StartWorker, settings: Settings) -> None:
    """Given accounts with only a credit, when it is reversed in part, held and its account closed at the same moment by
    three processes, then no account is closed with a hold on it, and nothing is held that is not there."""
    start_two(start_worker, settings)
    held: dict[str, str] = {}
    closed: dict[str, str] = {}
    undone: dict[str, str] = {}
    with Client(settings) as first, Client(settings) as second, Client(settings) as third:
        accounts = open_accounts(first, 9)
        granted = {account: next(iter(first.entries(account))).transaction_id for account in accounts}

        def hold() -> None:
            for account in accounts:
                held[account] = code_of(
                    lambda of=account: first.hold(of, 10, reference="call", idempotency_key=f"h {of}")
                )

        def close() -> None:
            for account in accounts[::-1]:
                closed[account] = code_of(lambda of=account: second.close_account(of))

        def reverse() -> None:
            for account in accounts[3:] + accounts[:3]:
                undone[account] = code_of(
                    lambda of=account: third.reverse(of, granted[of], amount=6, idempotency_key=f"r {of}")
                )

        all_at_once([hold, close, reverse])

        for account in accounts:
            found = first.account(account)
            assert not (found.status == "closed" and found.held)
            assert (held[account] == "applied") == (found.held == 10)
            assert (found.status == "closed") == (closed[account] == "applied")
            assert not (held[account] == undone[account] == "applied")
            assert closed[account] in {"applied", "account_has_holds"}
    assert verify(settings.require_database_url()).failed == []
