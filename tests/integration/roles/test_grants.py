"""Nobody but the owner can change what stands in the journal, and each role may do what it needs and no more."""

from collections.abc import Iterator
from typing import Any, get_args

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from creditlane.lanes.postgres import role_setup
from creditlane.lanes.postgres.migrate import migrate
from creditlane.lanes.postgres.role_setup import READ_RIGHTS, RoleSetup
from creditlane.lanes.postgres.row_rules import READ_RULES, TABLES, rules_for
from creditlane.local.servers import EmbeddedPostgres
from creditlane.schemas.commands import Credit, OpenAccount
from creditlane.schemas.errors import ConfigurationError
from creditlane.schemas.roles import (
    FIND_MISSING,
    GRANTS,
    DeniedByRole,
    Part,
    check_rights,
    rights_of,
    role_name,
    wanted_by,
)
from creditlane.schemas.schema_revision import SCHEMA_REVISION

from ...roles import url_of
from ..direct_store import DirectStore, codes

ANN = "cca_" + "a" * 32
PROCESSES: tuple[Part, ...] = tuple(part for part in get_args(Part) if part != "owner")

#: Ways to change what stands in the journal, or to become who may.
ATTACKS = [
    "update journal set amount = 1",
    "update journal set created_at = now() where false",
    "delete from journal",
    "truncate journal",
    "truncate stores cascade",
    "merge into journal using stores on false when matched then delete",
    "insert into journal select * from journal on conflict (store_id, account_id, seq) do update set amount = 1",
    "select * from journal for update",
    "alter table journal disable trigger all",
    "alter table journal disable trigger journal_is_append_only",
    "alter table journal drop constraint journal_never_below_limit",
    "alter table journal owner to current_user",
    "alter table journal enable row level security",
    "drop trigger journal_is_append_only on journal",
    "create trigger mine before insert on journal for each row execute function my_function()",
    "create rule mine as on insert to journal do instead nothing",
    "create or replace function refuse_to_rewrite_history() returns trigger language plpgsql as ''",
    "drop function refuse_to_rewrite_history() cascade",
    "drop table journal",
    "create table journal_of_mine (a int)",
    "set session_replication_role = replica",
    "set role {owner}",
    "grant {owner} to current_user",
    "copy journal from program 'true'",
]


