"""Which tests stay in one process of `make test`, and which start first.

Two processes that take one test at a time would each make what a file makes once for its tests, and would end with the
longest. xdist's own groups are no help: it writes their names into ids that pytest does not read any more.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

#: Files that share something costly, or must not run beside each other. First what takes longest.
TOGETHER: dict[str, tuple[str, ...]] = {
    # Benchmarks have servers of their own, and need a core each.
    "benchmarks": (
        "acceptance/test_bench.py",
        "acceptance/test_webhook_load.py",
        "acceptance/test_fairness.py",
        "acceptance/test_fat_batches.py",
        "acceptance/test_front_door.py",
    ),
    # A `creditlane up` that all of them use.
    "up": (
        "acceptance/stack/test_beside_it.py",
        "acceptance/stack/test_http_guide.py",
        "acceptance/stack/test_up_api.py",
    ),
    # The official client, which npm fetches.
    "official client": (
        "acceptance/test_official_sdk.py",
        "acceptance/test_webhooks_received.py",
    ),
    # The release before, in an environment of its own.
    "upgrades": (
        "upgrades/test_previous_statements.py",
        "upgrades/test_rolling_upgrade.py",
    ),
}
#: Where long tests are, in the order in which they start; what is nowhere here comes last.
FOLDERS = ("acceptance", "upgrades", "histories", "faults", "property", "integration")

TESTS = Path(__file__).parent
_GROUP_OF = {file: group for group, files in TOGETHER.items() for file in files}
_RANK_OF = {file: rank for rank, file in enumerate(_GROUP_OF)}


def file_of(node_id: str) -> str:
    """Return the path of a test's file below `tests/`."""
    return node_id.partition("::")[0].removeprefix(f"{TESTS.name}/")


def group_of(node_id: str) -> str:
    """Return what of all tests runs in one process with this one: a group's name, or its file."""
    file = file_of(node_id)
    return _GROUP_OF.get(file, file)


def rank_of(node_id: str) -> tuple[int, int]:
    """Return when this test starts: groups first, then folder by folder."""
    file = file_of(node_id)
    folder = file.partition("/")[0]
    return _RANK_OF.get(file, len(_RANK_OF)), FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


def in_order(items: list[pytest.Item]) -> None:
    """Sort the tests as they are to start; those of one file stay as they are."""
    items.sort(key=lambda item: rank_of(item.nodeid))


def scheduler(config: pytest.Config, log: "Producer") -> "LoadFileScheduling":
    """Return what deals the tests out to the processes of this run."""
    from xdist.scheduler import LoadFileScheduling

    class ByGroup(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return ByGroup(config, log)
