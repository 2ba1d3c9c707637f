"""What each role may do is written once, and the documentation says the same; passwords come from where they may."""

import re
from pathlib import Path

import pytest

from creditlane.cli.role_passwords import read_passwords
from creditlane.lanes.postgres.role_setup import RoleSetup
from creditlane.schemas.errors import ConfigurationError
from creditlane.schemas.postgres_urls import as_role
from creditlane.schemas.roles import GRANTS, PARTS, DeniedByRole, check_rights, rights_of
from creditlane.schemas.tables import jobs as job_tables
from creditlane.schemas.tables import webhooks as webhook_tables

GUIDE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
#: How the table says that a role has no right.
NOTHING = "\N{EN DASH}"
#: Either module puts its tables into the metadata of the ledger's.
TABLES = (webhook_tables.outbox, job_tables.job_runs)[0].metadata.tables


def test_the_guide_has_every_grant() -> None:
    """Given the table of the guide, then it says of each table and role what is granted."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", GUIDE, re.MULTILINE)
    ]
    heading = next(number for number, row in enumerate(rows) if row == ["table", "worker", "api", "jobs", "client"])
    documented = {}
    for name, *cells in rows[heading + 2 : heading + 2 + len(GRANTS)]:
        grants = dict(zip(rows[heading][1:], cells, strict=True))
        documented[name.strip("`")] = {part: text for part, text in grants.items() if text != NOTHING}
    assert documented == {table: dict(grants) for table, grants in GRANTS.items()}


def test_every_table_has_its_grants_and_every_column_is_one() -> None:
    """Given the tables of the code, then each of them is granted to somebody, with columns that it has."""
    assert set(GRANTS) == {*TABLES, "alembic_version"}
    named = {(right.table, right.column) for part in PARTS for right in rights_of(part) if right.column}
    assert named
    assert [(table, column) for table, column in named if column not in TABLES[table].columns] == []


@pytest.mark.parametrize("part", [part for part in PARTS if part != "owner"])
def test_every_word_of_a_grant_is_understood(part: str) -> None:
    """Given a grant, then what is made of it says the same: nothing in it is passed over."""
    for table, grants in GRANTS.items():
        rights = [right for right in rights_of(part) if right.table == table]  # type: ignore[arg-type]
        words = re.findall(r"\w+", grants.get(part, ""))  # type: ignore[call-overload]
        assert set(words) == {word for right in rights for word in (right.privilege.lower(), right.column) if word}


def test_of_a_role_that_lacks_rights_all_of_them_are_named() -> None:
    with pytest.raises(DeniedByRole, match=r"insert on outbox, update \(status\) on accounts.*creditlane_worker"):
        check_rights("worker", [("outbox", "INSERT", None), ("accounts", "UPDATE", "status")])


def test_passwords_come_from_the_environment_and_a_file_before_it(tmp_path: Path) -> None:
    file = tmp_path / "roles"
    file.write_text("# of the ledger\n\nworker = with = and blanks \napi=a\n".replace("worker = ", "worker="))
    environment = {
        "CREDITLANE_API_PASSWORD": "b",
        "CREDITLANE_OWNER_PASSWORD": "c",
        "CREDITLANE_REDIS_URL": "redis://x",
    }

    assert read_passwords(environment, file) == {"worker": "with = and blanks ", "api": "a", "owner": "c"}
    assert read_passwords({}, None) == {}


@pytest.mark.parametrize("text", ["s3cr3tpw", "workers=s3cr3tpw", "worker=\napi=s3cr3tpw"])
def test_a_file_that_is_none_is_refused_without_repeating_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / "roles"
    file.write_text(text)

    with pytest.raises(ConfigurationError) as refused:
        read_passwords({}, file)

    assert "s3cr3tpw" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_passwords({}, tmp_path / "nothing")


def test_a_set_up_does_not_show_its_passwords() -> None:
    assert "s3cr3tpw" not in repr(RoleSetup(passwords={"worker": "s3cr3tpw"}))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://cl_worker@host:5432/db"),
        ("postgres://host/db?sslmode=require", "postgres://cl_worker@host/db?sslmode=require"),
        ("postgresql://me@:5432/db?host=/run/pg", "postgresql://cl_worker@:5432/db?host=/run/pg"),
        ("postgresql://a:1,b:2/db?user=me&password=secret", "postgresql://cl_worker@a:1,b:2/db"),
        (
            "postgresql://h/db?options=-csearch_path%3Dledger",
            "postgresql://cl_worker@h/db?options=-csearch_path%3Dledger",
        ),
        ("host=h dbname=db user=me password='a b'", "user=cl_worker dbname=db host=h"),
    ],
)
def test_a_url_for_another_role_has_no_password(url: str, expected: str) -> None:
    assert as_role(url, "cl_worker") == expected
