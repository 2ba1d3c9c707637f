"""Every error Creditlane raises, in one tree.

CreditlaneError
├── InvalidCommand                 validation_error: a field breaks a rule; nothing was sent
├── Rejected                       the ledger decided against the command; its key is used up for ever
│   ├── AccountNotFound            account_not_found
│   ├── AccountExists              account_exists
│   ├── AccountNameTaken           account_name_taken
│   ├── AccountFrozen              account_frozen
│   ├── AccountNotFrozen           account_not_frozen
│   ├── AccountClosed              account_closed
│   ├── AccountOverdrawn           account_overdrawn
│   ├── IdempotencyKeyMismatch     idempotency_key_mismatch
│   ├── InsufficientBalance        insufficient_balance
│   ├── UnbalancedTransaction      unbalanced_transaction
│   ├── TransactionNotFound        transaction_not_found
│   ├── ReversalNotReversible      reversal_not_reversible
│   ├── AccountHasHolds            account_has_holds
│   ├── TooManyHolds               too_many_holds
│   ├── ExpiresAtOutOfRange        expires_at_out_of_range
│   ├── HoldNotFound               hold_not_found
│   ├── HoldCaptured               hold_captured
│   ├── HoldVoided                 hold_voided
│   ├── HoldExpired                hold_expired
│   ├── CaptureExceedsHold         capture_exceeds_hold
│   ├── ReversalNotDivisible       reversal_not_divisible
│   ├── AlreadyReversed            already_reversed
│   ├── ReversalExceedsOriginal    reversal_exceeds_original
│   ├── CreditLimitInUse           credit_limit_in_use
│   └── MaxBalanceExceeded         max_balance_exceeded
├── CommandDeadLettered            dead_lettered: taken off its lane undecided; an operator can replay it
├── UpgradeUnfinished              upgrade_unfinished: older workers are still there; nothing was done or remembered
├── LaneFull                       lane_full: the lane is at its limit; nothing was accepted
├── OutcomeUnknown                 timeout: no result within the deadline; the command may still apply
├── Unauthorized                   unauthorized: no API key, or none that works
├── RateLimited                    rate_limited: too many requests; nothing was accepted
├── TooLarge                       too_large: the body of a request exceeds the limit
├── TooSlow                        too_slow: the body of a request did not come in time
├── UnsupportedEncoding            unsupported_encoding: the body of a request is compressed
├── Unavailable                    unavailable: Redis or Postgres cannot be reached
├── UndecodableCommand             undecodable: bytes on a lane that are no command of a known version
├── TargetRefused                  target_refused: webhooks may not go to this URL or address
├── SecretUnreadable               secret_unreadable: a webhook's secret is sealed under a key that this process lacks
├── DeliveriesExhausted            deliveries_exhausted: every attempt to deliver these events has failed
├── JobRefused                     job_refused: a job in RQ is none of Creditlane's
├── WebhookNotFound                webhook_not_found: the store has no such endpoint, or the endpoint no such event
├── WebhookDisabled                webhook_disabled: nothing is sent to the endpoint until it is enabled
├── WebhookLimitReached            webhook_limit_reached: the store has as many endpoints as it may have
├── LeaseLost                      lease_lost: another process owns the partition now
└── ConfigurationError             configuration_error: this process cannot start as it is set up
    ├── PartitionMismatch
    └── NotMigrated
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .redaction import redacted


class CreditlaneError(Exception):
    """Something went wrong in Creditlane.

    The docstring of each class is its default message. ``code`` is stable and meant for programs.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str | None = None) -> None:
        # Messages repeat what drivers say, and those repeat what they were given.
        words = redacted(message) if message else (type(self).__doc__ or "").strip().splitlines()[0]
        self.message: str = words
        super().__init__(self.message)


