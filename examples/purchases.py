"""What the FastAPI and the Flask example keep of their customers and purchases, in a database of their own.

A purchase is a row for each key of a customer. It is there before anything is charged, and keeps the first answer for
ever: that is what a repeated request gets, and what tells which charges are to be given back. SQLite, to have nothing
to set up; any database with a unique key will do.
"""

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from hashlib import sha256
from typing import Any, NamedTuple

#: Longer than charge and work together may take: a repeat that comes later takes over from a process that died.
CLAIM_SECONDS = 60.0
#: After so long nobody is expected to repeat the request any more: what it may have been charged is given back.
ABANDONED_SECONDS = 3_600.0
#: The answer of what was charged and did not come about.
FAILED_STATUS = 502
FAILED = {"detail": "This failed and costs nothing. Try again under a new key."}

TABLES = """
pragma journal_mode = wal;
create table if not exists customers (
    customer_id text primary key, account_id text not null, token_hash text not null unique
);
create table if not exists purchases (
    account_id text, key text, request_hash text not null, price integer not null, claimed_until real not null,
    status integer, body text, refund_due integer not null default 0, primary key (account_id, key)
);
"""
CLAIM = """
insert into purchases (account_id, key, request_hash, price, claimed_until) values (?, ?, ?, ?, ?)
on conflict (account_id, key) do update set claimed_until = excluded.claimed_until
where status is null and request_hash = excluded.request_hash and claimed_until <= ?
"""
KEEP = """
update purchases set status = ?, body = ?, refund_due = ? where status is null and account_id = ? and key = ?
"""
ABANDON = "update purchases set status = ?, body = ?, refund_due = 1 where status is null and claimed_until < ?"
READ = "select account_id, key, request_hash, price, status, body, refund_due from purchases"


class Purchase(NamedTuple):
    """What a customer asked for under a key."""

    account_id: str
    key: str
    request_hash: str
    #: What it costs, also if the price changes before a repeat.
    price: int
    #: HTTP status and body of the first answer; None until there is one.
    status: int | None
    body: str | None
    refund_due: int

    @property
    def ledger_key(self) -> str:
        """The key of its charge. In the ledger the keys of all customers meet; no account id contains a colon."""
        return f"{self.account_id}:{self.key}"


class Purchases:
    """The tables. Threads and processes may share them."""

    def __init__(self) -> None:
        self._path = os.environ.get("SHOP_DATABASE", "shop.sqlite3")
        with closing(sqlite3.connect(self._path, timeout=30)) as connection:
            connection.executescript(TABLES)

    def add_customer(self, customer_id: str, account_id: str) -> str:
        """Note whose account it is and return a new token for the customer, of which only a hash is kept."""
        token = secrets.token_urlsafe()
        self._execute("insert or replace into customers values (?, ?, ?)", customer_id, account_id, hash_of(token))
        return token

    def account_of(self, token: str) -> str | None:
        """Return the account of the customer whose token it is."""
        rows, _ = self._execute("select account_id from customers where token_hash = ?", hash_of(token))
        return rows[0][0] if rows else None

    def claim(self, account_id: str, key: str, request: str, price: int) -> tuple[Purchase, bool]:
        """Return the purchase, and whether the caller is to see to it: one caller at a time is."""
        now = time.time()
        _, changed = self._execute(CLAIM, account_id, key, hash_of(request), price, now + CLAIM_SECONDS, now)
        return self.read(account_id, key), changed == 1

    def release(self, purchase: Purchase) -> None:
        """Let the next repeat see to it at once."""
        statement = "update purchases set claimed_until = ? where account_id = ? and key = ?"
        self._execute(statement, time.time(), purchase.account_id, purchase.key)

    def keep(self, purchase: Purchase, status: int, body: Mapping[str, object]) -> Purchase:
        """Make this the answer, unless there is one, and return the purchase with the answer that it has."""
        refund_due = status == FAILED_STATUS
        self._execute(KEEP, status, json.dumps(body), refund_due, purchase.account_id, purchase.key)
        return self.read(purchase.account_id, purchase.key)

    def read(self, account_id: str, key: str) -> Purchase:
        rows, _ = self._execute(f"{READ} where account_id = ? and key = ?", account_id, key)
        return Purchase(*rows[0])

    def refunds_due(self) -> list[Purchase]:
        """Return the purchases of which the charge is to be given back; those that were abandoned have failed."""
        self._execute(ABANDON, FAILED_STATUS, json.dumps(FAILED), time.time() - ABANDONED_SECONDS)
        rows, _ = self._execute(f"{READ} where refund_due = 1")
        return [Purchase(*row) for row in rows]

    def refunded(self, purchase: Purchase) -> None:
        statement = "update purchases set refund_due = 0 where account_id = ? and key = ?"
        self._execute(statement, purchase.account_id, purchase.key)

    def _execute(self, statement: str, *values: object) -> tuple[list[Any], int]:
        with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall(), cursor.rowcount


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()
