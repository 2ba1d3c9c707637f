"""What a ledger of credits does, in the simplest way: lists and dicts, one command at a time, no cleverness.

Written from the rules and not from the worker's ledger, of which it uses nothing.
"""

import unicodedata
from collections import Counter
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

#: In microseconds, as all times here.
SECOND = 1_000_000
#: How long a hold lasts if nobody says, and how long at most.
USUAL_HOLD = 7 * 86_400 * SECOND
LONGEST_HOLD = 366 * 86_400 * SECOND
#: A transaction takes the latest time of its accounts for its own, if that is so little ahead of the clock.
AHEAD = SECOND

CONTENT = {
    "open_account": ["customer_id", "name", "unit_label", "initial_balance", "overdraft_limit"],
    "credit": ["amount", "reference"],
    "debit": ["amount", "reference", "allow_partial"],
    "post": ["reference", "entries"],
    "reverse": ["transaction_id", "amount"],
    "freeze": [],
    "unfreeze": [],
    "close": [],
    "hold": ["amount", "reference", "expires_in_seconds", "expires_at"],
    "capture": ["hold_id", "amount", "final", "allow_overage", "reference"],
    "void": ["hold_id"],
    "extend": ["hold_id", "expires_in_seconds", "expires_at"],
    "set_limit": ["limit", "amount"],
}


class Answer(NamedTuple):
    """What the sender of a command hears, but for the words and the time."""

    status: str
    code: str | None = None
    transaction_id: str | None = None
    side: str | None = None
    amount: int | None = None
    balance: int | None = None
    reference: str | None = None
    reversal_of: str | None = None
    hold_id: str | None = None
    replayed: bool = False
    #: Of a key that belongs to another request: what differs.
    differing: tuple[str, ...] = ()
    #: Of a debit of what is there: what was missing.
    shortfall: int | None = None
    dry_run: bool = False
    #: Of a dry run: the entries that there would have been, as (account, side, amount, balance after it).
    entries: tuple[tuple[str, str, int, int], ...] | None = None


