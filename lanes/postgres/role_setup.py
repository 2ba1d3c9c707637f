"""Makes the roles of an installation, gives the tables to their owner, and grants to each role what `roles.py` says.

Everything is compared first and changed where it differs, so that it may run again and again, also as the owner alone:
who may make no roles is not asked to, where they are there. All of it is part of the migration's one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from ...schemas.errors import ConfigurationError
from ...schemas.roles import (
    DEFAULT_PREFIX,
    GRANTS,
    PARTS,
    READERS_OF_SESSIONS,
    SESSIONS_ROLE,
    DeniedByRole,
    Part,
    Right,
    rights_of,
    role_name,
)
from .row_rules import set_row_rules
from .sessions import PostgresSession

#: What is not a table and belongs to the owner, too.
FUNCTIONS = ("refuse_to_rewrite_history()", "holds_only_open_ones_change()", "leases_not_to_older_workers()")
#: The first version in which whoever makes a role is a member of it, and may not act as it without more.
_SET_OPTION_VERSION = 160_000

#: Rights on our tables as they are, of roles and of everybody (null).
READ_RIGHTS = """
with ours as (
    select to_regclass(name)::oid as id, name from unnest(%(tables)s::text[]) as given (name)
), held as (
    select ours.name, null::text as column_name, acl.grantee, acl.privilege_type
    from ours join pg_class on pg_class.oid = ours.id cross join lateral aclexplode(pg_class.relacl) as acl
    union all
    select ours.name, pg_attribute.attname::text, acl.grantee, acl.privilege_type
    from ours join pg_attribute on pg_attribute.attrelid = ours.id
    cross join lateral aclexplode(pg_attribute.attacl) as acl
)
select pg_roles.rolname, held.name, held.privilege_type, held.column_name
from held left join pg_roles on pg_roles.oid = held.grantee
where held.grantee = 0 or pg_roles.rolname = any(%(roles)s::text[])
"""

#: Whose the ledger is, if there is one.
FIND_OWNER = """
select pg_get_userbyid(relowner)::text from pg_class
where oid = to_regclass('journal') and to_regclass('installation') is not null
"""

#: Rights beyond those of an installation's processes, which roles of its name must not have.
FIND_TOO_MIGHTY = """
select rolname::text from pg_roles
where rolname = any(%(roles)s::text[]) and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication
    or pg_has_role(rolname, %(owner)s, 'MEMBER')
    or exists (
        select from pg_roles as mighty
        where mighty.rolname = any(%(mighty)s::text[]) and pg_has_role(pg_roles.rolname, mighty.oid, 'MEMBER')
    ))