class InvalidCommand(CreditlaneError, ValueError):
    """The command breaks a rule of its fields."""

    code = "validation_error"

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Rejected(CreditlaneError):
    """The ledger rejected the command; its idempotency key keeps this answer for ever."""

    code = "rejected"

    def __init__(self, message: str | None = None, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = dict(details or {})


class AccountNotFound(Rejected):
    """There is no such account in this store; open it first, or check the id."""

    code = "account_not_found"


class AccountExists(Rejected):
    """An account with this id is open already; leave the id out to get a new one."""

    code = "account_exists"


class AccountNameTaken(Rejected):
    """The customer has an open account of this name; choose another name or close that account."""

    code = "account_name_taken"


class AccountFrozen(Rejected):
    """The account is frozen; unfreeze it first."""

    code = "account_frozen"


class AccountNotFrozen(Rejected):
    """The account is not frozen, so there is nothing to unfreeze."""

    code = "account_not_frozen"


class AccountClosed(Rejected):
    """The account is closed, which is final; open a new one."""

    code = "account_closed"


class AccountOverdrawn(Rejected):
    """The account is below zero, and closing it would leave that for ever; credit what it lacks, then close it."""

    code = "account_overdrawn"


class IdempotencyKeyMismatch(Rejected):
    """The idempotency key was used before for a different request; send a new key."""

    code = "idempotency_key_mismatch"


class InsufficientBalance(Rejected):
    """The balance does not cover the amount; add credits, or debit less under a new key."""

    code = "insufficient_balance"


class UnbalancedTransaction(Rejected):
    """The debits of the transaction do not equal its credits; correct the amounts and send a new key."""

    code = "unbalanced_transaction"


class TransactionNotFound(Rejected):
    """There is no such transaction on this account."""

    code = "transaction_not_found"


class ReversalNotReversible(Rejected):
    """The transaction is itself a reversal, and a reversal cannot be reversed."""

    code = "reversal_not_reversible"


class AccountHasHolds(Rejected):
    """The account has open holds; capture or void them, then close it."""

    code = "account_has_holds"


class TooManyHolds(Rejected):
    """The account has as many open holds as it may have; capture or void some first."""

    code = "too_many_holds"


class ExpiresAtOutOfRange(Rejected):
    """The end of the hold is not within 366 days after it was decided; choose another one under a new key."""

    code = "expires_at_out_of_range"


class HoldNotFound(Rejected):
    """There is no such hold in this store; check the id."""

    code = "hold_not_found"


class HoldCaptured(Rejected):
    """The hold is used up: it was captured for the last time."""

    code = "hold_captured"


class HoldVoided(Rejected):
    """The hold was voided, which is final; hold the amount again."""

    code = "hold_voided"


class HoldExpired(Rejected):
    """The hold has expired, and what was left of it is released; hold the amount again, or debit it."""

    code = "hold_expired"


class CaptureExceedsHold(Rejected):
    """The capture is above what is left of the hold; capture less, or allow the overage."""

    code = "capture_exceeds_hold"


class ReversalNotDivisible(Rejected):
    """The transaction has several entries, of which no part can be reversed; leave the amount out, or post another."""

    code = "reversal_not_divisible"


class AlreadyReversed(Rejected):
    """The transaction is reversed already, and nothing is left of it."""

    code = "already_reversed"


class ReversalExceedsOriginal(Rejected):
    """The amount is more than is left of the transaction; reverse less, or all that is left by leaving it out."""

    code = "reversal_exceeds_original"


class CreditLimitInUse(Rejected):
    """The account uses more of its credit limit than that; set a higher one, or credit what it lacks first."""

    code = "credit_limit_in_use"


class MaxBalanceExceeded(Rejected):
    """The credit would take the account above its maximum balance; credit less under a new key, or raise that."""

    code = "max_balance_exceeded"


class CommandDeadLettered(CreditlaneError):
    """The command could not be decided and waits in the dead letters; an operator can replay it."""

    code = "dead_lettered"


class UpgradeUnfinished(CreditlaneError):
    """Workers of an older release still run; nothing was done: stop them, then send this again under the same key."""

    code = "upgrade_unfinished"


class LaneFull(CreditlaneError):
    """The account's lane is at its limit; nothing was accepted, try again shortly."""

    code = "lane_full"

    def __init__(self, message: str | None = None, *, partition: int | None = None, accepted: int = 0) -> None:
        super().__init__(message)
        self.partition = partition
        #: Commands of the same call that had been accepted before the lane refused.
        self.accepted = accepted


class OutcomeUnknown(CreditlaneError, TimeoutError):
    """No result within the deadline; the command may still apply: ask with its ticket, or send it again as it was.

    Sending it again is safe because of its idempotency key.
    """

    code = "timeout"

    def __init__(self, message: str | None = None, *, ticket: object = None) -> None:
        super().__init__(message)
        #: The `Ticket` to ask with; None when not even the acceptance of the command is known.
        self.ticket = ticket


class Unauthorized(CreditlaneError):
    """The header x-api-key is missing or holds no key that works; `creditlane keys create` makes one."""

    code = "unauthorized"


class RateLimited(CreditlaneError):
    """Too many requests; nothing was accepted, send the same again after the time in Retry-After."""

    code = "rate_limited"

    def __init__(self, message: str | None = None, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        #: When a request is worth trying again, in seconds.
        self.retry_after = retry_after


class TooLarge(CreditlaneError):
    """The body is larger than this server takes; send less at once, or use the batch endpoint."""

    code = "too_large"


class TooSlow(CreditlaneError):
    """The body did not come in time; nothing was accepted, send the request again."""

    code = "too_slow"


class UnsupportedEncoding(CreditlaneError):
    """The body is compressed; send it as it is, without Content-Encoding."""

    code = "unsupported_encoding"


class Unavailable(CreditlaneError, ConnectionError):
    """Redis or Postgres cannot be reached."""

    code = "unavailable"


class UndecodableCommand(CreditlaneError):
    """These bytes are no command of a version this worker knows."""

    code = "undecodable"


class TargetRefused(CreditlaneError):
    """The target is refused, or its name cannot be resolved: webhooks go by https to public addresses.

    That is all that its owner reads, whatever the reason: how the operator's servers resolve a name is nobody else's.
    """

    code = "target_refused"

    def __init__(self, detail: str = "") -> None:
        super().__init__()
        #: What was refused and why, for the operator alone.
        self.detail = detail


class SecretUnreadable(CreditlaneError):
    """The secret is none, or its key is not among CREDITLANE_WEBHOOK_SECRET_KEYS: add it, or replace the secret."""

    code = "secret_unreadable"


class DeliveriesExhausted(CreditlaneError):
    """Every attempt to deliver these events has failed; requeue this job to have them sent again."""

    code = "deliveries_exhausted"


class JobRefused(CreditlaneError):
    """This job is none of Creditlane's and was not done; find out who can write to Redis."""

    code = "job_refused"


class WebhookNotFound(CreditlaneError):
    """The store has no such webhook endpoint, or the endpoint has no such event; check the ids."""

    code = "webhook_not_found"


class WebhookDisabled(CreditlaneError):
    """The endpoint is disabled, so nothing is sent to it; enable it first."""

    code = "webhook_disabled"


class WebhookLimitReached(CreditlaneError):
    """The store has as many webhook endpoints as it may have; delete one first."""

    code = "webhook_limit_reached"


class LeaseLost(CreditlaneError):
    """Another worker process owns the partition now."""

    code = "lease_lost"


class ConfigurationError(CreditlaneError):
    """Creditlane is not set up in a way that lets this process start."""

    code = "configuration_error"


class PartitionMismatch(ConfigurationError):
    """The configured number of partitions differs from the one the database was initialised with."""


class NotMigrated(ConfigurationError):
    """The database has not the current schema; run `creditlane migrate`."""


#: Every code with which the ledger rejects a command, and the error a waiting caller gets for it.
REJECTIONS: dict[str, type[Rejected]] = {
    error.code: error
    for error in (
        AccountNotFound,
        AccountExists,
        AccountNameTaken,
        AccountFrozen,
        AccountNotFrozen,
        AccountClosed,
        AccountOverdrawn,
        IdempotencyKeyMismatch,
        InsufficientBalance,
        UnbalancedTransaction,
        TransactionNotFound,
        ReversalNotReversible,
        AccountHasHolds,
        TooManyHolds,
        ExpiresAtOutOfRange,
        HoldNotFound,
        HoldCaptured,
        HoldVoided,
        HoldExpired,
        CaptureExceedsHold,
        ReversalNotDivisible,
        AlreadyReversed,
        ReversalExceedsOriginal,
        CreditLimitInUse,
        MaxBalanceExceeded,
    )
}
