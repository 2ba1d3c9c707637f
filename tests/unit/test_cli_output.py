"""Plain lines for a pipe, tables for a terminal, and no text that could move a cursor in either."""

import io
import sys

import pytest

from creditlane.cli.output import print_table, progress_bar
from creditlane.producer.operations.dead_letters import escaped
from creditlane.schemas.control_characters import visible


class Terminal(io.StringIO):
    """A standard stream that a person watches."""

    def isatty(self) -> bool:
        return True


def test_piped_lines_are_aligned_and_carry_bare_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["lane", "owner", "lag"], [(3, "a", 1.5), (12, None, None)], title="Lanes")

    assert capsys.readouterr().out == "lane  owner    lag\n   3  a      1.500\n  12  -          -\n"


def test_a_terminal_gets_a_table_with_grouped_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)

    print_table(["units", "text"], [(1234567, "[red]not a colour[/red]")], title="Busiest")

    output = terminal.getvalue()
    assert "1,234,567" in output
    assert "[red]not a colour[/red]" in output
    assert "Busiest" in output


def test_texts_of_customers_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["text"], [("\x1b[2Jé\n\x9b",)])

    assert capsys.readouterr().out == "text\n\\x1b[2Jé\\n\\x9b\n"
    assert visible("plain é") == "plain é"


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert escaped(b'{"a":"\xc3\xa9"}\xff\x00\x1b') == '{"a":"é"}\\xff\\x00\\x1b'


def test_nobody_gets_a_progress_bar_through_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Working", "rows") as progress:
        progress(1, 2)

    assert capsys.readouterr() == ("", "")


def test_a_person_gets_one_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    with progress_bar("Working", "rows") as progress:
        progress(2, 2)

    assert "Working" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()
