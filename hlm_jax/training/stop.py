"""How a run is stopped from outside: by a signal to any of its processes, or by losing one."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

from hlm_jax import checkpoint, signals


class StopRequest:
    """Notes the first SIGTERM, SIGHUP or Ctrl-C, so that the loop can save and leave.

    A second Ctrl-C interrupts at once. Outside the main thread no signal is noted: there another
    thread calls `request`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handlers = contextlib.ExitStack()

    def __enter__(self) -> "StopRequest":
        self._handlers.enter_context(signals.handled(self._note))
        return self

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.request()

    def request(self) -> None:
        """Asks the loop to stop after the dispatch in progress."""
        self.requested = True
        with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
            print("\nstopping: saving a checkpoint …", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def agreed(self, first: int, done: int, every_steps: int) -> bool:
        """Whether any process was asked to stop; all processes get the same answer.

        Args:
          first, done: the steps between which the last dispatch lies.
          every_steps: several processes ask one another when a dispatch passes a multiple of it.
        """
        if jax.process_count() == 1:
            return self.requested
        if first // every_steps == done // every_steps:
            return False
        return bool(multihost_utils.process_allgather(np.array(self.requested)).any())


@contextlib.contextmanager
def leaving_a_broken_group(workdir: Path) -> Iterator[None]:
    """Ends this process when another process of the run is gone.

    A collective can then neither finish nor be tried again.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise  # a fault of this process alone
        saved = checkpoint.steps_in(workdir)
        after = f"the run resumes from step {saved[-1]}" if saved else "nothing was saved yet"
        print(
            "hlm_jax.train: error: another process of this run is gone "
            f"({str(error).splitlines()[0][:160]}); start all processes again, {after}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)  # a regular exit would wait for the lost process inside jax.distributed
