"""Take credits for every request of a Django project, here in one file: the price is a decorator of the view.

creditlane up                                                # in another terminal
eval "$(creditlane env --export)"; python examples/django_app.py runserver 8080
curl -X POST localhost:8080/answers -H "X-Account: cca_…" -H "Idempotency-Key: 1"
"""

import secrets
import sys
from collections.abc import Callable
from functools import cache, wraps

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from creditlane import Client, InsufficientBalance, Rejected, Result

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, SECRET_KEY=secrets.token_hex(), ALLOWED_HOSTS=["localhost", "testserver"])


@cache
def ledger() -> Client:
    """Return the client that all threads share; it connects at the first request, after any fork."""
    return Client.from_env()


def price(units: int) -> Callable[[Callable[[HttpRequest, Result], HttpResponse]], Callable[..., HttpResponse]]:
    """Take the units before the view runs. A repeated request is charged once."""

    def charging(view: Callable[[HttpRequest, Result], HttpResponse]) -> Callable[..., HttpResponse]:
        @wraps(view)
        def charge_and_view(request: HttpRequest) -> HttpResponse:
            account, key = request.headers["X-Account"], request.headers["Idempotency-Key"]
            try:
                return view(request, ledger().debit(account, units, reference=request.path, idempotency_key=key))
            except InsufficientBalance as error:
                return HttpResponse(error.message, status=402)
            except Rejected as error:
                return HttpResponse(error.message, status=409)

        return charge_and_view

    return charging


@csrf_exempt
@require_POST
@price(5)
def answer(_request: HttpRequest, charged: Result) -> HttpResponse:
    """Do what is worth five credits."""
    return JsonResponse({"answer": 42, "credits_left": charged.balance})


urlpatterns = [path("answers", answer)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
