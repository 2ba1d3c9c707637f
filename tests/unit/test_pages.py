"""What the pages say of the tree, the settings and the Pythons is so."""

import re
import tomllib
from pathlib import Path

import pytest

from creditlane.schemas.settings import PREFIX, Settings
from creditlane.worker.jobs.registry import KINDS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def packages() -> set[str]:
    """Return the rooms that are in the wheel, as the pages write them."""
    names = PROJECT["tool"]["setuptools"]["packages"]
    return {f"{name.removeprefix('creditlane.').replace('.', '/')}/" for name in names if name != "creditlane"}


def test_the_architecture_has_every_room_and_no_other() -> None:
    table = ARCHITECTURE.split("\n| room | what it is for |\n", 1)[1].split("\n\n", 1)[0]
    rooms = [room for line in table.splitlines()[1:] for room in re.findall(r"`([^`]+/)`", line.split("|")[1])]

    assert set(rooms) == packages()
    assert len(rooms) == len(set(rooms))


def test_the_architecture_has_the_layers_that_are_checked() -> None:
    block = re.search(r"(?m)(?:^    .+\n)+", ARCHITECTURE.split("## The tree\n", 1)[1])
    assert block is not None
    documented = [frozenset(re.findall(r"\w+", line)) for line in block[0].splitlines()]
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]

    assert documented == [frozenset(re.findall(r"creditlane\.(\w+)", layer)) for layer in contract["layers"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_word_of_the_glossary_stands_there_once_and_its_paths_are_there() -> None:
    rows = [line for line in GLOSSARY.splitlines() if line.startswith("| **")]
    words = [word for row in rows for word in re.findall(r"\*\*([^*]+)\*\*", row.split("|")[1])]

    assert len(words) > 40
    assert words == sorted(words, key=str.casefold)
    assert len(set(words)) == len(words)
    paths = re.findall(r"`([a-z_]+(?:/[a-z_.]+)+)`", "\n".join(row.split("|")[3] for row in rows))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_decision_is_in_their_list_under_its_number() -> None:
    folder = ROOT / "docs" / "decisions"
    files = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    listed = re.findall(r"^(\d+)\. \[([^\]]+)\]\(([^)]+)\)$", (folder / "README.md").read_text(), re.MULTILINE)

    assert [name for _, _, name in listed] == [path.name for path in files]
    for (number, title, name), path in zip(listed, files, strict=True):
        assert path.read_text().startswith(f"# {number}. {title}\n"), name
        assert name.startswith(f"{int(number):04}-")


def test_the_pages_name_the_pythons_that_are_declared() -> None:
    project = PROJECT["project"]
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    oldest, newest = declared[0], declared[-1]

    assert project["requires-python"] == f">={oldest}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"With Python {oldest} or later" in README
    assert f"Python {oldest} to {newest}" in CONTRIBUTING
    assert set(re.findall(r"With Python (3\.\d+)", README)) == {oldest}


def settings_documented() -> dict[str, list[str]]:
    """Return the default that the tables of the pages give for each setting."""
    documented: dict[str, list[str]] = {}
    for page in PAGES:
        for line in page.read_text().splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
            if len(cells) > 3 and re.fullmatch(rf"`{PREFIX}\w+`", cells[1]):
                documented.setdefault(cells[1].strip("`").removeprefix(PREFIX).lower(), []).append(cells[2])
    return documented


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_a_table_with_its_default(name: str) -> None:
    (documented,) = settings_documented()[name]
    default = Settings.model_fields[name].default

    if isinstance(default, bool):
        assert documented == str(default).lower()
    elif isinstance(default, int | float):
        number = re.match(r"[\d,]+(?:\.\d+)?", documented)
        assert number is not None, documented
        assert float(number[0].replace(",", "")) == default
    elif default:
        assert documented == f"`{default}`"
    else:
        assert documented, "what happens without it"


def test_no_table_has_a_setting_that_is_none() -> None:
    assert set(settings_documented()) == set(Settings.model_fields)


def test_every_job_is_in_the_table_of_jobs_and_no_other() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    ((_, rows),) = re.findall(r"^\| job \|(.*)\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)

    assert re.findall(r"^\| `([a-z-]+)`", rows, re.MULTILINE) == list(KINDS)


def test_the_targets_that_are_documented_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    documented = {
        name for page in PAGES for name in re.findall(r"(?:`|^ +)make ([a-z]+)", page.read_text(), re.MULTILINE)
    }

    assert documented
    assert documented <= targets
