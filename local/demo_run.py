"""Runs a usage file through the lane: opens the accounts, sends every row as a debit, takes every result."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from ..producer.client._sync.client import Client
from ..producer.client.tickets import Tickets
from ..schemas.commands import Debit, OpenAccount
from ..schemas.errors import CreditlaneError
from ..schemas.results import Result
from .usage_file import UsageFile

#: Commands sent in one piece.
WINDOW_COMMANDS = 500
#: Pieces that may wait for their results; with the one being sent they bound what is under way.
MAX_WINDOWS = 4
#: Commands accepted and not yet answered, at most.
MAX_UNDER_WAY = WINDOW_COMMANDS * (MAX_WINDOWS + 2)
#: An account is opened with what the file takes from it, and as much more as makes a multiple of this.
INITIAL_STEP = 1_000


class Usage(NamedTuple):
    """What a file takes from one customer."""

    debits: int
    units: int


class Plan(NamedTuple):
    """What a file asks for in all."""

    customers: dict[str, Usage]
    debits: int
    #: Rows with nothing to take.
    empty_rows: int


class Answers:
    """What became of the debits."""

    def __init__(self) -> None:
        self.applied: int = 0
        self.replayed: int = 0
        #: Rejections and dead letters, by code.
        self.refused: Counter[str] = Counter()
        #: From the acceptance of each command to its result in hand, in seconds.
        self.latencies: array[float] = array("d")
        self.seconds: float = 0.0

    @property
    def count(self) -> int:
        """Commands that have a result."""
        return len(self.latencies)

    def take(self, result: Result, latency: float) -> None:
        """Count a result."""
        self.latencies.append(latency)
        if result.error is not None:
            self.refused[result.error.code] += 1
        elif result.replayed:
            self.replayed += 1
        else:
            self.applied += 1

    def latency_ms(self, quantile: float) -> float:
        """Return the latency that this share of the commands did not exceed, in milliseconds."""
        ranked = sorted(self.latencies)
        return 1_000 * ranked[min(len(ranked) - 1, int(quantile * len(ranked)))] if ranked else 0.0


def plan_of(usage: UsageFile) -> Plan:
    """Read the whole file once and add it up by customer.

    Raises:
        InvalidCommand: a row cannot be understood.
    """
    customers: dict[str, Usage] = {}
    empty_rows = 0
    for row in usage.rows():
        if row.units == 0:
            empty_rows += 1
            continue
        debits, units = customers.get(row.customer_id, (0, 0))
        customers[row.customer_id] = Usage(debits + 1, units + row.units)
    return Plan(customers, sum(customer.debits for customer in customers.values()), empty_rows)


def open_accounts(client: Client, usage: UsageFile, plan: Plan) -> dict[str, str]:
    """Return the id of each customer's account, opened unless an earlier run has done it.

    Raises:
        CreditlaneError: one could not be opened.
    """
    customers = list(plan.customers)
    commands = (_opening(usage, customer, plan.customers[customer].units) for customer in customers)
    accounts: dict[str, str] = {}
    by_key = {_opening_key(usage, customer): customer for customer in customers}
    for result in client.wait_many(client.enqueue_many(commands)):
        result.raise_for_rejection()
        accounts[by_key[result.idempotency_key]] = result.account_id
    return accounts


def _opening_key(usage: UsageFile, customer_id: str) -> str:
    # A customer id may be as long as a key.
    digest = hashlib.blake2b(customer_id.encode(), digest_size=8).hexdigest()
    return f"{usage.name}:open:{digest}"


def _opening(usage: UsageFile, customer_id: str, units: int) -> OpenAccount:
    return OpenAccount(
        idempotency_key=_opening_key(usage, customer_id),
        customer_id=customer_id,
        name=usage.name,
        unit_label="tokens",
        initial_balance=(units // INITIAL_STEP + 1) * INITIAL_STEP,
    )


def run_debits(client: Client, usage: UsageFile, accounts: dict[str, str], progress: Callable[[int], None]) -> Answers:
    """Send every row as a debit, in the order of the file, and take every result while the next are being sent.

    Raises:
        OutcomeUnknown: a command got no result.
        CreditlaneError: the commands could not be sent.
    """
    answers = Answers()
    windows: queue.Queue[_Window | Exception | None] = queue.Queue(MAX_WINDOWS)
    started = time.perf_counter()
    sender = threading.Thread(target=_send, args=(client, _debits(usage, accounts), windows), daemon=True)
    sender.start()
    while (window := windows.get()) is not None:
        if isinstance(window, Exception):
            raise window
        for result in client.wait_many(window.tickets):
            answers.take(result, time.perf_counter() - window.accepted_at)
        progress(answers.count)
    answers.seconds = time.perf_counter() - started
    return answers


class _Window(NamedTuple):
    tickets: Tickets
    accepted_at: float


def _debits(usage: UsageFile, accounts: dict[str, str]) -> Iterator[Debit]:
    for row in usage.rows():
        if row.units:
            yield Debit(
                account_id=accounts[row.customer_id],
                amount=row.units,
                reference=row.reference,
                idempotency_key=f"{usage.name}:{row.number:08d}",
            )


def _send(client: Client, debits: Iterator[Debit], windows: queue.Queue[_Window | Exception | None]) -> None:
    """Send the debits piece by piece; whatever goes wrong is handed to the thread that takes the results."""
    try:
        while commands := list(islice(debits, WINDOW_COMMANDS)):
            tickets = client.enqueue_many(commands)
            windows.put(_Window(tickets, time.perf_counter()))
    except (CreditlaneError, OSError) as error:
        windows.put(error)
    else:
        windows.put(None)
