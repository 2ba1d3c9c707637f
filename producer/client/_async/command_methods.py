"""The methods of the asyncio client that make a command and give what became of it: one for each kind.

Those on holds are in `hold_methods`. How a command is sent and waited for is the client's business, or that of the
clients that tests use without servers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from ....lanes.deadlines import deadline_in, seconds_until
from ....schemas.accounts import Account
from ....schemas.commands import (
    Close,
    Command,
    Credit,
    Debit,
    Freeze,
    LimitName,
    OpenAccount,
    Post,
    PostEntry,
    SetLimit,
    Unfreeze,
)
from ....schemas.errors import TransactionNotFound
from ....schemas.results import Result
from ..chunks import generated_key, make_command, reversal_of, valid_account_id
from .hold_methods import AsyncHoldMethods


class AsyncCommandMethods(AsyncHoldMethods):
    """What a client can ask the ledger to do. Every method sends one command."""

    async def open_account(
        self,
        *,
        customer_id: str,
        name: str = "default",
        unit_label: str = "credits",
        initial_balance: int | str = 0,
        overdraft_limit: int | str = 0,
        idempotency_key: str | None = None,
        account_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Account:
        """Open an account and return it as it is now. Without a key, every call is a request of its own.

        With `dry_run` the account is as it would be; unless its key opened it before, there is none of this id yet.

        Raises:
            InvalidCommand: a field breaks its rule; nothing was sent.
            AccountNameTaken: the customer has an open account of this name; `details["account_id"]` says which.
            AccountExists: the given account id is taken.
            IdempotencyKeyMismatch: the key belongs to another request.
            LaneFull, OutcomeUnknown: as for `debit`; the latter also where the account was opened by an earlier call
                and cannot be read.
        """
        command = make_command(
            OpenAccount,
            idempotency_key=idempotency_key or generated_key("open"),
            account_id=account_id,
            customer_id=customer_id,
            name=name,
            unit_label=unit_label,
            initial_balance=initial_balance,
            overdraft_limit=overdraft_limit,
            metadata=metadata,
            callback_url=callback_url,
            dry_run=dry_run,
        )
        return await self._open(command, timeout)

    async def credit(
        self,
        account_id: str,
        amount: int | str,
        *,
        reference: str,
        idempotency_key: str,
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """Add to the account's balance and return the result; raises as `debit` does."""
        command = make_command(
            Credit,
            account_id=account_id,
            amount=amount,
            reference=reference,
            idempotency_key=idempotency_key,
            metadata=metadata,
            callback_url=callback_url,
            dry_run=dry_run,
        )
        return await self._decide(command, timeout)

    async def debit(
        self,
        account_id: str,
        amount: int | str,
        *,
        reference: str,
        idempotency_key: str,
        allow_partial: bool = False,
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """Take from the account's balance and return the result, which is `replayed` if the key was used for it before.

        With `allow_partial` it takes what is available where that is less than the amount, and the result's `shortfall`
        says what is missing; nothing available is rejected as InsufficientBalance. With `dry_run`, as of every method
        here, it is decided in its turn and leaves nothing: what comes back, or is raised, is what would have been.

        Raises:
            InvalidCommand: a field breaks its rule; nothing was sent.
            Rejected: the ledger decided against it; the subclass says why. The key keeps this answer for ever.
            LaneFull: the account's lane is at its limit and accepted nothing.
            OutcomeUnknown: no result within `timeout` seconds (else the setting's); its `ticket` can be asked again,
                or is None when not even the acceptance is known. Sending the same again is always safe.
            CommandDeadLettered: it could not be decided; an operator sees it.
        """
        command = make_command(
            Debit,
            account_id=account_id,
            amount=amount,
            reference=reference,
            idempotency_key=idempotency_key,
            allow_partial=allow_partial,
            metadata=metadata,
            callback_url=callback_url,
            dry_run=dry_run,
        )
        return await self._decide(command, timeout)

    async def post(
        self,
        entries: Iterable[PostEntry | Mapping[str, Any]],
        *,
        reference: str,
        idempotency_key: str,
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """Move amounts between accounts of the store, all or nothing, in the order given; raises as `debit` does.

        An entry names `account_id`, `side` ("debit" or "credit") and `amount`; the result is that of the first one.

        Raises:
            UnbalancedTransaction: the debits do not equal the credits.
        """
        command = make_command(
            Post,
            entries=tuple(entries),
            reference=reference,
            idempotency_key=idempotency_key,
            metadata=metadata,
            callback_url=callback_url,
            dry_run=dry_run,
        )
        return await self._decide(command, timeout)

    async def reverse(
        self,
        account_id: str,
        transaction_id: str,
        amount: int | str | None = None,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """Undo a transaction of the account and return the result; raises as `debit` does.

        Without an amount all that is left of it is undone, once, and no key is needed; of a transaction of several
        entries all of them, whichever of its accounts is named. With an amount so much of a transaction of one entry is
        undone, under an idempotency key of its own, as often as there is something left.

        Raises:
            TransactionNotFound: the account has no such transaction.
            ReversalNotReversible: the transaction is a reversal.
            AlreadyReversed: nothing is left of it.
            ReversalExceedsOriginal: the amount is more than is left; `details["remaining"]` says how much that is.
            ReversalNotDivisible: there is an amount, and the transaction has several entries.
        """
        command = reversal_of(valid_account_id(account_id), transaction_id, amount, idempotency_key, dry_run=dry_run)
        # Decided where the transaction was. Only the ledger knows whether this account is another one of it.
        deadline = deadline_in(seconds := self._timeout(timeout))
        if command.account_id != account_id and not await self._touches(transaction_id, account_id, seconds):
            raise TransactionNotFound(details={"account_id": account_id, "transaction_id": transaction_id})
        return await self._decide(command, seconds_until(deadline))

    async def freeze(
        self,
        account_id: str,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Account:
        """Stop all movement on the account and return it; raises as `debit` does."""
        key = idempotency_key or generated_key("freeze")
        command = make_command(Freeze, account_id=account_id, idempotency_key=key, dry_run=dry_run)
        return await self._change(command, timeout)

    async def unfreeze(
        self,
        account_id: str,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Account:
        """Let a frozen account move again and return it; raises as `debit` does, and AccountNotFrozen."""
        key = idempotency_key or generated_key("unfreeze")
        command = make_command(Unfreeze, account_id=account_id, idempotency_key=key, dry_run=dry_run)
        return await self._change(command, timeout)

    async def close_account(
        self,
        account_id: str,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Account:
        """Close the account for good and return it; raises as `debit` does.

        Raises:
            AccountOverdrawn: its balance is below zero.
            AccountHasHolds: holds are open on it.
        """
        key = idempotency_key or generated_key("close")
        command = make_command(Close, account_id=account_id, idempotency_key=key, dry_run=dry_run)
        return await self._change(command, timeout)

    async def set_limit(
        self,
        account_id: str,
        limit: LimitName,
        amount: int | str | None,
        *,
        idempotency_key: str | None = None,
        callback_url: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Account:
        """Set a limit of the account, or take it away with None, and return it; raises as `debit` does.

        `credit_limit`: how far below zero it may be taken. `max_balance`: what no credit may take the balance above.
        `low_balance`: falling below it is sent to webhooks as `balance.low`. Without a key, every call is a request of
        its own.

        Raises:
            CreditLimitInUse: more of the credit limit is used; `details["used"]` says how much.
            AccountClosed: nothing moves on it any more. A frozen one's limits can be set.
        """
        command = make_command(
            SetLimit,
            account_id=account_id,
            limit=limit,
            amount=amount,
            idempotency_key=idempotency_key or generated_key("set_limit"),
            callback_url=callback_url,
            dry_run=dry_run,
        )
        return await self._change(command, timeout)

    async def set_low_balance(self, account_id: str, threshold: int | str | None) -> Account:
        """Have webhooks sent a `balance.low` when the account falls below this balance; None: never. Return it.

        It is `set_limit` of `low_balance`, and raises as that.
        """
        return await self.set_limit(account_id, "low_balance", threshold)

    @abstractmethod
    async def _change(self, command: Command, timeout: float | None) -> Account:
        """Send the command and return the account as it is afterwards."""

    @abstractmethod
    async def _open(self, command: OpenAccount, timeout: float | None) -> Account:
        """Send the command and return the account that it has opened."""

    @abstractmethod
    async def _touches(self, transaction_id: str, account_id: str, seconds: float) -> bool:
        """Tell whether an entry of the transaction is on the account."""

    @abstractmethod
    def _timeout(self, timeout: float | None) -> float:
        """Return how long may be waited, in seconds, where a call says this."""
