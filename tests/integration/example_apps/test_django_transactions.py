"""What is bought in a transaction of Django's is charged when that is committed, and not when it is rolled back."""

import importlib
from collections.abc import Iterator

import pytest

from creditlane import Client, Settings

from .conftest import DEADLINE_SECONDS, App, django_app


@pytest.fixture
def shop(app_environment: pytest.MonkeyPatch) -> Iterator[App]:
    yield from django_app(app_environment)


def test_a_purchase_is_charged_after_the_commit_and_never_after_a_rollback(
    shop: App, settings: Settings, running_worker: object
) -> None:
    from django.db import transaction

    assert running_worker
    selling, models = importlib.import_module("shop.selling"), importlib.import_module("shop.models")
    shop.sign_up("ada")
    account_id = models.Customer.objects.get(name="ada").account_id

    def undecided() -> None:
        with transaction.atomic():
            selling.buy(account_id, "1", "Why?")
            raise ZeroDivisionError

    with Client(settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})) as ledger:
        with pytest.raises(ZeroDivisionError):
            undecided()
        rolled_back = ledger.balance(account_id), models.Purchase.objects.count()
        with transaction.atomic():
            purchase = selling.buy(account_id, "1", "Why?")
            uncommitted = ledger.balance(account_id)
        committed = ledger.balance(account_id)

    assert rolled_back == (20, 0)
    assert (uncommitted, committed) == (20, 15)
    assert purchase.status == 200
