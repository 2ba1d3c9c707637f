"""A stranger's URL never leads into the operator's network: every attempt is refused, and nothing is connected to."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from creditlane.producer.operations.webhook_targets import refuse_target
from creditlane.schemas.errors import ConfigurationError, InvalidCommand, TargetRefused
from creditlane.schemas.networks import NetworkRules, network_rules, parse_networks
from creditlane.schemas.settings import Settings
from creditlane.worker.webhooks import attempt
from creditlane.worker.webhooks.attempt import AttemptClient, Lookup, Outcome
from creditlane.worker.webhooks.targets import TargetPolicy

#: An address that is nobody's business; nothing is ever sent there.
PUBLIC = "93.184.215.14"
#: What the operator reads after why an address is refused that could be allowed.
TO_ALLOW = "An operator can allow a network with CREDITLANE_WEBHOOK_ALLOWED_NETWORKS."

REFUSED_V4 = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",  # the metadata of most clouds
    "100.64.0.1",
    "100.100.100.200",  # the metadata of another
    "168.63.129.16",  # a control plane on a public address
    "192.0.0.192",
    "0.0.0.0",  # noqa: S104  # reaches loopback on Linux
    "0.1.2.3",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
]
REFUSED_V6 = [
    "::1",
    "::",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata over IPv6
    "ff02::1",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "2001:10::1",
    "::ffff:127.0.0.1",  # mapped
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::127.0.0.1",  # compatible
    "2002:7f00:1::",  # 6to4
    "2002:a9fe:a9fe::1",
    "2002:a00:1::",
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::7f00:1",
    "2001:0:7f00:1::",  # Teredo: by its server, by its client
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]
#: Forms of 127.0.0.1 that some read as numbers and some as names.
ODD_NUMBERS = [
    "2130706433",
    "0x7f000001",
    "0x7F.1",
    "0x7f.0.0.0x1",
    "0177.0.0.1",
    "017700000001",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "127.000.000.001",
    "0",
    "0x",
    "1.2.3.4.5",
    "127。0。0。1",
    "127.0.0。1",
    "１２７.０.０.１",  # noqa: RUF001
    "①②⑦.⓪.⓪.①",
]
BAD_URLS = [
    "https://example.com@127.0.0.1:{port}/",
    "https://example.com:443@127.0.0.1:{port}/",
    "https://user:secret@example.com/",
    "https://127.0.0.1:{port}@example.com/",
    "https://@example.com/",
    "https://example.com/#@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}\\@example.com/",
    "https://example.com\\.127.0.0.1:{port}/",
    "https://127.0.0.1%00.example.com:{port}/",
    "https://127.0.0.1\t:{port}/",
    "https://127.0.0.1:{port}\r\nHost: example.com/",
    " https://127.0.0.1:{port}/",
    "https:127.0.0.1:{port}/",
    "https:/127.0.0.1:{port}/",
    "https:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}/",
    "/hook",
    "",
    "ftp://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_",
    "ws://127.0.0.1:{port}/",
    "http+unix://127.0.0.1:{port}/",
    "javascript:alert(1)",
    "data:text/plain,hello",
    "https://",
    "https://:{port}/",
    "https://127.0.0.1:0/",
    "https://127.0.0.1:99999/",
    "https://[::1/",
    "https://[::1]:{port}]/",
    "https://[fe80::1%25eth0]:{port}/",
    "https://[::1%25lo]:{port}/",
    "https://[v1.abc]/",
    "https://exa mple.com/",
    "https://example.com/" + "a" * 2_000,
]
URLS = [
    *[f"{scheme}://{host}:{{port}}/" for host in (*REFUSED_V4, *ODD_NUMBERS) for scheme in ("https", "http")],
    *[f"{scheme}://[{host}]:{{port}}/" for host in REFUSED_V6 for scheme in ("https", "http")],
    *BAD_URLS,
    f"http://{PUBLIC}:{{port}}/",
]


class Listener:
    """Hears every connection to this machine, whatever the address that was used."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0

    async def hear(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    server = await asyncio.start_server(listener.hear, "0.0.0.0", 0)  # noqa: S104
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


@pytest.fixture
async def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Everything that this test's loop wanted to connect to; only loopback is let through."""
    loop = asyncio.get_running_loop()
    before = loop.sock_connect
    tried: list[Any] = []

    async def connect(sock: socket.socket, address: Any) -> None:
        tried.append(address)
        assert address[0].startswith("127.")
        await before(sock, address)

    monkeypatch.setattr(loop, "sock_connect", connect)
    return tried


def answering(*answers: list[str]) -> tuple[Lookup, list[str]]:
    """Return a resolver that gives one answer after another, and the names that it was asked for."""
    asked: list[str] = []
    left = list(answers)

    async def lookup(host: str, _port: int, _family: int) -> list[tuple[int, str]]:
        asked.append(host)
        answer = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in answer]

    return lookup, asked


