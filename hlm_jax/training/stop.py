"""How a run is stopped from outside: by a signal, which all of its processes follow together, or by the loss of one of them."""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from hlm_jax import checkpoint


class StopRequest:
    """Notes the first SIGTERM or Ctrl-C, so that the loop can save and leave; a second Ctrl-C interrupts at once."""

    requested = False

    def __enter__(self):
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number, _frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping: saving a checkpoint …", file=sys.stderr, flush=True)

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self, first: int, done: int, every_steps: int) -> bool:
        """Whether any process was asked to stop: all must leave the loop at the same step, so they ask one another now and then.

        Args:
          first, done: the steps between which the last dispatch lies.
          every_steps: several processes ask whenever a dispatch passes a multiple of it.
        """
        if jax.process_count() == 1:
            return self.requested
        if first // every_steps == done // every_steps:
            return False
        return bool(multihost_utils.process_allgather(np.array(self.requested)).any())


def leave_broken_group(workdir: Path, error: Exception) -> None:
    """Ends this process when another of the run is gone: a collective can neither finish nor be tried again."""
    saved = checkpoint.steps_in(workdir)
    print(
        f"hlm_jax.train: error: another process of this run is gone ({str(error).splitlines()[0][:160]}); start all processes again, "
        + (f"the run resumes from step {saved[-1]}" if saved else "nothing was saved yet"),
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)  # a regular exit would wait for the lost process at the end of jax.distributed
