"""Nobody makes a session with Postgres but the one module that knows what it must be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import creditlane

PACKAGE = Path(creditlane.__file__).parent
#: Rooms of the product. Benchmarks and tests read the database as others do.
ROOMS = ("schemas", "audit", "producer", "worker", "local")
MAKERS = {"psycopg", "Connection", "AsyncConnection"}


def foreign_sessions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "connect":
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name in MAKERS:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}"


def test_every_session_is_made_in_one_module() -> None:
    sources = [source for room in ROOMS for source in (PACKAGE / room).rglob("*.py")]

    assert len(sources) > 100
    assert [location for source in sources for location in foreign_sessions(source)] == []
