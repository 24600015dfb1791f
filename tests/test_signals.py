"""Signals that ask a command to stop, and those that it is to ignore."""

import os
import signal
import threading

import pytest

from hlm_jax import process, signals
from hlm_jax.training import stop

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture
def heeded():
    """This process does not ignore SIGHUP, as it does under nohup."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.fixture
def ignored():
    """This process ignores SIGHUP, as under nohup."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, former)


def test_every_signal_is_handled_and_the_former_handlers_come_back(heeded):
    before, came = [signal.getsignal(number) for number in NUMBERS], []
    with signals.handled(lambda number, _: came.append(number)) as handles:
        assert handles
        for number in NUMBERS:
            os.kill(os.getpid(), number)
    assert came == list(NUMBERS)
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_under_nohup_a_closed_terminal_stops_nothing(ignored):
    with stop.StopRequest() as request:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not request.requested
        os.kill(os.getpid(), signal.SIGTERM)  # still does
        assert request.requested
    with process.passing_on() as passed:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert passed == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_thread_that_is_not_the_main_one_sets_no_handlers():
    before, found = [signal.getsignal(number) for number in NUMBERS], []

    def work():
        with signals.handled(print) as handles, process.passing_on() as passed:
            found.extend([handles, passed, [signal.getsignal(number) for number in NUMBERS]])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, None, before]
