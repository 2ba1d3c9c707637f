"""Which rows a role's right is for, where it is not for all of a table: rules that Postgres holds the roles to.

RQ processes have origins of callbacks to make and to forget. They could otherwise delete an endpoint and put one of
another URL, or with another secret, instead. The owner of the tables is held to nothing.
"""

from __future__ import annotations

from typing import LiteralString, NamedTuple

from psycopg import sql

from ...schemas.roles import role_name
from ...schemas.statuses import StoredEndpointKind
from .sessions import PostgresSession

#: The tables that have rules.
TABLES = ("webhook_endpoints",)
#: The role that everybody has.
EVERYBODY = "public"

#: The rules that hold, as `RowRule`, and last what each is called.
READ_RULES = """
select tablename::text, permissive::text, cmd::text, roles[1]::text, coalesce(qual, with_check), policyname::text
from pg_policies
join pg_class on pg_class.oid = to_regclass(tablename) and relrowsecurity
join pg_namespace on pg_namespace.oid = relnamespace and nspname = schemaname
where tablename = any(%(tables)s::text[])
"""


class RowRule(NamedTuple):
    """What rows have to be like for a right; each word as Postgres's catalogue has it."""

    table: str
    #: `PERMISSIVE` gives the right, `RESTRICTIVE` keeps all other rows from it.
    kind: LiteralString
    #: `ALL`, `INSERT`, `DELETE`.
    privilege: LiteralString
    role: str
    condition: LiteralString

    @property
    def name(self) -> str:
        """What it is called in Postgres."""
        return f"{self.kind}_{self.privilege}".lower()


def rules_for(prefix: str) -> list[RowRule]:
    """Return the rules that hold for the roles of this prefix."""
    jobs = role_name("jobs", prefix)
    return [
        # Without it nobody but the owner would see a row.
        *(RowRule(table, "PERMISSIVE", "ALL", EVERYBODY, "true") for table in TABLES),
        RowRule("webhook_endpoints", "RESTRICTIVE", "INSERT", jobs, f"(kind = {StoredEndpointKind.CALLBACKS:d})"),
        RowRule("webhook_endpoints", "RESTRICTIVE", "DELETE", jobs, f"(kind = {StoredEndpointKind.CALLBACKS:d})"),
    ]


def set_row_rules(session: PostgresSession, prefix: str) -> None:
    """Make the rules, if they are not there as they should be; to be done as the owner of the tables."""
    rules = rules_for(prefix)
    found = session.execute(READ_RULES, {"tables": list(TABLES)}).fetchall()
    if set(found) == {(*rule, rule.name) for rule in rules}:
        return
    for table in TABLES:
        session.execute(sql.SQL("alter table {} enable row level security").format(sql.Identifier(table)))
    names = "select policyname::text, tablename::text from pg_policies where schemaname = current_schema()"
    for name, table in session.execute(names).fetchall():
        if table in TABLES:
            session.execute(sql.SQL("drop policy {} on {}").format(*map(sql.Identifier, (name, table))))
    for rule in rules:
        # What is inserted is checked; what is there is looked for.
        condition = "with check" if rule.privilege == "INSERT" else "using"
        statement = (
            f"create policy {{}} on {{}} as {rule.kind} for {rule.privilege} to {{}} {condition} ({rule.condition})"
        )
        role = sql.SQL("public") if rule.role == EVERYBODY else sql.Identifier(rule.role)
        session.execute(sql.SQL(statement).format(sql.Identifier(rule.name), sql.Identifier(rule.table), role))
