"""What endpoints subscribe to is read again only for stores that something is decided for."""

from typing import Any

import psycopg
import pytest

from creditlane.worker.store.subscriptions import Subscriptions

#: Stores with endpoints, and endpoints of each.
STORES, ENDPOINTS = 20, 50

FILL = f"""
insert into stores (public_id, name) select 'store_' || n, 'A store' from generate_series(1, {STORES}) as n;
insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, events, secret)
select store_id, gen_random_uuid(), 1, 1, 'https://example.com', '{{account.created}}', 'whsec_AAAA'
from stores, generate_series(1, {ENDPOINTS}) where public_id <> 'store_default'
"""


class RecordingConnection:
    """A connection that counts which stores are asked for."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.asked: list[list[int]] = []

    def execute(self, statement: str, values: dict[str, Any]) -> Any:
        self.asked.append(sorted(values["stores"]))
        return self._connection.execute(statement.encode(), values)


@pytest.fixture
def connection(database_url: str) -> Any:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in FILL.split(";"):
            connection.execute(statement.encode())
        yield RecordingConnection(connection)


def test_a_change_has_only_those_read_again_that_are_decided_for(connection: Any) -> None:
    """Given endpoints of many stores, of which one changes its own time and again, then each batch reads those of its
    own stores and no others, and without a change none at all."""
    subscriptions = Subscriptions()
    default, first, second = 1, 2, 3

    assert subscriptions.of_stores(connection, 1, [default, first]).keys() == {first}
    assert subscriptions.of_stores(connection, 1, [default, first]).keys() == {first}
    assert subscriptions.of_stores(connection, 1, [second, first]).keys() == {first, second}
    assert connection.asked == [[default, first], [second]]

    for version in range(2, 12):
        assert subscriptions.of_stores(connection, version, [default]) == {}
    assert connection.asked[2:] == [[default]] * 10


def test_what_could_not_be_read_is_read_again(connection: Any) -> None:
    """Given a statement that fails, then the next batch does not take the store for one that wants nothing."""
    subscriptions = Subscriptions()

    class Broken:
        def execute(self, _statement: str, _values: dict[str, Any]) -> Any:
            raise psycopg.OperationalError

    with pytest.raises(psycopg.OperationalError):
        subscriptions.of_stores(Broken(), 1, [2])  # type: ignore[arg-type]

    assert subscriptions.of_stores(connection, 1, [2]).keys() == {2}