class NaiveLedger:
    """Any number of stores, each a world of its own."""

    def __init__(self) -> None:
        #: (store, account id): the account, as it is now.
        self.accounts: dict[tuple[str, str], dict[str, Any]] = {}
        #: (store, key): the command that used it first, and what was answered.
        self.answered: dict[tuple[str, str], tuple[dict[str, Any], Answer]] = {}
        #: (store, account id, transaction id): the answer to the attempt that reversed it.
        self.reversals: dict[tuple[str, str, str], Answer] = {}
        #: (store, account id): how many commands were decided there that moved nothing, those on no account included.
        self.decisions: Counter[tuple[str, str]] = Counter()
        #: (store, account id): when something was decided there last. An account's time never goes back.
        self.times: dict[tuple[str, str], int] = {}
        self._clock = 0
        #: The entries of the latest transaction, as a dry run tells them.
        self._made: list[tuple[str, str, int, int]] = []

    def submit(self, store: str, command: dict[str, Any], clock: int = 0) -> Answer:
        """Return the answer to a command, given as its fields, at this time."""
        self._clock = clock
        if command["dry_run"]:
            return self._try(store, command)
        identity = (store, command["idempotency_key"])
        if identity in self.answered:
            return self._answer_again(command, *self.answered[identity])
        if command["kind"] == "reverse" and command["amount"] is None:
            return self._reverse_once(store, command)
        answer = self._decide(store, command)
        self.answered[identity] = (command, answer)
        return answer

    def _try(self, store: str, command: dict[str, Any]) -> Answer:
        """Return what would be answered, by a ledger that is thrown away: what was not made has no id."""
        twin = deepcopy(self)
        twin._made = []
        answer = twin.submit(store, {**command, "dry_run": False}, self._clock)._replace(dry_run=True)
        if answer.replayed or answer.code == "idempotency_key_mismatch":
            return answer
        made = {"transaction_id": None, "entries": tuple(twin._made)}
        return answer._replace(**made, hold_id=None if command["kind"] == "hold" else answer.hold_id)

    def _reverse_once(self, store: str, command: dict[str, Any]) -> Answer:
        """The whole of a transaction is reversed once, by whichever attempt; a refused one leaves it to the next."""
        reversed_already = (store, command["account_id"], command["transaction_id"])
        if reversed_already in self.reversals:
            return self.reversals[reversed_already]._replace(replayed=True)
        answer = self._decide(store, command)
        # The key of the attempt is used up by a refusal only: what is made has a key of the transaction's own.
        if answer.status == "applied":
            self.reversals[reversed_already] = answer
        else:
            self.answered[store, command["idempotency_key"]] = (command, answer)
        return answer

    def entries(self, store: str, account_id: str) -> list[dict[str, Any]]:
        """Return what moved on an account, oldest first."""
        account = self.accounts.get((store, account_id))
        return account["entries"] if account else []

    def balance(self, store: str, account_id: str) -> int:
        return sum(entry["amount"] for entry in self.entries(store, account_id))

    def holds(self, store: str, account_id: str) -> dict[str, dict[str, Any]]:
        """Return all holds of an account by their ids, in the order in which they were made."""
        account = self.accounts.get((store, account_id))
        return account["holds"] if account else {}

    def held(self, store: str, account_id: str) -> int:
        """Return what open holds keep of the balance."""
        return sum(hold["left"] for hold in self.holds(store, account_id).values())

    def available(self, store: str, account_id: str) -> int:
        account = self.accounts.get((store, account_id))
        limit = account["limit"] if account else 0
        return self.balance(store, account_id) - self.held(store, account_id) + limit

    def limits(self, store: str, account_id: str) -> tuple[int, int | None, int | None]:
        """Return how far below zero the account may go, above what not, and below what it is low."""
        account = self.accounts.get((store, account_id))
        return (account["limit"], account["max_balance"], account["low_balance"]) if account else (0, None, None)

    def end_holds(self, clock: int) -> None:
        """Release everywhere what has ended by this time."""
        self._clock = clock
        for store, account_id in self.accounts:
            self._end_holds(store, account_id)

    def time(self, store: str, account_id: str) -> int:
        """Return the time at which something would be decided now on an account."""
        return max(self._clock, self.times.get((store, account_id), 0))

    def _answer_again(self, command: dict[str, Any], first: dict[str, Any], answer: Answer) -> Answer:
        if command["kind"] != first["kind"]:
            differing = ["kind"]
        else:
            names = ["account_id", *CONTENT[command["kind"]]]
            differing = [name for name in names if command[name] != first[name]]
        if differing:
            return Answer("rejected", "idempotency_key_mismatch", differing=tuple(differing))
        return answer._replace(replayed=True)

    def _decide(self, store: str, command: dict[str, Any]) -> Answer:
        """Decide a command whose key is new."""
        own = command["account_id"]
        self._end_holds(store, own)
        answer = self._do(store, command)
        if answer.transaction_id is None:
            self._note(store, own)
        return answer

    def _note(self, store: str, account_id: str) -> None:
        """Count a decision that moved nothing."""
        self.times[store, account_id] = self.time(store, account_id)
        self.decisions[store, account_id] += 1

    def _end_holds(self, store: str, account_id: str) -> None:
        """Release what is left of holds whose end has come: nothing is decided on an account before that is done."""
        for hold in self.holds(store, account_id).values():
            if hold["status"] == "open" and hold["ends"] <= self.time(store, account_id):
                hold["status"], hold["left"] = "expired", 0
                self._note(store, account_id)

    def _do(self, store: str, command: dict[str, Any]) -> Answer:
        rules = {
            "open_account": self._open,
            "credit": self._credit_or_debit,
            "debit": self._credit_or_debit,
            "post": self._post,
            "reverse": self._reverse,
            "hold": self._hold,
            "capture": self._use_hold,
            "void": self._use_hold,
            "extend": self._use_hold,
            "freeze": self._change,
            "unfreeze": self._change,
            "close": self._change,
            "set_limit": self._set_limit,
        }
        return rules[command["kind"]](store, command, self.accounts.get((store, command["account_id"])))

    def _credit_or_debit(self, store: str, command: dict[str, Any], _account: dict[str, Any] | None) -> Answer:
        if command.get("allow_partial"):
            return self._debit_what_is_there(store, command)
        return self._move(store, command, [leg_of(command, command["kind"])], command["reference"])

    def _debit_what_is_there(self, store: str, command: dict[str, Any]) -> Answer:
        """Take the amount or what is available, whichever is less; nothing is no entry, and refused as any other."""
        own, asked = command["account_id"], command["amount"]
        taken = min(asked, self.available(store, own))
        if taken <= 0:
            return self._move(store, command, [(own, -asked)], command["reference"])
        answer = self._move(store, command, [(own, -taken)], command["reference"])
        if answer.status == "applied":
            return answer._replace(shortfall=asked - taken)
        return answer._replace(amount=asked)

    def _hold(self, store: str, command: dict[str, Any], account: dict[str, Any] | None) -> Answer:
        """Set an amount aside until it is captured, voided, or its end has come."""
        own, amount = command["account_id"], command["amount"]
        asked = Answer("rejected", None, amount=amount, balance=self._sum(account), reference=command["reference"])
        obstacle = self._obstacle(account)
        if obstacle or account is None:
            return asked._replace(code=obstacle)
        ends = self._end_of(store, command)
        if ends is None:
            return asked._replace(code="expires_at_out_of_range")
        if self.available(store, own) < amount:
            return asked._replace(code="insufficient_balance")
        hold_id = f"cch_{own[4:]}{self.decisions[store, own] + 1:x}"
        account["holds"][hold_id] = {
            "status": "open",
            "amount": amount,
            "left": amount,
            "captured": 0,
            "ends": ends,
            "reference": command["reference"],
        }
        return asked._replace(status="applied", hold_id=hold_id)

    def _use_hold(self, store: str, command: dict[str, Any], account: dict[str, Any] | None) -> Answer:
        """Capture, void or extend a hold, which must be open; a frozen account gives back and does no more."""
        kind, hold_id = command["kind"], command["hold_id"]
        refused = Answer("rejected", None, balance=self._sum(account), hold_id=hold_id)
        if kind == "capture":
            refused = refused._replace(side="debit", amount=command["amount"], reference=command["reference"])
        obstacle = self._obstacle(account)
        if obstacle and not (kind == "void" and obstacle == "account_frozen"):
            return refused._replace(code=obstacle)
        hold = self.holds(store, command["account_id"]).get(hold_id)
        if hold is None or hold["status"] != "open":
            return refused._replace(code=f"hold_{hold['status']}" if hold else "hold_not_found")
        if kind == "capture":
            return self._capture(store, command, hold)
        done = refused._replace(status="applied", reference=hold["reference"])
        if kind == "void":
            released = hold["left"]
            hold["status"], hold["left"] = "voided", 0
            return done._replace(amount=released)
        ends = self._end_of(store, command)
        if ends is None:
            return refused._replace(code="expires_at_out_of_range")
        hold["ends"] = ends
        return done

    def _capture(self, store: str, command: dict[str, Any], hold: dict[str, Any]) -> Answer:
        """Debit an amount that a hold has set aside; the last capture releases the rest."""
        own, left = command["account_id"], hold["left"]
        amount = left if command["amount"] is None else command["amount"]
        reference = hold["reference"] if command["reference"] is None else command["reference"]
        refused = Answer(
            "rejected", None, None, "debit", amount, self.balance(store, own), reference, hold_id=command["hold_id"]
        )
        if amount > left and not command["allow_overage"]:
            return refused._replace(code="capture_exceeds_hold")
        if amount - left > self.available(store, own):
            return refused._replace(code="insufficient_balance")
        hold["captured"] += amount
        hold["left"] = 0 if command["final"] else max(0, left - amount)
        if hold["left"] == 0:
            hold["status"] = "captured"
        return self._move(store, command, [(own, -amount)], reference)._replace(hold_id=command["hold_id"])

    def _end_of(self, store: str, command: dict[str, Any]) -> int | None:
        """Return when a hold ends; None if that is not after now, or too far away."""
        now = self.time(store, command["account_id"])
        if command["expires_at"] is not None:
            ends = microseconds_of(command["expires_at"])
        elif command["expires_in_seconds"] is not None:
            ends = now + command["expires_in_seconds"] * SECOND
        else:
            ends = now + USUAL_HOLD
        return ends if now < ends <= now + LONGEST_HOLD else None

    def _open(self, store: str, command: dict[str, Any], account: dict[str, Any] | None) -> Answer:
        if account:
            return Answer("rejected", "account_exists", balance=self._sum(account))
        wanted = (store, command["customer_id"], same_name(command["name"]))
        if any(other["title"] == wanted and other["status"] != "closed" for other in self.accounts.values()):
            return Answer("rejected", "account_name_taken", balance=0)
        account = {
            "id": command["account_id"],
            "title": wanted,
            "status": "active",
            "limit": command["overdraft_limit"],
            "max_balance": None,
            "low_balance": None,
            "entries": [],
            "holds": {},
        }
        self.accounts[store, command["account_id"]] = account
        if command["initial_balance"] == 0:
            return Answer("applied", balance=0)
        legs = [(command["account_id"], command["initial_balance"])]
        return self._move(store, command, legs, "initial_balance")

    def _post(self, store: str, command: dict[str, Any], account: dict[str, Any] | None) -> Answer:
        legs = [leg_of(entry, entry["side"]) for entry in command["entries"]]
        if sum(amount for _, amount in legs):
            balance, reference = self._sum(account), command["reference"]
            return Answer("rejected", "unbalanced_transaction", balance=balance, reference=reference)
        return self._move(store, command, legs, command["reference"])

    def _reverse(self, store: str, command: dict[str, Any], account: dict[str, Any] | None) -> Answer:
        obstacle = self._obstacle(account)
        if obstacle or account is None:
            return Answer("rejected", obstacle, balance=self._sum(account))
        # A transaction is known by its first entry, and by no other.
        known = [entry for entry in account["entries"] if entry["legs"]]
        original = next((entry for entry in known if entry["id"] == command["transaction_id"]), None)
        if original is None:
            return Answer("rejected", "transaction_not_found", balance=self._sum(account))
        return self._reverse_known(store, command, account, original)

    def _reverse_known(
        self, store: str, command: dict[str, Any], account: dict[str, Any], original: dict[str, Any]
    ) -> Answer:
        """Undo the transaction, or so much of it as is asked for; a whole reversal undoes what is left."""
        legs, reference = [(owner, -amount) for owner, amount in original["legs"]], original["reference"]
        (owner, whole), asked = legs[0], command["amount"]
        part = [(owner, whole if asked is None else asked * sign_of(whole))]
        if original["reversal_of"]:
            return self._move(store, command, part, reference, refuse="reversal_not_reversible")
        if len(legs) > 1:
            # Nothing says how a part would be shared out.
            refuse = None if asked is None else "reversal_not_divisible"
            return self._move(store, command, part if refuse else legs, reference, original["id"], refuse)
        undone = sum(entry["amount"] for entry in account["entries"] if entry["reversal_of"] == original["id"])
        left = whole - undone
        if left == 0 and asked is None:
            return Answer("rejected", "already_reversed", balance=self._sum(account), reference=reference)
        if left == 0 or (asked is not None and asked > abs(left)):
            refuse = "reversal_exceeds_original" if left else "already_reversed"
            return self._move(store, command, part, reference, original["id"], refuse)
        return self._move(store, command, [(owner, left)] if asked is None else part, reference, original["id"])

    def _set_limit(self, store: str, command: dict[str, Any], account: dict[str, Any] | None) -> Answer:
        """Set a limit or take it away: of one that is closed no more, and no credit limit below what is used of it."""
        refused = Answer("rejected", self._obstacle(account), balance=self._sum(account))
        if account is None or account["status"] == "closed":
            return refused
        name, amount = command["limit"], command["amount"]
        if name == "credit_limit":
            own = command["account_id"]
            if self.balance(store, own) - self.held(store, own) + (amount or 0) < 0:
                return refused._replace(code="credit_limit_in_use")
            account["limit"] = amount or 0
        else:
            account[name] = amount
        return refused._replace(status="applied", code=None)

    def _move(
        self,
        store: str,
        command: dict[str, Any],
        legs: list[tuple[str, int]],
        reference: str,
        reversal_of: str | None = None,
        refuse: str | None = None,
    ) -> Answer:
        """Make an entry for each leg, in this order; or none, for the reason that the first one has.

        A reversal is made if no account ends below its limit: each gets what is its due before anything is taken.
        """
        own = command["account_id"]
        for account_id, _ in legs:
            self._end_holds(store, account_id)
        balances = {account_id: self.balance(store, account_id) for account_id, _ in legs}
        ends = {owner: balances[owner] + sum(amount for other, amount in legs if other == owner) for owner, _ in legs}
        for account_id, amount in legs:
            account = self.accounts.get((store, account_id))
            obstacle = self._obstacle(account) or refuse
            balance = ends[account_id] if reversal_of else balances[account_id] + amount
            if obstacle is None and account and amount < 0:
                free = balance - self.held(store, account_id) + account["limit"]
                obstacle = "insufficient_balance" if free < 0 else None
            highest = account["max_balance"] if account else None
            if obstacle is None and amount > 0 and highest is not None and not reversal_of and balance > highest:
                obstacle = "max_balance_exceeded"
            if obstacle:
                # What was wanted of another account is not reported as if it were wanted of this one.
                side, wanted = (side_of(amount), abs(amount)) if account_id == own else (None, None)
                return Answer("rejected", obstacle, None, side, wanted, self.balance(store, own), reference)
            balances[account_id] += amount
        positions = range(len(legs))
        giving = [position for position in positions if legs[position][1] > 0]
        order = giving + [position for position in positions if position not in giving] if reversal_of else positions
        at = self._time_of_all(store, [account_id for account_id, _ in legs])
        made = {position: self._write(store, *legs[position], reference, reversal_of, at) for position in order}
        self._made = [(owner, side_of(a), abs(a), made[p]["after"]) for p, (owner, a) in enumerate(legs)]
        first, (_, amount) = made[0], legs[0]
        first["legs"] = legs
        return Answer(
            "applied", None, first["id"], side_of(amount), abs(amount), first["after"], reference, reversal_of
        )

    def _time_of_all(self, store: str, accounts: list[str]) -> int:
        """Return one time for all these accounts; one that a wrong clock has left in the future keeps its own."""
        latest = [self.times.get((store, account_id), 0) for account_id in accounts]
        return max([self._clock, *(time for time in latest if time <= self._clock + AHEAD)])

    def _write(
        self, store: str, account_id: str, amount: int, reference: str, reversal_of: str | None, at: int
    ) -> dict[str, Any]:
        self.times[store, account_id] = max(at, self.times.get((store, account_id), 0))
        entries, before = self.entries(store, account_id), self.balance(store, account_id)
        threshold = self.accounts[store, account_id]["low_balance"]
        falls = threshold is not None and before >= threshold > before + amount
        entry = {
            "id": f"cct_{account_id[4:]}{len(entries) + 1:x}",
            "amount": amount,
            "after": before + amount,
            "reference": reference,
            "reversal_of": reversal_of,
            "legs": None,
            # What a webhook says as `balance.low`: once, until the balance was back.
            "fell_below": threshold if falls else None,
        }
        entries.append(entry)
        return entry

    def _change(self, _store: str, command: dict[str, Any], account: dict[str, Any] | None) -> Answer:
        kind = command["kind"]
        status = account["status"] if account else None
        allowed = {"freeze": ["active"], "unfreeze": ["frozen"], "close": ["active", "frozen"]}
        balance = self._sum(account)
        if account is None or status not in allowed[kind]:
            return Answer("rejected", self._obstacle(account) or "account_not_frozen", balance=balance)
        if kind == "close" and balance < 0:
            return Answer("rejected", "account_overdrawn", balance=balance)
        if kind == "close" and any(hold["status"] == "open" for hold in account["holds"].values()):
            return Answer("rejected", "account_has_holds", balance=balance)
        account["status"] = {"freeze": "frozen", "unfreeze": "active", "close": "closed"}[kind]
        return Answer("applied", balance=balance)

    def _obstacle(self, account: dict[str, Any] | None) -> str | None:
        if account is None:
            return "account_not_found"
        return {"active": None, "frozen": "account_frozen", "closed": "account_closed"}[account["status"]]

    def _sum(self, account: dict[str, Any] | None) -> int:
        return sum(entry["amount"] for entry in account["entries"]) if account else 0


def leg_of(entry: dict[str, Any], side: str) -> tuple[str, int]:
    """Return the account and what is to be added to it."""
    return entry["account_id"], entry["amount"] if side == "credit" else -entry["amount"]


def microseconds_of(moment: datetime) -> int:
    """Return how many microseconds after 1970 the moment is."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def sign_of(amount: int) -> int:
    return 1 if amount > 0 else -1


def side_of(amount: int) -> str:
    return "credit" if amount > 0 else "debit"


def same_name(name: str) -> str:
    """Return what two names share that a person would call the same."""
    seen = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", seen.strip()).casefold())
