"""The roles of Postgres that an installation's processes connect as, and what each may do. Knows no database driver.

The tables belong to the owner, who migrates and does what operators do; nobody else can change what stands in the
journal, whatever the statement. `role_setup.py` makes this so, and each process checks at its start that it has what
it needs. A test holds the table in docs/operations.md to this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

from .errors import ConfigurationError

#: What connects: the owner of the tables, and the four kinds of processes.
Part = Literal["owner", "worker", "api", "jobs", "client"]
PARTS: tuple[Part, ...] = get_args(Part)

#: What the names of the roles begin with, unless said otherwise. Roles are the cluster's, so that a second installation
#: in it takes other names.
DEFAULT_PREFIX = "creditlane"
#: Room for the longest ending, in the 63 bytes that a name may have.
PREFIX_FORM = r"^[a-z_][a-z0-9_]{0,55}$"

#: Who reads when transactions of others began, which Postgres shows to nobody else: what is complete is known sooner.
READERS_OF_SESSIONS: tuple[Part, ...] = ("api", "jobs")
SESSIONS_ROLE = "pg_read_all_stats"

#: What the API and clients need alike, to make and change endpoints of webhooks.
_MANAGE_ENDPOINTS = (
    "select, insert, update (url, name, events, status, secret, previous_secret, previous_secret_until, "
    "disabled_reason, failing_since, paused_until, updated_at)"
)

#: What a process of each kind needs, by table and as GRANT has it; the owner may do everything with what is its own.
#: To lock rows takes the right to update some column of them.
GRANTS: Mapping[str, Mapping[Part, str]] = {
    "installation": {
        "worker": "select, update (required_release)",
        "api": "select, update (subscriptions_version)",
        "jobs": "select, update (subscriptions_version)",
        "client": "select, update (subscriptions_version)",
    },
    "alembic_version": {"worker": "select", "api": "select", "jobs": "select", "client": "select"},
    "stores": {"worker": "select", "api": "select", "jobs": "select", "client": "select"},
    "api_keys": {"api": "select"},
    "accounts": {
        "worker": "select, insert, update (status, updated_at, overdraft_limit, max_balance, low_balance, "
        "low_balance_since)",
        "api": "select, update (low_balance, low_balance_since, updated_at)",
        "jobs": "select",
        "client": "select, update (low_balance, low_balance_since, updated_at)",
    },
    "journal": {"worker": "select, insert", "api": "select", "jobs": "select", "client": "select"},
    "holds": {
        "worker": "select, insert, update (status, expires_at, ended_at, captured, remaining)",
        "api": "select",
        "jobs": "select",
        "client": "select",
    },
    "dead_letters": {"worker": "select, insert", "api": "select", "jobs": "select", "client": "select"},
    "workers": {
        "worker": "select, insert, update (expires_at, numbers, lease_seconds, stuck, release), delete",
        "api": "select",
        "jobs": "select",
        "client": "select",
    },
    "leases": {
        "worker": "select, update (worker_id, epoch, reached)",
        "api": "select",
        "jobs": "select",
        "client": "select",
    },
    "webhook_endpoints": {
        "worker": "select (store_id, kind, status, events)",
        "api": _MANAGE_ENDPOINTS,
        "jobs": "select, insert, update (status, disabled_reason, failing_since, paused_until, sender, sender_until, "
        "updated_at), delete",
        "client": _MANAGE_ENDPOINTS,
    },
    "callback_secrets": {
        "api": "select, insert, update (secret, previous_secret, previous_secret_until)",
        "jobs": "select, insert",
        "client": "select, insert, update (secret, previous_secret, previous_secret_until)",
    },
    "outbox": {"worker": "insert", "jobs": "select, update (outbox_id), delete"},
    "events": {"api": "select, insert", "jobs": "select, insert, delete", "client": "select, insert"},
    "deliveries": {
        "api": "select, insert, update (status, attempts, next_attempt_at, error)",
        "jobs": "select, insert, update (status, attempts, next_attempt_at, last_attempt_at, response_status, "
        "latency_ms, response_body, error), delete",
        "client": "select, insert, update (status, attempts, next_attempt_at, error)",
    },
    "due_commands": {
        "api": "select, insert, update (due_at), delete",
        "jobs": "select, update (enqueued_at), delete",
        "client": "select, insert, update (due_at), delete",
    },
    "scheduled_jobs": {
        "worker": "select",
        "api": "select",
        "jobs": "select, insert, update (schedule, next_due_at)",
        "client": "select",
    },
    "job_runs": {
        "worker": "select",
        "api": "select",
        "jobs": "select, insert, update (status, owner, owner_until, attempts, enqueues, enqueued_at, started_at, "
        "finished_at, progress, outcome, error), delete",
        "client": "select",
    },
    "statistics": {"worker": "select", "api": "select", "jobs": "select, insert, delete", "client": "select"},
    "reconciliations": {"worker": "select", "api": "select", "jobs": "select, insert, delete", "client": "select"},
    "exports": {"jobs": "select, insert, update (format, position, finished_at), delete"},
}

#: What of these rights the role of this session has not, in the order in which they are asked for.
FIND_MISSING = """
select name, privilege, column_name
from unnest(%(tables)s::text[], %(privileges)s::text[], %(columns)s::text[])
     with ordinality as wanted (name, privilege, column_name, number)
