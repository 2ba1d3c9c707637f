"""A signal that comes while a child is being started does its work once the child is known."""

import signal
import threading

import pytest

from creditlane.local.stop_signals import StopSignals, held_signals


def test_a_signal_is_held_until_the_end_and_not_lost() -> None:
    known: list[str] = []

    def start() -> None:
        with held_signals():
            signal.raise_signal(signal.SIGTERM)
            known.append("child")

    with StopSignals() as signals, pytest.raises(KeyboardInterrupt):
        start()

    assert known == ["child"]
    assert signals.received == signal.SIGTERM


def test_without_a_signal_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with held_signals():
        assert signal.getsignal(signal.SIGTERM) != before

    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_hold_nothing() -> None:
    outcome: list[bool] = []

    def hold() -> None:
        with held_signals():
            outcome.append(True)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()

    assert outcome == [True]
