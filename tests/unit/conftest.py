"""`make unit` starts no servers."""

from typing import NoReturn

import pytest


@pytest.fixture(scope="session")
def postgres_server() -> NoReturn:
    pytest.fail("a test of tests/unit starts no Postgres; one that does belongs into tests/integration")


@pytest.fixture(scope="session")
def redis_server() -> NoReturn:
    pytest.fail("a test of tests/unit starts no Redis; one that does belongs into tests/integration")
