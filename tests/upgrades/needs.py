"""Makes a ledger with the release that it is run with, and prints what that release's code needs of it, as JSON.

Argument: the URL of an empty database. Statements are those that stand in constants; few are put together at work.
"""

import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from typing import Any

import creditlane

STATEMENT = re.compile(r"\s*(select|insert|update|delete|with|copy|lock)\s", re.IGNORECASE)
#: They make databases of their own, run only by Alembic, or need what only their process has.
LEFT_OUT = re.compile(r"creditlane\.(benchmarks|examples|tests|schemas\.migrations|.*__main__|.*_child)\b")


def statements() -> Iterator[tuple[str, str]]:
    """Yield the name and text of everything that looks like a statement."""
    for module in pkgutil.walk_packages(creditlane.__path__, "creditlane.", onerror=lambda _: None):
        if not LEFT_OUT.match(module.name):
            for name, value in vars(importlib.import_module(module.name)).items():
                yield from _texts(f"{module.name}.{name}", value)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str) and STATEMENT.match(value):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(f"{name}[{key}]", part)
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _texts(f"{name}[{number}]", part)


def main() -> None:
    from creditlane.schemas import commands
    from creditlane.schemas.installation import SCHEMA_REVISION
    from creditlane.schemas.migrate import migrate
    from creditlane.schemas.roles import FIND_MISSING, PARTS, wanted_by

    migrate(sys.argv[1], partitions=8)
    needs = {
        "revision": SCHEMA_REVISION,
        "statements": dict(statements()),
        "fields": {
            model.model_fields["kind"].default: sorted(model.model_fields)
            for model in vars(commands).values()
            if isinstance(model, type) and issubclass(model, commands.Command) and "kind" in model.model_fields
        },
        "entry_fields": sorted(commands.PostEntry.model_fields),
        "find_missing": FIND_MISSING,
        "rights": {part: wanted_by(part) for part in PARTS if part != "owner"},
    }
    print(json.dumps(needs))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()
