"""The body of what became of a command."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from .holds import HoldBody
from .ledger import COMMAND_EXAMPLE, AccountBody, ErrorDetailBody, IsDryRun, TransactionBody


class CommandBody(BaseModel):
    """What became of a command: `applied` with what it made or changed, or `rejected` with the error, for ever."""

    object: Literal["command"] = "command"
    id: Annotated[str, Field(examples=[COMMAND_EXAMPLE])]
    status: Literal["queued", "applied", "rejected", "dead_lettered"]
    kind: Annotated[str | None, Field(description="What was asked for.", examples=["debit"])] = None
    transaction: TransactionBody | None = None
    account: AccountBody | None = None
    hold: HoldBody | None = None
    error: ErrorDetailBody | None = None
    dry_run: IsDryRun = None
