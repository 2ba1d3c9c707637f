"""Whatever goes wrong on the command line is one line on standard error and an exit code."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from creditlane.cli import app
from creditlane.cli import main as entry
from creditlane.cli.lazy_commands import loaded
from creditlane.schemas.errors import ConfigurationError, Unavailable


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["creditlane", *arguments])
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def fail() -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    return run(monkeypatch)


def test_the_plain_install_says_what_to_add(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "typer" else find_spec(name))

    assert run(monkeypatch, "--help") == 1
    assert capsys.readouterr().err == "the command line needs `pip install 'creditlane[worker]'`\n"


def test_the_entry_point_itself_needs_none_of_the_command_lines_packages() -> None:
    """Nothing that takes time is imported before signals are heeded, either."""
    heavy = {"typer", "rich", "sqlalchemy", "alembic", "pydantic", "psycopg", "redis", "asyncio"}
    code = f"import sys, creditlane.cli.main; print({heavy} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout == "set()\n"


#: Runs the command line of the arguments, then prints which modules that took.
COUNT_MODULES = """
import json, sys
before = set(sys.modules)
from creditlane.cli.main import main
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules.keys() - before)))
"""


def modules_of(tmp_path: Path, *arguments: str) -> list[str]:
    environment = {**os.environ, "CREDITLANE_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COUNT_MODULES, *arguments]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    modules: list[str] = json.loads(output.splitlines()[-1])
    return modules


#: Time is mostly that of modules, and can be counted on a machine that has other work, too.
@pytest.mark.parametrize(
    ("arguments", "own", "most"),
    [
        (["worker", "alive"], {"cli.worker_alive", "lanes", "lanes.heartbeats"}, 60),
        (["--version"], {"cli.app", "cli.lazy_commands"}, 220),
        (["--help"], {"cli.app", "cli.lazy_commands"}, 220),
    ],
    ids=["alive", "version", "help"],
)
def test_a_command_line_that_starts_imports_no_more_than_it_needs(
    arguments: list[str], own: set[str], most: int, tmp_path: Path
) -> None:
    modules = modules_of(tmp_path, *arguments)

    ours = {name for name in modules if name.partition(".")[0] == "creditlane"}
    benchmarks = {"creditlane.benchmarks"}
    assert ours - benchmarks == {"creditlane", "creditlane.cli", "creditlane.cli.main"} | {
        f"creditlane.{name}" for name in own
    }
    assert len(modules) <= most
    assert not {"pydantic", "psycopg", "redis", "rich", "sqlalchemy", "asyncio"} & set(modules)


def test_a_table_is_drawn_by_what_is_imported_for_it_alone(tmp_path: Path) -> None:
    assert "rich" not in modules_of(tmp_path, "stores", "--help")


def test_every_command_s_summary_is_the_beginning_of_its_own_help() -> None:
    for name, where in app.CreditlaneGroup.deferred.items():
        output = " ".join((loaded(name, where).help or "").split())
        assert output.startswith(where.summary), name


def test_a_command_that_is_misspelled_is_guessed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "statsu") == 2
    assert "'status'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Unavailable("Redis is\nnot there"), "creditlane: Redis is not there\n"),
        (PermissionError(13, "Permission denied", "x"), "creditlane: [Errno 13] Permission denied: 'x'\n"),
        (
            psycopg.OperationalError("server closed\n\tthe connection"),
            "creditlane: OperationalError: server closed the connection (set CREDITLANE_TRACEBACK=1 to see where)\n",
        ),
    ],
)
def test_an_error_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing_with(error, monkeypatch) == 1
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("make", [ConfigurationError, FileNotFoundError, RuntimeError])
def test_an_error_s_text_neither_moves_a_cursor_nor_hides_what_follows(
    make: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given a folder of somebody's, whose name begins what a terminal conceals, and another line."""
    assert failing_with(make("/srv/\x1b[8mnew\nline\udcff is not trusted"), monkeypatch) == 1

    output = capsys.readouterr().err
    assert output.removesuffix("\n").isprintable()
    assert "is not trusted" in output


def test_an_argument_that_is_no_text_is_reported_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        "\udcff".encode()

    monkeypatch.setattr(app, "app", work)

    assert run(monkeypatch, "keys", "create", "--name", "\udcff") == 1
    assert capsys.readouterr().err == "creditlane: an argument is not UTF-8; write it in UTF-8\n"
    assert run(monkeypatch, "keys", "create", "--name", "ÿ") == 1
    assert "UnicodeEncodeError" in capsys.readouterr().err


def test_a_traceback_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDITLANE_TRACEBACK", "1")

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(ZeroDivisionError):
        entry.main()


def test_an_interruption_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_to_stop_ends_what_is_under_way(
    times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given SIGTERM before a command has a handler of its own, when it comes again, then nothing is waited for."""
    before = signal.getsignal(signal.SIGTERM)
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            if times == 2:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(app, "app", work)

    assert run(monkeypatch) == 143
    assert (ended, capsys.readouterr().err) == ([143] * (times - 1), "")
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_need_not_know_every_character(encoding: str) -> None:
    """Given a customer's name that the terminal cannot show, then it is shown in escapes, and JSON stays JSON."""
    program = """if True:
        from pydantic import create_model
        from creditlane.cli import app, main as entry
        from creditlane.cli.output import print_json, print_line, print_table
        def work():
            print_json(create_model("Report", name=(str, "é Żółć 🙂"))())
            print_table(["name"], [["Żółć"]])
            print_line("ends")
        app.app = work
        entry.main()
    """
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, encoding=encoding
    )

    report, brace, listed = result.stdout.partition("}")
    assert json.loads(report + brace) == {"name": "é Żółć 🙂"}
    assert listed.split() == ["name", "Żółć".encode(encoding, "backslashreplace").decode(encoding), "ends"]


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """Given `creditlane … | head -1`, when head has gone, then nothing is said about it."""
    command = [sys.executable, "-c", "from creditlane.cli.main import main; main()", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    finally:
        os.close(writer)

    assert result.stderr == ""
    assert result.returncode == 1


@pytest.mark.parametrize("command", ["status", "verify", "worker", "migrate", "dead list"])
def test_a_missing_setting_is_named_with_what_to_do(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *command.split()) == 1
    output = capsys.readouterr().err
    assert output.startswith("creditlane: CREDITLANE_")
    assert "creditlane up" in output
    assert output.count("\n") == 1


def test_a_wrong_option_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "up", "--workers", "0") == 2
    assert "--workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "env",
        "demo",
        "worker",
        "worker alive",
        "migrate",
        "status",
        "verify",
        "dead list",
        "dead show",
        "dead replay",
    ],
)
def test_every_command_teaches_by_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *command.split(), "--help") == 0
    assert f"creditlane {command}" in capsys.readouterr().out.partition("Example:")[2]


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("creditlane ")
