"""Sell by the piece in a FastAPI app: who sends a request is charged once, and every repeat gets the first answer.

pip install 'creditlane[api]'                                # which brings FastAPI and uvicorn
creditlane up                                                # in another terminal
eval "$(creditlane env --export)"
TOKEN=$(python examples/fastapi_app.py sign-up ada)          # a customer with 20 credits
uvicorn --app-dir examples fastapi_app:app --port 8080       # and every minute: python examples/fastapi_app.py settle
curl localhost:8080/answers -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: 1" \
  -H "Content-Type: application/json" -d '{"question": "Why?"}'
"""

import asyncio
import logging
import sys
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from purchases import FAILED, FAILED_STATUS, Purchase, Purchases, hash_of
from pydantic import BaseModel, Field

from creditlane import AsyncClient, CreditlaneError, InsufficientBalance, Rejected, Result

PRICE = 5
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,200}$")]
REPEAT = {"Retry-After": "1"}

logger = logging.getLogger(__name__)


class Question(BaseModel):
    """The body of a request."""

    question: str = Field(min_length=1, max_length=1_000)


async def work(question: str) -> str:
    """Do what is worth the price. Like a model that is asked over the network it takes its time, and may fail."""
    return f"{question} 42."


class Shop:
    """Charges, works, keeps the answer, gives back. Where a process dies in between, a repeat or `settle` goes on."""

    def __init__(self, ledger: AsyncClient) -> None:
        self.ledger = ledger
        self.purchases = Purchases()

    async def sign_up(self, customer: str) -> str:
        """Return a new token for the customer, who gets an account and its first credits once."""
        key = f"sign-up:{customer}"
        account = await self.ledger.open_account(customer_id=customer, initial_balance=20, idempotency_key=key)
        return self.purchases.add_customer(customer, account.id)

    async def charge(self, purchase: Purchase) -> Result:
        """Take the price once, however often it is called, and return the first result.

        What belongs to a key must not change: the price is the purchase's, not that of today.
        """
        key = purchase.ledger_key
        return await self.ledger.debit(purchase.account_id, purchase.price, reference="answer", idempotency_key=key)

    async def sell(self, purchase: Purchase, question: str) -> Purchase:
        """Charge and work, and return the purchase with its answer."""
        try:
            charge = await self.charge(purchase)
        except Rejected as error:  # and so for ever under this key
            status = 402 if isinstance(error, InsufficientBalance) else 403
            return await to_thread(self.purchases.keep, purchase, status, {"detail": error.message})
        except CreditlaneError:  # charged or not: a repeat will know
            await to_thread(self.purchases.release, purchase)
            raise
        try:
            answer = await work(question)
        except Exception:
            logger.exception("what was paid for failed")
            return await to_thread(self.purchases.keep, purchase, FAILED_STATUS, FAILED)
        receipt = {"answer": answer, "charge": charge.transaction_id, "credits_left": charge.balance}
        return await to_thread(self.purchases.keep, purchase, 200, receipt)

    async def refund(self, purchase: Purchase) -> None:
        """Give back what was charged, if anything was; once, however often it is called."""
        try:
            charge = await self.charge(purchase)  # the first result again
        except Rejected:
            charge = None  # nothing was, and under this key nothing will be
        if charge is not None:
            await self.ledger.reverse(purchase.account_id, str(charge.transaction_id))
        await to_thread(self.purchases.refunded, purchase)

    async def settle(self) -> None:
        """Give back what requests left behind that nobody repeated."""
        for purchase in self.purchases.refunds_due():
            try:
                await self.refund(purchase)
            except CreditlaneError as error:
                logger.warning("the refund of %s stays due: %s", purchase.ledger_key, error)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Shop]]:
    """Share one client among all requests; it connects at the first one."""
    async with AsyncClient.from_env() as ledger:
        yield {"shop": Shop(ledger)}


app = FastAPI(lifespan=lifespan)


def shop_of(request: Request) -> Shop:
    shop: Shop = request.state.shop
    return shop


async def account_of(
    shop: Annotated[Shop, Depends(shop_of)],
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> str:
    """Return the account of the customer who sent the request: never one that the request names."""
    account_id = await to_thread(shop.purchases.account_of, sent.credentials) if sent else None
    if account_id is None:
        raise HTTPException(401, "Sign up, and send your token.", {"WWW-Authenticate": "Bearer"})
    return account_id


@app.post("/answers")
async def answers(
    shop: Annotated[Shop, Depends(shop_of)],
    account_id: Annotated[str, Depends(account_of)],
    idempotency_key: Annotated[list[Key], Header(max_length=1)],
    body: Question,
) -> Response:
    """Answer a question, which costs five credits."""
    (key,) = idempotency_key
    purchase, is_ours = await to_thread(shop.purchases.claim, account_id, key, body.question, PRICE)
    if purchase.request_hash != hash_of(body.question):
        raise HTTPException(422, "This Idempotency-Key was used for another request; send a new one.")
    if is_ours:
        purchase = await shop.sell(purchase, body.question)
    if purchase.refund_due:
        await shop.refund(purchase)
    if purchase.status is None:
        raise HTTPException(409, "The first request is not done yet; repeat this one.", REPEAT)
    return Response(purchase.body, purchase.status, media_type="application/json")


@app.exception_handler(CreditlaneError)
async def not_decided(_request: Request, error: CreditlaneError) -> Response:
    """Answer what the ledger did not: unreachable, too busy, or too slow."""
    logger.warning("no answer of the ledger: %s", error)
    message = "Not now; repeat this request under the same key, and it is charged once."
    return JSONResponse({"detail": message}, 503, REPEAT)


@app.exception_handler(RequestValidationError)
async def malformed(_request: Request, error: RequestValidationError) -> Response:
    """Say what is wrong, without repeating what was sent: not all of it can be encoded."""
    return JSONResponse({"detail": [{"loc": item["loc"], "msg": item["msg"]} for item in error.errors()]}, 422)


async def main(arguments: list[str]) -> None:
    """Do what is done beside the requests."""
    async with AsyncClient.from_env() as ledger:
        match arguments:
            case ["sign-up", customer]:
                print(await Shop(ledger).sign_up(customer))
            case ["settle"]:
                await Shop(ledger).settle()
            case _:
                sys.exit("usage: fastapi_app.py sign-up CUSTOMER | settle")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
