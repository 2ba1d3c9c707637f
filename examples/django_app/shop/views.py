"""What customers ask for, over HTTP."""

import logging
import re

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from pydantic import BaseModel, Field, ValidationError

from creditlane import CreditlaneError

from .models import Customer, hash_of
from .selling import buy, refund

KEY = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
REPEAT = {"Retry-After": "1"}

logger = logging.getLogger(__name__)


class Question(BaseModel):
    """The body of a request."""

    question: str = Field(min_length=1, max_length=1_000)


def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> HttpResponse:
    return JsonResponse({"detail": message}, status=status, headers=headers)


@csrf_exempt  # no browser sends a token by itself
@require_POST
@transaction.non_atomic_requests  # under ATOMIC_REQUESTS the commit would come after the answer
def answers(request: HttpRequest) -> HttpResponse:
    """Answer a question of the customer whose token it is, which costs five credits."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    customer = Customer.objects.filter(token_hash=hash_of(token)).first() if scheme.lower() == "bearer" else None
    if customer is None:
        return refuse(401, "Sign up, and send your token.", {"WWW-Authenticate": "Bearer"})
    key = request.headers.get("Idempotency-Key", "")
    if not KEY.fullmatch(key):
        return refuse(400, "Send an Idempotency-Key of 1 to 200 letters, digits and _.:-")
    try:
        question = Question.model_validate_json(request.body).question
    except ValidationError:
        return refuse(400, 'Send JSON like {"question": "Why?"}')
    try:
        return answer(customer.account_id, key, question)
    except CreditlaneError as error:  # unreachable, too busy, or too slow
        logger.warning("no answer of the ledger: %s", error)
        return refuse(503, "Not now; repeat this request under the same key, and it is charged once.", REPEAT)


def answer(account_id: str, key: str, question: str) -> HttpResponse:
    """Return the first answer to this key, which this request or an earlier one has got."""
    with transaction.atomic(durable=True):
        purchase = buy(account_id, key, question)
        # Whatever else the request writes stands or falls with the purchase.
    if purchase.request_hash != hash_of(question):
        return refuse(422, "This Idempotency-Key was used for another request; send a new one.")
    if purchase.refund_due:
        refund(purchase)
    if purchase.status is None:
        return refuse(409, "The first request is not done yet; repeat this one.", REPEAT)
    return JsonResponse(purchase.body, status=purchase.status)


urlpatterns = [path("answers", answers)]
