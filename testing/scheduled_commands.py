"""Commands that are to be put on their lanes at a time: scheduled, moved, cancelled, due. In memory, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ..lanes.encoding import encode_command
from ..schemas.commands import Command
from ..schemas.errors import IdempotencyKeyMismatch


@dataclass
class _Scheduled:
    """A command that is to be put on its lane at a time."""

    encoded: bytes
    at: datetime
    is_enqueued: bool = False


class ScheduledCommands:
    """The scheduled commands of any number of stores. Of one key there is one."""

    def __init__(self) -> None:
        self._commands: dict[tuple[str, str], _Scheduled] = {}

    def schedule(self, command: Command, store_id: str, at: datetime) -> None:
        """Have the command put on its lane at this time; the same command again moves the time.

        Raises:
            IdempotencyKeyMismatch: another command is scheduled under the key.
        """
        key, encoded = command.idempotency_key, encode_command(command, store_id)
        scheduled = self._commands.setdefault((store_id, key), _Scheduled(encoded, at))
        if scheduled.encoded != encoded:
            raise IdempotencyKeyMismatch(details={"idempotency_key": key})
        if not scheduled.is_enqueued:
            scheduled.at = at

    def cancel(self, idempotency_key: str, store_id: str) -> bool:
        """Forget a scheduled command, and return whether it was still to be put on its lane."""
        scheduled = self._commands.get((store_id, idempotency_key))
        if scheduled is None or scheduled.is_enqueued:
            return False
        del self._commands[store_id, idempotency_key]
        return True

    def take_due(self, now: datetime) -> Iterator[tuple[bytes, datetime]]:
        """Yield every command whose time has come, as it stands on a lane, with that time; each once, oldest first."""
        due = [each for each in self._commands.values() if not each.is_enqueued and each.at <= now]
        for each in sorted(due, key=lambda scheduled: scheduled.at):
            each.is_enqueued = True
            yield each.encoded, each.at
