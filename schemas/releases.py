"""Which release of the worker a command takes, so that none is decided while workers that do not know it own lanes.

A worker of an older release decides what it knows beside a newer one, on the same accounts: it would let a debit take
what a hold has set aside. So whatever is new is decided only once Postgres gives lanes to nobody older any more:
`installation.required_release`, which is raised when something new is first asked for and no older worker is left, and
never goes back. A ledger that this version has made has it from the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .commands import Command
from .kinds import Kind

#: The number of this release of the worker, which its heartbeat has. That of 0.1.0 is 0, and stands nowhere.
RELEASE = 1

#: The fields of commands that release 0 knows, by kind. A kind that is not here, and a field beside these, is new. It
#: never changes, whatever is added later. `tests/upgrades` compares it with that release.
FIELDS_OF_RELEASE_0: Mapping[Kind, frozenset[str]] = {
    kind: frozenset({"version", "kind", "store_id", "account_id", "idempotency_key", "callback_url", *fields})
    for kind, fields in {
        Kind.OPEN_ACCOUNT: {
            "customer_id",
            "name",
            "unit_label",
            "initial_balance",
            "overdraft_limit",
            "metadata",
        },
        Kind.CREDIT: {"amount", "reference", "metadata"},
        Kind.DEBIT: {"amount", "reference", "metadata"},
        Kind.REVERSE: {"transaction_id"},
        Kind.FREEZE: set[str](),
        Kind.UNFREEZE: set[str](),
        Kind.CLOSE: set[str](),
        Kind.POST: {"reference", "entries", "metadata"},
    }.items()
}


def _added_fields(kind: Kind) -> dict[str, Any] | None:
    """Return the fields that are new, with what they are where nobody asks for anything; None for a kind that is."""
    known = FIELDS_OF_RELEASE_0.get(kind)
    if known is None:
        return None
    return {name: field.default for name, field in kind.record.model.model_fields.items() if name not in known}


#: What is new of each model.
_ADDED: Mapping[type[Command], dict[str, Any] | None] = {kind.record.model: _added_fields(kind) for kind in Kind}


def is_new(command: object) -> bool:
    """Return whether an older worker does not know this command, or something that it asks for.

    What is taken off a lane as no model is a plain credit or debit, which every release knows.
    """
    added = _ADDED.get(type(command), {})  # type: ignore[arg-type]
    return added is None or any(getattr(command, name) != default for name, default in added.items())
