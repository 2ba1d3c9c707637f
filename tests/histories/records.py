"""What a history is made of: operations as clients saw them, and the books as Postgres has them at the end. Plain data.

Each client process appends to a file of its own a line before every call and a line after it, so that also a killed one
has said what it was about to do. Times are those of the machine's monotonic clock, in nanoseconds: one clock for all
processes.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from creditlane.schemas.kinds import ASKED

#: Later than everything.
NEVER = 2**63 - 1
#: Operations that put a command on a lane; the others only ask.
USES_OF_HOLD = frozenset({"capture", "void", "extend"})
COMMANDS = USES_OF_HOLD | {"open_account", "credit", "debit", "post", "reverse", "freeze", "unfreeze", "close", "hold"}
REVERSAL = "reversal:"

Request = dict[str, Any]
Outcome = dict[str, Any]


@dataclass(slots=True)
class Operation:
    """One call and what became of it; `ended` is NEVER where the caller has not learned it."""

    name: str
    process: str
    request: Request
    began: int
    #: How long the caller was ready to wait, in seconds.
    timeout: float
    ended: int = NEVER
    #: Wall clock when it ended, in microseconds since 1970.
    ended_us: int = NEVER
    outcome: Outcome = field(default_factory=lambda: {"kind": "none"})

    @property
    def op(self) -> str:
        return str(self.request["op"])

    @property
    def kind(self) -> str:
        return str(self.outcome["kind"])

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9

    @property
    def key(self) -> str:
        """The key by which its effect is found; all attempts to reverse one transaction share one."""
        if self.op == "reverse":
            return f"{REVERSAL}{self.request['transaction']}"
        return str(self.request.get("key", ""))

    @property
    def sends(self) -> bool:
        return self.op in COMMANDS and not self.is_dry

    @property
    def is_dry(self) -> bool:
        """It is a trial, which leaves nothing."""
        return bool(self.request.get("dry"))

    def __str__(self) -> str:
        shown = {name: value for name, value in self.request.items() if name != "op"}
        seconds = "no end" if self.ended == NEVER else f"{self.seconds:.3f} s"
        return f"{self.process} {self.op} {json.dumps(shown)} -> {json.dumps(self.outcome)} ({seconds})"


def content_of(request: Request) -> list[Any]:
    """Return what makes two requests of one key the same one."""
    op = request["op"]
    if op in {"credit", "debit"}:
        return [op, request["account"], request["amount"], request["reference"], bool(request.get("partial"))]
    if op == "post":
        return [op, request["reference"], [[leg[0], leg[1], leg[2]] for leg in request["legs"]]]
    if op == "open_account":
        return [op, request["account"], request["customer"], request["name"], request["initial_balance"]]
    if op == "hold":
        return [op, request["account"], request["amount"], request["reference"], request["seconds"]]
    if op in USES_OF_HOLD:
        return [op, request["hold"], *(request.get(name) for name in ("amount", "final", "overage", "seconds"))]
    return [op, request["transaction"] if op == "reverse" else request["account"]]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the journal. `seq` above 0 is an entry, below 0 a decision that moved nothing."""

    account: str
    seq: int
    kind: str
    side: int
    amount: int | None
    balance: int
    limit: int
    key: str
    created_us: int
    rejection: str | None = None
    reference: str | None = None
    #: The rest of what was asked for: the entries of a post, the obstacle of a refusal.
    content: dict[str, Any] = field(default_factory=dict)
    #: Of a further entry of a transaction: where its first one is.
    first: tuple[str, int] | None = None
    #: What is held of the balance after it.
    held: int = 0
    #: Of a decision: how many entries there were before it, where that is known.
    before: int | None = None

    @property
    def asked(self) -> int | None:
        """What a debit of what is there asked for; None of any other."""
        return int(self.content[ASKED]) if self.kind == "debit" and ASKED in self.content else None

    @property
    def position(self) -> tuple[str, int]:
        return self.account, self.seq

    def __str__(self) -> str:
        return (
            f"{self.account} {self.seq:+d} {self.kind} {self.side * (self.amount or 0):+d} balance {self.balance} "
            f"key {self.key!r} rejection {self.rejection} at {self.created_us}"
        )


