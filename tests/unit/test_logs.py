"""What every process logs: one form, no control characters of others, no password, no row of a customer."""

import json
import subprocess
import sys
from functools import cache

import pytest

LOG = """
import logging, os, sys, threading
import psycopg, structlog
from creditlane.schemas.settings import load_settings
from creditlane.lanes.logs import configure_logs
if sys.argv[1] != "api":
    from creditlane.worker.jobs.rq_worker import adopt_rq_logs
    adopt_rq_logs()
load_settings()
configure_logs(sys.argv[2], of_libraries=sys.argv[1] == "api")
log = structlog.get_logger("ours")
text = "a\\x1b[2J\\x1b]0;OWNED\\x07\\x9bb\\rc\\nforged"
log.warning("request", path=text, many=[text], **{"na\\x1bme": 1})
log.warning(text)
library = logging.getLogger("uvicorn.error" if sys.argv[1] == "api" else "rq.worker")
library.error("library %s", text)
print(text.replace("\\n", " "), file=sys.stderr)
try:
    local_secret = "very" + "local"
    raise ValueError(f"{text} of redis://:s3cr3t#x@h/0, s3cr3t")
except ValueError:
    log.exception("ours with its cause")
    library.exception("a library's")
thread = threading.Thread(target=lambda: {}["s3cr3t " + text])
thread.start(); thread.join()
raise ValueError("last s3cr3t " + text)
"""


@pytest.fixture(params=["api", "worker"])
def process(request: pytest.FixtureRequest) -> str:
    """The API, whose libraries log, too, and all others."""
    return str(request.param)


@cache
def written(process: str, log_format: str) -> str:
    environment = {"CREDITLANE_REDIS_URL": "redis://:s3cr3t%23x@h/0"}
    command = [sys.executable, "-c", LOG, process, log_format]
    result = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert result.returncode == 1
    return result.stderr.decode()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_control_character_of_others_reaches_a_terminal(process: str, log_format: str) -> None:
    text = written(process, log_format)

    assert "OWNED" in text
    for attack in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\r"):
        assert attack not in text
    # What ends the process is its last word, and no line of the log.
    log, _, _ = text.partition("Exception in thread")
    assert "with its cause" in log
    assert not [line for line in log.splitlines() if line.startswith("forged")]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_password_and_no_variable_is_logged(process: str, log_format: str) -> None:
    text = written(process, log_format)

    assert text.count("***") >= 4
    assert "s3cr3t" not in text
    assert "verylocal" not in text


def test_lines_stay_json(process: str) -> None:
    text = written(process, "json")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    assert [line["event"] for line in lines if "cause" in line["event"]] == ["ours with its cause"]
    assert all("ValueError" in line["exception"] for line in lines if "cause" in line["event"])
