"""The statements by which runs are made, claimed and finished. Leases of owners are judged by Postgres's clock."""

from __future__ import annotations

from ...schemas.statuses import StoredRunStatus, listed

_DUE, _RUNNING, _FAILED = int(StoredRunStatus.DUE), int(StoredRunStatus.RUNNING), int(StoredRunStatus.FAILED)
_UNFINISHED = listed({StoredRunStatus.DUE, StoredRunStatus.RUNNING})
#: Those that nobody does now.
_WAITING = listed({StoredRunStatus.DUE, StoredRunStatus.FAILED})

#: Schedules as the code has them. One whose time has changed is due anew; what others added is left alone.
SYNC_SCHEDULE = """
insert into scheduled_jobs (name, schedule, next_due_at) values (%(name)s, %(schedule)s, %(next_due)s)
on conflict (name) do update set schedule = excluded.schedule, next_due_at = excluded.next_due_at
where scheduled_jobs.schedule <> excluded.schedule
"""

READ_SCHEDULES = """
select name, schedule, next_due_at from scheduled_jobs where name = any(%(names)s)
"""

#: One at a time decides about a schedule, here and when a run is requested or claimed.
LOCK_SCHEDULE = "select next_due_at from scheduled_jobs where name = %(name)s for update skip locked"
AWAIT_SCHEDULE = "select next_due_at from scheduled_jobs where name = %(name)s for update"

FIND_UNFINISHED = f"""
select run_id from job_runs where name = %(name)s and status in {_UNFINISHED} order by run_id limit 1
"""  # noqa: S608  numbers of statuses only

#: One row a due time: a time that was had before, as after a clock went back, makes none.
MAKE_RUN = """
insert into job_runs (name, due_at) values (%(name)s, %(due_at)s) on conflict (name, due_at) do nothing
"""

SET_NEXT_DUE = "update scheduled_jobs set next_due_at = %(next_due)s where name = %(name)s"

REQUEST_RUN = """
insert into job_runs (name, due_at, arguments) values (%(name)s, clock_timestamp(), %(arguments)s) returning run_id
"""

#: Runs whose owner sends no heartbeats are due again, by another job in RQ: theirs may count as started for long.
FREE_LAPSED = f"""
update job_runs set status = {_DUE}, owner = null, owner_until = null, enqueued_at = null, enqueues = enqueues + 1
where status = {_RUNNING} and owner_until < clock_timestamp()
returning name, run_id
"""  # noqa: S608

#: Runs whose job in RQ is to be seen to. Between the two moments, whatever the clock has done in the meantime.
LOCK_UNSEEN = f"""
select run_id, name, due_at, enqueues from job_runs
where status = {_DUE} and (enqueued_at is null
    or enqueued_at not between clock_timestamp() - make_interval(secs => %(seconds)s) and clock_timestamp())
order by run_id limit %(limit)s
for update skip locked
"""  # noqa: S608

NOTE_SEEN = """
update job_runs set enqueued_at = clock_timestamp(), enqueues = %(enqueues)s where run_id = %(run_id)s
"""

#: Takes a run that is due, whose owner sends no heartbeats, or that failed and was requeued; of a scheduled job only
#: while no other run of it is under way.
CLAIM = f"""
update job_runs set status = {_RUNNING}, owner = %(owner)s,
    owner_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s),
    attempts = case status when {_FAILED} then 1 else attempts + 1 end,
    started_at = coalesce(started_at, clock_timestamp()), finished_at = null, error = null
where run_id = %(run_id)s and (status in {_WAITING} or (status = {_RUNNING} and owner_until < clock_timestamp()))
    and not exists (
        select from job_runs as other join scheduled_jobs using (name)
        where other.name = job_runs.name and other.run_id <> job_runs.run_id and other.status = {_RUNNING}
            and other.owner_until > clock_timestamp()
    )
returning due_at, arguments, progress, attempts
"""  # noqa: S608

FIND_NAME = "select name from job_runs where run_id = %(run_id)s"

KEEP = """
update job_runs set owner_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
where run_id = %(run_id)s and owner = %(owner)s
"""

SAVE_PROGRESS = "update job_runs set progress = %(progress)s where run_id = %(run_id)s and owner = %(owner)s"

FINISH = """
update job_runs set status = %(status)s, owner = null, owner_until = null, finished_at = clock_timestamp(),
    outcome = %(outcome)s, error = %(error)s
where run_id = %(run_id)s and owner = %(owner)s
"""
