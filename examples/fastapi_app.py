"""Take credits for every request of a FastAPI app: the price is a dependency of the operation.

creditlane up                                                # in another terminal
eval "$(creditlane env --export)"; uvicorn --app-dir examples fastapi_app:app --port 8080
curl -X POST localhost:8080/answers -H "X-Account: cca_…" -H "Idempotency-Key: 1"
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request

from creditlane import AsyncClient, InsufficientBalance, Rejected, Result


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, AsyncClient]]:
    """Share one client among all requests; it connects at the first one."""
    async with AsyncClient.from_env() as ledger:
        yield {"ledger": ledger}


def price(units: int) -> Callable[..., Awaitable[Result]]:
    """Return a dependency that takes the units before the operation runs. A repeated request is charged once."""

    async def take(
        request: Request, x_account: Annotated[str, Header()], idempotency_key: Annotated[str, Header()]
    ) -> Result:
        ledger: AsyncClient = request.state.ledger
        try:
            return await ledger.debit(x_account, units, reference=request.url.path, idempotency_key=idempotency_key)
        except InsufficientBalance as error:
            raise HTTPException(402, error.message) from error
        except Rejected as error:
            raise HTTPException(409, error.message) from error

    return take


app = FastAPI(lifespan=lifespan)


@app.post("/answers")
async def answer(charged: Annotated[Result, Depends(price(5))]) -> dict[str, int | None]:
    """Do what is worth five credits."""
    return {"answer": 42, "credits_left": charged.balance}
