"""docs/security.md names only tests that there are, and says of every guarantee whether it is held."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
SOURCES = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def rows(section: str) -> Iterator[list[str]]:
    """Give the cells of every row of the section's tables, without their heads."""
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_test_that_is_named_is_there() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", PAGE))

    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []
    assert set(re.findall(r"test_\w+\.py", PAGE)) <= {path.name for path in SOURCES}
    everything = "\n".join(SOURCES.values())
    assert {name for name in re.findall(r"::(test_\w+)", PAGE) if f"def {name}(" not in everything} == set()


def test_every_guarantee_is_held_or_plainly_not_given() -> None:
    guarantees = list(rows("What is guaranteed, and what holds it"))

    assert len(guarantees) > 40
    for guarantee, held, by in guarantees:
        assert re.match(r"(yes|not guaranteed)\b", held), guarantee
        assert by, guarantee


def test_no_section_is_empty() -> None:
    parts = re.split(r"^#+ ", PAGE, flags=re.MULTILINE)[1:]

    # One of them has parts of its own, and nothing before them.
    assert {part.strip() for part in parts if "\n" not in part.strip()} <= {"Redis"}
