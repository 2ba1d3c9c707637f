"""Lines of the batch endpoint: each becomes an encoded command, or a problem that spoils only this line. No socket.

A plain credit or debit, which is nearly every line of a metering batch, takes a fast path: decoded once, encoded as
it stands on a lane, and judged by the very rules by which a worker takes it off. Anything else is judged by the models.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_type_hints

import msgspec
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ...lanes.encoding import MAX_COMMAND_BYTES, PlainCommand, decode_command, encode_command
from ...schemas.commands import COMMAND_VERSION, Command, LimitName
from ...schemas.errors import InvalidCommand, UndecodableCommand
from ...schemas.identifiers import position_of
from ...schemas.kinds import KIND_OF_WORD, Kind
from ..client.chunks import addressed, generated_key, make_command
from .errors import Problem, problem_of, problem_of_fields
from .idempotency_header import KEY_FIELD
from .middleware.body_fields import check_fields
from .models import holds as hold_models
from .models import ledger as models

#: What ends a line of the body.
NEWLINE = b"\n"
#: Quotation marks of a plain credit or debit with each of its five fields once.
_PLAIN_QUOTES = 20


class _PlainLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    kind: Literal["credit", "debit"]
    account_id: str
    amount: str
    reference: str
    idempotency_key: str


class _LaneMovement(msgspec.Struct, gc=False):
    """A credit or debit with its fields in the order in which `encode_command` writes them; a test holds them equal."""

    v: int
    account_id: str
    idempotency_key: str
    amount: str
    reference: str
    kind: str
    store_id: str


if TYPE_CHECKING:
    ChangeKind = str
else:
    #: The kinds that ask for nothing beside the account: they change its state.
    ChangeKind = Literal[
        tuple(kind.word for kind in Kind if not kind.record.model.content_fields and not kind.record.internal)
    ]


class CreditLine(models.Movement):
    """Credits an account."""

    kind: Literal["credit"]
    account_id: Annotated[str, Field(examples=[models.ACCOUNT_EXAMPLE])]


class DebitLine(models.DebitMovement):
    """Debits an account."""

    kind: Literal["debit"]
    account_id: Annotated[str, Field(examples=[models.ACCOUNT_EXAMPLE])]


class PostLine(models.PostTransaction):
    """Posts a transaction of several entries."""

    kind: Literal["post"]


class OpenAccountLine(models.CreateAccount):
    """Opens an account."""

    kind: Literal["open_account"]


class ReverseLine(models.ReverseTransaction):
    """Reverses a transaction."""

    kind: Literal["reverse"]
    callback_url: models.CallbackUrl = None


class ChangeLine(models.ChangeAccount):
    """Freezes, unfreezes or closes an account."""

    kind: ChangeKind
    callback_url: models.CallbackUrl = None


class HoldLine(hold_models.PlaceHold):
    """Sets a part of a balance aside."""

    kind: Literal["hold"]
    account_id: Annotated[str, Field(examples=[models.ACCOUNT_EXAMPLE])]


class CaptureLine(hold_models.CaptureHold):
    """Debits what a hold has set aside."""

    kind: Literal["capture"]
    hold_id: Annotated[str, Field(examples=[hold_models.HOLD_EXAMPLE])]


class VoidLine(models.RequestBody):
    """Releases what is left of a hold."""

    kind: Literal["void"]
    hold_id: Annotated[str, Field(examples=[hold_models.HOLD_EXAMPLE])]
    idempotency_key: models.BodyKey = None
    callback_url: models.CallbackUrl = None
    dry_run: models.DryRun = False


class ExtendLine(hold_models.ExtendHold):
    """Moves the end of a hold."""

    kind: Literal["extend"]
    hold_id: Annotated[str, Field(examples=[hold_models.HOLD_EXAMPLE])]
    callback_url: models.CallbackUrl = None


class SetLimitLine(models.SetLimitBody):
    """Sets a limit of an account, or takes it away."""

    kind: Literal["set_limit"]
    account_id: Annotated[str, Field(examples=[models.ACCOUNT_EXAMPLE])]
    limit: LimitName


#: What a line may be, as the document shows it.
LINES: tuple[type[BaseModel], ...] = (
    CreditLine,
    DebitLine,
    PostLine,
    OpenAccountLine,
    ReverseLine,
    ChangeLine,
    HoldLine,
    CaptureLine,
    VoidLine,
    ExtendLine,
    SetLimitLine,
)


def lines_by_word(lines: Sequence[type[BaseModel]], kinds: Iterable[Kind]) -> dict[str, type[BaseModel]]:
    """Return the model of a line for each kind, by its word.

    Raises:
        TypeError: a kind has no line, or a line is of no kind.
    """
    found = {word: line for line in lines for word in get_args(get_type_hints(line)["kind"])}
    if odd := sorted(found.keys() ^ {kind.word for kind in kinds}):
        raise TypeError(f"the batch endpoint and the kinds of command differ in {', '.join(odd)}")
    return found


#: The kinds that a line can be of.
LINE_KINDS = [kind for kind in Kind if not kind.record.internal]
lines_by_word(LINES, LINE_KINDS)
_ANY_LINE: Any = Union[LINES]  # noqa: UP007  # made of what is known when this is imported

_decode_plain = msgspec.json.Decoder(_PlainLine).decode
_encode = msgspec.json.Encoder().encode
_adapter: TypeAdapter[BaseModel] = TypeAdapter(Annotated[_ANY_LINE, Field(discriminator="kind")])
#: The field that an error is about which names none.
_WHERE = {"union_tag_not_found": ("kind",), "union_tag_invalid": ("kind",)}


class ReadyCommand(msgspec.Struct, frozen=True, gc=False):
    """A command that may go on its lane."""

    account_id: str
    idempotency_key: str
    encoded: bytes
    dry_run: bool = False


def command_of(line: bytes, store_id: str) -> ReadyCommand:
    """Return the command of this line, sent by this store.

    Raises:
        Problem: the line is none.
    """
    try:
        return _plain(line, store_id) or _any(line, store_id)
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False)
        # The kind that was recognised stands before the name of the field; where it was not, it is what is wrong.
        raise problem_of_fields(
            [{**item, "loc": item["loc"][1:] or _WHERE.get(item["type"], ())} for item in items]
        ) from None
    except InvalidCommand as error:
        raise problem_of(error) from None


def _plain(line: bytes, store_id: str) -> ReadyCommand | None:
    """Return the plain credit or debit, or None for anything that the models have to judge."""
    if line.count(b'"') != _PLAIN_QUOTES:
        # A field may stand there twice, of which the decoder would say nothing.
        return None
    try:
        found = _decode_plain(line)
        encoded = _encode(
            _LaneMovement(
                COMMAND_VERSION,
                found.account_id,
                found.idempotency_key,
                found.amount,
                found.reference,
                found.kind,
                store_id,
            )
        )
        if type(decode_command(encoded)) is PlainCommand:
            return ReadyCommand(found.account_id, found.idempotency_key, encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, UndecodableCommand):
        # The models say what is wrong, field by field.
        return None
    return None


def _any(line: bytes, store_id: str) -> ReadyCommand:
    check_fields(line)
    command = addressed(_command_of_model(_adapter.validate_json(line)), store_id)
    encoded = encode_command(command, store_id)
    if len(encoded) > MAX_COMMAND_BYTES:
        raise too_long()
    return ReadyCommand(command.account_id, command.idempotency_key, encoded, command.dry_run)


def _command_of_model(line: BaseModel) -> Command:
    fields = {name: value for name, value in line.model_dump().items() if value is not None}
    kind = KIND_OF_WORD[fields.pop("kind")]
    match line:
        case ReverseLine():
            position = position_of(line.transaction_id)
            if position is None:
                raise InvalidCommand("transaction_id: must be the id of a transaction", field="transaction_id")
            if ("amount" in fields) is not ("idempotency_key" in fields):
                raise InvalidCommand("idempotency_key: is required with an amount, and only there", field=KEY_FIELD)
            fields["account_id"] = position.account_id
        case ChangeLine() | VoidLine() | ExtendLine() | SetLimitLine():
            fields.setdefault("idempotency_key", generated_key(kind.word))
        case CreditLine() | DebitLine() | PostLine() | HoldLine() | CaptureLine():
            if "idempotency_key" not in fields:
                raise InvalidCommand("idempotency_key: is required", field="idempotency_key")
    return make_command(kind.record.model, **fields)


def too_long() -> Problem:
    """Return the problem of a line that is longer than any command."""
    return Problem("too_large", f"The line has more than the {MAX_COMMAND_BYTES} bytes that a command may have.")


class LineSplitter:
    """Cuts a body that comes in parts into its lines, and holds no more than one line of the longest length.

    A byte-order mark before the first line is no part of it.
    """

    def __init__(self) -> None:
        self._is_first = True
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, body: bytes) -> Iterator[bytes | None]:
        """Yield the lines that this part completes, without their ends; None for one that is too long."""
        first, *rest = body.split(NEWLINE)
        self._keep(first)
        for part in rest:
            yield self._take()
            self._keep(part)

    def finish(self) -> Iterator[bytes | None]:
        """Yield the last line, if the body did not end with a line's end."""
        if self._length:
            yield self._take()

    def _keep(self, part: bytes) -> None:
        self._length += len(part)
        if self._length > MAX_COMMAND_BYTES:
            # What is too long is refused whole; its bytes need not be held.
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _take(self) -> bytes | None:
        line = None if self._length > MAX_COMMAND_BYTES else b"".join(self._parts)
        self._parts.clear()
        self._length = 0
        if self._is_first and line is not None:
            line = line.removeprefix(BOM_UTF8)
        self._is_first = False
        return line
