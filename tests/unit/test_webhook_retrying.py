"""When a delivery is tried again, whatever a receiver asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from creditlane.worker.webhooks.retry_schedule import (
    JITTER_SHARE,
    MAX_ATTEMPTS,
    MAX_RETRY_AFTER_SECONDS,
    parse_retry_after,
    retry_delay,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 30), (2, 300), (3, 1_800), (4, 21_600)])
def test_the_schedule_is_kept_within_its_jitter(attempts: int, seconds: float) -> None:
    delays = [retry_delay(attempts) or 0.0 for _ in range(300)]

    assert min(delays) >= seconds * (1 - JITTER_SHARE)
    assert max(delays) <= seconds * (1 + JITTER_SHARE)
    assert max(delays) - min(delays) > seconds * JITTER_SHARE


def test_the_fifth_failure_is_the_last() -> None:
    assert MAX_ATTEMPTS == 5
    assert retry_delay(5) is None
    assert retry_delay(5, retry_after=60.0) is None


def test_a_receiver_can_put_off_and_not_hurry() -> None:
    assert retry_delay(1, retry_after=7_200.0) == 7_200.0
    assert (retry_delay(2, retry_after=1.0) or 0.0) >= 270.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("86401", MAX_RETRY_AFTER_SECONDS),
        ("9" * 4_000, MAX_RETRY_AFTER_SECONDS),
        (format_datetime(NOW + timedelta(minutes=5), usegmt=True), 300.0),
        (format_datetime(NOW - timedelta(minutes=5), usegmt=True), 0.0),
        ("Sunday, 01-Mar-26 12:02:00 GMT", 120.0),
        ("Sun Mar  1 12:02:00 2026", 120.0),
        ("Fri, 01 Jan 9999 00:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("\u0661\u0662", None),
        ("Sun, 99 Foo 2026 12:00:00 GMT", None),
    ],
)
def test_both_forms_of_retry_after(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds
