"""What an address may do without a key that works: it is spaced and counted, in bounded memory, apart from others."""

import pytest

from creditlane.producer.api.middleware import address_limits
from creditlane.producer.api.middleware.address_limits import (
    BURST_SECONDS,
    MAX_DELAY_SECONDS,
    AddressPace,
    WrongKeys,
    address_of_client,
    network_of,
)
from creditlane.schemas.errors import RateLimited

from .moved_clock import MovedClock


def test_a_burst_is_free_and_what_comes_after_it_is_spaced() -> None:
    pace = AddressPace(10.0, MovedClock())

    delays = [pace.delay("a") for _ in range(25)]

    assert delays[: int(10 * BURST_SECONDS)] == [0.0] * 20
    assert delays[20:] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert pace.delay("b") == 0.0


def test_a_pause_earns_the_burst_again_and_no_more() -> None:
    clock = MovedClock()
    pace = AddressPace(10.0, clock)
    for _ in range(25):
        pace.delay("a")
    clock.now += 1_000

    assert [pace.delay("a") for _ in range(21)][-1] == 0.0
    assert pace.delay("a") > 0


def test_as_many_wait_as_may_and_the_next_learns_when_to_come_back() -> None:
    clock = MovedClock()
    pace = AddressPace(10.0, clock)
    most = int(10 * (BURST_SECONDS + MAX_DELAY_SECONDS))
    delays = [pace.delay("a") for _ in range(most - 1)]
    assert max(delays) == pytest.approx(MAX_DELAY_SECONDS, abs=0.3)

    with pytest.raises(RateLimited) as refused:
        _ = [pace.delay("a") for _ in range(3)]

    clock.now += refused.value.retry_after
    assert pace.delay("a") <= MAX_DELAY_SECONDS


def test_wrong_keys_of_one_address_are_refused_until_the_minute_is_over() -> None:
    clock = MovedClock()
    wrong = WrongKeys(3, clock)
    for _ in range(3):
        wrong.note("a")
    clock.now += 20

    with pytest.raises(RateLimited, match="Too many wrong keys") as refused:
        wrong.note("a")
    wrong.note("b")

    assert refused.value.retry_after == 40
    clock.now += 40
    wrong.note("a")


def test_addresses_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_limits, "MAX_ADDRESSES", 3)
    pace, wrong = AddressPace(1.0, MovedClock()), WrongKeys(1, MovedClock())

    for address in "abcdefg":
        pace.delay(address)
        wrong.note(address)

    assert list(pace._used_until) == list(wrong._counts) == ["e", "f", "g"]


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("no:address", "no:address"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_counted_under_what_its_owner_cannot_change(host: str, network: str) -> None:
    assert network_of(host) == network
    assert address_of_client({"type": "http", "client": (host, 1)}) == network


def test_who_has_no_address_is_counted_too() -> None:
    assert address_of_client({"type": "http", "client": None}) == address_limits.NO_ADDRESS
