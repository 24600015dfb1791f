"""How far a run is, on the terminal."""

import contextlib
import sys
import time


class Progress:
    """A bar with the time left on a terminal, plain lines otherwise."""

    def __init__(self, *, start_step: int, total_steps: int):
        self._total, self._bar = total_steps, None
        if sys.stderr.isatty():
            import tqdm

            self._bar = tqdm.tqdm(
                total=total_steps,
                initial=start_step,
                unit="step",
                dynamic_ncols=True,
                smoothing=0.1,
            )
        # Set by the first line: the time before it went into compilation.
        self._began: float | None = None
        self._first = 0

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self._bar:
            with contextlib.suppress(OSError):  # as in `say` below
                self._bar.update(step - self._bar.n)

    def line(
        self,
        step: int,
        *,
        epoch: float,
        loss: float,
        learning_rate: float,
        tokens_per_second: float,
        val: float | None,
    ) -> None:
        """Prints step, epoch, loss, validation bits/char, learning rate, tokens/s, time left."""
        held_out = "" if val is None else f"  val {val:.4f} bits/char"
        text = (
            f"epoch {epoch:.2f}  loss {loss:.4f}{held_out}  lr {learning_rate:.2e}  "
            f"{tokens_per_second:,.0f} tokens/s"
        )
        if self._bar:
            self._bar.set_postfix_str(text)
            return
        left = ""
        if self._began is None:
            self._began, self._first = time.monotonic(), step
        elif step > self._first:
            per_step = (time.monotonic() - self._began) / (step - self._first)
            left = f"  left {duration(per_step * (self._total - step))}"
        self.say(f"step {step}/{self._total}  {text}{left}")

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar:
            with contextlib.suppress(OSError):  # as in `say` below
                self._bar.write(text, file=sys.stderr)
        else:
            say(text)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar:
            with contextlib.suppress(OSError):  # as in `say` below
                self._bar.close()


def say(text: str) -> None:
    """Prints a line.

    A terminal or a pipe that has gone away is no reason to end a run before it has saved.
    """
    with contextlib.suppress(OSError):
        print(text, flush=True)


def duration(seconds: float) -> str:
    """A length of time for people: 42 s, 6 min, 13 h 42 min, 12 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86400:.0f} days"
