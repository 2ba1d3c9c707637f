"""What processes write down is read back whole, also where one of them was killed in the middle of a line."""

import json
from pathlib import Path

from .good_history import good_history
from .records import NEVER, Books, HistoryFile, read_history


def test_an_operation_without_an_end_is_one_whose_outcome_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with HistoryFile(path, "a") as history:
        name = history.begin({"op": "read_balance", "account": "x"}, 5.0)
        history.end(name, {"kind": "read", "balance": 1})
        history.begin({"op": "credit", "account": "x", "key": "k"}, 5.0)
    first, second = read_history([path])
    assert (first.kind, first.began < first.ended) == ("read", True)
    assert (second.kind, second.key, second.ended) == ("none", "k", NEVER)


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with HistoryFile(path, "a") as history:
        name = history.begin({"op": "credit", "account": "x", "key": "k"}, 5.0)
        history.end(name, {"kind": "applied", "balance": 1})
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert [operation.kind for operation in read_history([path])] == ["none"]


def test_commands_of_a_batch_are_operations_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    commands = [{"op": "credit", "account": "x", "key": key} for key in "abc"]
    with HistoryFile(path, "a") as history:
        name = history.begin({"op": "batch", "commands": commands}, 5.0)
        history.end(name, {"kind": "batch", "answers": [{"kind": "accepted"}, {"kind": "unavailable"}]})
    assert [(o.key, o.kind) for o in read_history([path])] == [
        ("a", "accepted"),
        ("b", "unavailable"),
        ("c", "unknown"),
    ]


def test_books_can_be_written_down_and_read_back(tmp_path: Path) -> None:
    _, books = good_history()
    books.dead.add("dead")
    books.write(tmp_path / "books.json")
    assert Books.read(tmp_path / "books.json") == books
    assert json.loads((tmp_path / "books.json").read_text())["dead"] == ["dead"]