#: All that the owner of a refused target reads of it.
REFUSED = Outcome(False, 0, error=TargetRefused().message)


async def send(url: str, lookup: Lookup | None = None, allowed: str = "", denied: str = "") -> Outcome:
    policy = TargetPolicy(NetworkRules(parse_networks(allowed), parse_networks(denied)))
    async with AttemptClient(policy, timeout_seconds=2.0, lookup=lookup) as client:
        return await client.send(url, {}, b"{}")


@pytest.mark.parametrize("url", URLS)
async def test_a_url_that_leads_inside_is_refused(url: str, listener: Listener, connected: list[Any]) -> None:
    lookup, asked = answering(["127.0.0.1"])

    outcome = await send(url.format(port=listener.port), lookup)

    assert (outcome.succeeded, outcome.response_status) == (False, None)
    assert outcome.error
    assert (connected, listener.connections) == ([], 0)
    # Not even a name is looked up: an address is judged as it stands.
    assert asked == []


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("address", [*REFUSED_V4, *REFUSED_V6])
async def test_a_name_that_leads_inside_is_refused(
    address: str, scheme: str, listener: Listener, connected: list[Any]
) -> None:
    lookup, asked = answering([address])

    outcome = await send(f"{scheme}://innocent.example:{listener.port}/", lookup)

    assert outcome == REFUSED
    assert asked == ["innocent.example"]
    assert (connected, listener.connections) == ([], 0)


@pytest.mark.parametrize(
    "answer",
    [[PUBLIC, "10.0.0.1"], ["127.0.0.1", PUBLIC], ["2606:4700::1111", "::ffff:127.0.0.1"], [PUBLIC, "fe80::1"]],
)
async def test_one_bad_address_spoils_a_name(answer: list[str], listener: Listener, connected: list[Any]) -> None:
    lookup, _ = answering(answer)

    outcome = await send(f"https://mixed.example:{listener.port}/", lookup)

    assert outcome == REFUSED
    assert (connected, listener.connections) == ([], 0)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost."])
async def test_the_systems_own_names_are_judged_too(host: str, listener: Listener, connected: list[Any]) -> None:
    outcome = await send(f"https://{host}:{listener.port}/")

    assert not outcome.succeeded
    assert (connected, listener.connections) == ([], 0)


async def test_http_to_a_public_address_is_refused(listener: Listener, connected: list[Any]) -> None:
    lookup, _ = answering([PUBLIC])

    outcome = await send(f"http://public.example:{listener.port}/", lookup)

    assert outcome == REFUSED
    assert connected == []


async def test_a_name_cannot_change_its_mind(listener: Listener, connected: list[Any]) -> None:
    """Given a name that is harmless when it is looked up and leads inside ever after, when something is sent there
    twice, then the first goes to the address that was judged, and the second nowhere."""
    lookup, asked = answering(["127.0.0.2"], ["127.0.0.1"])
    url = f"http://rebinding.example:{listener.port}/"

    first = await send(url, lookup, allowed="127.0.0.2/32")
    second = await send(url, lookup, allowed="127.0.0.2/32")

    assert first.succeeded
    assert second == REFUSED
    assert [address[0] for address in connected] == ["127.0.0.2"]
    assert asked == ["rebinding.example"] * 2


