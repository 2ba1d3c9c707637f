"""A signal that comes while a child is being started does its work once the child is known."""

import signal
import threading

import pytest

from creditlane.cli.stop_signals import StopSignals, held_signals


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


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    """Given a process that was started with SIGHUP ignored, then it goes on ignoring it, and stops for others."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            with held_signals():
                signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
