"""The version stands in one file, and whatever shows one shows that."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

import creditlane
from creditlane.producer.api.app import create_app
from creditlane.schemas.settings import Settings

ROOT = Path(creditlane.__file__).parent


def test_the_package_is_built_with_the_version_that_it_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "creditlane.__version__"}
    assert version("creditlane") == creditlane.__version__


def test_the_api_and_the_image_have_it_too() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())

    assert create_app(Settings()).version == creditlane.__version__
    assert compose["x-creditlane"]["image"] == f"creditlane:{creditlane.__version__}"


def test_the_changelog_has_a_section_for_it() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [name for name, date in headings[1:] if date]

    assert headings[0] == ("Unreleased", "")
    assert len(released) == len(headings) - 1, "a release has its date"
    assert len(set(released)) == len(released)
    if "dev" not in creditlane.__version__:
        assert released[0] == creditlane.__version__
    else:
        assert creditlane.__version__.partition(".dev")[0] not in released
