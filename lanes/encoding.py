"""Commands as bytes on a lane: compact JSON with a version. No pickle, and amounts as digit strings."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Annotated, ClassVar, Literal, Protocol, cast

import msgspec
from pydantic import Field, TypeAdapter, ValidationError

from ..schemas.amounts import MAX_AMOUNT_DIGITS
from ..schemas.commands import (
    COMMAND_VERSION,
    MAX_TEXT_CHARACTERS,
    RESERVED_KEY_PREFIXES,
    WITHOUT_NUL,
    Command,
    Credit,
    Debit,
    Post,
)
from ..schemas.control_characters import visible
from ..schemas.errors import InvalidCommand, UndecodableCommand
from ..schemas.identifiers import ACCOUNT_ID_CHARACTERS, MAX_STORE_ID_CHARACTERS, STORE_ID_PATTERN, is_account_id
from ..schemas.kinds import ANY_MODEL

#: Longest command on a lane, in bytes; a valid one is far shorter.
MAX_COMMAND_BYTES = 262_144

_adapter: TypeAdapter[Command] = TypeAdapter(Annotated[ANY_MODEL, Field(discriminator="kind")])
_validate_json = _adapter.validator.validate_json
_encode_json = msgspec.json.Encoder().encode
#: Accounts come again and again. What is asked for has the length of an id, so what is remembered is bounded in bytes.
_is_account_id = lru_cache(maxsize=16_384)(is_account_id)
#: How an encoded command ends that names a callback. No URL holds a quote or a backslash, so nothing else ends so.
_CALLBACK = re.compile(rb',"callback_url":"[^"\\]*"}\Z')


class PlainCommand(msgspec.Struct, frozen=True, gc=False):
    """A credit or debit as taken off a lane: the attributes of `Credit` and `Debit`, at a third of their cost."""

    kind: Literal["credit", "debit"]
    store_id: str
    account_id: str
    idempotency_key: str
    amount: int
    reference: str

    #: With any of these it is not plain, and taken off the lane as a model.
    metadata: ClassVar[None] = None
    callback_url: ClassVar[None] = None
    allow_partial: ClassVar[bool] = False
    dry_run: ClassVar[bool] = False

    @property
    def content_fields(self) -> tuple[str, ...]:
        """The fields of its model that make two of them the same request."""
        return Debit.content_fields if self.kind == "debit" else Credit.content_fields


_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]


class _EncodedPlainCommand(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    v: Literal[1]
    kind: Literal["credit", "debit"]
    store_id: Annotated[str, msgspec.Meta(max_length=MAX_STORE_ID_CHARACTERS)]
    account_id: Annotated[str, msgspec.Meta(min_length=ACCOUNT_ID_CHARACTERS, max_length=ACCOUNT_ID_CHARACTERS)]
    idempotency_key: _Text
    amount: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_AMOUNT_DIGITS)]
    reference: _Text


_decode_plain_command = msgspec.json.Decoder(_EncodedPlainCommand).decode


class LaneCommand(Protocol):
    """A command as taken off a lane: one of the models or a `PlainCommand`, with its store and its account given."""

    @property
    def kind(self) -> str: ...
    @property
    def store_id(self) -> str: ...
    @property
    def account_id(self) -> str: ...
    @property
    def idempotency_key(self) -> str: ...
    @property
    def callback_url(self) -> str | None: ...
    @property
    def dry_run(self) -> bool: ...
    @property
    def content_fields(self) -> tuple[str, ...]: ...


#: Not in the order of the model.
_WRITTEN_APART = frozenset({"version", "store_id", "callback_url", "dry_run"})


def encode_command(command: Command, store_id: str) -> bytes:
    """Return the command as it stands on a lane, sent by this store."""
    fields: dict[str, object] = {"v": COMMAND_VERSION}
    for name, value in command.__dict__.items():
        if name in _WRITTEN_APART or value is None or (value is False and name == "allow_partial"):
            # What a release did not know is left out where it says nothing: the bytes and their digest stay the same.
            continue
        # Exact type: a digit string survives every JSON reader, a number above 2**53 does not.
        fields[name] = str(value) if type(value) is int else value
    fields["store_id"] = store_id
    if metadata := fields.get("metadata"):
        # One order, whatever Postgres makes of it: by the digest of the bytes a replay is known from another request.
        fields["metadata"] = dict(sorted(cast("dict[str, str]", metadata).items()))
    if isinstance(command, Post):
        fields["entries"] = [{**entry.__dict__, "amount": str(entry.amount)} for entry in command.entries]
    if command.dry_run:
        fields["dry_run"] = True
    if command.callback_url is not None:
        # Last, where `fingerprint` leaves it out.
        fields["callback_url"] = command.callback_url
    return _encode_json(fields)


def decode_command(data: bytes) -> LaneCommand:
    """Return the command that these bytes of a lane stand for.

    Raises:
        UndecodableCommand: they are no JSON, of an unknown version or kind, or break a field's rule.
    """
    if len(data) > MAX_COMMAND_BYTES:
        raise UndecodableCommand(f"{len(data)} bytes are more than the {MAX_COMMAND_BYTES} a command may have")
    return _plain_command_of(data) or _command_of(data)


def _plain_command_of(data: bytes) -> PlainCommand | None:
    """Return the plain credit or debit, or None for anything that the models have to judge.

    It lets through only what they let through; a test holds the two together.
    """
    try:
        found = _decode_plain_command(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    amount, key, reference = found.amount, found.idempotency_key, found.reference
    if (
        amount.isdigit()
        and amount.isascii()
        and amount[0] != "0"
        and "\0" not in key
        and "\0" not in reference
        and not key.startswith(RESERVED_KEY_PREFIXES)
        and _is_account_id(found.account_id)
        and _is_store_id(found.store_id)
    ):
        return PlainCommand(found.kind, found.store_id, found.account_id, key, int(amount), reference)
    return None


@lru_cache(maxsize=1_024)
def _is_store_id(text: str) -> bool:
    return re.fullmatch(STORE_ID_PATTERN, text) is not None and not text.endswith("\n")


def _command_of(data: bytes) -> LaneCommand:
    try:
        command = _validate_json(data)
    except ValidationError as error:
        raise UndecodableCommand(describe(error)) from None
    if command.store_id is None or command.account_id is None or "version" not in command.model_fields_set:
        raise UndecodableCommand("v, store_id and account_id must be given on a lane")
    return cast("LaneCommand", command)


def fingerprint(encoded: bytes) -> str:
    """Return a short digest of an encoded command: by which a replay is known from another request under the same key.

    Where its result is sent is no part of what was asked for, and the journal does not keep it.
    """
    if b"callback_url" in encoded:
        encoded = _CALLBACK.sub(b"}", encoded)
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def describe(error: ValidationError, whole: str = "command") -> str:
    """Return one line that names each field, or the whole, and what it allows, without repeating the input."""
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in item["loc"]]
        message = "must not contain NUL" if WITHOUT_NUL in item["msg"] else item["msg"].removeprefix("Value error, ")
        lines.append(f"{'.'.join(path) or whole}: {message}")
    # An unknown field's name may hold anything.
    return visible("; ".join(lines))


def invalid_command(error: ValidationError) -> InvalidCommand:
    """Return the error a caller gets for a command that breaks a rule."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(first["loc"][-1]) if first["loc"] else None
    return InvalidCommand(describe(error), field=field)