def content_of_row(row: Row) -> list[Any]:
    """Return what the command of this row asked for, as `content_of` has it."""
    if row.kind == "post":
        legs = [[leg["account_id"], leg["side"], int(leg["amount"])] for leg in row.content["entries"]]
        return ["post", row.content["reference"], legs]
    if row.kind == "open_account":
        asked = row.content
        return [row.kind, row.account, asked["customer_id"], asked["name"], int(asked["initial_balance"])]
    if row.kind in {"credit", "debit"}:
        asked = row.asked
        return [row.kind, row.account, row.amount if asked is None else asked, row.reference, asked is not None]
    if row.kind == "hold":
        return [row.kind, row.account, row.amount, row.reference, row.content.get("expires_in_seconds")]
    if row.kind in USES_OF_HOLD:
        asked, amount = row.content, row.content.get("amount")
        names = ("final", "allow_overage", "expires_in_seconds")
        return [row.kind, asked["hold_id"], None if amount is None else int(amount), *map(asked.get, names)]
    return [row.kind, ":".join(row.key.split(":", 2)[1:2]) if row.kind == "reverse" else row.account]


class OutboxPosition(NamedTuple):
    """What the outbox has of one row: the number of the decision in its account's history."""

    account: str
    seq: int
    sequence: int


class StoredHold(NamedTuple):
    """A hold as the table of holds has it at the end."""

    account: str
    #: Of the decision that made it, without its sign.
    number: int
    status: str
    captured: int
    remaining: int


@dataclass(slots=True)
class Books:
    """Everything that is in Postgres at the end."""

    rows: list[Row]
    published: list[OutboxPosition]
    #: Keys of dead letters.
    dead: set[str] = field(default_factory=set)
    holds: list[StoredHold] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write them down, so that they can be judged again without Postgres."""
        rows = [asdict(row) for row in self.rows]
        lists = {"published": self.published, "dead": sorted(self.dead), "holds": self.holds}
        path.write_text(json.dumps({"rows": rows, **lists}))

    @classmethod
    def read(cls, path: Path) -> Self:
        found = json.loads(path.read_text())
        rows = [Row(**{**row, "first": row["first"] and tuple(row["first"])}) for row in found["rows"]]
        holds = [StoredHold(*each) for each in found.get("holds", ())]
        return cls(rows, [OutboxPosition(*each) for each in found["published"]], set(found["dead"]), holds)


class HistoryFile:
    """Appends the operations of one process; threads may share it."""

    def __init__(self, path: Path, process: str) -> None:
        self._process = process
        self._count = 0
        # Unbuffered and appending: a line is with the system when the call returns, and lines of threads do not mix.
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def begin(self, request: Request, timeout: float) -> str:
        """Write down that the call is about to be made, and return its name."""
        self._count += 1
        name = f"{self._process}#{self._count}"
        self._write({"begins": name, "process": self._process, "timeout": timeout, "request": request})
        return name

    def end(self, name: str, outcome: Outcome) -> None:
        """Write down what the call gave."""
        self._write({"ends": name, "outcome": outcome, "wall_us": time.time_ns() // 1_000})

    def _write(self, line: dict[str, Any]) -> None:
        moment = time.monotonic_ns()
        self._file.write(json.dumps({"at": moment, **line}).encode() + b"\n")


def read_history(paths: Iterable[Path]) -> list[Operation]:
    """Return all operations in the order in which they began; those of a batch one by one."""
    operations: dict[str, Operation] = {}
    for line in (line for path in paths for line in _lines(path)):
        if "begins" in line:
            operation = Operation(line["begins"], line["process"], line["request"], line["at"], line["timeout"])
            operations[operation.name] = operation
        elif line["ends"] in operations:
            operation = operations[line["ends"]]
            operation.ended, operation.ended_us = line["at"], line["wall_us"]
            operation.outcome = line["outcome"]
    return sorted(_single(operations.values()), key=lambda operation: operation.began)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(text)
        except ValueError:
            # The last line of a killed process may be cut off.
            continue


def _single(operations: Iterable[Operation]) -> Iterator[Operation]:
    for operation in operations:
        if operation.op != "batch":
            yield operation
            continue
        commands = operation.request["commands"]
        answers = operation.outcome.get("answers", [])
        missing = {"kind": "unknown"} if answers else operation.outcome
        for number, request in enumerate(commands):
            outcome = answers[number] if number < len(answers) else missing
            yield Operation(
                f"{operation.name}.{number}",
                operation.process,
                request,
                operation.began,
                operation.timeout,
                operation.ended,
                operation.ended_us,
                outcome,
            )
