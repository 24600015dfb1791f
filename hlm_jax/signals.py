"""The signals that ask a command to stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", None)  # comes when a terminal closes; Windows has none
_STOP = [number for number in (signal.SIGTERM, signal.SIGINT, _HANGUP) if number is not None]

Handler = Callable[[int, FrameType | None], object]


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[bool]:
    """Calls `handler` for SIGTERM, SIGHUP and Ctrl-C; afterwards the former handlers are back.

    A SIGHUP that this process ignores stays ignored: under nohup a command outlives its terminal.
    SIGTERM and SIGINT are handled even where they were ignored, as a shell script's commands in the
    background ignore SIGINT: whoever sends one wants a stop. Outside the main thread Python allows
    no signal handlers, and none is set.

    Yields:
      Whether handlers are set.
    """
    before = {}
    if main := threading.current_thread() is threading.main_thread():
        for number in _STOP:
            if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield main
    finally:
        for number, former in before.items():
            signal.signal(number, former)
