"""The walk through the HTTP API in docs/http-api.md works as printed, against `creditlane up`."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from creditlane import Settings

GUIDE = Path(__file__).parents[3] / "docs" / "http-api.md"
ANYTHING = "…"
SEPARATOR = "=== the next block ==="
#: A block for the shell, and the block after it with what it prints, if there is one.
BLOCKS = re.compile(r"^```sh\n(.*?)^```\n(?:```(json|text)\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    script: str
    kind: str
    expected: str


def blocks() -> Iterator[Block]:
    for match in BLOCKS.finditer(GUIDE.read_text()):
        yield Block(match[1], match[2] or "", match[3] or "")


def agrees(expected: Any, found: Any) -> bool:
    """Return whether all that is printed is there; what is there may be more."""
    if expected == ANYTHING:
        return found is not None
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(agrees(value, found.get(name)) for name, value in expected.items())
    if isinstance(expected, list):
        return len(expected) == len(found) and all(map(agrees, expected, found))
    return bool(expected == found)


def documents(text: str) -> list[Any]:
    """Return what several requests print, one after the other, with or without a line's end between them."""
    found, rest, decoder = [], text.strip(), json.JSONDecoder()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].lstrip()
    return found


def assert_prints(block: Block, printed: str) -> None:
    if block.kind == "json":
        assert agrees(documents(block.expected), documents(printed)), f"{block.script}\n{printed}"
    if block.kind == "text":
        for line, expected in zip(printed.splitlines(), block.expected.splitlines(), strict=True):
            pattern = re.sub(r"([\[\]*?])", r"[\1]", expected).replace(ANYTHING, "*")
            assert fnmatchcase(line, pattern), f"{line}\n{pattern}"


def test_every_printed_command_does_what_the_guide_says(local_stack: Path, shell_environment: dict[str, str]) -> None:
    assert shutil.which("curl"), "the guide is for curl, so this test needs it: install curl"
    found = list(blocks())
    assert len(found) == 11

    script = f"\necho; echo '{SEPARATOR}'\n".join(block.script for block in found)
    result = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=local_stack,
        env=shell_environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    outputs = [output.strip() for output in result.stdout.split(SEPARATOR)]
    for block, printed in zip(found, outputs, strict=True):
        assert_prints(block, printed)


def test_the_guide_names_every_setting_of_the_api_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(CREDITLANE_API_\w+)` \| ([\d,]+)", GUIDE.read_text(), flags=re.MULTILINE))
    settings = Settings()
    defaults = {
        f"CREDITLANE_{name.upper()}": f"{value:,.0f}"
        for name, value in settings
        if name.startswith("api_") and not isinstance(value, str)
    }

    assert rows == defaults


@pytest.mark.parametrize(("expected", "found"), [({"a": "1"}, {"a": "2"}), (["…"], []), ({"a": "…"}, {}), ("1", 1)])
def test_a_difference_is_noticed(expected: Any, found: Any) -> None:
    assert not agrees(expected, found)
