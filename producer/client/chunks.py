"""Commands on their way to the lanes: checked, encoded, and grouped by lane. Pure; the senders move the bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from typing import Any, TypeVar
from uuid import uuid4
from zlib import crc32

from pydantic import ValidationError

from ...lanes.encoding import describe, encode_command, fingerprint, invalid_command
from ...schemas.commands import Command, OpenAccount, Reverse
from ...schemas.errors import CreditlaneError, InvalidCommand, OutcomeUnknown, Unavailable
from ...schemas.identifiers import derive_account_id, is_account_id, position_of
from ...schemas.kinds import SENDABLE_MODELS

#: Most commands that are encoded before they are sent. It bounds the memory of a bulk, and one write to Redis.
CHUNK_COMMANDS = 4_000

_CommandT = TypeVar("_CommandT", bound=Command)


def make_command(kind: type[_CommandT], **fields: Any) -> _CommandT:
    """Return the command with these fields.

    Raises:
        InvalidCommand: a field breaks its rule; nothing was sent.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        raise invalid_command(error) from None


def generated_key(purpose: str) -> str:
    """Return a key that no other request has."""
    return f"{purpose}:{uuid4()}"


def valid_account_id(account_id: str) -> str:
    """Return the account id.

    Raises:
        InvalidCommand: it has not the form of one.
    """
    if not is_account_id(str(account_id)):
        raise InvalidCommand("account_id: must be 'cca_' and 32 hexadecimal digits", field="account_id")
    return account_id


def reversal_of(
    account_id: str,
    transaction_id: str,
    amount: int | str | None = None,
    idempotency_key: str | None = None,
    *,
    dry_run: bool = False,
) -> Reverse:
    """Return the command that undoes the transaction, or this amount of it, for the account of its first entry.

    Raises:
        InvalidCommand: the id has not the form of one, or of amount and key one is there without the other.
    """
    if amount is None and idempotency_key is not None:
        message = "idempotency_key: belongs to an amount; a whole reversal is made once, leave the key out"
        raise InvalidCommand(message, field="idempotency_key")
    if amount is not None and idempotency_key is None:
        message = "idempotency_key: is required with an amount; every partial reversal has one of its own"
        raise InvalidCommand(message, field="idempotency_key")
    partial = {} if amount is None else {"amount": amount, "idempotency_key": idempotency_key}
    # Not every caller has its types checked: what is no text is refused by the model.
    position = position_of(str(transaction_id))
    return make_command(
        Reverse,
        account_id=position.account_id if position else account_id,
        transaction_id=transaction_id,
        dry_run=dry_run,
        **partial,
    )


def addressed(command: Command, store_id: str) -> Command:
    """Return the command with the account that it is for, if this store may send it.

    Raises:
        InvalidCommand: it is no command, or another store's.
    """
    if not isinstance(command, SENDABLE_MODELS):
        raise InvalidCommand(f"command: must be one of the commands, not {type(command).__name__}", field="command")
    if command.store_id is not None and command.store_id != store_id:
        raise InvalidCommand(f"store_id: must be left out or {store_id}, the client's own store", field="store_id")
    if isinstance(command, OpenAccount) and command.account_id is None:
        account_id = derive_account_id(store_id, command.idempotency_key)
        return command.model_copy(update={"account_id": account_id})
    return command


def addressed_for_later(command: Command, store_id: str) -> Command:
    """Return the command with the account that it is for, if this store may have it sent at another time.

    Raises:
        InvalidCommand: as `addressed` does; or it is a dry run, whose result nobody would hear.
    """
    command = addressed(command, store_id)
    if command.dry_run:
        raise InvalidCommand("dry_run: must be left out of what is scheduled; nobody would hear of it", field="dry_run")
    return command


