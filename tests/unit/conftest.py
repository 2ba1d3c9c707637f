"""`make unit` promises to start no servers."""

from typing import NoReturn

import pytest


@pytest.fixture(scope="session")
def postgres_server() -> NoReturn:
    pytest.fail("a test of tests/unit starts no Postgres; tests/integration is the place for one that does")


@pytest.fixture(scope="session")
def redis_server() -> NoReturn:
    pytest.fail("a test of tests/unit starts no Redis; tests/integration is the place for one that does")
