"""Sell by the piece in a Flask app: who sends a request is charged once, and every repeat gets the first answer.

pip install creditlane flask
creditlane up                                                # in another terminal
eval "$(creditlane env --export)"; export FLASK_APP=examples/flask_app.py
TOKEN=$(flask sign-up ada)                                   # a customer with 20 credits
flask run --port 8080                                        # and every minute: flask settle
curl localhost:8080/answers -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: 1" -d '{"question": "Why?"}'
"""

import re
from typing import NoReturn

import click
from flask import Blueprint, Flask, Response, abort, current_app, make_response, request
from purchases import FAILED, FAILED_STATUS, Purchase, Purchases, hash_of
from pydantic import BaseModel, Field, ValidationError

from creditlane import Client, CreditlaneError, InsufficientBalance, Rejected, Result

PRICE = 5
KEY = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
REPEAT = {"Retry-After": "1"}


class Question(BaseModel):
    """The body of a request."""

    question: str = Field(min_length=1, max_length=1_000)


def work(question: str) -> str:
    """Do what is worth the price. Like a model that is asked over the network it takes its time, and may fail."""
    return f"{question} 42."


class Shop:
    """Charges, works, keeps the answer, gives back. Where a process dies in between, a repeat or `settle` goes on."""

    def __init__(self) -> None:
        self.purchases = Purchases()
        #: All threads share it. It connects at the first use, after any fork.
        self.ledger = Client.from_env()

    def sign_up(self, customer: str) -> str:
        """Return a new token for the customer, who gets an account and its first credits once."""
        key = f"sign-up:{customer}"
        account = self.ledger.open_account(customer_id=customer, initial_balance=20, idempotency_key=key)
        return self.purchases.add_customer(customer, account.id)

    def charge(self, purchase: Purchase) -> Result:
        """Take the price once, however often it is called, and return the first result.

        What belongs to a key must not change: the price is the purchase's, not that of today.
        """
        key = purchase.ledger_key
        return self.ledger.debit(purchase.account_id, purchase.price, reference="answer", idempotency_key=key)

    def sell(self, purchase: Purchase, question: str) -> Purchase:
        """Charge and work, and return the purchase with its answer."""
        try:
            charge = self.charge(purchase)
        except Rejected as error:  # and so for ever under this key
            status = 402 if isinstance(error, InsufficientBalance) else 403
            return self.purchases.keep(purchase, status, {"detail": error.message})
        except CreditlaneError:  # charged or not: a repeat will know
            self.purchases.release(purchase)
            raise
        try:
            answer = work(question)
        except Exception:
            current_app.logger.exception("what was paid for failed")
            return self.purchases.keep(purchase, FAILED_STATUS, FAILED)
        receipt = {"answer": answer, "charge": charge.transaction_id, "credits_left": charge.balance}
        return self.purchases.keep(purchase, 200, receipt)

    def refund(self, purchase: Purchase) -> None:
        """Give back what was charged, if anything was; once, however often it is called."""
        try:
            charge = self.charge(purchase)  # the first result again
        except Rejected:
            charge = None  # nothing was, and under this key nothing will be
        if charge is not None:
            self.ledger.reverse(purchase.account_id, str(charge.transaction_id))
        self.purchases.refunded(purchase)

    def settle(self) -> None:
        """Give back what requests left behind that nobody repeated."""
        for purchase in self.purchases.refunds_due():
            try:
                self.refund(purchase)
            except CreditlaneError as error:
                current_app.logger.warning("the refund of %s stays due: %s", purchase.ledger_key, error)


routes = Blueprint("shop", __name__, cli_group=None)


@routes.post("/answers")
def answers() -> Response:
    """Answer a question, which costs five credits."""
    account_id, key, question = account_of_sender(), key_sent(), question_sent()
    shop = this_shop()
    purchase, is_ours = shop.purchases.claim(account_id, key, question, PRICE)
    if purchase.request_hash != hash_of(question):
        refuse(422, "This Idempotency-Key was used for another request; send a new one.")
    if is_ours:
        purchase = shop.sell(purchase, question)
    if purchase.refund_due:
        shop.refund(purchase)
    if purchase.status is None:
        refuse(409, "The first request is not done yet; repeat this one.", REPEAT)
    return Response(purchase.body, purchase.status, mimetype="application/json")


def this_shop() -> Shop:
    shop: Shop = current_app.extensions["shop"]
    return shop


def account_of_sender() -> str:
    """Return the account of the customer who sent the request: never one that the request names."""
    sent = request.authorization
    token = sent.token if sent is not None and sent.type == "bearer" else None
    account_id = this_shop().purchases.account_of(token or "")
    return account_id or refuse(401, "Sign up, and send your token.", {"WWW-Authenticate": "Bearer"})


def key_sent() -> str:
    key = request.headers.get("Idempotency-Key", "")
    return key if KEY.fullmatch(key) else refuse(400, "Send an Idempotency-Key of 1 to 200 letters, digits and _.:-")


def question_sent() -> str:
    try:
        return Question.model_validate_json(request.get_data()).question
    except ValidationError:
        refuse(400, 'Send JSON like {"question": "Why?"}')


def refuse(status: int, message: str, headers: dict[str, str] | None = None) -> NoReturn:
    abort(make_response({"detail": message}, status, headers or {}))


@routes.app_errorhandler(CreditlaneError)
def not_decided(error: CreditlaneError) -> tuple[dict[str, str], int, dict[str, str]]:
    """Answer what the ledger did not: unreachable, too busy, or too slow."""
    current_app.logger.warning("no answer of the ledger: %s", error)
    message = "Not now; repeat this request under the same key, and it is charged once."
    return {"detail": message}, 503, REPEAT


@routes.cli.command("sign-up")
@click.argument("customer")
def sign_up(customer: str) -> None:
    """Print a new token for the customer."""
    click.echo(this_shop().sign_up(customer))


@routes.cli.command()
def settle() -> None:
    """Give back what requests left behind that nobody repeated."""
    this_shop().settle()


def create_app() -> Flask:
    app = Flask(__name__)
    app.extensions["shop"] = Shop()
    app.register_blueprint(routes)
    return app
