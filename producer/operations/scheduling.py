"""Commands with a due time: written down in Postgres, from where a process of the jobs puts them on their lanes."""

from __future__ import annotations

from datetime import datetime

from ...lanes.encoding import encode_command
from ...schemas.commands import Command
from ...schemas.errors import IdempotencyKeyMismatch, InvalidCommand
from ..client.chunks import addressed_for_later
from ..ledger.command_reads import account_uuid
from ..ledger.lookups import valid_moment
from ..ledger.statement import Rows, Statement

#: A key belongs to one request. The same again moves its due time, as long as it has not come.
SCHEDULE = """
insert into due_commands (store_id, idempotency_key, account_id, command, due_at)
select store_id, %(key)s, %(account)s, %(command)s, %(due_at)s from stores where public_id = %(store)s
on conflict (store_id, idempotency_key) do update set due_at = case
    when due_commands.enqueued_at is null and due_commands.command = excluded.command then excluded.due_at
    else due_commands.due_at
end
returning command = %(command)s
"""

CANCEL = """
delete from due_commands using stores
where stores.public_id = %(store)s and due_commands.store_id = stores.store_id
    and due_commands.idempotency_key = %(key)s and due_commands.enqueued_at is null
returning 1
"""


def schedule(command: Command, store_id: str, at: datetime) -> Statement[str]:
    """Return what writes the command down for that time; its outcome is the command's key.

    Raises:
        InvalidCommand: it is no command, another store's or a dry run, or the time is none with an offset.
    """
    command, due_at = addressed_for_later(command, store_id), valid_moment(at)
    key = command.idempotency_key

    def outcome(rows: Rows) -> str:
        if not rows:
            raise InvalidCommand(f"store_id: there is no store {store_id}", field="store_id")
        if not rows[0][0]:
            raise IdempotencyKeyMismatch(details={"idempotency_key": key})
        return key

    values = {
        "store": store_id,
        "key": key,
        "account": account_uuid(command.account_id),
        "command": encode_command(command, store_id),
        "due_at": due_at,
    }
    return Statement([SCHEDULE], values, outcome)


def cancel(idempotency_key: str, store_id: str) -> Statement[bool]:
    """Return what forgets the command; its outcome is whether that was in time."""
    return Statement([CANCEL], {"store": store_id, "key": idempotency_key}, bool)