"""
#: Roles that every cluster has, or those of a newer version, and that reach beyond the rights to tables.
MIGHTY_ROLES = (
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_maintain",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
)


@dataclass(frozen=True)
class RoleSetup:
    """The roles that are to be there."""

    prefix: str = DEFAULT_PREFIX
    #: What they identify themselves with, where they do by password. Only its SCRAM verifier is sent to Postgres.
    passwords: Mapping[Part, str] = field(default_factory=dict, repr=False)
    #: Takes a line on what could not be done and is not needed.
    note: Callable[[str], None] = field(default=lambda _line: None, repr=False)

    def names(self) -> dict[Part, str]:
        """Return what each role is called."""
        return {part: role_name(part, self.prefix) for part in PARTS}


def make_roles(session: PostgresSession, setup: RoleSetup) -> None:
    """Make the roles that are not there, let them in, and set the passwords that are given.

    Raises:
        DeniedByRole: the role of this session may not do something; the message says which, and who may.
        ConfigurationError: a role of such a name is there that may do too much, or the ledger is another owner's.
    """
    names, owner = setup.names(), role_name("owner", setup.prefix)
    found = _owner_of_ledger(session)
    if found is not None and found != owner and found.endswith("_owner") and _prefix_of(session, found):
        raise ConfigurationError(
            f"The ledger belongs to the role {found}; set CREDITLANE_ROLE_PREFIX={found.removesuffix('_owner')}."
        )
    for name in names.values():
        if _value(session, "select count(*) from pg_roles where rolname = %s", name) == 0:
            with _needing(session, f"CREATEROLE, to make the role {name}"), _unless_made(session):
                _execute(session, "create role {} login", name)
    processes = [name for part, name in names.items() if part != "owner"]
    values = {"roles": processes, "owner": owner, "mighty": list(MIGHTY_ROLES)}
    mighty = session.execute(FIND_TOO_MIGHTY, values).fetchall()
    if mighty:
        raise ConfigurationError(
            f"The role {mighty[0][0]} is there and may do more than a process of Creditlane: choose other names "
            "with CREDITLANE_ROLE_PREFIX, or take from it what it has beyond LOGIN."
        )
    for part, password in setup.passwords.items():
        _set_password(session, names[part], password)
    _let_in(session, names)
    _keep_from_making(session, names, setup)
    _let_see_sessions(session, setup)


def act_as_owner(session: PostgresSession, setup: RoleSetup | None) -> None:
    """Do everything from here to the end of the transaction as the owner of the ledger, who gets what is not theirs.

    Without a set-up, that is whoever has the ledger now, if anybody has.

    Raises:
        DeniedByRole: the role of this session may not act as the owner, or the tables are neither's.
    """
    found = _owner_of_ledger(session)
    owner = role_name("owner", setup.prefix) if setup else found
    user = _value(session, "select current_user::text")
    if owner is None:
        return
    if setup and not _may_act_as(session, owner):
        with _needing(session, f"the right to act as {owner}: `grant {owner} to {user}`"):
            _execute(session, "grant {} to {}", owner, user)
    if setup and found is not None:
        with _needing(session, f"to own the ledger's tables, which belong to {found}"):
            _hand_over(session, owner)
    if owner != user:
        with _needing(session, f"the right to act as {owner}, whose the ledger is: connect as that role"):
            _execute(session, "set local role {}", owner)


def grant_rights(session: PostgresSession, setup: RoleSetup | None) -> None:
    """Grant to each role what its processes need, and nothing else; to be done as the owner, after each migration.

    Without a set-up, the roles are those that have been granted rights before.
    """
    owner = _owner_of_ledger(session)
    prefix = setup.prefix if setup else _prefix_of(session, owner) if owner else None
    if prefix is None:
        return
    names: dict[str, Part] = {role_name(part, prefix): part for part in PARTS if part != "owner"}
    held: dict[tuple[str | None, str], set[Right]] = {}
    for role, *right in session.execute(READ_RIGHTS, {"tables": list(GRANTS), "roles": list(names)}):
        held.setdefault((role, right[0]), set()).add(Right(*right))
    for table, grants in GRANTS.items():
        if held.get((None, table)):
            _execute(session, "revoke all on {} from public", table)
        for role, part in names.items():
            wanted = {right for right in rights_of(part) if right.table == table}
            if held.get((role, table), set()) == wanted:
                continue
            _execute(session, "revoke all on {} from {}", table, role)
            if wanted:
                given = sql.SQL(_literal(grants[part]))
                session.execute(sql.SQL("grant {} on {} to {}").format(given, *map(sql.Identifier, (table, role))))
    set_row_rules(session, prefix)


def _let_in(session: PostgresSession, names: Mapping[Part, str]) -> None:
    """Let the roles connect and find the tables, where not everybody may, and the owner make them."""
    database, schema = session.execute("select current_database()::text, current_schema()::text").fetchall()[0]
    if schema is None:
        raise ConfigurationError("there is no schema to make tables in: check the search_path")
    for part, name in names.items():
        wanted = [
            ("database", database, "CONNECT"),
            ("schema", schema, "USAGE"),
            *([("schema", schema, "CREATE")] if part == "owner" else []),
        ]
        for kind, of, privilege in wanted:
            if not _value(session, f"select has_{kind}_privilege(%s, %s, %s)", name, of, privilege):
                what = f"to own the {kind} {of}: `grant {privilege.lower()} on {kind} {of} to {name}`"
                with _needing(session, what):
                    _execute(session, f"grant {privilege.lower()} on {kind} {{}} to {{}}", of, name)
            # Postgres only warns where nothing was granted for want of a right to.
            if not _value(session, f"select has_{kind}_privilege(%s, %s, %s)", name, of, privilege):
                raise DeniedByRole(f"The owner of the {kind} {of} must `grant {privilege.lower()} on it to {name}`")


def _keep_from_making(session: PostgresSession, names: Mapping[Part, str], setup: RoleSetup) -> None:
    """Let nobody but the owner make anything beside the tables: a function there could be called by the others."""
    (schema,) = session.execute("select current_schema()::text").fetchall()[0]
    making = "select has_schema_privilege(%s, %s, 'CREATE')"
    for name in (name for part, name in names.items() if part != "owner"):
        if _value(session, making, name, schema):
            _execute(session, "revoke create on schema {} from {}", schema, name)
        if _value(session, making, name, schema):
            # Everybody may, as before Postgres 15, and others may rely on it.
            setup.note(
                f"{name} may make functions and tables in the schema {schema}, beside the ledger's. If nobody has to: "
                f"`revoke create on schema {schema} from public`"
            )


def _let_see_sessions(session: PostgresSession, setup: RoleSetup) -> None:
    """Let those see into others' sessions who read the watermark; without it they wait for those to end."""
    for part in READERS_OF_SESSIONS:
        name = role_name(part, setup.prefix)
        if _value(session, "select pg_has_role(%s, %s, 'MEMBER')", name, SESSIONS_ROLE):
            continue
        try:
            with session.transaction():
                _execute(session, "grant {} to {}", SESSIONS_ROLE, name)
        except psycopg.errors.InsufficientPrivilege:
            setup.note(
                f"{name} cannot see when others' transactions began, and waits for them to end where that matters; "
                f"a superuser can `grant {SESSIONS_ROLE} to {name}`"
            )


