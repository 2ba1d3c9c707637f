"""Each example serves what it charges, and charges what it serves: repeated, failing, refused, late, left behind."""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from creditlane import Client, Settings
from creditlane.local.processes import wait_until

from ...tcp_link import TcpLink
from .conftest import DEADLINE_SECONDS, Answer, App

REPEATS = 40
QUESTION = b'{"question": "Why?"}'


@pytest.fixture
def ledger(settings: Settings, running_worker: object) -> Iterator[Client]:
    """The ledger as its owner sees it, with a worker."""
    assert running_worker
    with Client(settings.model_copy(update={"wait_timeout_seconds": DEADLINE_SECONDS})) as client:
        yield client


@contextmanager
def stopped(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Let the process do nothing meanwhile."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def account_of(ledger: Client, customer: str) -> str:
    """Return the account that the example has opened for the customer, by its key."""
    return ledger.open_account(customer_id=customer, initial_balance=20, idempotency_key=f"sign-up:{customer}").id


def repeat(app: App, tokens: dict[str, str], key: str, *, times: int = REPEATS) -> dict[str, list[Answer]]:
    """Have every customer ask the same, so many times at once, under the same key, and return the answers."""
    with ThreadPoolExecutor(times * len(tokens)) as threads:
        asked = [
            (customer, threads.submit(app.ask, token, key, b'{"question": "%s"}' % customer.encode()))
            for _ in range(times)
            for customer, token in tokens.items()
        ]
        return {name: [answer.result() for customer, answer in asked if customer == name] for name in tokens}


def test_forty_repeats_of_two_customers_are_charged_and_served_once_each(app: App, ledger: Client) -> None:
    tokens = {customer: app.sign_up(customer) for customer in ("ada", "bob")}
    worked: list[str] = []
    meanwhile: list[Answer] = []

    def work(question: str) -> str:
        worked.append(question)
        if worked.count(question) == 1:
            with ThreadPoolExecutor(1) as thread:
                again = thread.submit(app.ask, tokens[question], "1", b'{"question": "%s"}' % question.encode())
                meanwhile.append(again.result())
        return f"{question}, answer {len(worked)}"

    app.set_work(work)
    answers = repeat(app, tokens, "1")
    later = repeat(app, tokens, "1", times=2)

    assert sorted(worked) == ["ada", "bob"]
    assert [answer.status for answer in meanwhile] == [409, 409]
    assert all(int(answer.headers["retry-after"]) for answer in meanwhile)
    for customer in tokens:
        assert {answer.status for answer in answers[customer]} <= {200, 409}
        first = next(answer.body for answer in answers[customer] if answer.status == 200)
        assert [(answer.status, answer.body) for answer in later[customer]] == [(200, first)] * 2
        assert first["answer"].startswith(customer)
        assert first["credits_left"] == ledger.balance(account_of(ledger, customer)) == 15
        charge, _opening = ledger.entries(account_of(ledger, customer))
        assert charge.transaction_id == first["charge"]


def test_forty_repeats_of_work_that_fails_cost_nothing(app: App, ledger: Client) -> None:
    tokens = {customer: app.sign_up(customer) for customer in ("ada", "bob")}
    worked: list[str] = []

    def work(question: str) -> str:
        worked.append(question)
        raise OSError("the model is away")

    app.set_work(work)
    answers = repeat(app, tokens, "1")
    later = repeat(app, tokens, "1", times=2)

    assert sorted(worked) == ["ada", "bob"]
    for customer in tokens:
        assert {answer.status for answer in answers[customer]} <= {502, 409}
        assert {answer.status for answer in later[customer]} == {502}
        assert ledger.balance(account_of(ledger, customer)) == 20
        assert [entry.side for entry in ledger.entries(account_of(ledger, customer))] == ["credit", "debit", "credit"]


def test_a_repeat_takes_over_when_the_claim_has_lapsed_and_its_answer_is_the_first(app: App, ledger: Client) -> None:
    token = app.sign_up("ada")
    worked: list[str] = []
    taken_over: list[Answer] = []
    app.set_claim(-1)

    def work(question: str) -> str:
        worked.append(question)
        number = len(worked)
        if number == 1:
            with ThreadPoolExecutor(1) as thread:
                taken_over.append(thread.submit(app.ask, token, "1").result())
        return f"answer {number}"

    app.set_work(work)
    first = app.ask(token, "1")

    assert [answer.body["answer"] for answer in (*taken_over, first)] == ["answer 2", "answer 2"]
    assert ledger.balance(account_of(ledger, "ada")) == 15


def test_what_cannot_be_given_back_now_is_given_back_later(app: App, ledger: Client) -> None:
    tokens = {customer: app.sign_up(customer) for customer in ("ada", "bob")}

    def work(question: str) -> str:
        ledger.freeze(account_of(ledger, question))
        raise OSError("the model is away, too")

    app.set_work(work)
    asked = {name: b'{"question": "%s"}' % name.encode() for name in tokens}
    first = [app.ask(tokens[name], "1", asked[name]).status for name in tokens]
    app.command("settle")
    while_frozen = [ledger.balance(account_of(ledger, name)) for name in tokens]
    for name in tokens:
        ledger.unfreeze(account_of(ledger, name))
    again = app.ask(tokens["ada"], "1", asked["ada"]).status
    app.command("settle")

    assert first == [503, 503]
    assert while_frozen == [15, 15]
    assert again == 502
    assert [ledger.balance(account_of(ledger, name)) for name in tokens] == [20, 20]


def test_what_is_refused_has_a_status_and_is_neither_charged_nor_served(app: App, ledger: Client) -> None:
    token = app.sign_up("ada")
    account = account_of(ledger, "ada")
    worked: list[str] = []
    app.set_work(lambda question: worked.append(question) or question)
    sender, key = {"Authorization": f"Bearer {token}"}, {"Idempotency-Key": "1"}

    strangers = [
        app.send(QUESTION, {**key, **headers}).status
        for headers in (
            {},
            {"X-Account": account},
            {"Authorization": f"Bearer {account}"},
            {"Authorization": token},
            {"Authorization": f"Basic {token}"},
            {"Authorization": "Bearer \xe9"},
        )
    ]
    keys = [
        app.send(QUESTION, {**sender, **headers}).status
        for headers in ({}, *({"Idempotency-Key": key} for key in ("", "a b", '"1"', "1,1", "\xe9", "1" * 201)))
    ]
    bodies = [
        app.send(body, {**sender, **key}).status
        for body in (
            b"",
            b"{",
            b"[]",
            b"\xff",
            b'{"question": 1}',
            b'{"question": "\\ud800"}',
            b'{"question": "%s"}' % (b"y" * 1_001),
        )
    ]

    assert strangers == [401] * 6
    assert set(keys + bodies) <= {400, 422}
    assert worked == []
    assert app.ask(token, "1").status == 200
    assert app.ask(token, "1", b'{"question": "Another?"}').status == 422
    ledger.freeze(account)
    assert app.ask(token, "2").status == 403
    ledger.unfreeze(account)
    ledger.debit(account, 15, reference="spent", idempotency_key="spent")
    assert [app.ask(token, "3").status for _ in range(2)] == [402, 402]
    ledger.credit(account, 15, reference="bought", idempotency_key="bought")
    # A key keeps its answer; a new one is asked anew.
    assert [app.ask(token, key).status for key in ("2", "3", "4")] == [403, 402, 200]
    assert worked == ["Why?", "Why?"]
    assert ledger.balance(account) == 10


def test_what_the_ledger_does_not_answer_is_charged_and_served_once_it_does_or_given_back(
    app: App, ledger: Client, redis_link: TcpLink, running_worker: "subprocess.Popen[bytes]"
) -> None:
    token = app.sign_up("ada")
    account = account_of(ledger, "ada")
    worked: list[str] = []
    app.set_work(lambda question: worked.append(question) or question)

    redis_link.shut()
    app.set_wait_timeout(0.5)
    unavailable = app.ask(token, "1")
    redis_link.reopen()
    late: list[Answer] = []

    def is_accepted() -> bool:
        late.append(app.ask(token, "3"))
        return ledger.pending(account) > 0

    with stopped(running_worker):
        assert wait_until(is_accepted, seconds=DEADLINE_SECONDS)
        late += [app.ask(token, "2") for _ in range(2)]
    app.set_wait_timeout(DEADLINE_SECONDS)
    served = [app.ask(token, key) for key in ("1", "2")]

    assert {answer.status for answer in (unavailable, *late)} == {503}
    assert all(int(answer.headers["retry-after"]) for answer in (unavailable, *late))
    assert [answer.status for answer in served] == [200, 200]
    assert len(worked) == 2

    # Nobody repeats the third.
    app.command("settle")
    before = ledger.balance(account)
    app.set_abandoned(-1)
    app.command("settle")

    assert before == 20 - 3 * 5
    assert ledger.balance(account) == 20 - 2 * 5
    assert app.ask(token, "3").status == 502
    assert len(worked) == 2
