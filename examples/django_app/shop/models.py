"""Customers, and what they have bought."""

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256

from django.db import models
from django.utils import timezone

#: Longer than charge and work together may take: a repeat that comes later takes over from a process that died.
CLAIM = timedelta(minutes=1)
#: After so long nobody is expected to repeat the request any more: what it may have been charged is given back.
ABANDONED = timedelta(hours=1)
#: The answer of what was charged and did not come about.
FAILED_STATUS = 502
FAILED = {"detail": "This failed and costs nothing. Try again under a new key."}


class Customer(models.Model):
    """Whose account it is. Where customers are Django's users, the account is a field of theirs."""

    name = models.CharField(max_length=200, unique=True)
    account_id = models.CharField(max_length=60)
    token_hash = models.CharField(max_length=64, unique=True)

    def __str__(self) -> str:
        return self.name


class Purchase(models.Model):
    """What was asked for under a key: there before anything is charged, and keeps the first answer for ever."""

    account_id = models.CharField(max_length=60)
    key = models.CharField(max_length=200)
    request_hash = models.CharField(max_length=64)
    #: What it costs, also if the price changes before a repeat.
    price = models.IntegerField()
    claimed_until = models.DateTimeField()
    #: HTTP status and body of the first answer; None until there is one.
    status = models.IntegerField(null=True)
    body = models.JSONField(null=True)
    refund_due = models.BooleanField(default=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["account_id", "key"], name="one_purchase_a_key"),)

    def __str__(self) -> str:
        return self.ledger_key

    @property
    def ledger_key(self) -> str:
        """The key of its charge. In the ledger the keys of all customers meet; no account id contains a colon."""
        return f"{self.account_id}:{self.key}"

    @classmethod
    def claim(cls, account_id: str, key: str, request: str, price: int) -> tuple["Purchase", bool]:
        """Return the purchase, and whether the caller is to see to it: one caller at a time is."""
        now = timezone.now()
        new = {"request_hash": hash_of(request), "price": price, "claimed_until": now + CLAIM}
        purchase, is_new = cls.objects.get_or_create(account_id=account_id, key=key, defaults=new)
        lapsed = cls.objects.filter(pk=purchase.pk, status=None, request_hash=hash_of(request), claimed_until__lte=now)
        return purchase, is_new or lapsed.update(claimed_until=now + CLAIM) == 1

    def release(self) -> None:
        """Let the next repeat see to it at once."""
        Purchase.objects.filter(pk=self.pk).update(claimed_until=timezone.now())

    def keep(self, status: int, body: Mapping[str, object]) -> None:
        """Make this the answer, unless there is one, and read the answer that it has."""
        unanswered = Purchase.objects.filter(pk=self.pk, status=None)
        unanswered.update(status=status, body=body, refund_due=status == FAILED_STATUS)
        self.refresh_from_db()

    @classmethod
    def refunds_due(cls) -> list["Purchase"]:
        """Return the purchases of which the charge is to be given back; those that were abandoned have failed."""
        abandoned = cls.objects.filter(status=None, claimed_until__lt=timezone.now() - ABANDONED)
        abandoned.update(status=FAILED_STATUS, body=FAILED, refund_due=True)
        return list(cls.objects.filter(refund_due=True))

    def refunded(self) -> None:
        Purchase.objects.filter(pk=self.pk).update(refund_due=False)


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()
