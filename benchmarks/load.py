"""The load: which accounts there are, and which debits go to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..schemas.commands import Debit, OpenAccount
from ..schemas.identifiers import derive_account_id
from ..schemas.settings import DEFAULT_STORE

#: Enough for every debit of every scenario, also on one account.
INITIAL_BALANCE = 1_000_000_000
AMOUNT = 1

#: 2**64 over the golden ratio: multiples of it, cut to 64 bits, lie far apart (Knuth, TAOCP 3, 6.4).
_SCATTER = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def open_accounts(count: int) -> Iterator[OpenAccount]:
    """Yield the commands that open the accounts of `account_ids`."""
    for number in range(count):
        yield OpenAccount(
            customer_id=f"customer_{number}",
            unit_label="tokens",
            initial_balance=INITIAL_BALANCE,
            idempotency_key=_open_key(number),
        )


def account_ids(count: int) -> list[str]:
    """Return the ids that these commands give."""
    return [derive_account_id(DEFAULT_STORE, _open_key(number)) for number in range(count)]


def debits(accounts: Sequence[str], count: int, *, label: str = "", scattered_keys: bool = False) -> Iterator[Debit]:
    """Yield debits that go round the accounts, as the rows of the yardstick do.

    The label keeps the keys of several loads apart. Keys count up, so that neighbours in time are neighbours in the
    index; scattered ones are as far apart as random ones.
    """
    for number in range(count):
        key = f"{number * _SCATTER & _MASK:016x}_{label}{number}" if scattered_keys else f"key_{label}{number}"
        yield Debit(
            account_id=accounts[number % len(accounts)],
            amount=AMOUNT,
            reference=f"ref_{number}",
            idempotency_key=key,
        )


def _open_key(number: int) -> str:
    return f"open_{number}"
