"""The public face of Creditlane: the client, the commands, their results and the errors."""

from .producer import AsyncClient, Client
from .schemas.accounts import Account, Entry
from .schemas.commands import Close, Command, Credit, Debit, Freeze, OpenAccount, Post, PostEntry, Reverse, Unfreeze
from .schemas.errors import (
    AccountClosed,
    AccountExists,
    AccountFrozen,
    AccountNameTaken,
    AccountNotFound,
    AccountNotFrozen,
    CommandDeadLettered,
    ConfigurationError,
    CreditlaneError,
    IdempotencyKeyMismatch,
    InsufficientBalance,
    InvalidCommand,
    LaneFull,
    OutcomeUnknown,
    Rejected,
    ReversalNotReversible,
    TransactionNotFound,
    Unavailable,
    UnbalancedTransaction,
    WebhookDisabled,
    WebhookLimitReached,
    WebhookNotFound,
)
from .schemas.results import Result
from .schemas.settings import Settings
from .schemas.tickets import Ticket
from .schemas.webhooks import Delivery, Webhook

__version__ = "0.1.0"

__all__ = [
    "Account",
    "AccountClosed",
    "AccountExists",
    "AccountFrozen",
    "AccountNameTaken",
    "AccountNotFound",
    "AccountNotFrozen",
    "AsyncClient",
    "Client",
    "Close",
    "Command",
    "CommandDeadLettered",
    "ConfigurationError",
    "Credit",
    "CreditlaneError",
    "Debit",
    "Delivery",
    "Entry",
    "Freeze",
    "IdempotencyKeyMismatch",
    "InsufficientBalance",
    "InvalidCommand",
    "LaneFull",
    "OpenAccount",
    "OutcomeUnknown",
    "Post",
    "PostEntry",
    "Rejected",
    "Result",
    "ReversalNotReversible",
    "Reverse",
    "Settings",
    "Ticket",
    "TransactionNotFound",
    "Unavailable",
    "UnbalancedTransaction",
    "Unfreeze",
    "Webhook",
    "WebhookDisabled",
    "WebhookLimitReached",
    "WebhookNotFound",
]
