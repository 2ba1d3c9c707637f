"""The stream of the logs: what cannot be written is lost, and nobody waits for it or fails of it."""

import fcntl
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from creditlane.lanes import log_stream
from creditlane.lanes.log_stream import LogStream, adopt_standard_error
from creditlane.schemas.control_characters import visible_lines

#: How long a line may take that waits for a reader, in the test.
WAIT_SECONDS = 0.05
LONG_LINE = "x" * 3 * log_stream.PIPE_BYTES


class Pipe:
    """A pipe with a stream that writes to it."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.writer = os.fdopen(writing, "w")
        self.stream = LogStream(self.writer)

    def fill(self) -> None:
        """Leave no room."""
        flags = fcntl.fcntl(self.writer, fcntl.F_GETFL)
        fcntl.fcntl(self.writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        try:
            while True:
                os.write(self.writer.fileno(), b"\n" * log_stream.PIPE_BYTES)
        except BlockingIOError:
            fcntl.fcntl(self.writer, fcntl.F_SETFL, flags)

    def drain(self) -> str:
        """Read what is there, and leave all the room."""
        os.set_blocking(self.reading, False)
        text = b""
        try:
            while part := os.read(self.reading, 1 << 20):
                text += part
        except BlockingIOError:
            pass
        return text.decode()

    def close_reader(self) -> None:
        os.close(self.reading)
        self.reading = -1


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    monkeypatch.setattr(log_stream, "WAIT_SECONDS", WAIT_SECONDS)
    pipe = Pipe()
    yield pipe
    pipe.writer.close()
    if pipe.reading >= 0:
        os.close(pipe.reading)


def test_lines_come_as_they_are(pipe: Pipe) -> None:
    pipe.stream.write("one\n")
    pipe.stream.write("zwei \u20ac \udcff\n")

    assert pipe.drain() == "one\nzwei \u20ac \\udcff\n"


def test_a_full_disk_is_nothing_to_who_logs() -> None:
    with Path("/dev/full").open("w") as full:
        stream = LogStream(full)

        assert stream.write("lost\n") == 5
        stream.flush()


def test_a_reader_that_is_gone_is_nothing_to_who_logs(pipe: Pipe) -> None:
    pipe.close_reader()

    assert pipe.stream.write("lost\n") == 5


def test_a_reader_that_does_not_read_holds_nobody_up(pipe: Pipe) -> None:
    """Given a full pipe that blocks its writers, when many lines are written, then all are lost after one short wait;
    when it is read again, then the next line comes, with how many were lost."""
    pipe.fill()
    writing = threading.Thread(target=lambda: [pipe.stream.write("lost\n") for _ in range(1_000)], daemon=True)
    writing.start()
    writing.join(30)
    assert not writing.is_alive()
    pipe.drain()

    pipe.stream.write("there again\n")

    note, line = pipe.drain().splitlines()
    assert json.loads(note) == {"event": "log lines were lost", "level": "warning", "lines": 1_000}
    assert line == "there again"


def test_a_line_that_is_longer_than_what_a_pipe_takes_at_once_comes_whole(pipe: Pipe) -> None:
    parts: list[bytes] = []

    def read() -> None:
        while sum(map(len, parts)) < 4 * len(LONG_LINE):
            parts.append(os.read(pipe.reading, 1_000))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    writers = [threading.Thread(target=pipe.stream.write, args=(LONG_LINE.replace("x", each),)) for each in "abcd"]
    for writer in writers:
        writer.start()
    for thread in (*writers, reading):
        thread.join(30)

    # Those of other threads do not come in between.
    text = b"".join(parts).decode()
    assert sorted(text[start : start + len(LONG_LINE)] for start in range(0, len(text), len(LONG_LINE))) == [
        LONG_LINE.replace("x", each) for each in "abcd"
    ]


def test_a_process_without_standard_error_logs_to_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)

    stream = adopt_standard_error()

    assert stream.write("lost") == 4
    assert not stream.isatty()
    assert adopt_standard_error() is stream


def test_a_stream_that_is_closed_is_nothing_to_who_logs() -> None:
    memory = io.StringIO()
    stream = LogStream(memory)
    stream.write("there\n")
    assert memory.getvalue() == "there\n"
    memory.close()

    assert stream.write("lost\n") == 5


@given(text=st.text())
def test_any_text_is_written(text: str) -> None:
    pipe = Pipe()
    pipe.stream.write(text)
    pipe.writer.close()

    assert pipe.drain().encode() == visible_lines(text).encode()
    os.close(pipe.reading)
