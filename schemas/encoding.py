"""Commands as bytes on a lane: compact JSON with a version. No pickle, and amounts as digit strings."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from pydantic import Field, TypeAdapter, ValidationError

from .commands import COMMAND_VERSION, WITHOUT_NUL, AnyCommand, Command
from .errors import InvalidCommand, UndecodableCommand

#: Longest command on a lane, in bytes; a valid one is far shorter.
MAX_COMMAND_BYTES = 16_384

_adapter: TypeAdapter[AnyCommand] = TypeAdapter(Annotated[AnyCommand, Field(discriminator="kind")])
_validate_json = _adapter.validator.validate_json
_encode_json = msgspec.json.Encoder().encode


def encode_command(command: Command, store_id: str) -> bytes:
    """Return the command as it stands on a lane, sent by this store."""
    fields: dict[str, object] = {"v": COMMAND_VERSION}
    for name, value in command.__dict__.items():
        if name == "version":
            continue
        # Exact type: a digit string survives every JSON reader, a number above 2**53 does not.
        fields[name] = str(value) if type(value) is int else value
    fields["store_id"] = store_id
    return _encode_json(fields)


def decode_command(data: bytes) -> AnyCommand:
    """Return the command that these bytes of a lane stand for.

    Raises:
        UndecodableCommand: they are no JSON, of an unknown version or kind, or break a field's rule.
    """
    if len(data) > MAX_COMMAND_BYTES:
        raise UndecodableCommand(f"{len(data)} bytes are more than the {MAX_COMMAND_BYTES} a command may have")
    try:
        command = _validate_json(data)
    except ValidationError as error:
        raise UndecodableCommand(describe(error)) from None
    if command.store_id is None or command.account_id is None or "version" not in command.model_fields_set:
        raise UndecodableCommand("v, store_id and account_id must be given on a lane")
    return command  # type: ignore[no-any-return]  # the core validator is untyped


def fingerprint(encoded: bytes) -> str:
    """Return a short digest of an encoded command: what tells a replay from another request under the same key."""
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def describe(error: ValidationError) -> str:
    """Return one line that names each field and what it allows, without repeating the input."""
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in item["loc"]]
        message = "must not contain NUL" if WITHOUT_NUL in item["msg"] else item["msg"]
        lines.append(f"{'.'.join(path) or 'command'}: {message}")
    return "; ".join(lines)


def invalid_command(error: ValidationError) -> InvalidCommand:
    """Return the error a caller gets for a command that breaks a rule."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(first["loc"][-1]) if first["loc"] else None
    return InvalidCommand(describe(error), field=field)
