"""Fixtures for pytest, there wherever Creditlane is installed. Nothing of it is imported before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..schemas.settings import Settings
    from .clock import FakeClock
    from .fake_async_client import AsyncFakeClient
    from .fake_client import FakeClient
    from .fake_ledger import FakeLedger
    from .local_stack import LocalStack


@pytest.fixture
def creditlane_ledger() -> FakeLedger:
    """A ledger in memory, empty at the start of each test; the clients of the test share it."""
    from .fake_ledger import FakeLedger

    return FakeLedger()


@pytest.fixture
def creditlane_clock(creditlane_ledger: FakeLedger) -> FakeClock:
    """The clock of the test's ledger: it stands still until it is moved."""
    return creditlane_ledger.clock


@pytest.fixture
def creditlane_client(creditlane_ledger: FakeLedger) -> FakeClient:
    """A `Client` without servers, over the test's ledger."""
    from .fake_client import FakeClient

    return FakeClient(ledger=creditlane_ledger)


@pytest.fixture
def creditlane_async_client(creditlane_ledger: FakeLedger) -> AsyncFakeClient:
    """An `AsyncClient` without servers, over the test's ledger."""
    from .fake_async_client import AsyncFakeClient

    return AsyncFakeClient(ledger=creditlane_ledger)


@pytest.fixture(scope="session")
def creditlane_stack() -> Iterator[LocalStack]:
    """A real stack for the whole session: Postgres, Redis, a worker, jobs, the HTTP API; with the extra `embedded`."""
    from .local_stack import running_stack

    with running_stack() as stack:
        yield stack


@pytest.fixture
def creditlane_settings(creditlane_stack: LocalStack) -> Settings:
    """Settings of a new, empty store on the session's stack, for `Client(creditlane_settings)`."""
    return creditlane_stack.new_store()
