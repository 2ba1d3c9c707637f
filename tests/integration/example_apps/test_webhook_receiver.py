"""The receiver of webhooks takes what is signed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from creditlane import Client, Settings
from creditlane.worker.webhooks.delivery_round import deliver_round

from .conftest import EXAMPLES


@pytest.fixture
def start_receiver() -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts the receiver of webhooks with a secret, on a free port; it is gone after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(secret: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": "0"}
        command = [sys.executable, str(EXAMPLES / "webhook_receiver.py")]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
        process.communicate()


def test_the_receiver_takes_what_is_signed_and_nothing_else(
    settings: Settings, start_receiver: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    settings = settings.model_copy(update={"webhook_allowed_networks": "loopback"})
    with Client(settings) as client:
        made = client.webhooks.create(url="http://127.0.0.1:9000/")
        process = start_receiver(str(made.secret))
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().split()[-1]}/"
        client.webhooks.update(made.id, url=url)
        stranger = client.webhooks.create(url=url)
        sent, forged = client.webhooks.send_test(made.id), client.webhooks.send_test(stranger.id)

        deliver_round(settings)

        assert (client.webhooks.delivery(made.id, sent).response_status) == 204
        assert (client.webhooks.delivery(stranger.id, forged).response_status) == 400
        assert process.stdout.readline().startswith("webhook.test None {'object': 'webhook_test'")
