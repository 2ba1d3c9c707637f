"""What the release before this one asks of the ledger, asked of this version's schema: migrations expand first."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from creditlane.schemas.commands import PostEntry
from creditlane.schemas.releases import FIELDS_OF_RELEASE_0
from creditlane.schemas.roles import Part
from creditlane.schemas.schema_revision import SCHEMA_REVISION, Revision

from ..roles import url_of
from .releases import Release

#: Fewer than the release has in constants: else it was not read where they stand.
FEWEST_STATEMENTS = 180
#: Rules that rest on what only this version writes into a column: `asked` stands in the content of no older debit.
OF_THIS_VERSION_ALONE = frozenset({"journal_debit_within_asked"})
NEEDS = Path(__file__).with_name("needs.py")
_PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?[sbt]|%%")

Needs = dict[str, Any]

#: The columns of the tables, what they are, and whether a row can be written without naming them.
COLUMNS = """
select relname::text || '.' || attname::text, format_type(atttypid, atttypmod),
    attnotnull and not (atthasdef or attidentity <> '')
from pg_attribute join pg_class on pg_class.oid = attrelid
where relnamespace = current_schema()::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped
"""
#: What rows must be, and the columns that it is about.
CONSTRAINTS = """
select conname::text, array(
    select conrelid::regclass::text || '.' || attname::text from pg_attribute
    where attrelid = conrelid and attnum = any(conkey)
)
from pg_constraint where connamespace = current_schema()::regnamespace and conrelid <> 0 and contype <> 'n'
"""


@pytest.fixture(scope="module")
def needs(previous: Release, database_server: Any) -> Any:
    """What the previous release needs, and the URL of a ledger that it has made."""
    name = f"creditlane_previous_{uuid.uuid4().hex}"
    url = database_server.create_database(name)
    yield {**json.loads(previous.run(previous.script(NEEDS, url))), "url": url}
    database_server.drop_database(name)


def sent(statement: str) -> str:
    """Return the statement as the driver sends it, with numbers for what it is given."""
    names: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        name = found[1] or f"positional {len(names)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACEHOLDER.sub(numbered, statement)


def refusal_of(connection: psycopg.Connection[Any], statement: str) -> str | None:
    """Return why Postgres cannot do this, or None. Nothing is done."""
    try:
        with connection.transaction(force_rollback=True):
            if statement.lstrip()[:4].lower() == "copy":
                with connection.cursor().copy(statement.encode()):
                    pass
            else:
                connection.execute(f"prepare tried as {sent(statement)}".encode())
                connection.execute("deallocate tried")
    except psycopg.errors.IndeterminateDatatype:
        # Everything else of it has been found; the driver says the types of what it sends.
        return None
    except psycopg.Error as error:
        return str(error)
    return None


def refused(connection: psycopg.Connection[Any], statements: dict[str, str]) -> dict[str, str]:
    """Return the statements that cannot be done, and why."""
    found = {name: refusal_of(connection, statement) for name, statement in statements.items()}
    return {name: reason for name, reason in found.items() if reason}


def shrunk(before: psycopg.Connection[Any], after: psycopg.Connection[Any]) -> list[str]:
    """Return what code for the schema before cannot rely on any more in the schema after."""
    old, new = (
        {name: (kind, needed) for name, kind, needed in each.execute(COLUMNS.encode())} for each in (before, after)
    )
    tables = {name.partition(".")[0] for name in old}
    problems = [f"{name} is gone" for name in old if name not in new]
    problems += [f"{name} was {kind}" for name, (kind, _) in old.items() if name in new and new[name][0] != kind]
    for name, (_, is_needed) in new.items():
        if is_needed and name.partition(".")[0] in tables and not old.get(name, ("", False))[1]:
            problems.append(f"{name} must be given")
    rules = {name for name, _ in before.execute(CONSTRAINTS.encode())} | OF_THIS_VERSION_ALONE
    for name, columns in after.execute(CONSTRAINTS.encode()):
        # One that also names a new column is about that; what older code writes leaves it empty, and passes.
        if name not in rules and columns and all(column in old for column in columns):
            problems.append(f"{name} is new on {', '.join(columns)}")
    return problems


@pytest.fixture(scope="module")
def statements(needs: Needs) -> dict[str, str]:
    """The statements of the previous release that can be done on its own schema; the rest are parts of others."""
    with psycopg.connect(needs["url"]) as connection:
        others = refused(connection, needs["statements"])
    statements = {name: text for name, text in needs["statements"].items() if name not in others}
    assert len(set(statements.values())) >= FEWEST_STATEMENTS, others
    return statements


def test_every_statement_of_the_previous_release_can_be_done_on_this_schema(
    statements: dict[str, str], database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        assert refused(connection, statements) == {}


def test_this_schema_has_all_that_the_previous_one_had_and_asks_for_nothing_more(
    needs: Needs, database_url: str
) -> None:
    with psycopg.connect(needs["url"]) as before, psycopg.connect(database_url) as after:
        assert shrunk(before, after) == []


def test_this_schema_says_that_the_previous_release_works_with_it(needs: Needs) -> None:
    revision, previous = Revision.parse(SCHEMA_REVISION), Revision.parse(needs["revision"])
    assert revision is not None
    assert previous is not None
    assert revision.since <= previous.number


def test_what_the_previous_release_does_not_know_of_commands_is_new(needs: Needs) -> None:
    assert needs["fields"] == {kind.word: sorted(fields) for kind, fields in FIELDS_OF_RELEASE_0.items()}
    # It is looked for beside the kind: a field that is added to entries must be looked for there.
    assert needs["entry_fields"] == sorted(PostEntry.model_fields)


@pytest.mark.parametrize("part", ["worker", "api", "jobs", "client"])
def test_each_role_may_do_what_the_previous_release_needs(part: Part, needs: Needs, database_url: str) -> None:
    with psycopg.connect(url_of(part, database_url)) as connection:
        assert connection.execute(needs["find_missing"], needs["rights"][part]).fetchall() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("alter table journal drop column reference", "journal.reference is gone"),
        ("alter table accounts rename column name_key to key", "accounts.name_key is gone"),
        ("drop table exports", "exports.finished_at is gone"),
        ("alter table leases alter column epoch type numeric", "leases.epoch was bigint"),
        ("alter table workers add column kind text not null", "workers.kind must be given"),
        ("alter table journal alter column reference set not null", "journal.reference must be given"),
        ("alter table stores add unique (name)", "stores_name_key is new on stores.name"),
    ],
)
def test_a_schema_that_the_previous_release_cannot_bear_is_found(
    change: str, problem: str, needs: Needs, database_url: str
) -> None:
    with psycopg.connect(needs["url"]) as before, psycopg.connect(database_url) as after:
        after.execute(change.encode())

        assert problem in shrunk(before, after)


@pytest.mark.parametrize(
    ("change", "broken", "reason"),
    [
        ("alter table journal drop column reference", "worker.sql.COPY_JOURNAL", '"reference" .* does not exist'),
        (
            "alter table installation add column version_num text",
            "schemas.start_check.READ_INSTALLATION",
            "is ambiguous",
        ),
    ],
)
def test_a_statement_that_cannot_be_done_any_more_is_found(
    change: str, broken: str, reason: str, statements: dict[str, str], database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(change.encode())

        found = refused(connection, statements)

    assert re.search(reason, found[f"creditlane.{broken}"])


def test_what_a_migration_may_add_is_no_trouble(needs: Needs, statements: dict[str, str], database_url: str) -> None:
    """Given a table, a column with a default, one without, and a rule on the new ones only, then nothing is found."""
    with psycopg.connect(needs["url"]) as before, psycopg.connect(database_url) as after:
        after.execute("create table pledges (hold_id uuid primary key, amount numeric not null)")
        after.execute("alter table accounts add column held numeric not null default 0 check (held >= 0)")
        after.execute("alter table journal add column hold_id uuid")

        assert shrunk(before, after) == []
        assert refused(after, statements) == {}
