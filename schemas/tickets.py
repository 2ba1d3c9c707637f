"""The ticket of an accepted command: enough to find its result from any process, at any time."""

from __future__ import annotations

import base64
import binascii

import msgspec

from .errors import InvalidCommand

_PREFIX = "cmd_"


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """Proof that a command stands on its lane. `str(ticket)` can be stored, `Ticket.parse` gives it back."""

    store_id: str
    account_id: str
    idempotency_key: str
    #: Id of the command's entry in its lane's stream.
    lane_entry: str
    #: Digest of the command as encoded, see `encoding.fingerprint`.
    fingerprint: str
    #: The result is kept under a poll key for a while.
    kept: bool = False
    #: The producer process that sent the command, and the number it gave it.
    producer_id: str = ""
    number: int = 0

    def __str__(self) -> str:
        """Return the ticket as a short text that is safe in a URL."""
        fields = [self.store_id, self.account_id, self.idempotency_key, self.lane_entry, self.fingerprint, self.kept]
        return _PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(fields)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Return the ticket that `str(ticket)` gave this text for.

        Raises:
            InvalidCommand: the text is no ticket.
        """
        try:
            encoded = text.removeprefix(_PREFIX)
            data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
            fields = msgspec.json.decode(data, type=tuple[str, str, str, str, str, bool])
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise InvalidCommand("ticket: must be the text that str(ticket) gave", field="ticket") from None
        return cls(*fields)
