"""When what is due in a run, and the batches in their order."""

import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Generator, Iterator

from ml_collections import ConfigDict

from hlm_jax.training.material import Material

TAUGHT = 2**28  # the most bytes of teachers' predictions that one dispatch takes, of several steps
Span = tuple[int, int]  # the first step of a dispatch, and the step after its last


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where dispatches end, and which steps end in an evaluation or a checkpoint.

    Dispatches lie on a fixed grid, so a resumed run is cut as an uninterrupted one is.
    """

    total_steps: int
    steps_per_dispatch: int
    save_every_steps: int
    eval_every_steps: int  # 0: nothing is held out

    @classmethod
    def of(cls, config: ConfigDict, material: Material) -> "Plan":
        train, save, total_steps = config.train, config.checkpoint.every_steps, material.total_steps
        size = math.gcd(train.steps_per_dispatch, save)
        evaluate = train.eval_every_steps if material.val_texts else 0
        size = math.gcd(size, evaluate) if evaluate else size
        if train.teachers and train.teacher_weight:
            model = config.model
            of_a_step = 2 * train.batch_size * model.block_size * model.vocab_size
            fitting = (n for n in range(size, 1, -1) if size % n == 0 and n * of_a_step <= TAUGHT)
            size = next(fitting, 1)
        return cls(total_steps, size, save, evaluate)

    def spans(self, start: int) -> Iterator[Span]:
        """Every dispatch from step `start` on."""
        first = start
        while first < self.total_steps:
            size = self.steps_per_dispatch
            end = min(first // size * size + size, self.total_steps)
            yield first, end
            first = end

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation is due after `step` steps."""
        every = self.eval_every_steps
        return bool(every) and (step % every == 0 or step == self.total_steps)

    def pauses_at(self, step: int) -> bool:
        """Whether a checkpoint is due; every evaluation ends in one."""
        saves = step % self.save_every_steps == 0 or step == self.total_steps
        return saves or self.evaluates_at(step)


def prefetched(spans: Iterator[Span], load: Callable) -> Generator:
    """(span, load(span)), the next one being loaded by a thread while the device computes."""
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        upcoming = None
        for span in spans:
            job = span, reader.submit(load, span)
            if upcoming:
                yield upcoming[0], upcoming[1].result()
            upcoming = job
        if upcoming:
            yield upcoming[0], upcoming[1].result()
