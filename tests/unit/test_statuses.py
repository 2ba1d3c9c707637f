"""The numbers of kinds and statuses stand in one module, and SQL names them."""

import ast
import re
from enum import IntEnum
from pathlib import Path

import pytest

from creditlane.schemas import statuses
from creditlane.schemas.statuses import (
    Status,
    StoredDeliveryStatus,
    StoredEndpointKind,
    StoredEndpointStatus,
    StoredProofKind,
    StoredRunStatus,
    legend,
    listed,
    span,
    word,
)

ROOT = Path(statuses.__file__).parent.parent
ROOMS = ("audit", "benchmarks", "cli", "lanes", "local", "producer", "schemas", "testing", "worker")
#: A column of kinds or statuses that is compared with a number, set to one, or spelt case by case.
BARE = re.compile(
    r"\b(kind|status)\s*(=|<>|!=|<|>|is\s+(not\s+)?distinct\s+from|(not\s+)?in\s*\(|between)\s*\d"
    r"|\bcase\s+[\w.]*(kind|status)\s+when\s+\d",
    re.IGNORECASE,
)


def bare_numbers(source: str) -> list[str]:
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return [found[0] for text in texts if isinstance(text, str) for found in BARE.finditer(text)]


def sources() -> list[Path]:
    # A migration says what a revision is, whatever the code says later.
    found = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if "migrations" not in path.parts]
    assert len(found) > 200
    return found


def test_no_statement_has_the_bare_number_of_a_kind_or_status() -> None:
    found = {str(path.relative_to(ROOT)): numbers for path in sources() if (numbers := bare_numbers(path.read_text()))}

    assert found == {}


@pytest.mark.parametrize(
    ("statement", "is_bare"),
    [
        ("select 1 from journal where kind = 4", True),
        ("select 1 from deliveries d where d.status in (1, 2)", True),
        ("update job_runs set status=3", True),
        ("select case endpoints.kind when 2 then 1 end", True),
        ("select 1 from accounts where status <> 3", True),
        ("select 1 from accounts where status = %(status)s", False),
        ("select 1 from deliveries where response_status = 200", False),
    ],
)
def test_bare_numbers_are_found(statement: str, is_bare: bool) -> None:
    assert bool(bare_numbers(repr(statement))) is is_bare


@pytest.mark.parametrize(
    ("numbers", "stored"),
    [
        (Status, {"ACTIVE": 1, "FROZEN": 2, "CLOSED": 3}),
        (StoredEndpointKind, {"ENDPOINT": 1, "CALLBACKS": 2}),
        (StoredEndpointStatus, {"ENABLED": 1, "DISABLED": 2, "DELETED": 3}),
        (StoredDeliveryStatus, {"PENDING": 1, "DELIVERED": 2, "FAILED": 3}),
        (StoredRunStatus, {"DUE": 1, "RUNNING": 2, "DONE": 3, "FAILED": 4}),
        (StoredProofKind, {"RECENT": 1, "WHOLE": 2}),
    ],
)
def test_the_stored_numbers_do_not_move(numbers: type[IntEnum], stored: dict[str, int]) -> None:
    assert {member.name: int(member) for member in numbers} == stored


def test_the_text_of_numbers() -> None:
    assert listed({Status.CLOSED, Status.ACTIVE}) == "(1, 3)"
    assert span(StoredRunStatus) == "between 1 and 4"
    assert legend(Status) == "1 active, 2 frozen, 3 closed"
    assert word("run.status", StoredProofKind) == "case run.status when 1 then 'recent' when 2 then 'whole' end"


def test_numbers_with_gaps_are_no_span() -> None:
    class Gapped(IntEnum):
        FIRST = 1
        THIRD = 3

    with pytest.raises(ValueError, match="Gapped have gaps"):
        span(Gapped)
