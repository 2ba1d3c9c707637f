"""Work for the tests' own kinds of jobs, and an RQ process with them: `tried_work.py QUEUE [kill STEP NTH]`.

It runs in this process and in others, so whatever it is to wait for or to report goes through Postgres and Redis. The
process can be made to end at the NTH step of a name: of the scheduler's, "commands put", or "export noted".
"""

import os
import signal
import sys
from typing import Any

from creditlane.schemas.settings import load_settings
from creditlane.worker.connections import connect_redis
from creditlane.worker.jobs import process, registry, runs, scheduled_commands, scheduler
from creditlane.worker.jobs.database import Connection
from creditlane.worker.jobs.registry import JobKind
from creditlane.worker.jobs.runs import Outcome, Run
from creditlane.worker.jobs.tasks import resumable_export

#: Every minute, and all that it brings about is a row.
COUNT = "count"
#: On request: reports that it has begun, waits until it is asked to go on, and then is a row too.
HOLD = "hold"
#: Where the tests themselves reach Redis, for what holds a job.
TESTS_REDIS_URL = "TRIED_WORK_REDIS_URL"
#: On request: fails the first time.
STUMBLE = "stumble"
#: How long a lease lasts here, in seconds: long enough for a busy machine, short enough to wait for.
LEASE_SECONDS = 1.0

#: Exports are written and noted in pieces of so many rows, and so many pieces.
PIECE_ROWS, NOTE_PIECES = 50, 4

MODULE = "tried_work_of_the_tests"


def perform(run: Run) -> Outcome:
    """Do any of the three."""
    if run.name == HOLD:
        hold(f"{run.settings.redis_prefix}:{run.run_id}:{run.attempts}")
    if run.name == STUMBLE and not run.progress:
        run.save({"stumbled": True})
        raise RuntimeError("it stumbled")

    def effect(connection: Connection) -> None:
        connection.execute("insert into effects values (%s, %s)", [run.name, run.due_at])

    return Outcome({"attempts": run.attempts}, effect)


def hold(name: str) -> None:
    """Report that this is reached, and wait until somebody says to go on."""
    # As the tests: the user of the jobs has no such keys.
    with connect_redis(os.environ[TESTS_REDIS_URL]) as client:
        client.rpush(f"{name}:reached", "1")
        while client.blpop([f"{name}:go"], timeout=1) is None:
            pass


def install(patch: Any) -> None:
    """Put the tests' kinds where the real ones are; `patch` is pytest's, or just sets."""
    tried = {
        COUNT: JobKind(MODULE, "* * * * *", 60, "make a row"),
        HOLD: JobKind(MODULE, None, 60, "wait"),
        STUMBLE: JobKind(MODULE, None, 60, "fail once"),
        "export": JobKind("resumable_export", None, 60, "the real one, in small pieces"),
    }
    scheduled = {COUNT: "* * * * *"}
    patch(sys.modules, f"creditlane.worker.jobs.tasks.{MODULE}", sys.modules[__name__])
    for module in (registry, runs, scheduler):
        patch(vars(module), "KINDS", tried)
        patch(vars(module), "SCHEDULED", scheduled)
    patch(vars(resumable_export), "PIECE_ROWS", PIECE_ROWS)
    patch(vars(resumable_export), "NOTE_PIECES", NOTE_PIECES)
    patch(vars(runs), "LEASE_SECONDS", LEASE_SECONDS)
    patch(vars(runs), "BEAT_SECONDS", LEASE_SECONDS / 5)


def kill_at(step: str, nth: int) -> None:
    """Let this process end without a word at a step of its scheduler."""
    left = [nth]

    def listener(done: str) -> None:
        left[0] -= done == step
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    class Killed(scheduler.Scheduler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, after_step=listener)

    class KilledCommands(scheduled_commands.DueCommands):
        def _put(self, *arguments: Any) -> list[Any]:
            put = super()._put(*arguments)
            listener("commands put")
            return put

    note = resumable_export._Writing._note

    def noted(*arguments: Any) -> None:
        note(*arguments)
        listener("export noted")

    setattr(resumable_export._Writing, "_note", noted)  # noqa: B010
    vars(process)["Scheduler"] = Killed
    vars(scheduler)["DueCommands"] = KilledCommands


def main() -> None:
    """Run one RQ process with the tests' kinds of jobs."""
    queue, *failpoint = sys.argv[1:]
    install(lambda namespace, name, value: namespace.__setitem__(name, value))
    vars(scheduler)["POLL_SECONDS"] = 0.05
    if failpoint:
        kill_at(failpoint[1], int(failpoint[2]))
    process.run_jobs_process(load_settings(), queue)  # type: ignore[arg-type]  # as the tests say


if __name__ == "__main__":
    main()
