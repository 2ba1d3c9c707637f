"""What a batch is decided against, and what comes out of it: plain values, no rules."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

import msgspec

from ...lanes.encoding import LaneCommand
from ...schemas.accounts import AccountState
from ...schemas.identifiers import Position
from ...schemas.journal import JournalRow, Refusal
from ...schemas.statuses import Status

#: Status of an id under which no account was opened. It is never stored.
NO_ACCOUNT = 0


#: An id under which no account was opened.
UNOPENED = AccountState(NO_ACCOUNT, 0, 0)

#: Why nothing can be done on an account of this status, where the command wanted another.
OBSTACLES = {
    NO_ACCOUNT: "account_not_found",
    int(Status.ACTIVE): "account_not_frozen",
    int(Status.FROZEN): "account_frozen",
    int(Status.CLOSED): "account_closed",
}


class HoldState(msgspec.Struct, frozen=True, gc=False):
    """A hold as the ledger sees it between two commands. Moments are microseconds since 1970."""

    #: A `HoldStatus`.
    status: int
    amount: int
    #: What its captures took of the balance, what they took beyond it included.
    captured: int
    #: What is set aside by it now.
    remaining: int
    reference: str
    created_at_us: int
    expires_at_us: int
    ended_at_us: int | None = None


AccountKey = tuple[int, str]
IdempotencyKey = tuple[int, str]
#: A command and the account that it is for.
AddressedCommand = tuple[AccountKey, LaneCommand]
#: The account after a command, and the row that records it.
Decision = tuple[AccountState, JournalRow]


class BatchState:
    """What a batch is decided against: everything of the ledger that its commands touch.

    It is the batch's own, and all that deciding changes; what it was made from stays as it was.
    """

    def __init__(self, accounts: Mapping[AccountKey, AccountState]) -> None:
        #: At least every account that the batch names, `UNOPENED` where there is none. Brought up to date.
        self.accounts: dict[AccountKey, AccountState] = dict(accounts)
        #: The rows that hold an idempotency key of the batch already. Brought up to date.
        self.known: dict[IdempotencyKey, JournalRow] = {}
        #: Entries of transactions that the batch wants to reverse, where they exist. Brought up to date.
        self.originals: dict[tuple[int, Position], JournalRow] = {}
        #: How much of an entry is reversed already, by its position: at least of what the batch wants to reverse, where
        #: it was before. Brought up to date.
        self.reversed: dict[tuple[int, Position], int] = {}
        #: Accounts that cannot be opened because the customer has an open one of that name, and which one that is; None
        #: where it has been closed since.
        self.names_taken: dict[AccountKey, str | None] = {}
        #: The batch reverses something, perhaps an entry that it makes itself.
        self.has_reversals = False
        #: By account and number: the holds that the batch names, where they exist, and those that end before it does.
        #: Brought up to date.
        self.holds: dict[AccountKey, dict[int, HoldState]] = {}
        #: Accounts of the batch that have open holds. Brought up to date.
        self.holders: set[AccountKey] = set()
        #: Of such an account: when the first of the open holds ends that are not in `holds`; None where none is.
        self.next_ends: dict[AccountKey, int | None] = {}
        #: Holds that were made, and those that were changed: what of `holds` is to be stored.
        self.holds_made: set[tuple[AccountKey, int]] = set()
        self.holds_changed: set[tuple[AccountKey, int]] = set()
        #: Rows of holds that have ended by themselves, each with the number of the outcome before which it did.
        self.expired: list[tuple[int, JournalRow]] = []
        #: Some of the batch's commands are to leave nothing.
        self.has_dry_runs = False

    def copied(self) -> BatchState:
        """Return a state of its own that is the same: what is decided against it leaves this one as it is."""
        twin = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | set | list):
                setattr(twin, name, value.copy())
        twin.holds = {account: found.copy() for account, found in self.holds.items()}
        return twin


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one command of a batch."""

    row: JournalRow | None
    replayed: bool = False
    refusal: Refusal | None = None
    #: The further entries of a transaction of several.
    further: tuple[JournalRow, ...] = ()
    #: It is what would have happened. Nothing of it is stored, unless the row was there already: `replayed`.
    dry_run: bool = False