class Chunk:
    """Commands of one store that are sent together, in columns, with the lane that each goes to."""

    __slots__ = ("accounts", "dry_runs", "encoded", "fingerprints", "keys", "lanes", "partitions", "store_id")

    def __init__(self, store_id: str, partitions: int) -> None:
        self.store_id: str = store_id
        self.partitions: int = partitions
        self.accounts: list[str] = []
        self.keys: list[str] = []
        self.fingerprints: list[str] = []
        self.encoded: list[bytes] = []
        #: Positions of those that are dry runs.
        self.dry_runs: set[int] = set()
        #: By partition: the positions in this chunk of the commands that go there, in order.
        self.lanes: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, command: Command) -> None:
        """Append the command.

        Raises:
            InvalidCommand: it is no command, or another store's.
        """
        command = addressed(command, self.store_id)
        if command.dry_run:
            self.note_dry_run()
        self.put(command.account_id, command.idempotency_key, encode_command(command, self.store_id))

    def note_dry_run(self) -> None:
        """Take note that the command that is appended next is a dry run."""
        self.dry_runs.add(len(self.keys))

    def put(self, account_id: str, idempotency_key: str, encoded: bytes) -> None:
        """Append a command that is encoded already."""
        # As `routing.partition_of` says it; a call a command less.
        partition = crc32(account_id.encode()) % self.partitions
        try:
            self.lanes[partition].append(len(self.keys))
        except KeyError:
            self.lanes[partition] = [len(self.keys)]
        self.accounts.append(account_id)
        self.keys.append(idempotency_key)
        self.fingerprints.append(fingerprint(encoded))
        self.encoded.append(encoded)


def chunk_of(command: Command, store_id: str, partitions: int) -> Chunk:
    """Return a chunk of this one command.

    Raises:
        InvalidCommand: it is no command, or another store's.
    """
    chunk = Chunk(store_id, partitions)
    chunk.add(command)
    return chunk


def chunk_of_encoded(store_id: str, account_id: str, idempotency_key: str, encoded: bytes, partitions: int) -> Chunk:
    """Return a chunk of this one command, which goes to its lane byte for byte."""
    chunk = Chunk(store_id, partitions)
    chunk.put(account_id, idempotency_key, encoded)
    return chunk


def chunks_of(commands: Iterable[Command], store_id: str, partitions: int) -> Generator[Chunk, None]:
    """Yield the commands in chunks, in order; what was taken before an error is yielded before it is raised.

    Raises:
        InvalidCommand: a command, or the making of it, breaks a rule; names its position and field.
        Exception: whatever the iterable raises.
    """
    done = 0
    chunk = Chunk(store_id, partitions)
    error: Exception | None = None
    try:
        for command in commands:
            chunk.add(command)
            if len(chunk) == CHUNK_COMMANDS:
                yield chunk
                done += CHUNK_COMMANDS
                chunk = Chunk(store_id, partitions)
    except Exception as raised:  # noqa: BLE001 - raised again below, after what came before it
        error = raised
    if len(chunk):
        yield chunk
    if error is not None:
        raise at_position(error, done + len(chunk)) from error


async def async_chunks_of(
    commands: Iterable[Command] | AsyncIterable[Command], store_id: str, partitions: int
) -> AsyncGenerator[Chunk, None]:
    """Yield the commands in chunks, as `chunks_of` does, from either kind of iterable."""
    if not isinstance(commands, AsyncIterable):
        for chunk in chunks_of(commands, store_id, partitions):
            yield chunk
        return
    done = 0
    chunk = Chunk(store_id, partitions)
    error: Exception | None = None
    try:
        async for command in commands:
            chunk.add(command)
            if len(chunk) == CHUNK_COMMANDS:
                yield chunk
                done += CHUNK_COMMANDS
                chunk = Chunk(store_id, partitions)
    except Exception as raised:  # noqa: BLE001 - raised again below, after what came before it
        error = raised
    if len(chunk):
        yield chunk
    if error is not None:
        raise at_position(error, done + len(chunk)) from error


def at_position(error: Exception, index: int) -> Exception:
    """Return the error of the command at this position of a bulk, everything before which is accepted."""
    if isinstance(error, ValidationError):
        message, field = describe(error), invalid_command(error).field
    elif isinstance(error, InvalidCommand):
        message, field = error.message, error.field
    else:
        return error
    return InvalidCommand(
        f"command {index}: {message} (the {index} before it were accepted, the rest was not looked at)", field=field
    )


def with_progress(error: CreditlaneError, accepted: int) -> CreditlaneError:
    """Return the error of a bulk that stopped, saying how much of it was accepted.

    Unavailable says that nothing was, so it is another error where something was.
    """
    if not isinstance(error, Unavailable | OutcomeUnknown):
        return error
    kind = OutcomeUnknown if accepted else type(error)
    return kind(f"{error.message} ({accepted} commands of this call were accepted before.)")
