"""The public face of Creditlane: the client, the commands, their results and the errors.

A name is imported when it is first asked for: the command line, which passes through here, has to be there at once, and
most of it needs little of this.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .producer.client._async.client import AsyncClient
    from .producer.client._sync.client import Client
    from .schemas.accounts import Account, BalanceAt, Entry, Transaction
    from .schemas.commands import (
        Capture,
        Close,
        Command,
        Credit,
        Debit,
        Extend,
        Freeze,
        Hold,
        OpenAccount,
        Post,
        PostEntry,
        Reverse,
        SetLimit,
        Unfreeze,
        Void,
    )
    from .schemas.errors import (
        AccountClosed,
        AccountExists,
        AccountFrozen,
        AccountHasHolds,
        AccountNameTaken,
        AccountNotFound,
        AccountNotFrozen,
        AccountOverdrawn,
        AlreadyReversed,
        CaptureExceedsHold,
        CommandDeadLettered,
        ConfigurationError,
        CreditlaneError,
        CreditLimitInUse,
        ExpiresAtOutOfRange,
        HoldCaptured,
        HoldExpired,
        HoldNotFound,
        HoldVoided,
        IdempotencyKeyMismatch,
        InsufficientBalance,
        InvalidCommand,
        LaneFull,
        MaxBalanceExceeded,
        OutcomeUnknown,
        Rejected,
        ReversalExceedsOriginal,
        ReversalNotDivisible,
        ReversalNotReversible,
        TooManyHolds,
        TransactionNotFound,
        Unavailable,
        UnbalancedTransaction,
        UpgradeUnfinished,
        WebhookDisabled,
        WebhookLimitReached,
        WebhookNotFound,
    )
    from .schemas.holds import AccountHold
    from .schemas.results import Result
    from .schemas.settings import Settings
    from .schemas.tickets import Ticket
    from .schemas.webhooks import Delivery, Webhook

#: The one place that says it: pyproject.toml reads it from here.
__version__ = "0.2.0.dev0"

__all__ = [
    "Account",
    "AccountClosed",
    "AccountExists",
    "AccountFrozen",
    "AccountHasHolds",
    "AccountHold",
    "AccountNameTaken",
    "AccountNotFound",
    "AccountNotFrozen",
    "AccountOverdrawn",
    "AlreadyReversed",
    "AsyncClient",
    "BalanceAt",
    "Capture",
    "CaptureExceedsHold",
    "Client",
    "Close",
    "Command",
    "CommandDeadLettered",
    "ConfigurationError",
    "Credit",
    "CreditLimitInUse",
    "CreditlaneError",
    "Debit",
    "Delivery",
    "Entry",
    "ExpiresAtOutOfRange",
    "Extend",
    "Freeze",
    "Hold",
    "HoldCaptured",
    "HoldExpired",
    "HoldNotFound",
    "HoldVoided",
    "IdempotencyKeyMismatch",
    "InsufficientBalance",
    "InvalidCommand",
    "LaneFull",
    "MaxBalanceExceeded",
    "OpenAccount",
    "OutcomeUnknown",
    "Post",
    "PostEntry",
    "Rejected",
    "Result",
    "ReversalExceedsOriginal",
    "ReversalNotDivisible",
    "ReversalNotReversible",
    "Reverse",
    "SetLimit",
    "Settings",
    "Ticket",
    "TooManyHolds",
    "Transaction",
    "TransactionNotFound",
    "Unavailable",
    "UnbalancedTransaction",
    "Unfreeze",
    "UpgradeUnfinished",
    "Void",
    "Webhook",
    "WebhookDisabled",
    "WebhookLimitReached",
    "WebhookNotFound",
]

#: Where each of these names is at home.
_HOMES = {
    name: module
    for module, names in {
        ".producer.client._async.client": ("AsyncClient",),
        ".producer.client._sync.client": ("Client",),
        ".schemas.accounts": ("Account", "BalanceAt", "Entry", "Transaction"),
        ".schemas.commands": (
            "Capture",
            "Close",
            "Command",
            "Credit",
            "Debit",
            "Extend",
            "Freeze",
            "Hold",
            "OpenAccount",
            "Post",
            "PostEntry",
            "Reverse",
            "SetLimit",
            "Unfreeze",
            "Void",
        ),
        ".schemas.errors": (
            "AccountClosed",
            "AccountExists",
            "AccountFrozen",
            "AccountHasHolds",
            "AccountNameTaken",
            "AccountNotFound",
            "AccountNotFrozen",
            "AccountOverdrawn",
            "AlreadyReversed",
            "CaptureExceedsHold",
            "CommandDeadLettered",
            "ConfigurationError",
            "CreditLimitInUse",
            "CreditlaneError",
            "ExpiresAtOutOfRange",
            "HoldCaptured",
            "HoldExpired",
            "HoldNotFound",
            "HoldVoided",
            "IdempotencyKeyMismatch",
            "InsufficientBalance",
            "InvalidCommand",
            "LaneFull",
            "MaxBalanceExceeded",
            "OutcomeUnknown",
            "Rejected",
            "ReversalExceedsOriginal",
            "ReversalNotDivisible",
            "ReversalNotReversible",
            "TooManyHolds",
            "TransactionNotFound",
            "Unavailable",
            "UpgradeUnfinished",
            "UnbalancedTransaction",
            "WebhookDisabled",
            "WebhookLimitReached",
            "WebhookNotFound",
        ),
        ".schemas.holds": ("AccountHold",),
        ".schemas.results": ("Result",),
        ".schemas.settings": ("Settings",),
        ".schemas.tickets": ("Ticket",),
        ".schemas.webhooks": ("Delivery", "Webhook"),
    }.items()
    for name in names
}


if not TYPE_CHECKING:  # or every name would be one

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
