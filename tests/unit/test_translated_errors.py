"""What Postgres answers, or does not, is one error of ours, whoever asked it."""

import psycopg
import pytest

from creditlane.lanes.postgres.errors import refusals_translated, translated
from creditlane.schemas.errors import NotMigrated, Unavailable
from creditlane.schemas.roles import DeniedByRole


@pytest.mark.parametrize("only_reads", [True, False])
@pytest.mark.parametrize(
    ("error", "ours", "said"),
    [
        (psycopg.errors.UndefinedTable("no journal"), NotMigrated, "creditlane migrate"),
        (psycopg.errors.InsufficientPrivilege("no"), DeniedByRole, "creditlane_jobs or creditlane_owner"),
        (psycopg.OperationalError("no route"), Unavailable, "no route"),
    ],
)
def test_each_answer_is_one_error_of_ours(
    error: psycopg.Error, ours: type[Exception], said: str, only_reads: bool
) -> None:
    with pytest.raises(ours, match=said) as caught, translated("jobs", "owner", only_reads=only_reads):
        raise error

    assert caught.value.__cause__ is error


def test_only_what_reads_takes_every_other_error_for_a_ledger_that_cannot_be_read() -> None:
    with pytest.raises(Unavailable, match="cannot be read"), translated("client", only_reads=True):
        raise psycopg.errors.DataError("odd")
    with pytest.raises(psycopg.errors.DataError), translated("client"):
        raise psycopg.errors.DataError("odd")


@pytest.mark.parametrize("error", [psycopg.OperationalError("no route"), psycopg.errors.DataError("odd")])
def test_refusals_alone_are_translated_for_who_tries_again(error: psycopg.Error) -> None:
    with pytest.raises(type(error)), refusals_translated("worker"):
        raise error
    with pytest.raises(NotMigrated), refusals_translated("worker"):
        raise psycopg.errors.UndefinedTable("no journal")
