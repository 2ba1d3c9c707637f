"""How the asyncio client gives a customer one account of a name, whoever else asks for it at the same time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from ....lanes.deadlines import deadline_in, rest_of, seconds_until
from ....schemas.accounts import Account
from ....schemas.commands import OpenAccount
from ....schemas.errors import AccountNameTaken
from ..chunks import generated_key, make_command
from .command_methods import AsyncCommandMethods

#: How often an account is looked for, and opened if there is none, where others open and close it meanwhile.
ENSURE_ATTEMPTS = 3


class AsyncEnsureAccount(AsyncCommandMethods):
    """What a client does in more than one step: it looks for an account, and opens it if there is none."""

    async def ensure_account(
        self,
        *,
        customer_id: str,
        name: str = "default",
        unit_label: str = "credits",
        initial_balance: int | str = 0,
        overdraft_limit: int | str = 0,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Account:
        """Return the customer's account of this name, opened if there is none that is not closed.

        However often it is called, and from however many processes at once, one account is opened. Everything but
        customer and name counts for the one that opens it: whoever finds an account gets it as it is, frozen too.

        Raises:
            AccountNameTaken: others go on opening and closing accounts of this name.
            InvalidCommand, LaneFull, OutcomeUnknown: as for `open_account`; calling it again is always safe.
        """
        deadline = deadline_in(self._timeout(timeout))
        attempts_left = ENSURE_ATTEMPTS
        while True:
            command = make_command(
                OpenAccount,
                # Of its own each time: a key that was refused once, or whose account is closed, opens nothing any more.
                idempotency_key=generated_key("open"),
                customer_id=customer_id,
                name=name,
                unit_label=unit_label,
                initial_balance=initial_balance,
                overdraft_limit=overdraft_limit,
                metadata=metadata,
            )
            found = await self._open_account_of(customer_id, name, rest_of(deadline))
            if found is not None:
                return found
            try:
                return await self._open(command, seconds_until(deadline))
            except AccountNameTaken:
                attempts_left -= 1
                if not attempts_left:
                    raise

    @abstractmethod
    async def _open_account_of(self, customer_id: str, name: str, seconds: float) -> Account | None:
        """Return the customer's account of this name that is not closed, read within so many seconds; None: none."""