async def test_the_socket_itself_is_judged(
    listener: Listener, connected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a resolver that lets everything pass, when something is sent, then there is no socket for it."""
    lookup, _ = answering(["127.0.0.1"])
    judged_by_resolver = TargetPolicy(NetworkRules(parse_networks("loopback")))
    monkeypatch.setattr(
        attempt, "CheckedResolver", lambda _policy, *args, **kwargs: _Resolver(judged_by_resolver, *args, **kwargs)
    )

    outcome = await send(f"http://innocent.example:{listener.port}/", lookup)

    assert outcome == REFUSED
    assert (connected, listener.connections) == ([], 0)


_Resolver = attempt.CheckedResolver


@pytest.mark.parametrize(
    ("allowed", "host", "passes"),
    [
        ("loopback", "127.0.0.1", True),
        ("loopback", "[::ffff:127.0.0.1]", True),
        ("loopback", "10.0.0.1", False),
        ("private", "10.1.2.3", True),
        ("private", "[fd00::1]", True),
        ("private", "169.254.169.254", False),
        ("private", "127.0.0.1", False),
        ("10.1.0.0/16, 2001:db8::/32", "10.1.2.3", True),
        ("10.1.0.0/16, 2001:db8::/32", "[2001:db8::1]", True),
        ("10.1.0.0/16, 2001:db8::/32", "10.2.0.1", False),
        (" loopback , private ", "192.168.0.1", True),
    ],
)
def test_an_operator_can_allow_networks(allowed: str, host: str, passes: bool) -> None:
    policy = TargetPolicy(NetworkRules(parse_networks(allowed)))

    for scheme in ("https", "http"):
        if passes:
            assert policy.judge_url(f"{scheme}://{host}/").scheme == scheme
        else:
            with pytest.raises(TargetRefused):
                policy.judge_url(f"{scheme}://{host}/")


@pytest.mark.parametrize(
    ("allowed", "denied", "host", "passes"),
    [
        ("", "93.184.0.0/16", "93.184.1.1", False),
        ("", "93.184.0.0/16", "[::ffff:93.184.1.1]", False),
        ("", "93.184.0.0/16", "[64:ff9b::5db8:0101]", False),
        ("", "93.184.0.0/16", "93.185.1.1", True),
        ("", "2606:4700:64::/96", "[2606:4700:64::1.2.3.4]", False),
        ("private", "10.1.0.0/16", "10.1.2.3", False),
        ("private", "10.1.0.0/16", "10.2.2.3", True),
        ("loopback, private", "loopback", "127.0.0.1", False),
        ("0.0.0.0/0", "0.0.0.0/0", "93.184.1.1", False),
    ],
)
def test_an_operator_can_deny_networks_and_that_wins(allowed: str, denied: str, host: str, passes: bool) -> None:
    rules = NetworkRules(parse_networks(allowed), parse_networks(denied))

    if passes:
        TargetPolicy(rules).judge_url(f"https://{host}/")
        refuse_target(f"https://{host}/", rules)
    else:
        with pytest.raises(TargetRefused):
            TargetPolicy(rules).judge_url(f"https://{host}/")
        with pytest.raises(InvalidCommand):
            refuse_target(f"https://{host}/", rules)


async def test_a_name_that_leads_into_a_denied_network_is_refused(listener: Listener, connected: list[Any]) -> None:
    lookup, _ = answering(["127.0.0.2"])
    url = f"http://denied.example:{listener.port}/"

    assert await send(url, lookup, allowed="loopback", denied="127.0.0.2/32") == REFUSED
    assert (connected, listener.connections) == ([], 0)


async def test_what_the_operators_resolver_knows_is_logged_for_the_operator_alone() -> None:
    """Given a name that leads inside, one that nobody knows and one that leads out but not by https, when something is
    sent there, then the three are one to the owner, also by the time that they take; the log distinguishes them."""
    outcomes, logged = [], []
    with structlog.testing.capture_logs() as lines:
        for url, answer in (
            ("https://inside.example/", ["10.0.0.1"]),
            ("https://nowhere.example/", socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
            ("http://outside.example/", [PUBLIC]),
        ):
            outcomes.append(await send(url, knowing(answer)))
    logged = [(line["host"], line["detail"]) for line in lines]

    assert outcomes == [REFUSED] * 3
    assert logged[0] == ("inside.example", f"10.0.0.1 is not a public address. {TO_ALLOW}")
    assert logged[1][0] == "nowhere.example"
    assert "Name or service not known" in logged[1][1]
    assert logged[2] == ("outside.example", f"http to {PUBLIC} is refused; use https. {TO_ALLOW}")


def knowing(answer: list[str] | OSError) -> Lookup:
    async def lookup(_host: str, _port: int, _family: int) -> list[tuple[int, str]]:
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, each) for each in answer]

    return lookup


async def test_a_connection_that_fails_shows_no_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    outcome = await send(f"http://closed.example:{port}/", knowing(["127.0.0.1"]), allowed="loopback")

    assert outcome.error == os.strerror(errno.ECONNREFUSED)


async def test_a_client_logs_a_refused_host_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "MAX_LOGGED_HOSTS", 2)
    with structlog.testing.capture_logs() as lines:
        async with AttemptClient(TargetPolicy(), timeout_seconds=2.0) as client:
            for host in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"):
                assert await client.send(f"https://{host}/", {}, b"{}") == REFUSED

    assert [line["host"] for line in lines] == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?a=b%20c",
        "https://xn--bcher-kva.example/",
        f"https://{PUBLIC}:8443/",
        "https://[2606:4700::1111]/",
        "https://[64:ff9b::5db8:d70e]/",
        "https://1.2.3.4.example.com/",
        "https://127.0.0.1.nip.example/",
        "https://0x7f.example/",
    ],
)
def test_what_may_be_public_passes(url: str) -> None:
    assert TargetPolicy().judge_url(url).scheme == "https"


@pytest.mark.parametrize("text", ["local", "10.0.0.1/8", "10.0.0.0/33", "loopback;private", "::/129"])
def test_a_network_that_cannot_be_read_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_ALLOWED_NETWORKS"):
        parse_networks(text)
    with pytest.raises(ConfigurationError, match="WEBHOOK_DENIED_NETWORKS"):
        network_rules(Settings(webhook_denied_networks=text))