where not case when column_name is null then has_table_privilege(to_regclass(name), privilege)
               else has_column_privilege(to_regclass(name), column_name, privilege) end
order by number
"""

_PRIVILEGE = re.compile(r"(select|insert|update|delete)(?: \(([a-z_, ]+)\))?")


class Right(NamedTuple):
    """One thing that a role may do."""

    table: str
    #: As Postgres's catalogue has it: `SELECT`, `INSERT`, `UPDATE`, `DELETE`.
    privilege: str
    #: None: of the whole table.
    column: str | None = None

    def __str__(self) -> str:
        column = f" ({self.column})" if self.column else ""
        return f"{self.privilege.lower()}{column} on {self.table}"


class DeniedByRole(ConfigurationError):
    """The role of Postgres may not do this; `creditlane migrate --roles` gives each role what its processes need."""


def role_name(part: Part, prefix: str = DEFAULT_PREFIX) -> str:
    """Return what the role is called in Postgres."""
    return f"{prefix}_{part}"


def rights_of(part: Part) -> Iterator[Right]:
    """Yield everything that is granted to processes of this kind."""
    for table, grants in GRANTS.items():
        for privilege, columns in _PRIVILEGE.findall(grants.get(part, "")):
            for column in columns.split(", ") if columns else [None]:
                yield Right(table, privilege.upper(), column)


def wanted_by(part: Part) -> dict[str, list[str | None]]:
    """Return the values of `FIND_MISSING` for processes of this kind."""
    rights = list(rights_of(part))
    return {
        "tables": [right.table for right in rights],
        "privileges": [right.privilege for right in rights],
        "columns": [right.column for right in rights],
    }


def check_rights(part: Part, rows: list[tuple[Any, ...]]) -> None:
    """Judge the rows of `FIND_MISSING`.

    Raises:
        DeniedByRole: the role lacks something; the message names all of it.
    """
    if rows:
        missing = ", ".join(str(Right(*row)) for row in rows)
        raise DeniedByRole(
            f"The role of CREDITLANE_DATABASE_URL may not do what the part `{part}` of Creditlane needs: {missing}. "
            f"Connect as the role {role_name(part)}, which `creditlane migrate --roles` makes, or grant it."
        )


def denied(reason: object, *parts: Part) -> DeniedByRole:
    """Return the error for what Postgres has denied, and the roles that it takes."""
    roles = " or ".join(role_name(part) for part in parts)
    return DeniedByRole(
        f"Postgres refuses this to the role that it was asked as ({str(reason).strip()}). Connect as {roles}; "
        "`creditlane migrate --roles` makes the roles and grants them what they need."
    )
