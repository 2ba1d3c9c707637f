"""Everything that can be set, by environment variables of the prefix `CREDITLANE_` or in code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import ConfigurationError
from .installation import MAX_PARTITIONS
from .redaction import keep_environment_secret
from .roles import DEFAULT_PREFIX, PREFIX_FORM

#: The store that exists from the start, so that nothing needs to be configured.
DEFAULT_STORE = "store_default"
#: Start of the name of every variable.
PREFIX = "CREDITLANE_"


class Settings(BaseSettings):
    """Settings of a producer or worker. Each field is `CREDITLANE_<NAME>` in the environment."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    #: Where the lanes are: redis://, rediss:// or unix://. Never printed: it may hold a password.
    redis_url: str | None = Field(default=None, repr=False)
    #: Where the ledger is: postgresql://. Never printed: it may hold a password.
    database_url: str | None = Field(default=None, repr=False)
    #: The same database for the commands of operators, as a role that may do more. Never printed.
    operator_database_url: str | None = Field(default=None, repr=False)
    #: Start of the names of the roles in Postgres, for several installations in one cluster.
    role_prefix: str = Field(default=DEFAULT_PREFIX, pattern=PREFIX_FORM)
    #: The store whose accounts a client uses.
    store: str = Field(default=DEFAULT_STORE, pattern=r"^store_[0-9A-Za-z_]{1,58}$")
    #: Start of every key in Redis, for several installations on one server.
    redis_prefix: str = Field(default="creditlane", pattern=r"^[0-9A-Za-z_.-]{1,64}$")
    #: What the number of partitions must be; left out, it is taken from the database.
    partitions: int | None = Field(default=None, ge=1, le=MAX_PARTITIONS)
    #: Commands that one lane may hold before it refuses more.
    lane_limit: int = Field(default=1_000_000, ge=1)
    #: Bytes of commands that one lane may hold before it refuses more.
    lane_bytes: int = Field(default=268_435_456, ge=1)
    #: How long a producer waits for a result before the outcome counts as unknown, in seconds.
    wait_timeout_seconds: float = Field(default=10.0, gt=0)
    #: How long a result stays under its poll key, in seconds; Postgres has it for ever.
    result_ttl_seconds: int = Field(default=3_600, ge=1)
    #: Keep the result of every command under a poll key, also of those sent without asking for it.
    keep_all_results: bool = False
    #: Most commands that a worker decides in one transaction.
    batch_limit: int = Field(default=8_000, ge=1, le=50_000)
    #: How long a worker without heartbeats keeps its partitions, in seconds.
    lease_seconds: float = Field(default=10.0, ge=0.5, le=300)
    #: Where workers leave their heartbeats for `creditlane worker alive`; left out, in the temporary directory.
    runtime_dir: str | None = None
    #: `json` or `console`; left out, console on a terminal and JSON elsewhere.
    log_format: str | None = Field(default=None, pattern=r"^(json|console)$")

    #: How long deliveries that are over, and their events, are kept, in days.
    webhook_retention_days: int = Field(default=30, ge=1, le=36_500)

    #: Largest body that the API takes, in bytes; the lines of the batch endpoint have limits of their own.
    api_body_bytes: int = Field(default=1_048_576, ge=1_024)
    #: How long a client may take to send its body, or the next part of a batch, in seconds.
    api_body_seconds: float = Field(default=30.0, gt=0)
    #: Most lines that the batch endpoint takes in one request.
    api_batch_lines: int = Field(default=10_000_000, ge=1)
    #: Answers to batches that a store has not read yet, in bytes, before no more of its lines are taken.
    api_spool_bytes: int = Field(default=268_435_456, ge=1)
    #: Most requests of one API process that may wait for results at the same time.
    api_waits: int = Field(default=5_000, ge=1)
    #: Most batches of commands that one API process may take at the same time.
    api_batches: int = Field(default=400, ge=1)
    #: Requests a second that one store may make of all API processes together, and how many it may make at once.
    api_requests_per_second: float = Field(default=1_000.0, gt=0)
    api_burst: int = Field(default=2_000, ge=1)
    #: Bytes that the head of a request may have: its first line and its headers.
    api_head_bytes: int = Field(default=32_768, ge=1_024)
    #: How long a client may take to send the head of a request, or its first byte, in seconds.
    api_head_seconds: float = Field(default=10.0, gt=0)
    #: Most connections of one API process, in all and of one address; fewer where it may open fewer files.
    api_connections: int = Field(default=4_096, ge=1)
    api_connections_per_address: int = Field(default=1_024, ge=1)
    #: Whose X-Forwarded-For is believed: addresses and networks as 10.1.0.0/16, `loopback`, `private`; commas between.
    api_trusted_proxies: str = Field(default="", max_length=2_000)
    #: Requests a second that one address may make of one API process without a key that works; more of them wait.
    api_keyless_requests_per_second: float = Field(default=100.0, gt=0)
    #: Wrong keys that one address may send to one API process within a minute.
    api_wrong_keys_per_minute: int = Field(default=60, ge=1)

    #: Where webhooks may go beside public addresses: networks as 10.1.0.0/16, `loopback`, `private`; commas between.
    webhook_allowed_networks: str = Field(default="", max_length=2_000)
    #: Where webhooks may not go, though it be public or allowed: networks as above.
    webhook_denied_networks: str = Field(default="", max_length=2_000)
    #: Keys under which the signing secrets of webhooks are kept: the first seals, all open; commas between. Never
    #: printed.
    webhook_secret_keys: str = Field(default="", max_length=4_000, repr=False)
    #: Origins of a store's callbacks that are delivered to side by side; any more share a few lines.
    webhook_callback_origins: int = Field(default=1_000, ge=0, le=100_000)
    #: How long an endpoint may take to answer, in seconds.
    webhook_timeout_seconds: float = Field(default=10.0, gt=0, le=30)

    def require_redis_url(self) -> str:
        """Return the Redis URL. Imports the driver, which alone can read one.

        Raises:
            ConfigurationError: it is not set, or is none.
        """
        from .redis_urls import check_redis_url

        url = self.redis_url or _missing("CREDITLANE_REDIS_URL", "redis://localhost:6379/0")
        check_redis_url(url)
        return url

    def require_database_url(self) -> str:
        """Return the Postgres URL. Imports the driver, which alone can read one.

        Raises:
            ConfigurationError: it is not set, or is none.
        """
        from .postgres_urls import readable_postgres_url

        url = self.database_url or _missing("CREDITLANE_DATABASE_URL", "postgresql://user@localhost/creditlane")
        readable_postgres_url(url)
        return url


