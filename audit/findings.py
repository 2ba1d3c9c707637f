"""What is proven of the books, and what a proof found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from ..schemas.identifiers import ACCOUNT_PREFIX

#: Examples kept of each kind of discrepancy; all are counted.
MAX_EXAMPLES = 10

#: What is proven, by the name of the check.
CHECKS = {
    "entry_sequence": "the entries of an account are numbered 1, 2, 3 … without a gap",
    "decision_sequence": "its other decisions are numbered -1, -2, -3 … without a gap",
    "running_balance": "each balance is the one before it, plus the credit or less the debit",
    "overdraft_limit": "no balance is below the account's overdraft limit, and every entry names the limit of its time",
    "max_balance": "no credit took a balance above the maximum that the account had then",
    "chronology": "time never goes back along an account",
    "future": "nothing was decided later than now",
    "entry_kind": "every entry is an applied movement on the side that its kind moves",
    "refusal": "no command was refused for lack of a balance that was there",
    "limit_refusal": "no command was refused for a limit that allowed it",
    "partial_debit": "a debit that takes what is there took no more than was asked for, and less only of all there was",
    "closing": "no account was closed while it was below zero, and none was refused it for that while it was not",
    "decided_balance": "a decision that moved nothing names the balance that the account had",
    "decision_place": "it stands in time between the entries that came before it and those after",
    "reversal_original": "every reversal undoes an earlier entry of its account",
    "reversal_amount": "a reversal is on the other side, and of what it was asked to undo or of all that was left",
    "reversal_of_reversal": "no reversal is reversed",
    "reversal_repeated": "the reversals of an entry add up to at most it",
    "reversal_whole": "a reversal undoes every entry of its transaction",
    "further_entry": "every further entry of a transaction is listed by its first",
    "listed_entry": "every entry that a transaction lists is there, with that side and amount",
    "transaction_sum": "the debits and credits of a transaction of several entries balance",
    "transaction_reference": "the entries of a transaction have one reference",
    "account_exists": "every entry belongs to an account",
    "account_opening": "every account was opened exactly once, before anything else moved",
    "account_content": "every account is what its opening asked for",
    "account_limits": "every account has the limits that were set last",
    "account_status": "every account is in the state that its history led to",
    "state_change": "freezing, unfreezing and closing happened in an order that is allowed",
    "stopped_movement": "nothing moved on an account while it was frozen or closed",
    "held": "what is held after each row is what was held before it, with what it set aside or released",
    "hold_decision": "every hold is what the decision asked for that made it",
    "hold_state": "every hold is what its captures, its void and its end have made of it, and nothing came after",
    "hold_end": "every hold ends when it was made or extended to",
    "hold_closing": "no account was closed while holds were open, and none was refused it for that while none was",
    "books": "the books of a store balance to zero: all that moved is all that is there",
}


class Discrepancy(BaseModel):
    """One row or account where the ledger is not what it claims to be."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    store_id: str
    #: None where the whole store is meant.
    account_id: str | None
    #: Number of the journal row on its account; None where the whole account is meant.
    seq: int | None
    expected: str | None
    found: str | None


class CheckReport(BaseModel):
    """What one check found."""

    name: str
    claim: str
    discrepancies: int = 0
    #: The first few.
    examples: list[Discrepancy] = []


class Judged:
    """What every report on checks has. No model, so that each report has its fields in its own order."""

    checks: list[CheckReport]

    @property
    def discrepancies(self) -> int:
        """Number of all discrepancies; 0 on sound books."""
        return sum(check.discrepancies for check in self.checks)

    @property
    def failed(self) -> list[CheckReport]:
        """The checks that found something."""
        return [check for check in self.checks if check.discrepancies]


class Findings:
    """Counts discrepancies by check and keeps the first of each."""

    def __init__(self, claims: Mapping[str, str]) -> None:
        self._checks = {name: CheckReport(name=name, claim=claim) for name, claim in claims.items()}
        #: The public ids of the stores, by which findings name them.
        self.stores: Mapping[int, str] = {}

    @property
    def checks(self) -> list[CheckReport]:
        """Every check, also those that found nothing."""
        return list(self._checks.values())

    def add(
        self, name: str, store_id: int, account: UUID | None, seq: int | None, expected: str | None, found: str | None
    ) -> None:
        """Take down a discrepancy, as the statements return it."""
        check = self._checks[name]
        check.discrepancies += 1
        if len(check.examples) < MAX_EXAMPLES:
            example = Discrepancy(
                store_id=self.stores.get(store_id, f"store number {store_id}"),
                account_id=ACCOUNT_PREFIX + account.hex if account else None,
                seq=seq,
                expected=expected,
                found=found,
            )
            check.examples.append(example)
