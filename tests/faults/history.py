"""The judge of the fault tests: every accepted command had exactly one effect and one result, in order."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import psycopg
import redis

from creditlane.audit.whole import verify
from creditlane.lanes.keys import ANNOUNCEMENT_FIELD, Keys
from creditlane.schemas.commands import Command, Debit, OpenAccount
from creditlane.schemas.identifiers import ACCOUNT_PREFIX
from creditlane.schemas.journal import Announcement, JournalRow, decode_announcements
from creditlane.schemas.settings import Settings

from .producing import Producer
from .worker_processes import wait_for


class Effect(NamedTuple):
    """What one command left behind on its account."""

    seq: int
    idempotency_key: str
    balance_after: int
    rejection: str | None


def expected_effects(commands: Iterable[Command]) -> dict[str, list[Effect]]:
    """Apply the commands one after the other, in the simplest way there is. The accounts are open before they move."""
    effects: defaultdict[str, list[Effect]] = defaultdict(list)
    balances: dict[str, int] = {}
    entries: defaultdict[str, int] = defaultdict(int)
    decisions: defaultdict[str, int] = defaultdict(int)
    seen: set[str] = set()
    for command in commands:
        account, key = command.account_id, command.idempotency_key
        if key in seen:
            continue
        seen.add(key)
        change = _change_of(command)
        balance = balances.get(account, 0)
        if balance + change < 0:
            decisions[account] += 1
            effects[account].append(Effect(-decisions[account], key, balance, "insufficient_balance"))
        else:
            entries[account] += 1
            balances[account] = balance + change
            effects[account].append(Effect(entries[account], key, balance + change, None))
    return effects


def _change_of(command: Command) -> int:
    if isinstance(command, OpenAccount):
        return command.initial_balance
    return int(getattr(command, "amount")) * (-1 if isinstance(command, Debit) else 1)  # noqa: B009


class History:
    """What became of commands, as Postgres and Redis have it."""

    def __init__(self, settings: Settings) -> None:
        assert settings.partitions is not None
        self._database_url = settings.require_database_url()
        self._redis_url = settings.require_redis_url()
        self._keys = Keys(settings.redis_prefix)
        self._partitions = settings.partitions

    def wait_until_settled(self) -> None:
        """Wait until every lane is empty: all that was accepted is decided, announced and deleted."""
        with redis.Redis.from_url(self._redis_url) as client:
            wait_for(lambda: self.backlog(client) == 0, "empty lanes")

    def backlog(self, client: redis.Redis) -> int:
        """Return how many commands stand on all lanes."""
        return sum(client.xlen(self._keys.lane(partition)) for partition in range(self._partitions))

    def check(self, producer: Producer, *, dead: Collection[int] = ()) -> None:
        """Check everything that is guaranteed about what the producer sent; `dead` are the numbers of dead letters."""
        self.wait_until_settled()
        alive = [command for number, command in enumerate(producer.accepted, 1) if number not in dead]
        expected = expected_effects(alive)
        journal = self.effects()
        assert journal == {account: sorted(effects) for account, effects in expected.items()}
        self._check_announcements(producer, journal, dead)
        report = verify(self._database_url)
        assert report.failed == []
        assert report.entries + report.decisions == sum(map(len, expected.values()))

    def effects(self) -> dict[str, list[Effect]]:
        """Return every row of the journal, by account."""
        statement = """
            select account_id, seq, idempotency_key, balance_after, rejection from journal order by account_id, seq
        """
        effects: defaultdict[str, list[Effect]] = defaultdict(list)
        with psycopg.connect(self._database_url) as connection:
            for account, seq, key, balance, rejection in connection.execute(statement):
                effects[ACCOUNT_PREFIX + account.hex].append(Effect(seq, key, int(balance), rejection))
        return dict(effects)

    def rows(self) -> int:
        """Return how many commands are decided."""
        with psycopg.connect(self._database_url) as connection:
            return int((connection.execute("select count(*) from journal").fetchone() or [0])[0])

    def wait_for_more_rows(self, count: int) -> None:
        """Wait until so many more commands are decided."""
        wanted = self.rows() + count
        wait_for(lambda: self.rows() >= wanted, f"{count} more decided commands")

    def announcements(self, producer_id: str) -> dict[int, list[Announcement]]:
        """Return all that was ever announced to a producer, by its numbers."""
        by_number: defaultdict[int, list[Announcement]] = defaultdict(list)
        with redis.Redis.from_url(self._redis_url) as client:
            entries: list[Any] = client.xrange(self._keys.replies(producer_id))
        for _, fields in entries:
            for announcement in decode_announcements(fields[ANNOUNCEMENT_FIELD]):
                by_number[announcement.number].append(announcement)
        return dict(by_number)

    def _check_announcements(self, producer: Producer, journal: dict[str, list[Effect]], dead: Collection[int]) -> None:
        effects = {effect.idempotency_key: effect for effects in journal.values() for effect in effects}
        announced = self.announcements(producer.id)
        assert announced.keys() == set(range(1, len(producer.accepted) + 1))
        for number, command in enumerate(producer.accepted, 1):
            for announcement in announced[number]:
                if number in dead:
                    assert announcement.row is None
                    assert announcement.refusal is not None
                else:
                    assert announcement.refusal is None
                    assert effect_of(announcement.row) == effects[command.idempotency_key]


def effect_of(row: JournalRow | None) -> Effect:
    """Return what a row says of its command's effect."""
    assert row is not None
    return Effect(row.seq, row.idempotency_key, row.balance_after, row.rejection)
