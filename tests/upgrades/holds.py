"""Holds that are asked for while an upgrade is under way, each on an account of its own, and what became of them."""

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from creditlane import Client, InsufficientBalance
from creditlane.schemas.commands import Hold
from creditlane.schemas.settings import Settings

from .processes import PAUSE_SECONDS, wait_for

BALANCE = 100


class HoldCalls:
    """Asks for one hold of all that an account has after another, and then tries to take from it on every way.

    Where the hold is applied, nothing may be taken, neither from its own lane nor from another. Where it is not, all of
    it may.
    """

    def __init__(self, settings: Settings, others: Sequence[str]) -> None:
        #: Accounts of every lane, with more than is ever taken.
        self._others = others
        self._client = Client(settings)
        self._outcomes: list[tuple[str, str]] = []
        #: What was otherwise than it must be.
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._call_until_stopped)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._client.close()

    @property
    def applied(self) -> int:
        return sum(outcome == "applied" for _, outcome in list(self._outcomes))

    @property
    def dead_letters(self) -> set[str]:
        """The keys of those that an older worker could not read."""
        return {key for key, outcome in list(self._outcomes) if outcome == "dead_lettered"}

    def wait_for(self, outcome: str) -> None:
        """Wait until one more call has ended so."""
        before = len(self._outcomes)
        ended = f"a hold that is {outcome}"
        wait_for(lambda: self.failures or outcome in [each for _, each in self._outcomes[before:]], ended)

    def _call_until_stopped(self) -> None:
        number = 0
        while not self._stopping.wait(PAUSE_SECONDS):
            number += 1
            try:
                self._call(f"hold {number}", self._others[number % len(self._others)])
            except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to know it
                self.failures.append(repr(error))

    def _call(self, key: str, other: str) -> None:
        client = self._client
        account = client.open_account(customer_id=key, initial_balance=BALANCE, idempotency_key=f"open {key}").id
        hold = Hold(account_id=account, amount=BALANCE, reference=key, idempotency_key=key)
        result = client.wait(client.enqueue(hold))
        outcome = result.error.code if result.error else result.status
        self._outcomes.append((key, outcome))
        taken = _is_taken(lambda: client.debit(account, 1, reference=key, idempotency_key=f"debit {key}"))
        entries = [
            {"account_id": other, "side": "credit", "amount": 1},
            {"account_id": account, "side": "debit", "amount": 1},
        ]
        moved = _is_taken(lambda: client.post(entries, reference=key, idempotency_key=f"post {key}"))
        if moved:
            back = [{**entry, "side": side} for entry, side in zip(entries, ("debit", "credit"), strict=True)]
            client.post(back, reference=key, idempotency_key=f"back {key}")
        if (taken, moved) != ((False, False) if outcome == "applied" else (True, True)):
            self.failures.append(f"{key} {outcome}: debited {taken}, posted {moved}")


def _is_taken(take: Callable[[], Any]) -> bool:
    try:
        take()
    except InsufficientBalance:
        return False
    return True
