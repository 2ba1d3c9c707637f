"""The whole local stack: Postgres, Redis, worker and RQ processes, the API: up in that order, down in the reverse."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from ..cli.jobs_pool import QUEUES, jobs_pool
from ..cli.process_pool import LogSink, WorkerPool
from ..cli.role_passwords import variable_of
from ..cli.stop_signals import StopSignals
from ..schemas.errors import Unavailable
from ..schemas.postgres_urls import as_role
from ..schemas.roles import PARTS, Part, role_name
from ..schemas.settings import Settings, load_settings
from .api_server import Api, served_api
from .embedded_urls import keep_own, without_own
from .redis_logins import RedisLogins
from .servers import EmbeddedPostgres, EmbeddedRedis
from .stack_record import claimed, recorded

#: Where webhooks may go beside public addresses, unless the environment says: to what runs on a developer's machine.
ALLOWED_NETWORKS = {"CREDITLANE_WEBHOOK_ALLOWED_NETWORKS": "loopback"}

#: Postgres refuses to be root; the others would need every package of this Python where another user can read it.
AS_ROOT = (
    "Redis, the workers, the jobs and the API run as root, as this command does; only Postgres has a user of its own. "
    "Better: start it as a normal user"
)

#: Said where a server of the environment does not answer: perhaps of a stack elsewhere that has stopped meanwhile.
GIVEN_SERVER = (
    "The environment names this server, so none is started here. Was it left by `creditlane env` of another stack? "
    "Then start that one, or run `unset CREDITLANE_DATABASE_URL CREDITLANE_OPERATOR_DATABASE_URL CREDITLANE_REDIS_URL`"
)

#: Takes a line about what the stack does.
Say = Callable[[str], None]


class Stack(NamedTuple):
    """A stack that runs."""

    #: With the URLs of its servers, as a client uses them.
    settings: Settings
    workers: WorkerPool
    #: The embedded ones, by name; not those that somebody else runs.
    servers: dict[str, EmbeddedPostgres | EmbeddedRedis]
    #: None: it was not wanted.
    api: Api | None


@contextmanager
def running_stack(
    data_dir: Path,
    processes: int,
    signals: StopSignals,
    *,
    say: Say,
    worker_log: LogSink,
    log_format: str | None = None,
    with_api: bool = False,
    api_port: int | None = None,
    with_jobs: bool = False,
) -> Iterator[Stack]:
    """Run the stack in this process and its children for as long as the context lasts.

    Postgres and Redis are embedded unless the environment names their URLs, other than those of an earlier start on
    the directory. Servers that still run there, since their starter was killed, are taken over.

    Raises:
        ConfigurationError: a stack runs already on the directory, or a server cannot be started.
        Unavailable: a server of the environment cannot be reached.
    """
    data_dir, settings = data_dir.absolute(), load_settings()
    with ExitStack() as stack:
        stack.enter_context(claimed(data_dir))
        settings = without_own(settings, data_dir)
        logins = RedisLogins(settings.redis_prefix)
        servers = _embedded(data_dir, settings, logins)
        _start_servers(stack, servers, say)
        settings = _with_urls(settings, servers)
        as_part = logins.settings_of_parts(_settings_of_parts(settings, servers), servers.get("Redis"))
        keep_own(data_dir, _urls_of(servers, as_part))
        # Roles of a server that somebody else runs are theirs to make.
        say(_migrated(settings, makes_roles=True) if "Postgres" in servers else _migrated(as_part["owner"]))
        environments = _environments(as_part, log_format)
        workers = WorkerPool(processes, environments["worker"], worker_log)
        stack.callback(_stop_workers, workers, say)
        workers.start()
        if with_jobs:
            _start_jobs(stack, environments["jobs"], worker_log, say)
        api = None
        if with_api:
            api = stack.enter_context(
                served_api(data_dir, as_part["owner"], environments["api"], worker_log, say=say, port=api_port)
            )
        allowed = {name: environments["client"][name] for name in ALLOWED_NETWORKS}
        reach = reaching(as_part["client"], as_part["owner"])
        stack.enter_context(recorded(data_dir, processes, {**reach, **allowed, **(api.environment if api else {})}))
        stack.callback(signals.ignore)
        yield Stack(as_part["client"], workers, servers, api)


def _environments(as_part: Mapping[Part, Settings], log_format: str | None) -> dict[Part, dict[str, str]]:
    """Return the environment of each kind of process."""
    log = {"CREDITLANE_LOG_FORMAT": log_format} if log_format else {}
    return {
        part: {**ALLOWED_NETWORKS, **_without_passwords(os.environ), **reaching(as_part[part]), **log} for part in PARTS
    }


def _migrated(settings: Settings, *, makes_roles: bool = False) -> str:
    """Bring the ledger to the schema of this version, perhaps with roles, and return which that is."""
    from ..lanes.postgres.migrate import migrate
    from ..lanes.postgres.role_setup import RoleSetup

    roles = RoleSetup(settings.role_prefix) if makes_roles else None
    try:
        schema = migrate(settings.require_database_url(), partitions=settings.partitions, roles=roles)
    except Unavailable as error:
        if makes_roles:
            raise
        raise Unavailable(f"{error.message}\n{GIVEN_SERVER}") from error
    return f"The ledger is at schema {schema}"


def _urls_of(servers: Mapping[str, object], as_part: Mapping[Part, Settings]) -> frozenset[str]:
    """Return the URLs under which the embedded servers are given to other processes."""
    given = [as_part["client"], as_part["owner"]]
    databases = {settings.require_database_url() for settings in given if "Postgres" in servers}
    return frozenset(databases | {settings.require_redis_url() for settings in given if "Redis" in servers})


def _settings_of_parts(settings: Settings, servers: Mapping[str, object]) -> dict[Part, Settings]:
    """Return the settings of each kind of process, with the URL of its role.

    Where the roles are not ours, all but the clients have the URL for operators, if there is one.
    """
    url = settings.require_database_url()
    with_role = PARTS if "Postgres" in servers else ()
    urls = {part: as_role(url, role_name(part, settings.role_prefix)) for part in with_role}
    other = dict.fromkeys(PARTS, settings.operator_database_url or url) | {"client": url}
    return {part: settings.model_copy(update={"database_url": urls.get(part, other[part])}) for part in PARTS}


def _without_passwords(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what another part connects with."""
    hidden = {"CREDITLANE_OPERATOR_DATABASE_URL", *(variable_of(part) for part in PARTS)}
    return {name: value for name, value in environment.items() if name not in hidden}


