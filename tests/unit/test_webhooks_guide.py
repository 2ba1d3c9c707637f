"""The guide to webhooks shows events as they are, and code that verifies them."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from creditlane.schemas.events import (
    COMMAND_APPLIED,
    COMMAND_DEAD_LETTERED,
    COMMAND_REJECTED,
    EVENT_TYPES,
    TEST_EVENT,
    new_secret,
)
from creditlane.schemas.journal import JournalRow
from creditlane.schemas.kinds import CREDIT_SIDE, DEBIT_SIDE, NO_SIDE, Kind
from creditlane.worker.webhooks.callbacks import callback_event
from creditlane.worker.webhooks.event_bodies import OutboxItem, events_of
from creditlane.worker.webhooks.signing import Signer

GUIDE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
ANN = "cca_" + "a" * 32
HOLD = "cch_" + "a" * 32 + "1"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def row(
    kind: Kind, side: int, seq: int, *, rejection: str | None = None, content: dict[str, str] | None = None
) -> JournalRow:
    text = None if content is None else json.dumps(content)
    return JournalRow(1, ANN, seq, kind, side, 60, 40, 0, "reversal:cct_1", "r", None, 0, rejection, text)


def made() -> dict[str, Any]:
    """Return an event of each type, as it is made."""
    rows = [
        row(Kind.CREDIT, CREDIT_SIDE, 1),
        row(Kind.DEBIT, DEBIT_SIDE, 1),
        row(Kind.REVERSE, CREDIT_SIDE, 1),
        row(Kind.FREEZE, NO_SIDE, -1),
        row(Kind.DEBIT, DEBIT_SIDE, -1, rejection="insufficient_balance"),
        row(Kind.HOLD, NO_SIDE, -1, content={"ends_at": "2026-03-01T12:00:00+00:00"}),
        row(Kind.CAPTURE, DEBIT_SIDE, 1, content={"hold_id": HOLD, "remaining": "0"}),
    ]
    events = [
        event for each in rows for event in events_of(OutboxItem(each, 1, "s", "c", "n", "u", 0, 50), EVENT_TYPES)
    ]
    callback = callback_event(1, ANN, "k", "https://example.com", rows[0], sequence=1, written_at_us=0)
    return {event.event_type: json.loads(event.body) for event in (*events, callback)}


@pytest.mark.parametrize("block", blocks("json"))
def test_an_event_of_the_guide_has_the_fields_that_are_sent(block: str) -> None:
    shown = json.loads(block)
    sent = made()[shown["eventType"]]

    assert list(shown) == list(sent)
    assert list(shown["object"]) == list(sent["object"])
    assert shown["object"]["object"] == sent["object"]["object"]


def test_every_type_is_named() -> None:
    names = (*EVENT_TYPES, TEST_EVENT, COMMAND_APPLIED, COMMAND_REJECTED, COMMAND_DEAD_LETTERED)

    assert [name for name in names if f"`{name}`" not in GUIDE] == []


def test_the_python_code_verifies() -> None:
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)  # noqa: S102  # of our own guide
    secret = new_secret()
    headers = Signer(secret).headers("evt_1", datetime.now(UTC), '{"id":"evt_1"}')

    assert names["receive"](secret, headers, b'{"id":"evt_1"}') == {"id": "evt_1"}
    assert names["is_genuine"](secret, headers, b'{"id":"evt_1"}')
    assert not names["is_genuine"](secret, headers, b'{"id":"evt_2"}')


def test_the_node_code_verifies(tmp_path: Path) -> None:
    """The part that needs no package; without Node there is nothing to prove it with but that it is there."""
    (block,) = [each for each in blocks("js") if "createHmac" in each]
    node = shutil.which("node")
    assert "creem-signature" in block
    if node is None:
        return
    secret = new_secret()
    headers = Signer(secret).headers("evt_1", datetime.now(UTC), '{"id":"evt_1"}')
    script = tmp_path / "verify.mjs"
    asked = f"{json.dumps(secret)}, {json.dumps(headers)}"
    script.write_text(f"{block}\nconsole.log(isGenuine({asked}, '{{\"id\":\"evt_1\"}}'), isGenuine({asked}, '{{}}'));")

    said = subprocess.run([node, str(script)], capture_output=True, text=True, check=True).stdout

    assert said.strip() == "true false"
