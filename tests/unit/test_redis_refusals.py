"""What is said of a Redis that refuses is what it says, without whom it names."""

import asyncio

import pytest
from redis._parsers.base import BaseParser  # type: ignore[import-untyped]

from creditlane import Settings
from creditlane.producer.api.fair_session import FairSession
from creditlane.producer.client._async.redis_connection import AsyncRedisWire
from creditlane.producer.client.redis_exchange import ExchangeFailed, failure, is_of_server

#: As Redis answers, and how that is reported.
REFUSALS = {
    "READONLY You can't write against a read only replica.": "takes no writes",
    "OOM command not allowed when used memory > 'maxmemory'.": "takes no writes",
    "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.": "takes no writes",
    "NOREPLICAS Not enough good replicas to write.": "takes no writes",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "takes no writes",
    "LOADING Redis is loading the dataset in memory": "is loading its data",
    "NOAUTH Authentication required.": "does not let us in",
    "WRONGPASS invalid username-password pair or user is disabled.": "does not let us in",
    "NOPERM User ann has no permissions to run the 'set' command": "does not let us in",
    "CLUSTERDOWN Hash slot not served": "cluster that is down",
    "CLUSTERDOWN The cluster is down": "cluster that is down",
    "ERR something else about ann": "answers with an error",
}


@pytest.mark.parametrize(("answer", "reported"), REFUSALS.items())
def test_a_refusal_is_reported_as_what_it_is(monkeypatch: pytest.MonkeyPatch, answer: str, reported: str) -> None:
    error = BaseParser.parse_error(answer)

    async def refuse(*_arguments: object, **_options: object) -> list[Exception]:
        if is_of_server(error):
            raise failure(ExchangeFailed(error, sent=False), changes_something=False)
        return [error]

    async def ask() -> str | None:
        session = FairSession(Settings(redis_url="redis://127.0.0.1:1/0"))
        return await session.write_problem(deadline=0.0)

    monkeypatch.setattr(AsyncRedisWire, "exchange", refuse)
    problem = asyncio.run(ask())

    assert problem is not None
    assert reported in problem
    assert "ann" not in problem.split()
