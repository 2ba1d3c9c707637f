"""What the API and the libraries below it log: one form, one id, and no traceback lost."""

import json
import subprocess
import sys

import pytest

LOG = """
import logging, sys
import structlog
from creditlane.lanes.logs import configure_logs
configure_logs(sys.argv[1], of_libraries=True)
structlog.contextvars.bind_contextvars(request_id="req_1")
structlog.get_logger("ours").info("by us", number=1)
logging.getLogger("uvicorn.error").warning("by a %s", "library")
logging.getLogger("noise").debug("not of interest")
try:
    raise ValueError("gone wrong")
except ValueError:
    logging.getLogger("library").exception("with its cause")
    structlog.get_logger("ours").exception("ours with its cause")
"""


def lines_of(log_format: str) -> list[str]:
    logged = subprocess.run([sys.executable, "-c", LOG, log_format], capture_output=True, text=True, check=True)
    assert logged.stdout == ""
    return logged.stderr.splitlines()


def test_every_line_is_json_with_the_request_s_id() -> None:
    lines = [json.loads(line) for line in lines_of("json")]

    assert [(line["event"], line["level"], line["request_id"]) for line in lines] == [
        ("by us", "info", "req_1"),
        ("by a library", "warning", "req_1"),
        ("with its cause", "error", "req_1"),
        ("ours with its cause", "error", "req_1"),
    ]
    assert all("ValueError: gone wrong" in line["exception"] for line in lines[2:])


@pytest.mark.parametrize("words", ["by us", "by a library", "gone wrong"])
def test_a_person_reads_the_same(words: str) -> None:
    assert any(words in line for line in lines_of("console"))