def load_settings(**values: object) -> Settings:
    """Return the settings of the environment, with these values before it.

    Raises:
        ConfigurationError: a value is not allowed; the message names its variable, and does not repeat it.
    """
    # Before anything is read of it: what cannot be read may be in a message, too.
    keep_environment_secret(os.environ)
    try:
        settings = Settings(**values)  # type: ignore[arg-type]  # validated right here
    except ValidationError as error:
        raise ConfigurationError(_wrong_settings(error, values)) from None
    # At once, and not by whichever part of a process comes to it first.
    if settings.redis_url:
        settings.require_redis_url()
    if settings.database_url:
        settings.require_database_url()
    return settings


def load_operator_settings(**values: object) -> Settings:
    """Return the same for a command of an operator: its database URL is that for operators, where there is one.

    Raises:
        ConfigurationError: a value is not allowed; the message names it.
    """
    settings = load_settings(**values)
    url = settings.operator_database_url
    return settings if url is None else settings.model_copy(update={"database_url": url})


def _wrong_settings(error: ValidationError, given: Mapping[str, object]) -> str:
    """Return one line that names each variable, or what was given for it, and what it allows; not its value."""
    rules = {".".join(str(part) for part in item["loc"]): item["msg"] for item in error.errors(include_input=False)}
    return "; ".join(f"{name if name in given else PREFIX + name.upper()}: {rule}" for name, rule in rules.items())


def _missing(name: str, example: str) -> str:
    raise ConfigurationError(
        f"{name} is not set. For a local stack: `creditlane up`, "
        f'then `eval "$(creditlane env --export)"`; else e.g. {example}'
    )
