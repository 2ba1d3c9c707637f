"""What is said of an error of Postgres names the table and the constraint, and no value of a row."""

import traceback
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from creditlane.lanes.postgres.errors import error_text, without_rows

SECRET = "customer-4711"
TABLE = "create temporary table journal (key text constraint key_taken unique, amount numeric(5) check (amount > 0))"

UNIQUE = f"insert into journal values ('{SECRET}', 1), ('{SECRET}', 1)"
CHECK = f"insert into journal values ('{SECRET}', -1)"
FORM = f"insert into journal values ('a', '{SECRET}'::text::numeric)"


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(TABLE)
        yield connection


def failed_copy(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy("copy journal from stdin") as copy:
        copy.write(f"{SECRET}\tfive\n")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (UNIQUE, ["23505", "duplicate key", "table journal", "constraint key_taken"]),
        (CHECK, ["23514", "violates check constraint", "table journal", "constraint journal_amount_check"]),
        (FORM, ["22P02", "invalid input syntax for type numeric"]),
        (None, ["22P02", "invalid input syntax for type numeric"]),
    ],
)
def test_no_value_of_a_row_is_shown(
    statement: str | None, words: list[str], connection: psycopg.Connection[tuple[Any, ...]]
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        failed_copy(connection) if statement is None else connection.execute(statement.encode())
    # Postgres itself does repeat it, else there is nothing to keep out.
    assert SECRET in str(caught.value) or "five" in str(caught.value)

    error = RuntimeError("batch cannot be applied")
    error.__cause__ = ExceptionGroup("several", [caught.value])
    for text in (error_text(caught.value), "".join(traceback.format_exception(without_rows(error)))):
        assert all(word in text for word in words)
        assert SECRET not in text
        assert "five" not in text
    # Programs still have it whole.
    assert caught.value.sqlstate == words[0]


def test_what_is_no_answer_of_postgres_is_reported_as_it_is() -> None:
    assert error_text(psycopg.OperationalError("connection\n\tfailed")) == "connection failed"
