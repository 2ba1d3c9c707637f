"""No text that somebody else has chosen moves the cursor of a terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditlane.lanes.log_stream import LogStream
from creditlane.schemas.control_characters import visible, visible_lines

#: A title, a cleared screen, a device report, a C1 control sequence, an overwritten line, a text turned around.
ATTACKS = ["\x1b]0;OWNED\x07", "\x1b[2J", "\x1b[6n", "\x9b2J", "good\rbad", "\u202egnp.exe", "\x00", "\x7f", "\x08"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_moves_a_cursor_is_shown_as_an_escape(attack: str) -> None:
    for shown in (visible(attack), visible_lines(attack)):
        assert shown.isprintable()
        assert "\\" in shown


def test_lines_and_colours_of_a_log_stay() -> None:
    line = "\x1b[32minfo\x1b[0m\tmoved 5 \u20ac\n"

    assert visible_lines(line) == line
    assert visible(line).isprintable()


@given(text=st.text())
def test_a_log_stream_writes_nothing_else(text: str) -> None:
    memory = io.StringIO()
    LogStream(memory).write(text)

    written = memory.getvalue()
    assert all(each.isprintable() or each in "\n\t\x1b" for each in written)
    assert visible_lines(written) == written
