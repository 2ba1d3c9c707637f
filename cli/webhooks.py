"""`creditlane webhooks …`: endpoints, what was sent to them, and the secrets that it is signed with."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

import typer
from pydantic import BaseModel

from ..producer.client._sync.client import Client
from ..producer.operations.stores import require_store
from ..producer.operations.webhook_sealing import seal_all
from ..schemas.control_characters import visible
from ..schemas.errors import OutcomeUnknown
from ..schemas.events import EVENT_TYPES
from ..schemas.settings import load_operator_settings, load_settings
from ..schemas.webhook_secrets import new_key, secret_keys
from ..schemas.webhooks import Delivery, DeliveryStatus, DeliveryWithBody, EndpointStatus, Webhook
from .ledger_connection import ledger_connection
from .moment_options import METAVAR, moment_option
from .output import Cell, print_json, print_line, print_table

webhooks_app: typer.Typer = typer.Typer(
    name="webhooks",
    no_args_is_help=True,
    help="Say where a store wants to hear of what happens in it, and see what was sent.",
)

#: How often it is asked what became of a test event, in seconds.
POLL_SECONDS = 0.2
#: What stands for an endpoint's id of the URLs that came with commands.
CALLBACKS = "callbacks"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="The store, as `stores list` shows it; else that of the settings.")
]
WebhookArgument = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its id, as `webhooks list` shows it.")]
SourceArgument = Annotated[
    str, typer.Argument(metavar="WEBHOOK", help=f"Its id, as `webhooks list` shows it; or `{CALLBACKS}`.")
]
EventsOption = Annotated[
    list[str] | None,
    typer.Option("--event", help=f"An event it gets, repeatable; none given: every one. {', '.join(EVENT_TYPES)}."),
]


class WebhookList(BaseModel):
    """What `webhooks list --json` prints."""

    webhooks: list[Webhook]


class DeliveryList(BaseModel):
    """What `webhooks deliveries --json` prints."""

    deliveries: list[Delivery]


class ResentReport(BaseModel):
    """What `webhooks resend --json` prints."""

    resent: int


class CallbackSecret(BaseModel):
    """What `webhooks callback-secret --json` prints."""

    store_id: str
    #: The only time that it is seen.
    secret: str


@webhooks_app.command("create")
def create_command(
    url: Annotated[str, typer.Argument(help="Where events are POSTed to.")],
    events: EventsOption = None,
    name: Annotated[str | None, typer.Option("--name", help="For people.")] = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Make an endpoint and print its secret, this once. What happens from now on is sent to it.

    Example:  creditlane webhooks create https://example.com/hook --event credits.consumed --event balance.low
    """
    with _client(store) as client:
        webhook = client.webhooks.create(url=url, events=events or (), name=name)
    _print_webhook(webhook, as_json=as_json)


@webhooks_app.command("list")
def list_command(store: StoreOption = None, as_json: AsJson = False) -> None:
    """List the endpoints, oldest first.

    Example:  creditlane webhooks list --json | jq -r '.webhooks[].url'
    """
    with _client(store) as client:
        found = client.webhooks.list()
    if as_json:
        print_json(WebhookList(webhooks=found))
        return
    if not found:
        print_line("0 webhooks")
        return
    rows = [(each.id, each.status, each.name, each.url, " ".join(each.events) or "all") for each in found]
    print_table(["webhook", "status", "name", "url", "events"], rows, title="Webhooks")


@webhooks_app.command("show")
def show_command(webhook_id: WebhookArgument, store: StoreOption = None, as_json: AsJson = False) -> None:
    """Show an endpoint: also why it was disabled, and since when it fails.

    Example:  creditlane webhooks show wh_8f14e45fceea167a5a36dedd4bea2543
    """
    with _client(store) as client:
        webhook = client.webhooks.get(webhook_id)
    _print_webhook(webhook, as_json=as_json)


