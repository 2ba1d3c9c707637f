"""Reads the books of a run once all is over, as plain records; and has the ledger's own proofs judge them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg

from creditlane.audit.recent import verify_period
from creditlane.audit.whole import verify
from creditlane.schemas.identifiers import ACCOUNT_PREFIX
from creditlane.schemas.kinds import Kind
from creditlane.schemas.statuses import HoldStatus, word

from .orders import Anomaly
from .records import Books, OutboxPosition, Row, StoredHold

_ROWS = """
select account_id, seq, kind, side, amount, balance_after, coalesce(overdraft_limit, 0), idempotency_key, rejection,
       reference, content::text, transaction_account, transaction_seq,
       (extract(epoch from created_at) * 1000000)::bigint, coalesce(held_after, 0), entries_before
from journal order by account_id, seq
"""
_OUTBOX = "select unnest(accounts), unnest(seqs), unnest(sequences) from outbox"
_DEAD = "select idempotency_key from dead_letters where idempotency_key is not null"
_HOLDS = f"select account_id, seq, {word('status', HoldStatus)}, captured, remaining from holds"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9000, 1, 1, tzinfo=UTC)


def read_books(database_url: str) -> Books:
    """Return everything that the ledger says."""
    with psycopg.connect(database_url) as connection:
        rows = [_row_of(record) for record in connection.execute(_ROWS)]
        published = [
            OutboxPosition(ACCOUNT_PREFIX + account.hex, seq, number)
            for account, seq, number in connection.execute(_OUTBOX)
        ]
        dead = {key for (key,) in connection.execute(_DEAD)}
        holds = [
            StoredHold(ACCOUNT_PREFIX + account.hex, number, status, int(captured), int(remaining))
            for account, number, status, captured, remaining in connection.execute(_HOLDS)
        ]
        return Books(rows, published, dead, holds)


def _row_of(record: tuple[Any, ...]) -> Row:
    account, seq, kind, side, amount, balance, limit, key, rejection, reference, content, *rest = record
    first_account, first_seq, created_us, held, before = rest
    return Row(
        ACCOUNT_PREFIX + account.hex,
        seq,
        Kind(kind).name.lower(),
        side,
        None if amount is None else int(amount),
        int(balance),
        int(limit),
        key or "",
        created_us,
        rejection,
        reference,
        json.loads(content) if content else {},
        None if first_seq is None else (ACCOUNT_PREFIX + first_account.hex, first_seq),
        int(held),
        before if seq < 0 else None,
    )


def prove_books(database_url: str) -> Iterator[Anomaly]:
    """Have both proofs of the ledger judge all of it; they must agree that it is sound."""
    whole = verify(database_url)
    for failed in whole.failed:
        yield Anomaly("verify", failed.name, f"{failed.discrepancies} found, such as {failed.examples[:2]}")
    with psycopg.connect(database_url) as connection:
        recent = verify_period(connection, _BEGINNING, _END)
    for failed in recent.failed:
        yield Anomaly("verify_recent", failed.name, f"{failed.discrepancies} found, such as {failed.examples[:2]}")
    if bool(whole.failed) != bool(recent.failed):
        yield Anomaly("verify_disagrees", "the whole and the period", "one is sound and the other is not")
