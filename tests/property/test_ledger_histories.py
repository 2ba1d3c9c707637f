"""The pure ledger decides every history as the naive ledger does."""

from collections import defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from creditlane.lanes.encoding import LaneCommand, decode_command, encode_command
from creditlane.schemas.accounts import NO_FEATURES, AccountState
from creditlane.schemas.commands import OpenAccount
from creditlane.schemas.identifiers import hold_id
from creditlane.schemas.journal import FALLEN_BELOW, JournalRow
from creditlane.schemas.kinds import Kind
from creditlane.schemas.statuses import HoldStatus, Status
from creditlane.worker.ledger.decide import decide_all
from creditlane.worker.ledger.state import UNOPENED, AccountKey, BatchState, Outcome

from .histories import ACCOUNTS, EPOCH_US, LONG, SOON, Sent, announced, answer_of, batches, histories
from .naive_ledger import NaiveLedger, same_name

STORES = ("store_one", "store_two")
EXAMPLES = 10_000 if LONG else 200
#: Ten thousand histories take minutes, in seconds.
pytestmark = pytest.mark.timeout(3_600 if LONG else 300)


class LedgerInMemory:
    """Lets the pure ledger decide batches, with dicts instead of Postgres."""

    def __init__(self) -> None:
        self.batch = BatchState({(store, account): UNOPENED for store in range(len(STORES)) for account in ACCOUNTS})
        self.batch.has_reversals = True
        #: What the name of each opened account must be unique by.
        self.titles: dict[AccountKey, tuple[int, str, str]] = {}
        self.now_us = EPOCH_US

    def apply(self, history: list[Sent]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        batch: list[Sent] = []
        for sent in history:
            # Which names are free is the store's business: here it is settled before every opening.
            if isinstance(sent.command, OpenAccount):
                outcomes += self._decide(batch)
                batch = []
            batch.append(sent)
        return outcomes + self._decide(batch)

    def holds(self, store: int, account: str) -> dict[str, dict[str, Any]]:
        """Return the holds of an account, as the naive ledger keeps them."""
        return {
            hold_id(account, number): {
                "status": HoldStatus(hold.status).name.lower(),
                "amount": hold.amount,
                "left": hold.remaining,
                "captured": hold.captured,
                "ends": hold.expires_at_us,
                "reference": hold.reference,
            }
            for number, hold in self.batch.holds.get((store, account), {}).items()
        }

    def _decide(self, batch: list[Sent]) -> list[Outcome]:
        opening = {
            (sent.store, str(sent.command.account_id)): (
                sent.store,
                sent.command.customer_id,
                same_name(sent.command.name),
            )
            for sent in batch
            if isinstance(sent.command, OpenAccount)
        }
        held = {
            title: account[1]
            for account, title in self.titles.items()
            if self.batch.accounts[account].status != Status.CLOSED
        }
        self.batch.names_taken = {account: held[title] for account, title in opening.items() if title in held}
        addressed: list[tuple[AccountKey, LaneCommand]] = [
            ((store, str(command.account_id)), decode_command(encode_command(command, STORES[store])))
            for store, command in batch
        ]
        self.batch.has_dry_runs = any(sent.command.dry_run for sent in batch)
        outcomes = decide_all(addressed, self.batch, self.now_us)
        for row in (row for outcome in outcomes for row in rows_of(outcome)):
            if row.kind == Kind.OPEN_ACCOUNT and row.rejection is None:
                self.titles[row.store_id, row.account_id] = opening[row.store_id, row.account_id]
        return outcomes


def limits_of(state: AccountState) -> tuple[int, int | None, int | None]:
    """Return the limits of an account, as the naive ledger keeps them."""
    features = state.features or NO_FEATURES
    return state.overdraft_limit, features.max_balance, features.low_balance


def fallen_below(row: JournalRow) -> int | None:
    """Return the threshold of `balance.low` that the entry fell below."""
    below = msgspec.json.decode(row.content).get(FALLEN_BELOW) if row.content else None
    return None if below is None else int(below)


def rows_of(outcome: Outcome) -> list[JournalRow]:
    """Return the rows that a command left; none if it left them earlier, or was a trial."""
    return [] if outcome.row is None or outcome.replayed or outcome.dry_run else [outcome.row, *outcome.further]


@settings(max_examples=EXAMPLES, deadline=None)
@given(parts=batches(max_size=60))
def test_every_answer_and_balance_is_the_naive_ledgers(parts: list[tuple[int, list[Sent]]]) -> None:
    """Given any history and a clock that jumps, when the ledger decides it, then each answer, entry and balance is what
    the rules say, and so is what is held."""
    naive, ledger = NaiveLedger(), LedgerInMemory()

    fallen: defaultdict[tuple[str, str], list[int | None]] = defaultdict(list)

    for ledger.now_us, part in parts:
        outcomes = ledger.apply(part)

        for row in (row for outcome in outcomes for row in sorted(rows_of(outcome), key=lambda row: row.seq)):
            if row.seq > 0:
                fallen[STORES[row.store_id], row.account_id].append(fallen_below(row))
        assert [answer_of(announced(outcome), sent.command) for outcome, sent in zip(outcomes, part, strict=True)] == [
            naive.submit(STORES[sent.store], sent.command.model_dump(), ledger.now_us) for sent in part
        ]

    for store, name in enumerate(STORES):
        for account in ACCOUNTS:
            state = ledger.batch.accounts[store, account]
            assert state.balance == naive.balance(name, account)
            assert state.entries == len(naive.entries(name, account))
            assert limits_of(state) == naive.limits(name, account)
            assert fallen[name, account] == [entry["fell_below"] for entry in naive.entries(name, account)]
            assert state.held == naive.held(name, account)
            assert ledger.holds(store, account) == naive.holds(name, account)
            assert state.decisions == naive.decisions[name, account]
            assert state.latest_at_us == naive.times.get((name, account), 0)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(history=histories(ends=SOON))
def test_every_row_keeps_what_the_database_demands(history: list[Sent]) -> None:
    """Given any history, then entries and decisions are counted without a gap, within the limit."""
    ledger = LedgerInMemory()

    written = [row for outcome in ledger.apply(history) for row in rows_of(outcome)]

    for store in range(len(STORES)):
        for account in ACCOUNTS:
            rows = [row for row in written if (row.store_id, row.account_id) == (store, account)]
            entries = sorted((row for row in rows if row.seq > 0), key=lambda row: row.seq)
            decisions = sorted((row for row in rows if row.seq < 0), key=lambda row: -row.seq)
            assert [row.seq for row in entries] == list(range(1, len(entries) + 1))
            assert [row.seq for row in decisions] == [-number for number in range(1, len(decisions) + 1)]
            assert all(row.balance_after - row.held_after >= -row.overdraft_limit for row in rows)
            assert all(row.rejection is None and row.amount for row in entries)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(parts=batches())
def test_time_never_goes_back_along_an_account(parts: list[tuple[int, list[Sent]]]) -> None:
    """Given a clock that jumps to and fro between batches, then no row is older than the one before it."""
    ledger = LedgerInMemory()
    latest: dict[AccountKey, int] = {}

    for ledger.now_us, part in parts:
        for row in (row for outcome in ledger.apply(part) for row in rows_of(outcome)):
            account = (row.store_id, row.account_id)
            assert row.created_at_us >= max(ledger.now_us, latest.get(account, 0))
            latest[account] = row.created_at_us
