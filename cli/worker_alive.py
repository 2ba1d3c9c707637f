"""`creditlane worker alive`: whether the workers of this machine are alive. Imports next to nothing."""

from __future__ import annotations

import os
import sys

from ..lanes.heartbeats import heartbeat_directory, read_signs

#: As in the settings, which are not loaded for this.
DEFAULT_PREFIX = "creditlane"


def report_alive() -> int:
    """Say how the workers of this user, machine and prefix are doing. Returns the exit code: 0 if all are alive."""
    directory = heartbeat_directory(os.environ.get("CREDITLANE_RUNTIME_DIR"))
    prefix = os.environ.get("CREDITLANE_REDIS_PREFIX") or DEFAULT_PREFIX
    try:
        signs = read_signs(directory, prefix)
    except OSError as error:
        sys.stderr.write(f"creditlane: no heartbeat can be read: {error}\n")
        return 1
    silent = [sign for sign in signs if not sign.is_alive]
    if not signs:
        sys.stderr.write(f"creditlane: no worker with the prefix {prefix} runs here as this user ({directory})\n")
    for sign in silent:
        sys.stderr.write(
            f"creditlane: worker process {sign.process_id} has had no heartbeat for {sign.age_seconds:.0f} s\n"
        )
    if silent or not signs:
        return 1
    sys.stdout.write(f"{len(signs)} alive, 0 expired\n")
    return 0