@pytest.fixture
def journal(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A journal with something in it, and a connection that may read."""
    opening = OpenAccount(account_id=ANN, idempotency_key="open", customer_id="ann", initial_balance=100)
    credit = Credit(account_id=ANN, idempotency_key="credit", amount=1, reference="r")
    with DirectStore(database_url) as store:
        assert codes(store.apply(opening, credit)) == ["applied", "applied"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def names_of(url: str) -> dict[Part, str]:
    """Return what the roles of this database's server are called."""
    return {part: str(conninfo_to_dict(url_of(part, url))["user"]) for part in get_args(Part)}


def rights_in(url: str, part: Part) -> set[tuple[str, str, str | None]]:
    """Return what the role of the part has been granted, as Postgres has it."""
    with psycopg.connect(url) as connection:
        values = {"tables": list(GRANTS), "roles": [names_of(url)[part]]}
        return {tuple(right) for role, *right in connection.execute(READ_RIGHTS, values) if role}  # type: ignore[misc]


@pytest.mark.parametrize("part", PROCESSES)
def test_no_process_can_change_a_row_of_the_journal(
    part: Part, journal: psycopg.Connection[Any], database_url: str
) -> None:
    """Given the role of a process, when it tries each way to change the journal, then Postgres denies it for want of a
    right, before any trigger is asked, and every row is as it was."""
    rows = journal.execute("select * from journal order by seq").fetchall()
    owner = names_of(database_url)["owner"]

    with psycopg.connect(url_of(part, database_url), autocommit=True) as connection:
        answers = {attack: sqlstate_of(connection, attack.format(owner=owner)) for attack in ATTACKS}

    assert answers == dict.fromkeys(ATTACKS, "42501")
    assert len(rows) == 2
    assert journal.execute("select * from journal order by seq").fetchall() == rows


def sqlstate_of(connection: psycopg.Connection[Any], statement: str) -> str | None:
    try:
        connection.execute(statement.encode())
    except psycopg.Error as error:
        return error.sqlstate
    return None


@pytest.mark.parametrize(
    ("part", "statement"),
    [
        *((part, "insert into journal select * from journal") for part in PROCESSES if part != "worker"),
        *((part, "insert into accounts select * from accounts") for part in PROCESSES if part != "worker"),
        *((part, "update leases set epoch = 0") for part in PROCESSES if part != "worker"),
        *((part, "update accounts set overdraft_limit = 10") for part in PROCESSES if part != "worker"),
        *((part, "update accounts set max_balance = 10") for part in PROCESSES if part != "worker"),
        *((part, "insert into holds select * from holds") for part in PROCESSES if part != "worker"),
        *((part, "update holds set expires_at = now()") for part in PROCESSES if part != "worker"),
        *((part, "update holds set amount = 1") for part in PROCESSES),
        *((part, "update installation set required_release = 0") for part in PROCESSES if part != "worker"),
        *((part, "update accounts set customer_id = 'eve'") for part in PROCESSES),
        *((part, "update accounts set status = 1") for part in PROCESSES if part != "worker"),
        *((part, "update installation set partitions = 1") for part in PROCESSES),
        *((part, "insert into api_keys select * from api_keys") for part in PROCESSES),
        *((part, "select key_hash from api_keys") for part in PROCESSES if part != "api"),
        *((part, "update api_keys set revoked_at = null") for part in PROCESSES),
        *((part, "insert into stores (public_id, name) values ('store_x', 'x')") for part in PROCESSES),
        *((part, "delete from dead_letters") for part in PROCESSES),
        ("worker", "select secret from webhook_endpoints"),
        ("worker", "select secret from callback_secrets"),
        ("worker", "select accounts from outbox"),
        ("worker", "select body from events"),
        ("jobs", "update webhook_endpoints set url = 'https://example.com'"),
        ("jobs", "update webhook_endpoints set secret = 'whsec_x'"),
    ],
)
def test_a_process_may_not_do_what_is_none_of_its_business(part: Part, statement: str, database_url: str) -> None:
    with psycopg.connect(url_of(part, database_url), autocommit=True) as connection:
        assert sqlstate_of(connection, statement) == "42501"


ENDPOINT = "insert into webhook_endpoints (store_id, endpoint_id, kind, status, url, secret)"
ENDPOINT += " values (1, gen_random_uuid(), {kind}, 1, 'https://{host}', 'whsec_x')"
URLS = "select kind, url from webhook_endpoints order by url"


def test_who_delivers_replaces_no_endpoint_by_another(database_url: str) -> None:
    """Given an endpoint and an origin of callbacks, when the jobs' role deletes all that it may and makes others, then
    it is the origin that is gone, and no endpoint can be made. Migrating again changes nothing."""
    with psycopg.connect(url_of("client", database_url), autocommit=True) as connection:
        connection.execute(ENDPOINT.format(kind=1, host="good.example").encode())
    migrate(url_of("owner", database_url))
    with psycopg.connect(url_of("jobs", database_url), autocommit=True) as jobs:
        jobs.execute(ENDPOINT.format(kind=2, host="origin.example").encode())
        assert jobs.execute("delete from webhook_endpoints").rowcount == 1

        assert sqlstate_of(jobs, ENDPOINT.format(kind=1, host="evil.example")) == "42501"
        jobs.execute(ENDPOINT.format(kind=2, host="origin.example").encode())

        for part in ("jobs", "api", "client", "owner"):
            with psycopg.connect(url_of(part, database_url)) as connection:
                found = connection.execute(URLS).fetchall()
            assert found == [(1, "https://good.example"), (2, "https://origin.example")]


@pytest.mark.parametrize(
    "damage",
    [
        "alter table webhook_endpoints disable row level security",
        "drop policy restrictive_delete on webhook_endpoints",
        "drop policy permissive_all on webhook_endpoints",
        "create policy too_much on webhook_endpoints for delete to public using (true)",
    ],
)
def test_migrating_again_mends_which_rows_a_right_is_for(damage: str, database_url: str) -> None:
    rules = {(*rule, rule.name) for rule in rules_for(names_of(database_url)["owner"].removesuffix("_owner"))}
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(damage.encode())
        assert set(connection.execute(READ_RULES, {"tables": list(TABLES)}).fetchall()) != rules

        migrate(url_of("owner", database_url))

        assert set(connection.execute(READ_RULES, {"tables": list(TABLES)}).fetchall()) == rules


@pytest.mark.parametrize("part", PROCESSES)
def test_each_role_has_what_is_written_and_nothing_else(part: Part, database_url: str) -> None:
    assert rights_in(database_url, part) == set(rights_of(part))
    with psycopg.connect(url_of(part, database_url)) as connection:
        check_rights(part, connection.execute(FIND_MISSING, wanted_by(part)).fetchall())


def test_migrating_again_gives_back_what_is_missing_and_takes_what_is_too_much(database_url: str) -> None:
    """Given rights that somebody has taken and given, when the owner migrates, with no word of roles, then each role
    has what is written."""
    names = names_of(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in (
            f"revoke insert on outbox from {names['worker']}",
            f"revoke update (status) on accounts from {names['worker']}",
            f"grant delete, update on journal to {names['jobs']}",
            f"grant update (amount) on journal to {names['api']}",
            "grant update on journal to public",
        ):
            connection.execute(statement.encode())

    assert migrate(url_of("owner", database_url)) == SCHEMA_REVISION

    for part in PROCESSES:
        assert rights_in(database_url, part) == set(rights_of(part))
        with psycopg.connect(url_of(part, database_url), autocommit=True) as connection:
            assert sqlstate_of(connection, "update journal set amount = 1") == "42501"


def test_nobody_but_the_owner_makes_anything_beside_the_tables(database_url: str) -> None:
    """Given a role that may make functions in the schema of the ledger, and then everybody, when the roles are set up
    again, then the first may not any more, and the second, on which others may rely, is reported."""
    names = names_of(database_url)
    prefix, notes = names["owner"].removesuffix("_owner"), list[str]()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"grant create on schema public to {names['api']}".encode())
        migrate(database_url, roles=RoleSetup(prefix, note=notes.append))
        with psycopg.connect(url_of("api", database_url), autocommit=True) as api:
            assert sqlstate_of(api, "create function public.mine() returns int language sql as 'select 1'") == "42501"
        assert not [line for line in notes if "schema public" in line]

        connection.execute("grant create on schema public to public")
        migrate(database_url, roles=RoleSetup(prefix, note=notes.append))

    reported = [line for line in notes if "`revoke create on schema public from public`" in line]
    assert len(reported) == len(PROCESSES)


def test_a_ledger_that_is_there_gets_its_roles_and_goes_on(empty_database_url: str) -> None:
    """Given a ledger that was made without roles, when they are made, twice, then it belongs to the owner, the worker's
    role goes on with it, and who had it may still migrate it."""
    migrate(empty_database_url, partitions=8)
    opening = OpenAccount(account_id=ANN, idempotency_key="open", customer_id="ann", initial_balance=100)
    with DirectStore(empty_database_url) as store:
        assert codes(store.apply(opening)) == ["applied"]
    names, setup = names_of(empty_database_url), setup_like(empty_database_url)

    assert migrate(empty_database_url, roles=setup) == SCHEMA_REVISION
    assert migrate(empty_database_url, roles=setup) == SCHEMA_REVISION
    assert migrate(empty_database_url) == SCHEMA_REVISION

    with psycopg.connect(empty_database_url) as connection:
        owners = connection.execute(
            "select distinct pg_get_userbyid(relowner)::text from pg_class "
            "where relkind = 'r' and relnamespace = 'public'::regnamespace "
            "union select distinct pg_get_userbyid(proowner)::text from pg_proc "
            "where pronamespace = 'public'::regnamespace"
        ).fetchall()
    assert owners == [(names["owner"],)]
    with DirectStore(url_of("worker", empty_database_url)) as store:
        credit = Credit(account_id=ANN, idempotency_key="credit", amount=1, reference="r")
        assert store.apply(credit)[0].balance == 101


def setup_like(url: str) -> RoleSetup:
    """Return a set-up with the roles that are on this server already."""
    return RoleSetup(names_of(url)["owner"].removesuffix("_owner"))


def test_whoever_may_make_no_roles_learns_what_it_takes(empty_database_url: str) -> None:
    """Given a role that may only connect, when it is to make roles, then the message names what it lacks, and nothing
    is made."""
    with pytest.raises(DeniedByRole, match=r"lacks CREATEROLE, to make the role another_owner"):
        migrate(url_of("client", empty_database_url), roles=RoleSetup("another"))

    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("select to_regclass('journal')").fetchone() == (None,)


def test_whoever_may_not_act_as_the_owner_learns_whose_the_ledger_is(database_url: str) -> None:
    names = names_of(database_url)
    with pytest.raises(DeniedByRole, match=f"{names['worker']} lacks the right to act as {names['owner']}"):
        migrate(url_of("worker", database_url))


def test_a_ledger_keeps_the_names_of_its_roles(database_url: str) -> None:
    """Given roles of one name, when others are to be made for the same ledger, then that is refused: the old ones would
    keep their rights."""
    prefix = names_of(database_url)["owner"].removesuffix("_owner")
    with pytest.raises(ConfigurationError, match=f"CREDITLANE_ROLE_PREFIX={prefix}"):
        migrate(database_url, roles=RoleSetup("another"))


def test_two_installations_of_a_cluster_do_not_reach_each_other(postgres_server: EmbeddedPostgres) -> None:
    """Given two databases on one server with roles of their own, then the worker of one has no right in the other."""
    urls = {prefix: postgres_server.create_database(f"of_{prefix}") for prefix in ("first", "second")}
    for prefix, url in urls.items():
        migrate(url, partitions=8, roles=RoleSetup(prefix))

    for mine, other in (("first", "second"), ("second", "first")):
        url = urls[mine].replace("creditlane@", f"{role_name('worker', other)}@")
        with psycopg.connect(url, autocommit=True) as connection:
            assert sqlstate_of(connection, "select * from journal") == "42501"
            assert sqlstate_of(connection, "insert into journal select * from journal") == "42501"
    for prefix in urls:
        postgres_server.drop_database(f"of_{prefix}")


@pytest.mark.parametrize("power", ["createrole", "in role writes_all_data"])
def test_a_role_that_may_too_much_is_not_taken(
    power: str, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a role of the wanted name that may do what no process does, or is in a role that may (here one that stands
    for Postgres's own, which only a superuser gives), when the roles are made, then that is refused."""
    monkeypatch.setattr(role_setup, "MIGHTY_ROLES", ("of_no_cluster", "writes_all_data"))
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute("create role writes_all_data")
        connection.execute(f"create role mighty_jobs login {power}".encode())
        url = postgres_server.create_database("of_mighty")

        with pytest.raises(ConfigurationError, match=r"mighty_jobs is there and may do more"):
            migrate(url, roles=RoleSetup("mighty"))
        postgres_server.drop_database("of_mighty")
        connection.execute("drop role mighty_jobs, writes_all_data")


def test_passwords_are_stored_hashed_and_change_when_they_are_given_again(postgres_server: EmbeddedPostgres) -> None:
    """Given passwords for some roles, then Postgres gets their verifiers only, and the others stay without."""
    url = postgres_server.create_database("of_hidden")
    stored = "select rolname::text, rolpassword from pg_authid where rolname like 'hidden%' and rolpassword is not null"

    found = []
    for password in ("p@ss:/#% wörd", "another"):
        migrate(url, partitions=8, roles=RoleSetup("hidden", {"worker": password}))
        with psycopg.connect(postgres_server.superuser_url) as connection:
            found.append(connection.execute(stored).fetchall())

    assert [[name for name, _ in rows] for rows in found] == [["hidden_worker"]] * 2
    assert all(rows[0][1].startswith("SCRAM-SHA-256$") for rows in found)
    assert found[0] != found[1]
    postgres_server.drop_database("of_hidden")
