"""A client process: `python -m tests.histories.client_process NAME SORT PLAN FILE`, with settings in its environment.

It works until it is asked to stop by SIGTERM, or killed. Its sort says how it calls: blocking, asyncio, racing (that is
asyncio without a pause), http or bulk.
"""

import asyncio
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from creditlane import AsyncClient, Client
from creditlane.local.processes import wait_until
from creditlane.schemas.errors import CreditlaneError

from . import outcomes
from .callers import AsyncCaller, BlockingCaller, Caller, HttpCaller, command_of
from .records import COMMANDS, HistoryFile, Outcome, Request
from .workload import Plan, Workload

#: File that is there once every client process is ready.
BEGIN = "begin"
#: How long the client processes may take to start, in seconds.
LONGEST_START_SECONDS = 120.0
#: Threads or tasks of a process.
AT_ONCE = 3
RACERS = 12
#: Longest pause between two calls of one of them, in seconds.
PAUSE_SECONDS = 0.03
#: The same between two bulks.
BULK_PAUSE_SECONDS = 0.6
#: Commands of one bulk.
BULK = 20


class Worker:
    """One thread of the process and what it writes down."""

    def __init__(self, plan: Plan, name: str, history: HistoryFile, stopping: threading.Event, *, sort: str) -> None:
        self.workload = Workload(plan, name, over_http=sort == "http", races=sort == "racing")
        self._longest_pause_seconds = 0.0 if sort == "racing" else PAUSE_SECONDS
        self._history = history
        self._timeout = plan.timeout
        self._stopping = stopping
        self._random = random.Random(name)

    def pause_seconds(self, request: Request) -> float:
        # What is read as of one moment is read at once: it is the moment that matters.
        return 0.0 if request["op"] == "read_at" else self._random.uniform(0, self._longest_pause_seconds)

    def work(self, call: Caller) -> None:
        """Carry out one request after the other."""
        steps = self.workload.steps()
        request = next(steps)
        while not self._stopping.wait(self.pause_seconds(request)):
            name = self._history.begin(request, self._timeout)
            outcome = call(request)
            self._history.end(name, outcome)
            request = steps.send(outcome)

    async def work_async(self, call: AsyncCaller) -> None:
        """Do the same on an event loop."""
        steps = self.workload.steps()
        request = next(steps)
        while not self._stopping.is_set():
            await asyncio.sleep(self.pause_seconds(request))
            name = self._history.begin(request, self._timeout)
            outcome = await call(request)
            self._history.end(name, outcome)
            request = steps.send(outcome)

    def work_in_bulk(self, send: Callable[[list[Request]], Outcome], call: Caller) -> None:
        """Leave commands on their lanes many at a time, and read what became of some of them."""
        commands = self._commands()
        while not self._stopping.wait(self._random.uniform(0, BULK_PAUSE_SECONDS)):
            bulk = [next(commands) for _ in range(BULK)]
            request: Request = {"op": "batch", "commands": bulk}
            name = self._history.begin(request, self._timeout)
            outcome = send(bulk)
            self._history.end(name, outcome)
            accepted = [
                (command, answer["ticket"])
                for command, answer in zip(bulk, outcome.get("answers", ()), strict=False)
                if "ticket" in answer
            ]
            for command, ticket in self._random.sample(accepted, min(3, len(accepted))):
                asked: Request = {"op": "wait", "ticket": ticket, "command": command}
                name = self._history.begin(asked, self._timeout)
                self._history.end(name, call(asked))

    def _commands(self) -> Iterator[Request]:
        """Yield commands only, of those kinds whose answers nobody waits for."""
        steps = self.workload.steps()
        request = next(steps)
        while True:
            if request["op"] in COMMANDS - {"reverse", "freeze", "unfreeze", "close"} and not (
                request.get("enqueue") or request.get("dry")
            ):
                yield request
            request = steps.send({"kind": "accepted"})


def send_many(client: Client) -> Callable[[list[Request]], Outcome]:
    """Return what puts many commands on their lanes by `enqueue_many`."""

    def send(commands: list[Request]) -> Outcome:
        try:
            tickets = client.enqueue_many([command_of(request) for request in commands])
        except CreditlaneError as error:
            outcome = outcomes.of_error({"op": "batch"}, error)
            # Those before the one that failed may be accepted.
            return outcome if outcome["kind"] == "error" else {"kind": "unknown", "error": str(error)[:300]}
        return {"kind": "batch", "answers": [{"kind": "accepted", "ticket": str(ticket)} for ticket in tickets]}

    return send


def main(name: str, sort: str, plan_path: Path, history_path: Path) -> None:
    """Work until asked to stop."""
    plan, history, stopping = Plan.read(plan_path), HistoryFile(history_path, name), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    count = {"bulk": 2, "racing": RACERS}.get(sort, AT_ONCE)
    workers = [Worker(plan, f"{name}.{number}", history, stopping, sort=sort) for number in range(count)]
    if sort in {"asyncio", "racing"}:
        asyncio.run(_work_async(workers, plan.cold[0], plan_path.parent, name))
        return
    with Client.from_env() as client:
        # What is imported and connected to at the first call is not what is measured.
        with suppress(CreditlaneError):
            client.pending(plan.cold[0])
            client.account(plan.cold[0])
        for url in os.environ["HISTORY_API_URLS"].split(","):
            warm = HttpCaller(url, os.environ["HISTORY_API_KEY"], timeout=plan.timeout)
            warm({"op": "read_account", "account": plan.cold[0]})
            warm.close()
        wait_for_others(plan_path.parent, name)
        threads = [
            threading.Thread(target=_work, args=(worker, sort, number, plan, client), daemon=True)
            for number, worker in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def wait_for_others(directory: Path, name: str) -> None:
    """Say that this process is ready, and wait until all are: what starts beside others is slow."""
    (directory / f"{name}.ready").touch()
    wait_until((directory / BEGIN).exists, seconds=LONGEST_START_SECONDS)


def _work(worker: Worker, sort: str, number: int, plan: Plan, client: Client) -> None:
    urls, key = os.environ["HISTORY_API_URLS"].split(","), os.environ["HISTORY_API_KEY"]
    caller = HttpCaller(urls[number % len(urls)], key, timeout=plan.timeout)
    if sort == "http":
        worker.work(caller)
    elif sort == "blocking":
        worker.work(BlockingCaller(client))
    elif number == 0:
        worker.work_in_bulk(caller.batch, caller)
    else:
        worker.work_in_bulk(send_many(client), BlockingCaller(client))


async def _work_async(workers: list[Worker], account: str, directory: Path, name: str) -> None:
    async with AsyncClient.from_env() as client, asyncio.TaskGroup() as tasks:
        with suppress(CreditlaneError):
            await client.pending(account)
            await client.account(account)
        await asyncio.to_thread(wait_for_others, directory, name)
        for worker in workers:
            tasks.create_task(worker.work_async(AsyncCaller(client)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
