"""The ledger's store: reads what a batch touches, lets the ledger decide, and writes it in one transaction.

A batch is first tried optimistically: accounts as remembered, no lookup of keys. The primary key of the journal
catches an account that somebody else moved, its unique index a key that was used before: the transaction is rolled
back, and the batch is tried again carefully, with locks and lookups. Nothing here talks to Redis or retries.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import filterfalse
from operator import itemgetter
from typing import Any, NamedTuple, cast

import psycopg

from ...lanes.encoding import LaneCommand, PlainCommand
from ...schemas.accounts import AccountState, features_of
from ...schemas.commands import Reverse, reversal_key
from ...schemas.errors import CreditlaneError, LeaseLost
from ...schemas.identifiers import ACCOUNT_PREFIX
from ...schemas.installation import DEFAULT_PARTITIONS
from ...schemas.journal import JournalRow, Refusal
from ...schemas.journal_columns import row_of
from ...schemas.kinds import STATUS_CHANGE_WORDS, STATUS_CHANGES, Kind
from ...schemas.releases import RELEASE, is_new
from ...schemas.results import moment_of
from ...schemas.statuses import Status
from ..ledger.accounts import (
    Claim,
    account_of_claim,
    check_opened,
    claim_columns,
    claims_of,
    dry_claims_of,
    name_columns,
    parts_of,
)
from ..ledger.decide import decide_all
from ..ledger.state import UNOPENED, AccountKey, AddressedCommand, BatchState, IdempotencyKey, Outcome
from . import sql
from .accounts import AccountCache, LaneVersion
from .holds import count_open_holds, load_holds, rows_with_ends, write_holds
from .journal_rows import copy_text, lines_of
from .limits import limit_columns
from .outbox import Outbox, decided_rows
from .reversed_amounts import load_reversed
from .scope import NO_SCOPE, Scope, scope_of

#: Most characters of a transaction's rows. It is only met where balances are far longer than before.
MAX_WRITTEN_CHARACTERS = 16_000_000
#: Characters of rows that are handed to Postgres in one piece, about: a piece is in memory three times over meanwhile.
WRITTEN_AT_ONCE = 4_000_000
#: How long a statement may wait for a lock, as a share of how long it may take.
LOCK_WAIT_SHARE = 0.8

_account_of = itemgetter(0)

Connection = psycopg.Connection[tuple[Any, ...]]


class PartitionsLost(LeaseLost):
    """Some partitions of the batch belong to another worker now."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.partitions: frozenset[int] = frozenset(partitions)
        super().__init__(f"The leases of partitions {sorted(self.partitions)} are another worker's.")


class StaleAccount(CreditlaneError):
    """An account or a hold is not in the status that was remembered; read it afresh and decide again."""


class _Locked(NamedTuple):
    """The lanes of a transaction, which stand still for it, and the time from which on they do."""

    #: Microseconds since 1970, on Postgres's clock.
    now_us: int
    versions: Mapping[int, LaneVersion]

    def versions_of(self, partitions: Iterable[int]) -> dict[int, LaneVersion]:
        return {partition: self.versions[partition] for partition in partitions if partition in self.versions}


_NOTHING_LOCKED = _Locked(0, {})


class OlderWorkers(CreditlaneError):
    """A command is new, and lanes are not kept from older workers yet: see `LedgerStore.require_release`."""


class TransactionTooLarge(CreditlaneError):
    """A transaction has more rows than are written at once, or too many short parts; decide fewer commands."""


