"""What a run writes about itself: metrics.jsonl, TensorBoard events, progress, samples, loss.png.

Everything is written by process 0 and is silent in the others. Knows nothing of how the figures
come about.
"""

import concurrent.futures
import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.training.plot import plot_losses
from hlm_jax.training.progress import Progress, say

Dispatch = tuple[int, dict[str, jax.Array]]  # the step before the dispatch, and its metrics [M]


class Diverged(UserError):
    """The loss or the gradient of a step is not finite."""

    def __init__(self, step: int, loss: float, grad_norm: float):
        super().__init__(f"the loss is {loss} and the gradient norm {grad_norm} at step {step}")
        self.step = step


class Journal:
    """The record of one run, from `begin` to `close`.

    Args:
      workdir: the run's folder.

    Attributes:
      seconds, computing, stalled: of the loop in this process: all of it, the evaluations and
        samples in it, and the time in which nothing was computed.
    """

    def __init__(self, workdir: Path):
        self.workdir, self._main = workdir, jax.process_index() == 0
        self._progress: Progress | None = None
        self._writer: MetricsWriter | None = None
        self._painter: concurrent.futures.ThreadPoolExecutor | None = None
        self._drawing: concurrent.futures.Future | None = None
        self.seconds = self.computing = self.stalled = 0.0

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            self._drawing = None  # what ended the run is the news, not a picture
        self.close()

    def say(self, text: str) -> None:
        """A line of its own, above the progress bar where there is one."""
        if self._progress:
            self._progress.say(text)
        elif self._main:
            say(text)

    def begin(
        self,
        *,
        start_step: int,
        total_steps: int,
        log_every_steps: int,
        tokens_per_step: int,
        epoch_of: Callable[[int], float],
        learning_rate: Callable,
        baselines: Mapping[str, float],
        changes: Sequence[tuple[int, str]],
        with_loss_scale: bool,
        val_bits_per_char: float | None,
    ) -> None:
        """Opens the record at `start_step`; records of later steps, from before, are dropped.

        Args:
          epoch_of: step -> how often the book was read by then.
          baselines: {name: bits per character on the validation chapters} of n-gram models.
          changes: (step, words) of what changed while the run went on.
          val_bits_per_char: the newest score from before a resumption, for the progress line.
        """
        self._total, self._every, self._tokens = total_steps, log_every_steps, tokens_per_step
        self._epoch_of, self._rate = epoch_of, learning_rate
        self._baselines, self._with_loss_scale = dict(baselines), with_loss_scale
        self._changes = list(changes)
        self._val = val_bits_per_char
        if self._main:
            self._writer = MetricsWriter(self.workdir, start_step=start_step)
            self._progress = Progress(start_step=start_step, total_steps=total_steps)
            self._painter = concurrent.futures.ThreadPoolExecutor(1)
        self._first_began = self._began = time.monotonic()
        self._began_step = start_step

    def dispatched(self, done: int) -> None:
        """Moves the progress bar."""
        if self._progress:
            self._progress.step(done)

    def steps(self, pending: Dispatch | None) -> None:
        """Waits for a dispatch's metrics, checks every step and logs those that are due.

        Raises:
          Diverged: a loss or gradient norm is not finite and no loss scale explains it.
        """
        if pending is None:
            return
        first, arrays = pending
        metrics = {name: np.asarray(values) for name, values in arrays.items()}
        losses, norms = metrics["loss"].tolist(), metrics["grad_norm"].tolist()
        for i, (loss, grad_norm) in enumerate(zip(losses, norms, strict=True)):
            step, scale = first + i + 1, float(metrics["loss_scale"][i])
            if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                if not metrics["skipped"][i] or scale <= 1.0:
                    raise Diverged(step, loss, grad_norm)
                continue  # float16 overflowed: the step was skipped and the loss scale halved
            if step % self._every == 0 or step == self._total:
                self._log(step, loss, grad_norm, scale)

    def _log(self, step: int, loss: float, grad_norm: float, scale: float) -> None:
        if not (self._writer and self._progress):
            return
        tokens = (step - self._began_step) * self._tokens
        values: dict[str, float] = {
            "epoch": self._epoch_of(step),
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": float(self._rate(step - 1)),
            "tokens_per_second": tokens / (time.monotonic() - self._began),
        }
        more = {"loss_scale": scale} if self._with_loss_scale else {}
        self._writer.write(step, **values, **more)
        values.pop("grad_norm")
        self._progress.line(step, **values, val=self._val)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Records the scores of an evaluation."""
        self._val = values["val_bits_per_char"]
        if self._writer:
            self._writer.write(step, **values)
        beside = ", ".join(f"{name} {bits:.4f}" for name, bits in self._baselines.items())
        self.say(
            f"step {step}: validation {self._val:.4f} bits/char; {beside} on the same chapters"
        )

    def pictures(self, step: int, sample: Callable[[], str]) -> None:
        """Writes a sample of text and redraws loss.png in a thread of its own.

        `sample` is called by process 0 alone, and its time counts as computing.
        """
        if not self._main or self._painter is None:
            return
        self._finish_drawing()
        records = read_metrics(self.workdir)
        self._drawing = self._painter.submit(
            plot_losses, self.workdir, records, self._baselines, self._changes
        )
        with self.computes():
            text = sample()
        folder = self.workdir / "samples"
        try:
            folder.mkdir(exist_ok=True)
            (folder / f"step_{step:06d}.txt").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            self.say(f"WARNING: the sample of step {step} was not written ({error.strerror})")

    @contextlib.contextmanager
    def pause(self, step: int) -> Iterator[None]:
        """Around everything that is not training; the speed of training is measured without it.

        The time that is not inside `computes` counts as a stall, except after the last step, when
        nothing is left to hold up.
        """
        paused, computed = time.monotonic(), self.computing
        yield
        self._began, self._began_step = time.monotonic(), step
        if step < self._total:
            self.stalled += self._began - paused - (self.computing - computed)

    @contextlib.contextmanager
    def computes(self) -> Iterator[None]:
        """Around device work inside a pause."""
        began = time.monotonic()
        yield
        self.computing += time.monotonic() - began

    def _finish_drawing(self) -> None:
        if self._drawing:
            drawing, self._drawing = self._drawing, None
            try:
                drawing.result()
            except OSError as error:
                self.say(f"WARNING: loss.png was not drawn ({error.strerror})")

    def close(self) -> None:
        """Stops the clock and closes what `begin` opened; calling it twice does no harm.

        Raises:
          Exception: what went wrong while the last picture was drawn.
        """
        if self._painter:
            self.seconds = time.monotonic() - self._first_began
            self._painter.shutdown()
        for part in (self._writer, self._progress):
            if part:
                part.close()
        self._painter = self._writer = self._progress = None
        self._finish_drawing()


class MetricsWriter:
    """Appends records to <workdir>/metrics.jsonl and events to <workdir>/tensorboard.

    On resume, records of steps after `start_step` are dropped, so that every step occurs once.

    Raises:
      UserError: the files cannot be written.
    """

    def __init__(self, workdir: Path, *, start_step: int):
        import tensorboardX  # late: a cold import takes seconds

        self.path = workdir / "metrics.jsonl"
        # A run that starts anew writes its step 0 again.
        kept = [r for r in read_metrics(workdir) if start_step and r["step"] <= start_step]
        try:
            partial = self.path.with_suffix(".partial")
            lines = "".join(json.dumps(r) + "\n" for r in kept)
            partial.write_text(lines, encoding="utf-8")
            partial.replace(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write {self.path} ({error.strerror}): choose another --workdir"
            ) from error
        purge = start_step + 1 if start_step else None
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=purge)

    def write(self, step: int, **values: Any) -> None:
        """One record, on disk when this returns; numbers also go to TensorBoard."""
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self.path} ({error.strerror}): make room and start again, the run "
                "resumes from its last checkpoint"
            ) from error
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)
        self._board.flush()  # by itself it would wait for two minutes

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl; a last line cut off by a crash is left out.

    Raises:
      UserError: another line than the last one is not JSON.
    """
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise UserError(
                    f"{path}: line {number} is not JSON: correct or delete that line"
                ) from None
    return records
