"""The journal row: what one decided command leaves in Postgres, and what is announced of it.

`seq` says what a row is. Above zero it is an entry, which moved money: 1, 2, 3 … along the account, each with the
balance after it. Below zero it is a decision that moved none (a rejection, a change of state): -1, -2, -3 …

Announcements cross releases: while an installation is upgraded, workers of one release write what producers of another
read, both ways round. So the fields of `JournalRow`, `Refusal` and `Announcement`, JSON arrays on the wire, are only
ever appended to, each new one with a default; none is removed, moved, or given another meaning. Who is older skips what
it does not know, who is newer takes the default for what is missing. Beside the bytes stands the version that they were
written in, `ANNOUNCEMENT_VERSION`, which goes up by one with what is appended, and by which a reader knows a value that
was left empty from one that its writer did not know. What cannot be appended becomes a field of its own in the stream's
entry: one release writes both, the next stops to write the old one. A test holds the bytes of every version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .accounts import AccountState, features_of
from .identifiers import transaction_id
from .kinds import Kind  # noqa: F401  # where the comment on the table's column says that it is

#: In the content of an opening that was refused for its name: the account that had it.
NAME_TAKEN_BY = "name_taken_by"
#: In the content of an entry that took its account below the threshold of `balance.low`: that threshold.
FALLEN_BELOW = "fallen_below"
#: In the content of a credit that was refused for it: the maximum that the account had.
MAX_BALANCE = "max_balance"


class JournalRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of the table `journal`, in the order of its columns on the wire.

    Amounts are exact integers; `created_at_us` is microseconds since 1970 in UTC.
    """

    store_id: int
    account_id: str
    seq: int
    kind: int
    side: int
    #: What was asked to move; None where nothing was (also for a rejected reversal of an unknown transaction).
    amount: int | None
    #: Balance of the account after this decision.
    balance_after: int
    overdraft_limit: int
    #: Empty on the further entries of a transaction: the key is on its first.
    idempotency_key: str
    reference: str | None
    #: Of a reversal: `seq` of the entry that it undoes, on the same account.
    reversal_of: int | None
    created_at_us: int
    #: Why the command was rejected, a code of `errors.REJECTIONS`; None if it was applied.
    rejection: str | None
    #: The rest of what was asked for, as JSON, where the columns do not hold it.
    content: str | None
    #: Of a further entry of a transaction: account and seq of its first.
    transaction_account: str | None = None
    transaction_seq: int | None = None
    #: Of a decision that moved nothing: how many entries the account had by then. That puts it among them exactly,
    #: where the time of a batch cannot. None of an entry, and where it was not written down.
    entries_before: int | None = None
    #: Part of the account's balance that is set aside after this decision.
    held_after: int = 0

    @property
    def available(self) -> int:
        """What a debit could have taken after this decision."""
        # Whatever its status is.
        features = features_of(self.held_after, None)
        return AccountState(0, self.balance_after, self.overdraft_limit, features=features).available

    @property
    def transaction_id(self) -> str | None:
        """Id of the transaction this row belongs to, or None if it moved nothing."""
        if self.transaction_account is not None and self.transaction_seq is not None:
            return transaction_id(self.transaction_account, self.transaction_seq)
        return transaction_id(self.account_id, self.seq) if self.seq > 0 else None


class Refusal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A decision that leaves no journal row: the key belongs to another request, or the command is a dead letter."""

    code: str
    message: str
    details: dict[str, Any] = {}


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The result of one command, as sent to its producer."""

    #: The number under which the producer sent the command; 0 in a poll key.
    number: int
    row: JournalRow | None
    #: The row was there already: this command, or one like it, was decided before.
    replayed: bool = False
    refusal: Refusal | None = None


class Announcement(Reply, frozen=True):
    """The result of one command, as read: a reply, or what is kept under its poll key."""

    #: In a poll key: the lane entry that this is the decision on; the key is that of a request, which may have several.
    lane_entry: str = ""
    #: It is what would have happened: the row is in the journal only where it was there already.
    dry_run: bool = False
    #: Of a dry run: the further entries of the transaction that there would have been, which nobody can read.
    further: tuple[JournalRow, ...] = ()


#: The version in which announcements are written. That of release 0.1.0 is 0, and stands nowhere.
ANNOUNCEMENT_VERSION = 2

encode_announcements: Callable[[object], bytes] = msgspec.json.Encoder().encode
decode_announcements: Callable[[bytes], list[Announcement]] = msgspec.json.Decoder(list[Announcement]).decode
