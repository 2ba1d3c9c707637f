"""What the clients do: endless, random, aimed at what is hard. Yields requests and is sent their outcomes; no I/O.

All client processes work on the same few hot accounts and on many cold ones, and on requests that each of them can make
up by itself from a number: so they send the same command under the same key, and others under the same key.
"""

import json
import random
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TypeVar

from creditlane.schemas.identifiers import derive_account_id

from .records import Outcome, Request

_T = TypeVar("_T")
Steps = Generator[Request, Outcome, None]

#: How many of the common requests all processes together reach a second.
COMMON_PER_SECOND = 20
#: How long before the present a moment lies whose balances are asked for, in milliseconds; below zero: in the future.
MOMENTS_MS = (0, 0, 5, 50, 300, 1_000, -60_000)
#: How many earlier requests and transactions a process remembers.
MEMORY = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """What all client processes know from the start."""

    store: str
    seed: int
    #: Monotonic time at which the run began, in nanoseconds.
    began: int
    timeout: float
    hot: list[str]
    cold: list[str]
    #: Accounts that are emptied and filled, and accounts that are frozen, while transactions reach them.
    drained: list[str]
    frozen: list[str]
    #: Accounts that pay only among themselves.
    closed_sets: list[list[str]]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))


class Workload:
    """The work of one thread of one client process."""

    def __init__(self, plan: Plan, name: str, *, over_http: bool, races: bool = False) -> None:
        self._plan = plan
        self._name = name
        self._over_http = over_http
        #: It does nothing but stop accounts, and pay to and from them, as fast as it can.
        self._races = races
        self._random = random.Random(f"{plan.seed} {name}")
        self._count = 0
        self._sent: deque[Request] = deque(maxlen=MEMORY)
        self._transactions: deque[str] = deque(maxlen=MEMORY)

    def steps(self) -> Steps:
        """Yield one request after the other, for ever."""
        scenes: dict[Callable[[], Steps], int] = {
            self._move: 12,
            self._drain: 16,
            self._stop: 8,
            self._reach_stopped: 14,
            self._pay_within: 20,
            self._pass_through: 2,
            self._reverse: 5,
            self._repeat: 4,
            self._common: 8,
            self._collide: 2,
            self._use_hold: 12,
            self._take_what_is_there: 6,
            # Over HTTP a trial has a body of its own, which its tests judge.
            self._try: 0 if self._over_http else 4,
            self._live: 2,
            self._read: 8,
            self._enqueue: 6,
            self._sum_up: 24 if self._over_http else 0,
        }
        if self._races:
            scenes = {self._stop: 1, self._reach_stopped: 2}
        while True:
            (scene,) = self._random.choices(list(scenes), list(scenes.values()))
            yield from scene()

    def _move(self) -> Steps:
        account = self._choose([*self._plan.hot, self._choose(self._plan.cold)])
        yield from self._send(self._movement(self._choose(["credit", "debit", "debit"]), account, self._amount()))

    def _drain(self) -> Steps:
        """Empty an account, fill it by a transaction that is decided elsewhere, and spend at once what is there."""
        account, other = self._random.sample([*self._plan.drained, self._choose(self._plan.hot)], 2)
        outcome = yield {"op": "read_balance", "account": account}
        balance = outcome.get("balance", 0)
        if balance > 0:
            yield from self._send(self._movement("debit", account, balance))
        amount = self._random.randint(100, 200)
        if self._random.random() < 0.5:
            yield from self._send(self._movement("credit", other, amount))
        yield from self._send(self._post([(other, "debit", amount), (account, "credit", amount)]))
        if self._random.random() < 0.5:
            yield {"op": "read_balance", "account": account}
        yield from self._send(self._movement("debit", account, amount // 2))

    def _stop(self) -> Steps:
        account = self._choose(self._plan.frozen)
        for op in ("freeze", "unfreeze") * self._random.randint(1, 3):
            request = {"op": op, "account": account, "key": self._key()}
            outcome = yield from self._send(request)
            for _ in range(5):
                if outcome["kind"] in {"applied", "rejected"}:
                    break
                # An account that stays frozen would end what goes on there.
                outcome = yield request

    def _reach_stopped(self) -> Steps:
        for _ in range(self._random.randint(1, 4)):
            payer, taker = self._random.sample([*self._plan.frozen, self._choose(self._plan.hot)], 2)
            amount = self._random.randint(1, 3)
            yield from self._send(self._post([(payer, "debit", amount), (taker, "credit", amount)]))

    def _pay_within(self) -> Steps:
        accounts = self._random.sample(self._choose(self._plan.closed_sets), self._random.randint(2, 4))
        amount = self._choose([self._amount(), self._amount(), 10**9])
        payer, *takers = accounts
        legs = [(payer, "debit", amount * len(takers)), *((taker, "credit", amount) for taker in takers)]
        self._random.shuffle(legs)
        yield from self._send(self._post(legs))

    def _pass_through(self) -> Steps:
        payer, between, taker = self._random.sample(self._choose(self._plan.closed_sets), 3)
        amount = self._amount()
        sides = [(payer, "debit"), (between, "credit"), (between, "debit"), (taker, "credit")]
        yield from self._send(self._post([(account, side, amount) for account, side in sides]))

    def _reverse(self) -> Steps:
        if self._transactions:
            transaction = self._choose(list(self._transactions))
            yield from self._send({"op": "reverse", "account": _account_of(transaction), "transaction": transaction})

    def _repeat(self) -> Steps:
        if self._sent:
            yield self._choose(list(self._sent))

    def _common(self) -> Steps:
        yield self._common_request(self._common_number())

    def _take_what_is_there(self) -> Steps:
        account = self._choose([*self._plan.drained, *self._plan.hot])
        yield from self._send({**self._movement("debit", account, self._random.randint(50, 2_000)), "partial": True})

    def _try(self) -> Steps:
        """Try a command, and do it for real under another key."""
        request = self._movement(self._choose(["credit", "debit"]), self._choose(self._plan.drained), self._amount())
        yield {**request, "dry": True}
        yield from self._send({**request, "key": self._key()})

    def _use_hold(self) -> Steps:
        """Hold what others hold under the same key, and use it against them and against its end."""
        request = self._common_hold(self._common_number())
        outcome = yield request
        hold = outcome.get("hold")
        for _ in range(self._random.randint(1, 3) if hold else 0):
            yield from self._send(self._use_of(request["account"], str(hold), request["amount"]))

    def _use_of(self, account: str, hold: str, amount: int) -> Request:
        op = self._choose(["capture", "capture", "capture", "void", "extend"])
        key = self._key()
        request: Request = {"op": op, "account": account, "hold": hold, "key": key}
        if op == "extend":
            return {**request, "seconds": self._choose([1, 2, 30])}
        if op == "void":
            return request
        part = self._choose([None, amount, amount // 2 + 1, amount + 5])
        return {**request, "amount": part, "final": self._choose([True, False]), "overage": self._choose([True, False])}

    def _common_hold(self, number: int) -> Request:
        choose = random.Random(f"{self._plan.seed} hold {number}")
        account, seconds = choose.choice([*self._plan.hot, *self._plan.drained]), choose.choice([1, 1, 2, 30])
        amount = choose.randint(1, 30)
        held = {"account": account, "amount": amount, "seconds": seconds}
        return {"op": "hold", **held, "reference": f"hold {number}", "key": f"h{number}"}

    def _collide(self) -> Steps:
        request = self._common_request(self._common_number())
        yield {**request, "reference": f"another {request['reference']}"}

    def _live(self) -> Steps:
        """Open an account, use it, stop it and close it, and try to use it again."""
        key = self._key()
        account = derive_account_id(self._plan.store, key)
        initial = self._choose([0, 100])
        opening = {"op": "open_account", "account": account, "key": key, "customer": key, "name": "default"}
        yield {**opening, "initial_balance": initial}
        yield from self._send(self._movement("credit", account, 50))
        yield from self._send(self._post([(account, "debit", 30), (self._choose(self._plan.hot), "credit", 30)]))
        yield {"op": "freeze", "account": account, "key": self._key()}
        yield from self._send(self._movement("debit", account, 10))
        yield {"op": "unfreeze", "account": account, "key": self._key()}
        yield from self._send(self._movement("debit", account, 10))
        yield {"op": "close", "account": account, "key": self._key()}
        yield from self._send(self._movement("credit", account, 1))
        yield {"op": "read_account", "account": account}

    def _read(self) -> Steps:
        account = self._choose([*self._plan.hot, *self._plan.drained, *self._plan.frozen])
        yield {"op": self._choose(["read_balance", "read_account", "read_entries"]), "account": account}

    def _enqueue(self) -> Steps:
        """Leave a command on its lane, and ask for it and for what it has made of the account."""
        account = self._choose([*self._plan.hot, *self._plan.drained])
        request = self._movement(self._choose(["credit", "debit"]), account, self._amount())
        outcome = yield {**request, "enqueue": True}
        ticket = outcome.get("ticket")
        if ticket is not None:
            yield {"op": "wait", "ticket": ticket, "command": request}
            after = {} if self._over_http else {"after": request["key"], "ticket": ticket}
            yield {"op": "read_balance", "account": account, **after}

    def _sum_up(self) -> Steps:
        """Ask for the balance of every account of a closed set as of one moment, and perhaps once more."""
        accounts = self._choose(self._plan.closed_sets)
        at_us = (time.time_ns() // 1_000_000 - self._choose(list(MOMENTS_MS))) * 1_000
        for _ in range(self._choose([1, 2])):
            round_name = self._key()
            for account in self._random.sample(accounts, len(accounts)):
                yield {"op": "read_at", "account": account, "at_us": at_us, "round": round_name}

    def _send(self, request: Request) -> Generator[Request, Outcome, Outcome]:
        self._sent.append(request)
        outcome = yield request
        transaction = outcome.get("transaction")
        if transaction is not None and request["op"] != "reverse":
            self._transactions.append(transaction)
        if outcome["kind"] in {"unknown", "unavailable"} and self._random.random() < 0.5:
            yield request
        return outcome

    def _movement(self, op: str, account: str, amount: int) -> Request:
        key = self._key()
        return {"op": op, "account": account, "amount": amount, "reference": f"of {key}", "key": key}

    def _post(self, legs: list[tuple[str, str, int]]) -> Request:
        key = self._key()
        return {"op": "post", "legs": legs, "account": legs[0][0], "reference": f"of {key}", "key": key}

    def _common_number(self) -> int:
        elapsed_seconds = (time.monotonic_ns() - self._plan.began) / 1e9
        return max(0, int(elapsed_seconds * COMMON_PER_SECOND) - self._random.randint(0, COMMON_PER_SECOND))

    def _common_request(self, number: int) -> Request:
        choose = random.Random(f"{self._plan.seed} common {number}")
        account = choose.choice([*self._plan.hot, *self._plan.cold])
        op = choose.choice(["credit", "debit"])
        amount = choose.randint(1, 50)
        return {"op": op, "account": account, "amount": amount, "reference": f"common {number}", "key": f"c{number}"}

    def _amount(self) -> int:
        return self._random.randint(1, 60)

    def _key(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"

    def _choose(self, values: list[_T]) -> _T:
        return self._random.choice(values)


def _account_of(transaction: str) -> str:
    """Return the account of the transaction's first entry."""
    return f"cca_{transaction[4:36]}"