@webhooks_app.command("update")
def update_command(
    webhook_id: WebhookArgument,
    url: Annotated[str | None, typer.Option("--url", help="Where events are POSTed to from now on.")] = None,
    events: EventsOption = None,
    all_events: Annotated[bool, typer.Option("--all-events", help="Let it get every event.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="For people; an empty one takes it away.")] = None,
    status: Annotated[EndpointStatus | None, typer.Option("--status", help="Whether anything is sent to it.")] = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given. Enabling forgets why it was disabled and sends what has been waiting.

    Example:  creditlane webhooks update wh_8f14e45fceea167a5a36dedd4bea2543 --status enabled
    """
    if all_events and events:
        raise typer.BadParameter("give --event or --all-events")
    wanted = [] if all_events else events or None
    with _client(store) as client:
        webhook = client.webhooks.update(webhook_id, url=url, events=wanted, name=name, status=status)
    _print_webhook(webhook, as_json=as_json)


@webhooks_app.command("delete")
def delete_command(webhook_id: WebhookArgument, store: StoreOption = None) -> None:
    """Delete an endpoint for good. What it has not got is not sent any more.

    Example:  creditlane webhooks delete wh_8f14e45fceea167a5a36dedd4bea2543
    """
    with _client(store) as client:
        client.webhooks.delete(webhook_id)
    print_line(f"Webhook {webhook_id} is deleted")


@webhooks_app.command("rotate")
def rotate_command(webhook_id: WebhookArgument, store: StoreOption = None, as_json: AsJson = False) -> None:
    """Replace the secret and print the new one, this once. For a day both of them sign.

    Example:  creditlane webhooks rotate wh_8f14e45fceea167a5a36dedd4bea2543
    """
    with _client(store) as client:
        webhook = client.webhooks.rotate_secret(webhook_id)
    if as_json:
        print_json(webhook)
    else:
        print_line(webhook.secret or "")


@webhooks_app.command("test")
def send_test_command(
    webhook_id: WebhookArgument,
    wait: Annotated[float, typer.Option("--wait", min=0, max=600, help="Wait at most so long, in seconds.")] = 30.0,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Send an event `webhook.test` and print what came of the first attempt. Ends with 1 if it was not taken.

    Example:  creditlane webhooks test wh_8f14e45fceea167a5a36dedd4bea2543
    """
    with _client(store) as client:
        delivery = _attempted(client, webhook_id, client.webhooks.send_test(webhook_id), wait)
    if as_json:
        print_json(delivery)
    elif delivery.response_status is None:
        print_line(f"{delivery.event_id}: no response: {visible(delivery.error or 'none was needed')}")
    else:
        body = visible(delivery.response_body or "")
        print_line(f"{delivery.event_id}: {delivery.response_status} in {delivery.latency_ms} ms  {body}".rstrip())
    raise typer.Exit(0 if delivery.status == "delivered" else 1)


@webhooks_app.command("deliveries")
def deliveries_command(
    webhook_id: SourceArgument,
    status: Annotated[DeliveryStatus | None, typer.Option("--status", help="Only those of this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="List at most so many.")] = 50,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """List what was sent to an endpoint, or as callbacks of commands, newest first.

    Example:  creditlane webhooks deliveries wh_8f14e45fceea167a5a36dedd4bea2543 --status failed
    """
    with _client(store) as client:
        found = list(client.webhooks.deliveries(_source(webhook_id), status=status, limit=limit))
    if as_json:
        print_json(DeliveryList(deliveries=found))
        return
    if not found:
        print_line("0 deliveries")
        return
    rows = [_delivery_row(delivery) for delivery in found]
    columns = ["event", "type", "status", "attempts", "response", "ms", "created", "next attempt", "answer"]
    print_table(columns, rows, title="Deliveries")


@webhooks_app.command("event")
def event_command(
    webhook_id: SourceArgument,
    event_id: Annotated[str, typer.Argument(metavar="EVENT", help="Its id, as `webhooks deliveries` shows it.")],
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Print what is sent for an event, byte for byte; with --json the whole delivery.

    Example:  creditlane webhooks event wh_8f14e45fceea167a5a36dedd4bea2543 evt_c9f0f895fb98ab9159f51fd0297e236d
    """
    with _client(store) as client:
        delivery = client.webhooks.delivery(_source(webhook_id), event_id)
    if as_json:
        print_json(delivery)
    else:
        print_line(visible(delivery.body) if delivery.body else "the event is not kept any more")


@webhooks_app.command("resend")
def resend_command(
    webhook_id: SourceArgument,
    event_id: Annotated[
        str | None, typer.Argument(metavar="EVENT", help="One event, as `deliveries` shows it.")
    ] = None,
    failed_since: Annotated[
        datetime | None,
        typer.Option(
            "--failed-since",
            parser=moment_option,
            metavar=METAVAR,
            help="Instead: every one that failed, from this moment, in UTC unless it says otherwise.",
        ),
    ] = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Send one event again, or all that failed since a moment; at once, and with all of their attempts.

    Example:  creditlane webhooks resend wh_8f14e45fceea167a5a36dedd4bea2543 --failed-since 2026-03-01
    """
    if (event_id is None) == (failed_since is None) or (failed_since and webhook_id == CALLBACKS):
        raise typer.BadParameter("name one event, or an endpoint and --failed-since")
    with _client(store) as client:
        if failed_since is not None:
            count = client.webhooks.resend_failed(webhook_id, since=failed_since)
        else:
            client.webhooks.resend(_source(webhook_id), event_id or "")
            count = 1
    if as_json:
        print_json(ResentReport(resent=count))
    else:
        print_line(f"{count:,} sent again")


@webhooks_app.command("callback-secret")
def callback_secret_command(store: StoreOption = None, as_json: AsJson = False) -> None:
    """Make the secret that the store's callbacks are signed with and print it, this once.

    The one before it, if there was one, signs beside it for a day.

    Example:  creditlane webhooks callback-secret
    """
    with _client(store) as client:
        secret, chosen = client.webhooks.rotate_callback_secret(), client.settings.store
    if as_json:
        print_json(CallbackSecret(store_id=chosen, secret=secret))
    else:
        print_line(secret)


@webhooks_app.command("seal")
def seal_command(as_json: AsJson = False) -> None:
    """Keep every secret encrypted under the first of CREDITLANE_WEBHOOK_SECRET_KEYS.

    Also those in the clear, and those under an older key, which is not needed afterwards. Safe to repeat, and while
    everything runs. Ends with 1 if a secret is sealed under a key that is not among them.

    Example:  creditlane webhooks seal
    """
    settings = load_operator_settings()
    with ledger_connection(settings) as connection:
        report = seal_all(connection, secret_keys(settings))
    if as_json:
        print_json(report)
    else:
        print_line(f"{report.changed:,} changed, {report.unreadable:,} under a key that is not here")
    raise typer.Exit(1 if report.unreadable else 0)


@webhooks_app.command("new-key")
def new_key_command() -> None:
    """Print a new key for CREDITLANE_WEBHOOK_SECRET_KEYS. It is kept nowhere.

    Example:  creditlane webhooks new-key
    """
    print_line(new_key())


def _client(store: str | None) -> Client:
    if store is None:
        return Client(load_settings())
    settings = load_settings(store=store)
    with ledger_connection(settings) as connection:
        require_store(connection, store)
    return Client(settings)


def _source(webhook_id: str) -> str | None:
    return None if webhook_id == CALLBACKS else webhook_id


def _attempted(client: Client, webhook_id: str, event_id: str, wait_seconds: float) -> DeliveryWithBody:
    """Return the delivery once it was attempted.

    Raises:
        OutcomeUnknown: it was not, in the time that is waited for it.
    """
    deadline = time.monotonic() + wait_seconds
    while not (delivery := client.webhooks.delivery(webhook_id, event_id)).attempts:
        if time.monotonic() >= deadline:
            raise OutcomeUnknown(
                f"{event_id} was not sent within {wait_seconds:g} s; is `creditlane jobs work --queue deliveries` up?"
            )
        time.sleep(POLL_SECONDS)
    return delivery


def _delivery_row(delivery: Delivery) -> tuple[Cell, ...]:
    due = delivery.next_attempt_at
    return (
        delivery.event_id,
        delivery.event_type,
        delivery.status,
        delivery.attempts,
        delivery.response_status,
        delivery.latency_ms,
        f"{delivery.created_at:%F %T}",
        f"{due:%F %T}" if due else None,
        delivery.error or delivery.response_body,
    )


def _print_webhook(webhook: Webhook, *, as_json: bool) -> None:
    if as_json:
        print_json(webhook)
        return
    fields = webhook.model_dump(exclude_none=True) | {"events": " ".join(webhook.events) or "all"}
    for name, value in fields.items():
        shown = f"{value:%F %T}" if isinstance(value, datetime) else visible(str(value))
        print_line(f"{name:<16}{shown}")