def reaching(settings: Settings, operators: Settings | None = None) -> dict[str, str]:
    """Return the variables with which another process reaches what these settings name; operators' commands, too."""
    url = operators.require_database_url() if operators else settings.require_database_url()
    return {
        **({"CREDITLANE_OPERATOR_DATABASE_URL": url} if url != settings.require_database_url() else {}),
        "CREDITLANE_DATABASE_URL": settings.require_database_url(),
        "CREDITLANE_REDIS_URL": settings.require_redis_url(),
        "CREDITLANE_REDIS_PREFIX": settings.redis_prefix,
    }


def _embedded(data_dir: Path, settings: Settings, logins: RedisLogins) -> dict[str, EmbeddedPostgres | EmbeddedRedis]:
    """Return the servers that the settings do not name."""
    servers: dict[str, EmbeddedPostgres | EmbeddedRedis] = {}
    if settings.database_url is None:
        servers["Postgres"] = EmbeddedPostgres(data_dir / "postgres")
    if settings.redis_url is None:
        servers["Redis"] = EmbeddedRedis(data_dir / "redis", acl=logins.acl)
    return servers


def _with_urls(settings: Settings, servers: dict[str, EmbeddedPostgres | EmbeddedRedis]) -> Settings:
    urls = {"database_url": "Postgres", "redis_url": "Redis"}
    return settings.model_copy(update={field: servers[name].url for field, name in urls.items() if name in servers})


def _start_servers(stack: ExitStack, servers: Mapping[str, EmbeddedPostgres | EmbeddedRedis], say: Say) -> None:
    """Start the servers one after the other; they stop with the context."""
    if os.geteuid() == 0:
        say(AS_ROOT)
    for name, server in servers.items():
        # Before the start, so that an interrupted one leaves nothing behind either.
        stack.callback(_stop, name, server, say)
        server.start()
        say(f"{name} runs as process {server.pid}")
        if isinstance(server, EmbeddedPostgres) and server.remark:
            say(server.remark)


def _stop(name: str, server: EmbeddedPostgres | EmbeddedRedis, say: Say) -> None:
    if server.pid is not None:
        server.stop()
        say(f"{name} has stopped")


def _start_jobs(stack: ExitStack, environment: Mapping[str, str], log: LogSink, say: Say) -> None:
    """Start one RQ process for deliveries and one for the other jobs; both stop before the workers."""
    pools = [jobs_pool(queue, 1, environment, log) for queue in QUEUES]
    stack.callback(say, "The jobs have stopped")
    for pool in pools:
        stack.callback(pool.stop)
        pool.start()


def _stop_workers(workers: WorkerPool, say: Say) -> None:
    workers.stop()
    say("The workers have stopped")
