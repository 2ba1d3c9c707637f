"""Take credits for every request of a Flask app: the price is a decorator of the view.

creditlane up                                                # in another terminal
eval "$(creditlane env --export)"; flask --app examples/flask_app.py run --port 8080
curl -X POST localhost:8080/answers -H "X-Account: cca_…" -H "Idempotency-Key: 1"
"""

from collections.abc import Callable
from functools import wraps

from flask import Flask, Response, jsonify, make_response, request

from creditlane import Client, InsufficientBalance, Rejected, Result

View = Callable[[Result], Response]


def create_app() -> Flask:
    """Return the app. Its threads share one client, which connects at the first request, after any fork."""
    app = Flask(__name__)
    ledger = app.extensions["creditlane"] = Client.from_env()

    def price(units: int) -> Callable[[View], Callable[[], Response]]:
        """Take the units before the view runs. A repeated request is charged once."""

        def charging(view: View) -> Callable[[], Response]:
            @wraps(view)
            def charge_and_view() -> Response:
                account, key = request.headers["X-Account"], request.headers["Idempotency-Key"]
                try:
                    return view(ledger.debit(account, units, reference=request.path, idempotency_key=key))
                except InsufficientBalance as error:
                    return make_response(error.message, 402)
                except Rejected as error:
                    return make_response(error.message, 409)

            return charge_and_view

        return charging

    @app.post("/answers")
    @price(5)
    def answer(charged: Result) -> Response:
        """Do what is worth five credits."""
        return jsonify(answer=42, credits_left=charged.balance)

    return app
