"""Tests that share something costly stay in one process of the run, and long ones start first."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from xdist.remote import Producer

from ..scheduling import FOLDERS, TESTS, TOGETHER, group_of, in_order, scheduler

BENCH, LOAD = "tests/acceptance/test_bench.py::test_a", "tests/acceptance/test_webhook_load.py::test_b[a@b::c]"
UP, OTHER = "tests/acceptance/test_up.py::test_c", "tests/test_x.py::test_d"
SMALL = "tests/unit/test_time.py::test_e[1]"


class Node:
    """A process of the run that notes what it is given."""

    shutting_down = False

    def __init__(self) -> None:
        self.gateway = SimpleNamespace(id="gw")
        self.given: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def test_every_file_that_is_named_is_there() -> None:
    files = [file for group in TOGETHER.values() for file in group]
    assert [file for file in files if not (TESTS / file).is_file()] == []
    assert len(set(files)) == len(files)
    assert [folder for folder in FOLDERS if not (TESTS / folder).is_dir()] == []


def test_a_group_is_one_unit_and_every_other_file_is_its_own() -> None:
    assert group_of(BENCH) == group_of(LOAD) == "benchmarks"
    assert group_of(UP) == "acceptance/test_up.py"
    assert group_of(SMALL) == "unit/test_time.py"
    assert group_of(OTHER) == "test_x.py"


def test_groups_start_first_and_what_is_short_comes_last() -> None:
    items = cast("list[pytest.Item]", [SimpleNamespace(nodeid=each) for each in (OTHER, SMALL, UP, LOAD, BENCH)])

    in_order(items)

    assert [item.nodeid for item in items] == [BENCH, LOAD, UP, OTHER, SMALL]


def test_each_process_gets_whole_groups_in_the_order_of_collection() -> None:
    """Given two processes, when the first tests are dealt out, then one has all of the group and the other none."""
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=True), getvalue={"tx": ["2*popen"]}.__getitem__, rootpath=TESTS.parent
    )
    deal = scheduler(config, Producer("test", enabled=False))
    nodes: list[Any] = [Node(), Node()]
    collected = [BENCH, SMALL, LOAD, UP, f"{BENCH}2", *(f"{UP}{number}" for number in range(9))]
    for node in nodes:
        deal.add_node(node)
        deal.add_node_collection(node, collected)

    deal.schedule()

    assert [collected[index] for index in nodes[0].given] == [BENCH, LOAD, f"{BENCH}2"]
    assert collected[nodes[1].given[0]] == SMALL
