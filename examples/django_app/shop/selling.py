"""Charges, works, keeps the answer, gives back. Wherever a process dies in between, a repeat or `settle` goes on."""

import logging
import secrets
from functools import cache, partial

from django.db import transaction

from creditlane import Client, CreditlaneError, InsufficientBalance, Rejected, Result

from .models import FAILED, FAILED_STATUS, Customer, Purchase, hash_of

PRICE = 5

logger = logging.getLogger(__name__)


@cache
def ledger() -> Client:
    """Return the client that all threads share; it connects at the first use, after any fork."""
    return Client.from_env()


def work(question: str) -> str:
    """Do what is worth the price. Like a model that is asked over the network it takes its time, and may fail."""
    return f"{question} 42."


def sign_up(name: str) -> str:
    """Return a new token for the customer, who gets an account and its first credits once."""
    account = ledger().open_account(customer_id=name, initial_balance=20, idempotency_key=f"sign-up:{name}")
    token = secrets.token_urlsafe()
    new = {"account_id": account.id, "token_hash": hash_of(token)}
    Customer.objects.update_or_create(name=name, defaults=new)
    return token


def buy(account_id: str, key: str, question: str) -> Purchase:
    """Make the purchase a part of the caller's transaction: charged once that is committed, and never if it is not."""
    purchase, is_ours = Purchase.claim(account_id, key, question, PRICE)
    if is_ours:
        # A debit in here would outlive a rollback.
        transaction.on_commit(partial(sell, purchase, question))
    return purchase


def charge(purchase: Purchase) -> Result:
    """Take the price once, however often it is called, and return the first result.

    What belongs to a key must not change: the price is the purchase's, not that of today.
    """
    key = purchase.ledger_key
    return ledger().debit(purchase.account_id, purchase.price, reference="answer", idempotency_key=key)


def sell(purchase: Purchase, question: str) -> None:
    """Charge and work, and keep the answer."""
    try:
        charged = charge(purchase)
    except Rejected as error:  # and so for ever under this key
        status = 402 if isinstance(error, InsufficientBalance) else 403
        purchase.keep(status, {"detail": error.message})
        return
    except CreditlaneError:  # charged or not: a repeat will know
        purchase.release()
        raise
    try:
        answer = work(question)
    except Exception:
        logger.exception("what was paid for failed")
        purchase.keep(FAILED_STATUS, FAILED)
    else:
        purchase.keep(200, {"answer": answer, "charge": charged.transaction_id, "credits_left": charged.balance})


def refund(purchase: Purchase) -> None:
    """Give back what was charged, if anything was; once, however often it is called."""
    try:
        charged = charge(purchase)  # the first result again
    except Rejected:
        charged = None  # nothing was, and under this key nothing will be
    if charged is not None:
        ledger().reverse(purchase.account_id, str(charged.transaction_id))
    purchase.refunded()


def settle() -> None:
    """Give back what requests left behind that nobody repeated."""
    for purchase in Purchase.refunds_due():
        try:
            refund(purchase)
        except CreditlaneError as error:
            logger.warning("the refund of %s stays due: %s", purchase, error)
