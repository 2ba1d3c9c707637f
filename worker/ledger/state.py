"""What a batch is decided against, and what comes out of it: plain values, no rules."""

from __future__ import annotations

from collections.abc import Mapping

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
        #: Accounts that cannot be opened because the customer has an open one of that name, and which one that is; None
        #: where it has been closed since.
        self.names_taken: dict[AccountKey, str | None] = {}
        #: The batch reverses something, perhaps an entry that it makes itself.
        self.has_reversals = False


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one command of a batch."""

    row: JournalRow | None
    replayed: bool = False
    refusal: Refusal | None = None
    #: The further entries of a transaction of several.
    further: tuple[JournalRow, ...] = ()