def _set_password(session: PostgresSession, name: str, password: str) -> None:
    verifier = session.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    with _needing(session, f"CREATEROLE and to have made the role {name}, to set its password"):
        statement = sql.SQL("alter role {} password {}").format(sql.Identifier(name), sql.Literal(verifier))
        session.execute(statement)


def _may_act_as(session: PostgresSession, role: str) -> bool:
    how = "SET" if session.info.server_version >= _SET_OPTION_VERSION else "MEMBER"
    return bool(_value(session, "select pg_has_role(%s, %s)", role, how))


def _hand_over(session: PostgresSession, owner: str) -> None:
    """Give the owner every table of ours that is not theirs yet, and what belongs to them."""
    statement = """
        select relname::text from pg_class
        where oid in (select to_regclass(name) from unnest(%s::text[]) as ours (name))
            and pg_get_userbyid(relowner) <> %s
    """
    for (table,) in session.execute(statement, [list(GRANTS), owner]).fetchall():
        _execute(session, "alter table {} owner to {}", table, owner)
    for function in FUNCTIONS:
        statement = "select pg_get_userbyid(proowner) <> %s from pg_proc where oid = to_regprocedure(%s)"
        if _value(session, statement, owner, function):
            named = sql.SQL(_literal(function))
            session.execute(sql.SQL("alter function {} owner to {}").format(named, sql.Identifier(owner)))


def _owner_of_ledger(session: PostgresSession) -> str | None:
    row = session.execute(FIND_OWNER).fetchone()
    return row[0] if row else None


def _prefix_of(session: PostgresSession, owner: str) -> str | None:
    """Return how the roles begin that have this owner, if there are such roles, and they were granted something."""
    prefix = owner.removesuffix("_owner")
    worker = role_name("worker", prefix)
    values = {"tables": ["journal"], "roles": [worker]}
    if prefix == owner or not any(role == worker for role, *_ in session.execute(READ_RIGHTS, values)):
        return None
    return prefix


@contextmanager
def _needing(session: PostgresSession, what: str) -> Iterator[None]:
    """Raise what was missing when Postgres denies something."""
    user = _value(session, "select current_user::text")
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise DeniedByRole(f"The role {user} lacks {what} ({error.diag.message_primary})") from None


@contextmanager
def _unless_made(session: PostgresSession) -> Iterator[None]:
    """Let it be where the `migrate` of another database of this cluster has just made it."""
    try:
        with session.transaction():
            yield
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        pass


def _execute(session: PostgresSession, statement: str, *names: str) -> None:
    session.execute(sql.SQL(_literal(statement)).format(*map(sql.Identifier, names)))


def _value(session: PostgresSession, statement: str, *values: Any) -> Any:
    row = session.execute(_literal(statement), values).fetchone()
    return row[0] if row else None


def _literal(statement: str) -> LiteralString:
    # Made of constants of this module and of `roles.py` only; the driver wants that said to the type checker.
    return statement
