"""The methods of the asyncio client by which a part of a balance is set aside, and taken or given back later.

How a command is sent and waited for is the client's business, or that of the clients that tests use without servers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime

from ....schemas.commands import Capture, Command, Extend, Hold, Void
from ....schemas.holds import AccountHold
from ....schemas.results import Result
from ..chunks import generated_key, make_command


class AsyncHoldMethods(ABC):
    """What a client can ask the ledger to do with holds. Every method sends one command."""

    async def hold(
        self,
        account_id: str,
        amount: int | str,
        *,
        reference: str,
        idempotency_key: str,
        expires_in_seconds: int | None = None,
        expires_at: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> AccountHold:
        """Set a part of the balance aside, so that nothing else can take it, and return the hold.

        It ends by itself after so many seconds, or at the moment; without either after seven days. With `dry_run` the
        hold is as it would be, and has no id. Raises as `debit` does.

        Raises:
            InsufficientBalance: so much is not available.
            TooManyHolds: the account has 1,000 open holds.
            ExpiresAtOutOfRange: when it is decided, the moment is past, or more than 366 days away.
        """
        command = make_command(
            Hold,
            account_id=account_id,
            amount=amount,
            reference=reference,
            idempotency_key=idempotency_key,
            expires_in_seconds=expires_in_seconds,
            expires_at=expires_at,
            metadata=metadata,
            callback_url=callback_url,
            dry_run=dry_run,
        )
        return await self._hold(command, timeout)

    async def capture(
        self,
        hold_id: str,
        amount: int | str | None = None,
        *,
        idempotency_key: str,
        final: bool = True,
        allow_overage: bool = False,
        reference: str | None = None,
        metadata: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """Debit what a hold has set aside, all of it or this amount, and return the result; raises as `debit` does.

        What a final capture leaves is released; without `final` the hold stays open until nothing is left. The
        reference is the hold's if none is given.

        Raises:
            CaptureExceedsHold: so much is not left, and `allow_overage` is not given.
            InsufficientBalance: with `allow_overage`: what goes beyond the hold is not available.
            HoldNotFound: the store has no such hold.
            HoldCaptured, HoldVoided, HoldExpired: it has ended, in this way.
        """
        command = make_command(
            Capture,
            hold_id=hold_id,
            amount=amount,
            final=final,
            allow_overage=allow_overage,
            reference=reference,
            idempotency_key=idempotency_key,
            metadata=metadata,
            callback_url=callback_url,
            dry_run=dry_run,
        )
        return await self._decide(command, timeout)

    async def void(
        self,
        hold_id: str,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> AccountHold:
        """Release what is left of a hold and return it; works on a frozen account too. Raises as `debit` does.

        Raises:
            HoldNotFound, HoldCaptured, HoldVoided, HoldExpired: as for `capture`.
        """
        key = idempotency_key or generated_key("void")
        command = make_command(Void, hold_id=hold_id, idempotency_key=key, dry_run=dry_run)
        return await self._hold(command, timeout)

    async def extend(
        self,
        hold_id: str,
        *,
        expires_in_seconds: int | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> AccountHold:
        """Move the end of a hold, to later or to earlier, and return the hold; raises as `debit` does.

        The seconds count from when this is decided.

        Raises:
            ExpiresAtOutOfRange: as for `hold`.
            HoldNotFound, HoldCaptured, HoldVoided, HoldExpired: as for `capture`.
        """
        command = make_command(
            Extend,
            hold_id=hold_id,
            expires_in_seconds=expires_in_seconds,
            expires_at=expires_at,
            idempotency_key=idempotency_key or generated_key("extend"),
            dry_run=dry_run,
        )
        return await self._hold(command, timeout)

    @abstractmethod
    async def _decide(self, command: Command, timeout: float | None) -> Result:
        """Send the command and return its result; raises what `debit` does."""

    @abstractmethod
    async def _hold(self, command: Command, timeout: float | None) -> AccountHold:
        """Send the command and return the hold that it made, or was about, as it is afterwards."""