class LedgerStore:
    """Applies commands to Postgres over one connection, as one worker. Not for use from several threads."""

    def __init__(
        self,
        connection: Connection,
        worker_id: str,
        *,
        partitions: int = DEFAULT_PARTITIONS,
        timeout_seconds: float = 10.0,
    ) -> None:
        self._connection = connection
        self._partitions = partitions
        self._worker_id = worker_id
        self._timeout_seconds = timeout_seconds
        self._limits = {
            "timeout_ms": str(int(timeout_seconds * 1000)),
            "lock_ms": str(int(timeout_seconds * LOCK_WAIT_SHARE * 1000)),
        }
        self._outbox = Outbox(connection)
        self._cache = AccountCache(partitions)
        #: The release that workers must be of, as the last transaction found it.
        self._required_release = 0
        #: When the last transaction had its lanes locked, by `time.monotonic`; None if it did not get as far.
        self.holds_lanes_since: float | None = None
        #: Length of the journal rows that the last transaction wrote, in characters.
        self.written_characters: int = 0

    def forget(self) -> None:
        """Forget every remembered account, so that the next batch reads them afresh."""
        self._cache.forget()

    def take_outbox_written(self) -> bool:
        """Return whether anything was written to the outbox since this was last asked."""
        return self._outbox.take_written()

    def transact(
        self, commands: Sequence[AddressedCommand], epochs: Mapping[int, int], *, careful: bool = False
    ) -> list[Outcome]:
        """Decide the commands in order and store every decision, all in one transaction.

        `epochs` are the leases under which the commands were read; an empty mapping checks none.

        Raises:
            PartitionsLost: a lease is another worker's; nothing was stored.
            psycopg.errors.UniqueViolation: a key or an account's seq was there already; nothing was stored.
            StaleAccount: a status had been changed by somebody else; nothing was stored.
            OlderWorkers: a command is new, and older workers may have lanes; nothing was stored.
            TransactionTooLarge: it is more than is done at once; nothing was stored. Never of one command.
            psycopg.Error: anything else Postgres refuses; nothing was stored, unless the commit itself was cut off.
        """
        scope, locked = NO_SCOPE, _NOTHING_LOCKED
        try:
            with self._committed():
                version = self._open()
                scope = scope_of(self._connection, commands, epochs, self._partitions)
                locked = self._lock_lanes(version, epochs, scope.foreign_partitions)
                self._cache.keep_true({partition: locked.versions[partition] for partition in epochs})
                batch = BatchState({})
                batch.has_reversals, batch.originals = scope.has_reversals, dict(scope.originals)
                careful = careful or scope.spans_accounts
                outcomes = self._apply_parts(commands, batch, scope, locked.now_us, careful=careful)
        except BaseException:
            # What was remembered of these accounts may be why, and is not theirs any more if it was taken.
            self._cache.drop([*(account for account, _ in commands), *scope.accounts])
            raise
        self._cache.put(batch.accounts)
        if scope.foreign_partitions:
            # Their own lanes' batches move these accounts on.
            self._cache.drop(scope.foreign_accounts)
            self._cache.note_own_writes(locked.versions_of(scope.foreign_partitions))
        self._cache.bound()
        return outcomes

    def dead_letter(
        self, letter: tuple[Any, ...], command: LaneCommand | None, refusal: Refusal, epochs: Mapping[int, int]
    ) -> None:
        """Store a dead letter, a row of (store, id, partition, lane entry, payload, key, code, reason).

        `refusal` is what is announced of the command, if the letter is one of a known store. Raises as `transact` does.
        """
        names = ("store", "id", "partition", "lane_entry", "payload", "key", "code", "reason")
        store_id = letter[0]
        with self._committed():
            self._lock_lanes(self._open(), epochs)
            self._connection.execute(sql.INSERT_DEAD_LETTER, dict(zip(names, letter, strict=True)))
            if command is not None and store_id:
                self._outbox.write_refusal(store_id, command, refusal)

    def refuse(self, commands: Sequence[AddressedCommand], refusal: Refusal, epochs: Mapping[int, int]) -> None:
        """Send what is to be announced of these commands to their callbacks, and leave nothing else of them.

        Raises as `transact` does.
        """
        with self._committed():
            self._lock_lanes(self._open(), epochs)
            for (store_id, _), command in commands:
                self._outbox.write_refusal(store_id, command, refusal)

    def require_release(self) -> bool:
        """Keep lanes from older workers for ever, unless there are some. Returns whether they are kept from them.

        Raises:
            psycopg.Error: Postgres cannot be used now; it is as it was.
        """
        with self._committed():
            self._open()
            is_required = self._required_release >= RELEASE
            if not is_required and not self._has_older_workers():
                # Nobody takes a lane while this is held, so what is read after it stays so.
                self._connection.execute(sql.REQUIRE_RELEASE, {"release": RELEASE})
                is_required = not self._has_older_workers()
            if not is_required:
                self._connection.rollback()
        return is_required

    def _has_older_workers(self) -> bool:
        record = self._connection.execute(sql.HAS_OLDER_WORKERS, {"release": RELEASE}).fetchone()
        return record is None or bool(record[0])

    def is_decided(self, account: AccountKey, command: LaneCommand, epochs: Mapping[int, int]) -> bool:
        """Return whether the command's key is in the journal, and will stay out of it if it is not.

        Every attempt holds its lane until its commit is through, also one whose session hangs there or whose client is
        gone. So the lane is locked against them before the key is looked up. Raises as `transact` does.
        """
        keys = [command.idempotency_key]
        if command.kind == Kind.REVERSE.word and cast("Reverse", command).amount is None:
            keys.append(reversal_key(command.idempotency_key))
        with self._committed():
            self._lock_lanes(self._open(), epochs, exclusive=True)
            known = self._load_known({(account[0], key) for key in keys})
        return bool(known)

    def find_stores(self, public_ids: Iterable[str]) -> dict[str, int]:
        """Return the numbers of those stores that exist."""
        with self._committed():
            self._open()
            records = self._connection.execute(sql.FIND_STORES, {"public_ids": list(public_ids)}).fetchall()
        return dict(records)

    def _apply_parts(
        self, commands: Sequence[AddressedCommand], batch: BatchState, scope: Scope, now_us: int, *, careful: bool
    ) -> list[Outcome]:
        """Apply part after part, as long as a statement may take: many short ones would hold the lanes far longer."""
        outcomes: list[Outcome] = []
        began = time.monotonic()
        for part in parts_of(commands):
            if outcomes and time.monotonic() - began > self._timeout_seconds:
                raise TransactionTooLarge(f"{len(outcomes)} of {len(commands)} commands took too long")
            outcomes += self._apply_part(part, batch, scope, now_us, careful=careful)
        return outcomes

    def _apply_part(
        self, commands: Sequence[AddressedCommand], batch: BatchState, scope: Scope, now_us: int, *, careful: bool
    ) -> list[Outcome]:
        # A plain credit or debit comes as a `PlainCommand`; only the other kinds need anything beyond the account.
        kinds: set[str] = {command.kind for _, command in commands if type(command) is not PlainCommand}
        if kinds and self._required_release < RELEASE and any(is_new(command) for _, command in commands):
            raise OlderWorkers
        batch.has_dry_runs = bool(kinds) and any(command.dry_run for _, command in commands)
        self._load(commands, batch, scope, careful=careful)
        if not load_holds(self._connection, commands, kinds, batch, now_us):
            raise TransactionTooLarge(f"too many holds have ended on the accounts of {len(commands)} commands")
        opened = self._open_accounts(commands, batch, now_us) if Kind.OPEN_ACCOUNT.word in kinds else set()
        seen = _statuses(commands, batch, opened) if STATUS_CHANGE_WORDS & kinds else {}
        outcomes = decide_all(commands, batch, now_us)
        rows = rows_with_ends(outcomes, batch.expired) if batch.expired else decided_rows(outcomes)
        if opened:
            check_opened(opened, rows)
        if rows:
            self._write(rows, len(commands))
        if seen:
            self._change_statuses(rows, batch, seen)
        if batch.holders and not write_holds(self._connection, batch):
            raise StaleAccount
        if Kind.SET_LIMIT.word in kinds:
            self._change_limits(rows, batch)
        has_callbacks = bool(kinds) and any(command.callback_url is not None for _, command in commands)
        self._outbox.write(commands, outcomes, rows, batch.accounts, has_callbacks=has_callbacks)
        return outcomes

    def _open(self) -> int:
        """Open a transaction that holds nothing yet, within limits of its own. Returns the version of subscriptions."""
        self.holds_lanes_since, self.written_characters = None, 0
        with self._connection.pipeline():
            begun = self._connection.execute(sql.BEGIN_BATCH, self._limits)
        record = begun.fetchone()
        if record is None:
            raise CreditlaneError("Postgres did not return the version of subscriptions")
        version: int
        version, self._required_release, *_ = record
        return version

    def _lock_lanes(
        self,
        version: int,
        epochs: Mapping[int, int],
        foreign_partitions: Collection[int] = (),
        *,
        exclusive: bool = False,
    ) -> _Locked:
        """Lock the lanes of the transaction, which was opened at this version of subscriptions.

        With foreign partitions, or exclusively, all the lanes stand still until the commit: whoever owns them
        waits, and forgets then what it remembers of the accounts of the foreign ones.
        """
        foreign = list(foreign_partitions)
        statement = sql.LOCK_LANES if foreign or exclusive else sql.LOCK_LEASES
        lanes = {"worker_id": self._worker_id, "partitions": [*epochs, *foreign], "foreign": foreign}
        # Not in a pipeline: the flush that psycopg sends at a pipeline's end stops the clock of the idle timeout.
        leases = self._connection.execute(statement, lanes)
        self.holds_lanes_since = time.monotonic()
        locked = leases.fetchone()
        if locked is None:
            raise CreditlaneError("Postgres did not return the time")
        records, now_us = locked
        versions = {partition: LaneVersion(epoch, reached) for partition, epoch, reached in records}
        lost = [p for p, epoch in epochs.items() if p not in versions or versions[p].epoch != epoch]
        if lost:
            raise PartitionsLost(lost)
        self._outbox.begin(version)
        return _Locked(now_us, versions)

    @contextmanager
    def _committed(self) -> Iterator[None]:
        """Commit what is done inside, or roll it back if anything is raised, also by the commit itself."""
        try:
            yield
            self._connection.commit()
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if not self._connection.closed:
            try:
                self._connection.rollback()
            except psycopg.Error:
                # The connection broke; the server rolls back, and the loop connects afresh.
                self._connection.close()

    def _load(self, commands: Sequence[AddressedCommand], batch: BatchState, scope: Scope, *, careful: bool) -> None:
        """Bring what these commands touch into the batch's state, beside what it has of the commands before them."""
        if careful:
            wanted = {account for account, _ in commands} | scope.accounts
            self._lock_accounts(wanted)
            batch.known |= self._load_known({(account[0], command.idempotency_key) for account, command in commands})
        else:
            accounts: Iterable[AccountKey] = map(_account_of, commands)
            if batch.accounts:
                # Those of earlier parts are here already, and further than what is remembered of them.
                accounts = filterfalse(batch.accounts.__contains__, accounts)
            taken, wanted = self._cache.take(accounts)
            batch.accounts |= taken
        if wanted:
            loaded = self._load_accounts(wanted)
            self._cache.expect(loaded)
            batch.accounts |= loaded
        if scope.has_reversals:
            # Whether it was tried or made before is asked also of an optimistic batch: neither collides with the other.
            tried = {
                (account[0], key)
                for account, command in commands
                if command.kind == Kind.REVERSE.word
                for key in (command.idempotency_key, reversal_key(command.idempotency_key))
            }
            batch.known |= self._load_known(tried) if tried else {}
            batch.reversed |= load_reversed(self._connection, commands)
        if batch.has_dry_runs and not careful:
            # A dry run leaves no key that could collide with the one that is there.
            batch.known |= self._load_known(
                {(account[0], command.idempotency_key) for account, command in commands if command.dry_run}
            )

    def _lock_accounts(self, wanted: set[AccountKey]) -> None:
        self._connection.execute(sql.LOCK_ACCOUNTS, _account_columns(wanted))

    def _load_accounts(self, wanted: set[AccountKey]) -> dict[AccountKey, AccountState]:
        states = {}
        for record in self._connection.execute(sql.LOAD_ACCOUNTS, _account_columns(wanted)):
            store_id, account_id, status, limit, entries, balance, decision, latest_at_us, *limits = record
            held, max_balance, low_balance = (None if each is None else int(each) for each in limits)
            states[store_id, ACCOUNT_PREFIX + account_id.hex] = AccountState(
                status or UNOPENED.status,
                int(balance or 0),
                int(limit or 0),
                entries or 0,
                -(decision or 0),
                latest_at_us or 0,
                features_of(held or 0, max_balance, low_balance),
            )
        count_open_holds(self._connection, states)
        return states

    def _load_known(self, wanted: set[IdempotencyKey]) -> dict[IdempotencyKey, JournalRow]:
        stores, keys = zip(*wanted, strict=True)
        records = self._connection.execute(sql.LOAD_KNOWN, {"stores": list(stores), "keys": list(keys)})
        rows = map(row_of, records)
        return {(row.store_id, row.idempotency_key): row for row in rows}

    def _open_accounts(self, commands: Sequence[AddressedCommand], batch: BatchState, now_us: int) -> set[AccountKey]:
        """Claim ids and names for the batch's new accounts; those refused go to its state. Returns the opened ones."""
        claims = claims_of(commands, batch)
        opened: set[AccountKey] = set()
        if claims:
            records = self._connection.execute(sql.CLAIM_ACCOUNTS, claim_columns(claims, now_us))
            opened = {(store_id, ACCOUNT_PREFIX + account_id.hex) for store_id, account_id in records}
        batch.names_taken = self._holders_of_names([claim for claim in claims if account_of_claim(claim) not in opened])
        if batch.has_dry_runs:
            # A name that nobody has now is free for who only asks; nothing is claimed.
            holders = self._holders_of_names(dry_claims_of(commands, batch))
            batch.names_taken |= {account: holder for account, holder in holders.items() if holder is not None}
        return opened

    def _holders_of_names(self, refused: Sequence[Claim]) -> dict[AccountKey, str | None]:
        """Return who has the name that each of these wanted."""
        if not refused:
            return {}
        records = self._connection.execute(sql.FIND_NAME_HOLDERS, name_columns(refused)).fetchall()
        holders = {(store_id, ACCOUNT_PREFIX + wanted.hex): ACCOUNT_PREFIX + by.hex for store_id, wanted, by in records}
        return {account: holders.get(account) for account in map(account_of_claim, refused)}

    def _write(self, rows: list[JournalRow], commands: int) -> None:
        """Write the rows of so many commands, in one piece unless they are very long."""
        lines, are_short = lines_of(rows)
        characters = sum(map(len, lines))
        if characters > MAX_WRITTEN_CHARACTERS and commands > 1:
            raise TransactionTooLarge(f"the rows of {commands} commands have {characters} characters")
        self.written_characters += characters
        step = max(1, len(lines) * WRITTEN_AT_ONCE // max(characters, WRITTEN_AT_ONCE))
        statement = sql.COPY_ENTRIES if are_short else sql.COPY_JOURNAL
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for start in range(0, len(lines), step):
                copy.write(copy_text(lines[start : start + step]))

    def _change_statuses(self, rows: Iterable[JournalRow], batch: BatchState, seen: Mapping[AccountKey, int]) -> None:
        moments = {
            (row.store_id, row.account_id): row.created_at_us
            for row in rows
            if row.kind in STATUS_CHANGES and row.rejection is None
        }
        changed = sorted(moments)
        if not changed:
            return
        cursor = self._connection.execute(
            sql.CHANGE_STATUS,
            {
                **_account_columns(changed),
                "seen": [seen[account] for account in changed],
                "statuses": [batch.accounts[account].status for account in changed],
                "moments": [moment_of(moments[account]) for account in changed],
            },
        )
        if cursor.rowcount != len(changed):
            raise StaleAccount

    def _change_limits(self, rows: Iterable[JournalRow], batch: BatchState) -> None:
        changed, columns = limit_columns(rows, batch.accounts)
        if changed:
            cursor = self._connection.execute(sql.CHANGE_LIMITS, {**_account_columns(changed), **columns})
            if cursor.rowcount != len(changed):
                raise StaleAccount


def _statuses(
    commands: Iterable[AddressedCommand], batch: BatchState, opened: Collection[AccountKey]
) -> dict[AccountKey, int]:
    """Return the status that each account has in the database, of those whose status the commands may change."""
    return {
        account: int(Status.ACTIVE) if account in opened else batch.accounts[account].status
        for account, command in commands
        if command.kind in STATUS_CHANGE_WORDS
    }


def _account_columns(accounts: Iterable[AccountKey]) -> dict[str, str]:
    """Return them as array literals: at a fifteenth of what the driver needs to write lists of numbers and digits."""
    keys = list(accounts)
    return {
        "stores": f"{{{','.join([str(store_id) for store_id, _ in keys])}}}",
        "accounts": f"{{{','.join([account_id[4:] for _, account_id in keys])}}}",
    }
