"""Identifiers: what stands in them, how they are made, and how the parts are read back.

An account is a UUID. A transaction and an entry are a position on their account, so no index is needed to find them:

    cca_<32 hex>            account
    cct_<32 hex><seq hex>   transaction: the account of its first entry, and that entry's seq
    cce_<32 hex><seq hex>   entry
    cch_<32 hex><seq hex>   hold: the account, and the number of the decision that made it, which is -seq in the journal
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

ACCOUNT_PREFIX = "cca_"
TRANSACTION_PREFIX = "cct_"
ENTRY_PREFIX = "cce_"
HOLD_PREFIX = "cch_"

#: A bigint has at most 16 hex digits; seq starts at 1 and is written without leading zeros.
_POSITION = re.compile(r"(cct_|cce_)([0-9a-f]{32})([1-9a-f][0-9a-f]{0,14})")

ACCOUNT_ID_PATTERN = r"^cca_[0-9a-f]{32}$"
ACCOUNT_ID_CHARACTERS = len(ACCOUNT_PREFIX) + 32
MAX_TRANSACTION_ID_CHARACTERS = len(TRANSACTION_PREFIX) + 32 + 15
TRANSACTION_ID_PATTERN = r"^cct_[0-9a-f]{32}[1-9a-f][0-9a-f]{0,14}$"
HOLD_ID_PATTERN = r"^cch_[0-9a-f]{32}[1-9a-f][0-9a-f]{0,14}$"
STORE_ID_PATTERN = r"^store_[0-9A-Za-z_]{1,58}$"
MAX_STORE_ID_CHARACTERS = 64

_HEX_DIGITS = "0123456789abcdef"


def is_account_id(text: str) -> bool:
    """Whether this is what `ACCOUNT_ID_PATTERN` says, at half of its cost."""
    return len(text) == ACCOUNT_ID_CHARACTERS and text.startswith(ACCOUNT_PREFIX) and not text[4:].strip(_HEX_DIGITS)


class Position(NamedTuple):
    """Where an entry stands: its account's id and its seq there."""

    account_id: str
    seq: int


def transaction_id(account_id: str, seq: int) -> str:
    """Return the id of the transaction whose first entry is `seq` of the account."""
    return f"{TRANSACTION_PREFIX}{account_id[4:]}{seq:x}"


def entry_id(account_id: str, seq: int) -> str:
    """Return the id of entry `seq` of the account."""
    return f"{ENTRY_PREFIX}{account_id[4:]}{seq:x}"


def hold_id(account_id: str, seq: int) -> str:
    """Return the id of the hold that decision `-seq` of the account made."""
    return f"{HOLD_PREFIX}{account_id[4:]}{seq:x}"


def position_of(identifier: str) -> Position | None:
    """Return where a transaction or entry id points, or None if it is no such id."""
    match = _POSITION.fullmatch(identifier)
    if match is None:
        return None
    return Position(ACCOUNT_PREFIX + match[2], int(match[3], 16))


def hold_position_of(identifier: str) -> Position | None:
    """Return the account and number of the hold of this id, or None if it is no such id."""
    if not identifier.startswith(HOLD_PREFIX):
        return None
    return position_of(TRANSACTION_PREFIX + identifier.removeprefix(HOLD_PREFIX))


def derive_account_id(store_id: str, idempotency_key: str) -> str:
    """Return the account id that opening with this key in this store gives, on every attempt the same.

    A retried open must reach the same lane, or the first answer could not be found there.
    """
    seed = f"{store_id}\0{idempotency_key}".encode()
    return ACCOUNT_PREFIX + hashlib.blake2b(seed, digest_size=16, person=b"creditlane-acct").hexdigest()
