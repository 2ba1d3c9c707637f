"""Which URLs an endpoint may have, as far as they show it by themselves."""

import pytest
from pydantic import ValidationError

from creditlane.producer.operations.webhook_targets import refuse_target
from creditlane.schemas.errors import ConfigurationError, InvalidCommand
from creditlane.schemas.networks import NetworkRules, parse_networks
from creditlane.schemas.webhooks import NewWebhook

PUBLIC = [
    "https://example.com/hook",
    "https://example.com:8443/hook?a=b",
    "https://xn--bcher-kva.example/",
    "HTTPS://EXAMPLE.COM",
    "https://8.8.8.8/hook",
    "https://[2606:4700::1111]/hook",
    # Names are judged when they are resolved.
    "https://internal.example/",
    "https://127.0.0.1.example.com/",
    "https://10.0.0.1x/",
]
LOOPBACK = [
    "https://127.0.0.1/",
    "https://127.9.9.9./",
    "https://localhost/",
    "https://LocalHost./",
    "https://a.localhost/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "http://127.0.0.1:8080/",
    "http://localhost:8080/",
    "http://[::1]:8080/",
]
PRIVATE = [
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://[fc00::1]/",
    "https://[::ffff:10.0.0.1]/",
    "http://10.0.0.1/",
]
NEVER = [
    "http://example.com/",
    "http://8.8.8.8/",
    "http://127.0.0.1.example.com/",
    "https://0.0.0.0/",
    "https://[::]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[fe80::1]/",
    "https://[fd00:ec2::254]/",
    "https://100.64.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[ff02::1]/",
    "https://[2001:0:1::1]/",
    "https://192.0.2.1/",
    # Forms that somebody reads as 127.0.0.1, and others do not.
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://127.0.0.01/",
    "https://[1:2]/",
]
MALFORMED = [
    "",
    "example.com",
    "//example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "https://",
    "https:///path",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com/#fragment",
    "https://exam ple.com/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/\nhost: x",
    "https://example.com:99999/",
    "https://bücher.example/",
    "https://example.com/" + "a" * 2_000,
]

EVERYWHERE = NetworkRules(parse_networks("loopback, private"))


@pytest.mark.parametrize("url", PUBLIC)
def test_public_targets_pass(url: str) -> None:
    assert NewWebhook(url=url).url == url
    refuse_target(url, NetworkRules())


@pytest.mark.parametrize("url", [*LOOPBACK, *PRIVATE, *NEVER])
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(InvalidCommand) as caught:
        refuse_target(NewWebhook(url=url).url, NetworkRules())

    assert caught.value.field == "url"


@pytest.mark.parametrize("url", [*LOOPBACK, *PRIVATE])
def test_an_operator_can_allow_own_networks(url: str) -> None:
    refuse_target(url, EVERYWHERE)

    with pytest.raises(InvalidCommand):
        refuse_target(url, NetworkRules(parse_networks("private" if url in LOOPBACK else "loopback")))


@pytest.mark.parametrize("url", [url for url in NEVER if url != "https://[fd00:ec2::254]/"])
def test_what_is_not_among_them_stays_refused(url: str) -> None:
    with pytest.raises(InvalidCommand):
        refuse_target(url, EVERYWHERE)


@pytest.mark.parametrize("url", MALFORMED)
def test_a_url_has_one_form(url: str) -> None:
    with pytest.raises(ValidationError):
        NewWebhook(url=url)


def test_networks_are_named_or_written_out() -> None:
    refuse_target("http://10.1.2.3/", NetworkRules(parse_networks(" 10.1.0.0/16 ,")))

    with pytest.raises(InvalidCommand):
        refuse_target("http://10.2.2.3/", NetworkRules(parse_networks("10.1.0.0/16")))
    with pytest.raises(ConfigurationError, match="ALLOWED_NETWORKS"):
        parse_networks("10.1.0.0/16, everywhere")
