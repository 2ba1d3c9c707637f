"""The asynchronous client without servers: what `fake_client` does, behind `await`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

from ..producer.client._async.client import AsyncClient
from ..producer.client._async.webhooks import AsyncWebhooks
from ..schemas.commands import Command
from ..schemas.settings import Settings
from ..schemas.webhooks import Delivery
from .fake_client import FakeClient
from .fake_ledger import FakeLedger
from .fake_webhooks import FakeWebhooks

if TYPE_CHECKING:
    from ..producer.client.tickets import Tickets


def _awaited(method: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return the method of the blocking twin, to be awaited."""

    @wraps(method)
    async def call(self: Any, *arguments: Any, **options: Any) -> Any:
        return method(self._twin, *arguments, **options)

    return call


def _iterated(method: Callable[..., Iterable[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """Return the method of the blocking twin, to be iterated with `async for`. It judges what it is given at once."""

    @wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        return _asynchronous(method(self._twin, *arguments, **options))

    return call


async def _asynchronous(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def _taken(commands: Iterable[Command] | AsyncIterable[Command]) -> Iterable[Command]:
    """Return the commands of either kind of iterable; an error of theirs comes where it came."""
    if not isinstance(commands, AsyncIterable):
        return commands
    taken: list[Command] = []
    try:
        async for command in commands:
            taken.append(command)  # noqa: PERF401  what came before an error is kept
    except Exception as error:  # noqa: BLE001  raised again below, after what came before it
        return _then_raise(taken, error)
    return taken


def _then_raise(commands: list[Command], error: Exception) -> Iterator[Command]:
    yield from commands
    raise error


class AsyncFakeWebhooks(AsyncWebhooks):
    """`AsyncClient.webhooks` in memory."""

    def __init__(self, twin: FakeWebhooks) -> None:
        self._twin = twin

    if not TYPE_CHECKING:
        make = _awaited(FakeWebhooks.make)
        list = _awaited(FakeWebhooks.list)
        get = _awaited(FakeWebhooks.get)
        change = _awaited(FakeWebhooks.change)
        delete = _awaited(FakeWebhooks.delete)
        rotate_secret = _awaited(FakeWebhooks.rotate_secret)
        send_test = _awaited(FakeWebhooks.send_test)
        deliveries = _iterated(FakeWebhooks.deliveries)
        page = _awaited(FakeWebhooks.page)
        delivery = _awaited(FakeWebhooks.delivery)
        resend = _awaited(FakeWebhooks.resend)
        resend_failed = _awaited(FakeWebhooks.resend_failed)
        rotate_callback_secret = _awaited(FakeWebhooks.rotate_callback_secret)

    async def deliver(self, receive: Callable[[dict[str, str], bytes], int]) -> Sequence[Delivery]:
        """Hand everything that is pending to a receiver, as `FakeWebhooks.deliver`."""
        return self._twin.deliver(receive)

    async def _run(self, statement: object) -> NoReturn:
        self._twin._run(statement)  # noqa: SLF001  the twin's


class AsyncFakeClient(AsyncClient):
    """An `AsyncClient` over a ledger in memory; `FakeClient` says what that means. Both kinds may share a ledger."""

    webhooks: AsyncFakeWebhooks

    def __init__(self, settings: Settings | None = None, *, ledger: FakeLedger | None = None) -> None:
        self._twin = FakeClient(settings, ledger=ledger)
        self.settings: Settings = self._twin.settings
        self.ledger: FakeLedger = self._twin.ledger
        #: The endpoints that hear of what happens in the store.
        self.webhooks = AsyncFakeWebhooks(self._twin.webhooks)

    if not TYPE_CHECKING:
        enqueue = _awaited(FakeClient.enqueue)

    async def enqueue_many(
        self,
        commands: Iterable[Command] | AsyncIterable[Command],
        *,
        keep_results: bool = False,
        on_progress: Callable[[int], None] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  as the real one has it
    ) -> Tickets:
        """Put all the commands on their lanes, in order, and return their tickets, as `AsyncClient.enqueue_many`."""
        taken = await _taken(commands)
        return self._twin.enqueue_many(taken, keep_results=keep_results, on_progress=on_progress, timeout=timeout)

    if not TYPE_CHECKING:
        schedule = _awaited(FakeClient.schedule)
        cancel = _awaited(FakeClient.cancel)
        result = _awaited(FakeClient.result)
        wait = _awaited(FakeClient.wait)
        wait_many = _iterated(FakeClient.wait_many)
        balance = _awaited(FakeClient.balance)
        balance_at = _awaited(FakeClient.balance_at)
        account = _awaited(FakeClient.account)
        find_account = _awaited(FakeClient.find_account)
        accounts = _iterated(FakeClient.accounts)
        entries = _iterated(FakeClient.entries)
        transaction = _awaited(FakeClient.transaction)
        transactions = _iterated(FakeClient.transactions)
        hold_by_id = _awaited(FakeClient.hold_by_id)
        holds = _iterated(FakeClient.holds)
        pending = _awaited(FakeClient.pending)
        close = _awaited(FakeClient.close)

    # What the methods of the commands need of a client; the twin is this one's other face.
    if not TYPE_CHECKING:
        _open = _awaited(FakeClient._open)  # noqa: SLF001
        _open_account_of = _awaited(FakeClient._open_account_of)  # noqa: SLF001
        _change = _awaited(FakeClient._change)  # noqa: SLF001
        _decide = _awaited(FakeClient._decide)  # noqa: SLF001
        _hold = _awaited(FakeClient._hold)  # noqa: SLF001
        _touches = _awaited(FakeClient._touches)  # noqa: SLF001

    def _session(self) -> NoReturn:
        self._twin._session()  # noqa: SLF001
