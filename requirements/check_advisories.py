"""Looks for known faults in what a lock names: `check_advisories.py LOCK … [--copy FOLDER]`.

Without a copy it asks the package index, by pip-audit. With one it reads a stored copy of the PyPA's advisory database
(its folder `vulns`), where there is no network. Ends with 0 if nothing is known, 1 if something is, and 3 if it could
not look: never with 0 for what was not looked at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

CLEAN, FOUND, NOT_LOOKED = 0, 1, 3


class Finding(NamedTuple):
    """A known fault of a locked version."""

    package: str
    version: Version
    advisory: str
    #: Other names of it, as CVE numbers.
    aliases: list[str]
    fixed_in: list[str]


class CannotLook(Exception):
    """What is known was not to be had."""


def locked(lock: Path) -> dict[str, set[Version]]:
    """Return the versions that the lock names, by package; some have one for each range of Pythons."""
    versions: dict[str, set[Version]] = {}
    for line in lock.read_text().splitlines():
        if line and line[0] not in "# -":
            wanted = Requirement(line.rstrip("\\ "))
            (pin,) = wanted.specifier
            versions.setdefault(canonicalize_name(wanted.name), set()).add(Version(pin.version))
    return versions


def findings_in(copy: Path, versions: Mapping[str, set[Version]]) -> Iterator[Finding]:
    """Give what the copy knows of these versions.

    Raises:
        CannotLook: the folder is no copy of the database.
    """
    folder = copy / "vulns"
    if not folder.is_dir():
        raise CannotLook(f"{copy} has no folder vulns; it is no copy of the advisory database")
    for package, pinned in versions.items():
        for path in sorted((folder / package).glob("*.yaml")):
            advisory = yaml.safe_load(path.read_text())
            if "withdrawn" in advisory:
                continue
            for version in pinned:
                if any(is_affected(each, version) for each in advisory["affected"]):
                    fixed = [event["fixed"] for event in _events(advisory) if "fixed" in event]
                    yield Finding(package, version, advisory["id"], advisory.get("aliases", []), fixed)


def is_affected(affected: Mapping[str, Any], version: Version) -> bool:
    """Return whether the advisory is of this version: by its list of versions, or by its ranges."""
    if any(_version(text) == version for text in affected.get("versions", ())):
        return True
    return any(
        _is_within(affected_range["events"], version)
        for affected_range in affected.get("ranges", ())
        if affected_range["type"] == "ECOSYSTEM"
    )


def _is_within(events: list[Mapping[str, str]], version: Version) -> bool:
    within = False
    for event in events:
        if "introduced" in event and version >= Version(event["introduced"]):
            within = True
        if ("fixed" in event and version >= Version(event["fixed"])) or (
            "last_affected" in event and version > Version(event["last_affected"])
        ):
            within = False
    return within


def _events(advisory: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    for affected in advisory["affected"]:
        for affected_range in affected.get("ranges", ()):
            if affected_range["type"] == "ECOSYSTEM":
                yield from affected_range["events"]


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def findings_of_the_index(lock: Path) -> Iterator[Finding]:
    """Give what the package index knows.

    Raises:
        CannotLook: it did not answer, or not for all of them.
    """
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--requirement", str(lock)]
    done = subprocess.run([*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        raise CannotLook(done.stderr.decode(errors="replace").strip() or "pip-audit said nothing") from None
    skipped = [each["name"] for each in dependencies if "skip_reason" in each]
    if skipped:
        raise CannotLook(
            f"the index said nothing of {len(skipped)} of {len(dependencies)} packages, {skipped[0]} first"
        )
    for each in dependencies:
        for known in each["vulns"]:
            yield Finding(each["name"], Version(each["version"]), known["id"], known["aliases"], known["fix_versions"])


def main() -> int:
    """Print what was found; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("locks", nargs="+", type=Path, metavar="LOCK")
    parser.add_argument("--copy", type=Path, metavar="FOLDER", help="A stored copy of the PyPA's advisory database.")
    arguments = parser.parse_args()
    worst = CLEAN
    for lock in arguments.locks:
        versions = locked(lock)
        try:
            found = list(findings_in(arguments.copy, versions) if arguments.copy else findings_of_the_index(lock))
        except CannotLook as error:
            print(f"{lock}: could not check: {error}")
            return NOT_LOOKED
        for each in found:
            worst = FOUND
            names, fixed = " ".join([each.advisory, *each.aliases]), ", ".join(each.fixed_in) or "nothing yet"
            print(f"{lock}: {each.package} {each.version}: {names}; mended in {fixed}")
        print(f"{lock}: {len(versions)} packages, {len(found)} known faults")
    return worst


if __name__ == "__main__":
    sys.exit(main())
