"""Measures how long it takes until commands flow on every lane: a credit to one account of each, begun now."""

import time
from contextlib import suppress

from creditlane import Client
from creditlane.schemas.errors import CreditlaneError

from .callers import command_of
from .outcomes import of_result
from .records import HistoryFile, Request
from .stack import Stack

#: When it is given up that commands flow again, in seconds.
DEADLINE_SECONDS = 60.0
#: How long one attempt may take, in seconds.
ATTEMPT_SECONDS = 4.0
#: Pause after an attempt that failed, in seconds.
PAUSE_SECONDS = 0.1


class Probes:
    """Sends without any link, so that only what ails workers and servers counts."""

    def __init__(self, stack: Stack, accounts: list[str], history: HistoryFile) -> None:
        self._stack = stack
        self._accounts = accounts
        self._history = history
        self._count = 0

    def seconds_until_all_flow(self) -> float:
        """Return how long it took until a command begun now was through on every lane; infinity if it was given up."""
        began = time.monotonic()
        self._count += 1
        left: list[Request] = [
            {
                "op": "credit",
                "account": account,
                "amount": 1,
                "reference": "probe",
                "key": f"probe {self._count} {account}",
            }
            for account in self._accounts
        ]
        while left and time.monotonic() < began + DEADLINE_SECONDS:
            with suppress(CreditlaneError), Client(self._stack.settings) as client:
                left = self._attempt(client, left)
            if left:
                time.sleep(PAUSE_SECONDS)
        return float("inf") if left else time.monotonic() - began

    def _attempt(self, client: Client, requests: list[Request]) -> list[Request]:
        """Send the commands and return those that were not decided in time."""
        name = self._history.begin({"op": "batch", "commands": requests}, ATTEMPT_SECONDS)
        decided = {}
        try:
            tickets = client.enqueue_many([command_of(request) for request in requests], timeout=ATTEMPT_SECONDS)
            for result in client.wait_many(tickets, timeout=ATTEMPT_SECONDS):
                decided[result.idempotency_key] = of_result(result)
        finally:
            answers = [decided.get(request["key"], {"kind": "unknown"}) for request in requests]
            self._history.end(name, {"kind": "batch", "answers": answers})
        return [request for request in requests if decided.get(request["key"], {}).get("kind") != "applied"]
