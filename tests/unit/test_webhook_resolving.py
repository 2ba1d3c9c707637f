"""Names are resolved in threads that no store has all of, however long its names take."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from creditlane.schemas.fair_shares import share_of
from creditlane.worker.webhooks.name_resolution import Resolving, resolving_store

#: How long what is awaited may take, in seconds.
DEADLINE_SECONDS = 30.0
THREADS = 8
ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]


class SilentServers:
    """A resolver that answers no name with `silent` in it before it is allowed to."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[str] = []

    def get_addresses(self, host: str, *_rest: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if "silent" in host:
            self.answers.wait(DEADLINE_SECONDS)
        return ANSWER


@pytest.fixture
def servers() -> Iterator[SilentServers]:
    servers = SilentServers()
    yield servers
    servers.answers.set()


async def look_up(resolving: Resolving, store_id: int, host: str) -> list[tuple[int, str]]:
    resolving_store.set(store_id)
    return await resolving.lookup(host, 443, socket.AF_INET)


async def give_up(tasks: list["asyncio.Task[Any]"]) -> None:
    """Cancel the tasks, as a request does whose time is over."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_store_whose_names_hang_leaves_threads_to_another(servers: SilentServers) -> None:
    """Given more names of one store than there are threads, all silent, and nobody that waits for them any more, then
    another store's name is resolved."""

    async def run() -> list[tuple[int, str]]:
        resolving = Resolving(THREADS, servers.get_addresses)
        hanging = [asyncio.create_task(look_up(resolving, 1, f"{number}.silent")) for number in range(5 * THREADS)]
        await asyncio.sleep(0)
        await give_up(hanging)
        more = [asyncio.create_task(look_up(resolving, 1, f"more.{number}.silent")) for number in range(5 * THREADS)]
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(look_up(resolving, 2, "other"), DEADLINE_SECONDS / 2)
        finally:
            await give_up(more)
            servers.answers.set()
            resolving.close()

    assert asyncio.run(run()) == [(socket.AF_INET, "192.0.2.1")]
    silent = [host for host in servers.asked if "silent" in host]
    assert len(silent) < THREADS
    assert "other" in servers.asked


def test_a_thread_that_is_done_is_the_next_ones(servers: SilentServers) -> None:
    """Given more names of a store than its share, when the first are answered, then so are all the others."""

    async def run() -> list[list[tuple[int, str]]]:
        resolving = Resolving(THREADS, servers.get_addresses)
        tasks = [asyncio.create_task(look_up(resolving, 1, f"{number}.silent")) for number in range(5 * THREADS)]
        await asyncio.sleep(0)
        servers.answers.set()
        try:
            return await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE_SECONDS)
        finally:
            resolving.close()

    assert len(asyncio.run(run())) == len(servers.asked) == 5 * THREADS
    assert share_of(THREADS, 0) > 1


def test_a_name_that_there_is_not_is_an_error_and_gives_its_thread_back() -> None:
    def refuse(*_arguments: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async def run() -> int:
        resolving, failed = Resolving(1, refuse), 0
        for _ in range(3):
            try:
                await asyncio.wait_for(look_up(resolving, 1, "nobody"), DEADLINE_SECONDS)
            except socket.gaierror:
                failed += 1
        resolving.close()
        return failed

    assert asyncio.run(run()) == 3
