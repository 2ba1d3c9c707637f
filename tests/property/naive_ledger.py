"""What a ledger of credits does, in the simplest way: lists and dicts, one command at a time, no cleverness.

Written from the rules and not from the worker's ledger, of which it uses nothing.
"""

import unicodedata
from typing import Any, NamedTuple

CONTENT = {
    "open_account": ["customer_id", "name", "unit_label", "initial_balance", "overdraft_limit"],
    "credit": ["amount", "reference"],
    "debit": ["amount", "reference"],
    "post": ["reference", "entries"],
    "reverse": ["transaction_id"],
    "freeze": [],
    "unfreeze": [],
    "close": [],
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
    replayed: bool = False
    #: Of a key that belongs to another request: what differs.
    differing: tuple[str, ...] = ()


class NaiveLedger:
    """Any number of stores, each a world of its own."""

    def __init__(self) -> None:
        #: (store, account id): the account, as it is now.
        self.accounts: dict[tuple[str, str], dict[str, Any]] = {}
        #: (store, key): the command that used it first, and what was answered.
        self.answered: dict[tuple[str, str], tuple[dict[str, Any], Answer]] = {}
        #: (store, account id, transaction id): the answer to the attempt that reversed it.
        self.reversals: dict[tuple[str, str, str], Answer] = {}

    def submit(self, store: str, command: dict[str, Any]) -> Answer:
        """Return the answer to a command, given as its fields."""
        identity = (store, command["idempotency_key"])
        if identity in self.answered:
            return self._answer_again(command, *self.answered[identity])
        if command["kind"] == "reverse":
            return self._reverse_once(store, command)
        answer = self._do(store, command)
        self.answered[identity] = (command, answer)
        return answer

    def _reverse_once(self, store: str, command: dict[str, Any]) -> Answer:
        """A transaction is reversed once, by whichever attempt; a refused attempt leaves it to the next."""
        reversed_already = (store, command["account_id"], command["transaction_id"])
        if reversed_already in self.reversals:
            return self.reversals[reversed_already]._replace(replayed=True)
        answer = self._do(store, command)
        self.answered[store, command["idempotency_key"]] = (command, answer)
        if answer.status == "applied":
            self.reversals[reversed_already] = answer
        return answer

    def entries(self, store: str, account_id: str) -> list[dict[str, Any]]:
        """Return what moved on an account, oldest first."""
        account = self.accounts.get((store, account_id))
        return account["entries"] if account else []

    def balance(self, store: str, account_id: str) -> int:
        return sum(entry["amount"] for entry in self.entries(store, account_id))

    def _answer_again(self, command: dict[str, Any], first: dict[str, Any], answer: Answer) -> Answer:
        if command["kind"] != first["kind"]:
            differing = ["kind"]
        else:
            names = ["account_id", *CONTENT[command["kind"]]]
            differing = [name for name in names if command[name] != first[name]]
        if differing:
            return Answer("rejected", "idempotency_key_mismatch", differing=tuple(differing))
        return answer._replace(replayed=True)

    def _do(self, store: str, command: dict[str, Any]) -> Answer:
        account = self.accounts.get((store, command["account_id"]))
        kind = command["kind"]
        if kind == "open_account":
            return self._open(store, command, account)
        if kind in {"credit", "debit"}:
            return self._move(store, command, [leg_of(command, kind)], command["reference"])
        if kind == "post":
            return self._post(store, command, account)
        if kind == "reverse":
            return self._reverse(store, command, account)
        return self._change(kind, account)

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
            "entries": [],
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
        legs, reference = [(owner, -amount) for owner, amount in original["legs"]], original["reference"]
        if original["reversal_of"]:
            return self._move(store, command, legs, reference, refuse="reversal_not_reversible")
        return self._move(store, command, legs, reference, reversal_of=original["id"])

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
        balances = {account_id: self.balance(store, account_id) for account_id, _ in legs}
        ends = {owner: balances[owner] + sum(amount for other, amount in legs if other == owner) for owner, _ in legs}
        for account_id, amount in legs:
            account = self.accounts.get((store, account_id))
            obstacle = self._obstacle(account) or refuse
            balance = ends[account_id] if reversal_of else balances[account_id] + amount
            if obstacle is None and account and amount < 0 and balance < -account["limit"]:
                obstacle = "insufficient_balance"
            if obstacle:
                # What was wanted of another account is not reported as if it were wanted of this one.
                side, wanted = (side_of(amount), abs(amount)) if account_id == own else (None, None)
                return Answer("rejected", obstacle, None, side, wanted, self.balance(store, own), reference)
            balances[account_id] += amount
        positions = range(len(legs))
        giving = [position for position in positions if legs[position][1] > 0]
        order = giving + [position for position in positions if position not in giving] if reversal_of else positions
        made = {position: self._write(store, *legs[position], reference, reversal_of) for position in order}
        first, (_, amount) = made[0], legs[0]
        first["legs"] = legs
        return Answer(
            "applied", None, first["id"], side_of(amount), abs(amount), first["after"], reference, reversal_of
        )

    def _write(
        self, store: str, account_id: str, amount: int, reference: str, reversal_of: str | None
    ) -> dict[str, Any]:
        entries = self.entries(store, account_id)
        entry = {
            "id": f"cct_{account_id[4:]}{len(entries) + 1:x}",
            "amount": amount,
            "after": self.balance(store, account_id) + amount,
            "reference": reference,
            "reversal_of": reversal_of,
            "legs": None,
        }
        entries.append(entry)
        return entry

    def _change(self, kind: str, account: dict[str, Any] | None) -> Answer:
        status = account["status"] if account else None
        allowed = {"freeze": ["active"], "unfreeze": ["frozen"], "close": ["active", "frozen"]}
        balance = self._sum(account)
        if account is None or status not in allowed[kind]:
            return Answer("rejected", self._obstacle(account) or "account_not_frozen", balance=balance)
        if kind == "close" and balance < 0:
            return Answer("rejected", "account_overdrawn", balance=balance)
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


def side_of(amount: int) -> str:
    return "credit" if amount > 0 else "debit"


def same_name(name: str) -> str:
    """Return what two names share that a person would call the same."""
    seen = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", seen.strip()).casefold())
