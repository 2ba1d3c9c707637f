"""The ticket of an accepted command: enough to find its result from any process, at any time."""

from __future__ import annotations

import base64
import binascii

import msgspec

from .errors import InvalidCommand

_PREFIX = "cmd_"
_PlainFields = tuple[str, str, str, str, str, bool]
#: With whether it is a dry run, which is written of dry runs only.
_Fields = tuple[str, str, str, str, str, bool, bool]


def _decode(data: bytes) -> _PlainFields | _Fields:
    fields: _PlainFields | _Fields
    try:
        fields = msgspec.json.decode(data, type=_PlainFields)
    except msgspec.ValidationError:
        fields = msgspec.json.decode(data, type=_Fields)
    return fields


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
    #: The command leaves nothing in the ledger, where its key may be another command's, or the command's itself.
    dry_run: bool = False

    def __str__(self) -> str:
        """Return the ticket as a short text that is safe in a URL."""
        fields: list[str | bool] = [self.store_id, self.account_id, self.idempotency_key, self.lane_entry]
        fields += [self.fingerprint, self.kept, *([True] if self.dry_run else [])]
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
            fields = _decode(data)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            raise InvalidCommand("ticket: must be the text that str(ticket) gave", field="ticket") from None
        return cls(*fields[:6], dry_run=fields[6:] == (True,))
