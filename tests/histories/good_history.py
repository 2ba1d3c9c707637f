"""A small history in which all is right, made by a ledger of a few lines, for tests that damage it."""

from datetime import UTC, datetime
from typing import Any

from .records import Books, Operation, OutboxPosition, Outcome, Request, Row, StoredHold

#: How long every operation takes, and how long passes between two of them, in nanoseconds.
STEP = 1_000_000_000
#: Accounts that pay only among themselves.
CLOSED_SET = ["cca_" + letter * 32 for letter in "ab"]
OTHER = "cca_" + "c" * 32
#: An account of which parts are held.
HOLDER = "cca_" + "d" * 32


class Maker:
    """Makes operations one after the other, and the rows that they leave."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.rows: list[Row] = []
        self.published: list[OutboxPosition] = []
        self.holds: dict[str, StoredHold] = {}
        self._held: dict[str, int] = {}
        self._now = STEP

    @property
    def now_us(self) -> int:
        """The wall clock: the monotonic one, in microseconds."""
        return self._now // 1_000

    def open(self, account: str, initial: int) -> None:
        key = f"open {account}"
        content = {"customer_id": key, "name": "default", "initial_balance": str(initial)}
        self._enter(account, "open_account", 1, initial, key, content=content)
        request = {"op": "open_account", "account": account, "key": key, "customer": key, "name": "default"}
        self.add({**request, "initial_balance": initial}, {"kind": "applied", "balance": initial, "seq": 1})

    def move(self, op: str, account: str, amount: int, key: str) -> None:
        """Credit or debit, or be refused."""
        request = {"op": op, "account": account, "amount": amount, "reference": key, "key": key}
        balance = self.balance(account)
        if op == "debit" and balance < amount:
            self._decide(account, op, key, "insufficient_balance", side=-1, amount=amount)
            refusal = {"kind": "rejected", "code": "insufficient_balance", "needed": amount, "available": balance}
            self.add(request, {**refusal, "replayed": False})
        else:
            row = self._enter(account, op, 1 if op == "credit" else -1, amount, key)
            self.add(request, _applied(row))

    def take(self, account: str, asked: int, key: str) -> None:
        """Debit what is there, of which there is something and less than is asked for."""
        content = {"asked": str(asked)}
        amount = self.balance(account)
        request = {"op": "debit", "account": account, "amount": asked, "reference": key, "key": key, "partial": True}
        row = self._enter(account, "debit", -1, amount, key, content=content)
        self.add(request, {**_applied(row), "shortfall": asked - amount})

    def attempt(self, account: str, amount: int, key: str) -> None:
        """Try a credit, which leaves nothing."""
        request = {"op": "credit", "account": account, "amount": amount, "reference": key, "key": key, "dry": True}
        self.add(request, {"kind": "applied", "balance": self.balance(account) + amount, "transaction": None})

    def post(self, payer: str, taker: str, amount: int, key: str) -> None:
        legs = [(payer, "debit", amount), (taker, "credit", amount)]
        entries = [{"account_id": account, "side": side, "amount": str(amount)} for account, side, _ in legs]
        first = self._enter(payer, "post", -1, amount, key, content={"reference": key, "entries": entries})
        self._enter(taker, "post", 1, amount, "", first=first.position)
        self.add({"op": "post", "account": payer, "legs": legs, "reference": key, "key": key}, _applied(first))

    def change(self, op: str, account: str, key: str) -> None:
        """Freeze, unfreeze or close."""
        self._decide(account, op, key, None)
        request = {"op": op, "account": account, "key": key}
        self.add(request, {"kind": "applied", "balance": self.balance(account), "replayed": False})

    def reverse(self, row: Row) -> None:
        """Undo a transaction of one entry."""
        transaction = f"cct_{row.account[4:]}{row.seq:x}"
        undoing = self._enter(row.account, "reverse", -row.side, row.amount or 0, f"reversal:{transaction}")
        self.add({"op": "reverse", "account": row.account, "transaction": transaction}, _applied(undoing))

    def hold(self, account: str, amount: int, key: str, seconds: int = 3_600) -> str:
        """Set an amount aside, and return the id of the hold."""
        content = {"expires_in_seconds": seconds, "ends_at": self._moment(seconds)}
        self._held[account] = self._held.get(account, 0) + amount
        row = self._decide(account, "hold", key, None, amount=amount, content=content)
        request = {"op": "hold", "account": account, "amount": amount, "reference": key, "seconds": seconds, "key": key}
        identifier = f"cch_{account[4:]}{-row.seq:x}"
        self.holds[identifier] = StoredHold(account, -row.seq, "open", 0, amount)
        self.add(request, {"kind": "applied", "hold": identifier})
        return identifier

    def capture(self, identifier: str, amount: int, key: str, *, final: bool) -> None:
        """Debit a part of what a hold has set aside, or be refused."""
        hold = self.holds[identifier]
        request = {"op": "capture", "account": hold.account, "hold": identifier, "key": key}
        request |= {"amount": amount, "final": final, "overage": False}
        content = {"hold_id": identifier, "amount": str(amount), "final": final, "allow_overage": False}
        if amount > hold.remaining:
            code = f"hold_{hold.status}" if hold.status != "open" else "capture_exceeds_hold"
            self._decide(hold.account, "capture", key, code, side=-1, amount=amount, content=content)
            self.add(request, {"kind": "rejected", "code": code})
            return
        left = 0 if final else hold.remaining - amount
        self._release(hold, hold.remaining - left)
        status = "open" if left else "captured"
        self.holds[identifier] = hold._replace(captured=hold.captured + amount, remaining=left, status=status)
        row = self._enter(hold.account, "capture", -1, amount, key, content=content)
        self.add(request, _applied(row))

    def void(self, identifier: str, key: str) -> None:
        """Give back what is left of a hold."""
        hold = self.holds[identifier]
        self._release(hold, hold.remaining)
        self._decide(hold.account, "void", key, None, amount=hold.remaining, content={"hold_id": identifier})
        self.holds[identifier] = hold._replace(status="voided", remaining=0)
        request = {"op": "void", "account": hold.account, "hold": identifier, "key": key}
        self.add(request, {"kind": "applied", "hold": identifier})

    def extend(self, identifier: str, seconds: int, key: str) -> None:
        """Move the end of a hold."""
        hold = self.holds[identifier]
        content = {"hold_id": identifier, "expires_in_seconds": seconds, "ends_at": self._moment(seconds)}
        self._decide(hold.account, "extend", key, None, content=content)
        request = {"op": "extend", "account": hold.account, "hold": identifier, "seconds": seconds, "key": key}
        self.add(request, {"kind": "applied", "hold": identifier})

    def expire(self, identifier: str) -> None:
        """Let a hold end by itself."""
        hold = self.holds[identifier]
        self._release(hold, hold.remaining)
        key, content = f"expiry:{identifier}", {"hold_id": identifier}
        self._decide(hold.account, "expiry", key, None, amount=hold.remaining, content=content)
        self.holds[identifier] = hold._replace(status="expired", remaining=0)

    def _release(self, hold: StoredHold, amount: int) -> None:
        self._held[hold.account] -= amount

    def _moment(self, seconds: int) -> str:
        return datetime.fromtimestamp(self._now // STEP + seconds, UTC).isoformat()

    def repeat(self, number: int = -1) -> None:
        """Send an earlier command once more."""
        first = self.operations[number]
        self.add(first.request, {**first.outcome, "replayed": True})

    def collide(self) -> None:
        """Send the latest command once more with another content."""
        request = {**self.operations[-1].request, "reference": "another"}
        self.add(request, {"kind": "rejected", "code": "idempotency_key_mismatch"})

    def read(self, account: str) -> None:
        self.add({"op": "read_balance", "account": account}, {"kind": "read", "balance": self.balance(account)})

    def read_status(self, account: str, status: str) -> None:
        outcome = {"kind": "read", "balance": self.balance(account), "status": status}
        self.add({"op": "read_account", "account": account}, outcome)

    def read_at(self, accounts: list[str]) -> None:
        """Ask for the balances of the accounts as of the millisecond before this one."""
        at_us = self.now_us - 1_000
        for account in accounts:
            request = {"op": "read_at", "account": account, "at_us": at_us, "round": f"round {at_us}"}
            self.add(request, {"kind": "read", "balance": self.balance(account), "as_of_us": at_us})

    def balance(self, account: str) -> int:
        return next((row.balance for row in reversed(self.rows) if row.account == account and row.seq > 0), 0)

    def add(self, request: Request, outcome: Outcome) -> Operation:
        began, ended = self._now - STEP // 4, self._now + STEP // 4
        name = f"op {len(self.operations)}"
        operation = Operation(name, "process", request, began, 5.0, ended, ended // 1_000, outcome)
        self.operations.append(operation)
        self._now += STEP
        return operation

    def _enter(self, account: str, kind: str, side: int, amount: int, key: str, **more: Any) -> Row:
        seq = 1 + sum(row.account == account and row.seq > 0 for row in self.rows)
        balance = self.balance(account) + side * amount
        reference = key if kind in {"credit", "debit"} else None
        return self._keep(
            Row(
                account,
                seq,
                kind,
                side,
                amount,
                balance,
                0,
                key,
                self.now_us,
                reference=reference,
                held=self._held.get(account, 0),
                **more,
            )
        )

    def _decide(self, account: str, kind: str, key: str, rejection: str | None, **more: Any) -> Row:
        seq = -1 - sum(row.account == account and row.seq < 0 for row in self.rows)
        fields: dict[str, Any] = {"side": 0, "amount": None, **more}
        balance, moment = self.balance(account), self.now_us
        return self._keep(
            Row(
                account,
                seq,
                kind,
                **fields,
                balance=balance,
                limit=0,
                key=key,
                created_us=moment,
                rejection=rejection,
                reference=key if amount_of(fields) else None,
                held=self._held.get(account, 0),
            )
        )

    def _keep(self, row: Row) -> Row:
        self.rows.append(row)
        self.published.append(
            OutboxPosition(row.account, row.seq, sum(other.account == row.account for other in self.rows))
        )
        return row


def amount_of(fields: dict[str, Any]) -> int | None:
    """Return the amount that a decision names."""
    found: int | None = fields["amount"]
    return found


def _applied(row: Row) -> Outcome:
    transaction = f"cct_{row.account[4:]}{row.seq:x}"
    answer = {"kind": "applied", "balance": row.balance, "seq": row.seq, "transaction": transaction}
    return {**answer, "replayed": False}


def good_history() -> tuple[list[Operation], Books]:
    """Return a history with every kind of command and read in it."""
    maker = Maker()
    for account in (*CLOSED_SET, OTHER):
        maker.open(account, 100)
    a, b = CLOSED_SET
    maker.move("debit", OTHER, 100, "empty")
    maker.move("debit", OTHER, 10, "too much")
    maker.repeat()
    maker.move("credit", OTHER, 70, "fill")
    maker.repeat()
    maker.collide()
    maker.read(OTHER)
    maker.reverse(maker.rows[-1])
    maker.post(a, b, 30, "first")
    maker.read_at(CLOSED_SET)
    maker.post(b, a, 10, "second")
    maker.read(a)
    maker.read_at(CLOSED_SET)
    maker.change("freeze", a, "freeze")
    maker.read_status(a, "frozen")
    maker.change("unfreeze", a, "unfreeze")
    maker.post(a, b, 5, "third")
    maker.read(b)
    maker.open(HOLDER, 100)
    held = maker.hold(HOLDER, 20, "held")
    maker.extend(held, 7_200, "longer")
    maker.capture(held, 5, "part", final=False)
    maker.capture(held, 99, "beyond", final=False)
    maker.capture(held, 5, "rest", final=True)
    maker.capture(held, 5, "after", final=True)
    maker.void(maker.hold(HOLDER, 10, "voided"), "void")
    maker.attempt(HOLDER, 5, "attempt")
    maker.expire(maker.hold(HOLDER, 10, "short", seconds=1))
    maker.take(HOLDER, 1_000, "all there is")
    maker.change("close", OTHER, "close")
    return maker.operations, Books(maker.rows, maker.published, holds=list(maker.holds.values()))
