"""Trainings in processes of their own, which go on where they were stopped.

For commands that train several models. Imports no JAX: the device is the training's alone.
"""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hlm_jax import config as configs
from hlm_jax import signals
from hlm_jax.book.corpus import difference
from hlm_jax.errors import Stopped, UserError
from hlm_jax.training.progress import duration

_PINS = hasattr(os, "sched_setaffinity")  # macOS cannot pin a process to cores
_STEP = re.compile(rb"step (\d+)/(\d+)  ")  # as training.progress writes it
_TAIL = 4096  # bytes of the log in which the newest step is looked for

FINISHED = "finished"  # an empty file in the folder of a finished training

Report = Callable[[int, int], None]  # (steps done, of how many)
Say = Callable[[str], None]


def cores() -> list[int]:
    """The CPU cores that this process may use."""
    return sorted(os.sched_getaffinity(0) if _PINS else range(os.cpu_count() or 1))


def train(
    config: str,
    overrides: Sequence[str],
    folder: Path,
    *,
    name: str,
    on: set[int] | None = None,
    report: Report | None = None,
    every: float = 60.0,
) -> None:
    """Runs `python -m hlm_jax.train` in `folder` to its end.

    The folder's log.txt gets the output, seconds.txt the time of every attempt. SIGTERM, SIGHUP and
    Ctrl-C are passed on, in another thread while the main thread is inside `passing_on`: the
    training saves, and then this call raises. After such a signal no training is started.

    Args:
      overrides: "section.key=value" words.
      name: of the training, in errors.
      on: CPU cores for it; None for all.
      report: is called every `every` seconds, once the training has logged a step.

    Raises:
      Stopped: the training was asked to stop.
      UserError: it failed.
    """
    asked_to_stop = f"the training of {name} was asked to stop; the same command goes on with it"
    if _passed:
        raise Stopped(asked_to_stop)
    words = ["--config", config, "--workdir", str(folder)]
    words += [f"--config.{word}" for word in overrides]
    make_folder(folder)
    log = folder / "log.txt"
    before = log.stat().st_size if log.exists() else 0
    began = time.monotonic()
    try:
        code, asked = _run(words, log, before, on or set(cores()), report, every)
    finally:  # also of an interrupted attempt: the times add up
        with (folder / "seconds.txt").open("a") as file:
            file.write(f"{time.monotonic() - began:.1f}\n")
    output = log.read_bytes()[before:].decode(errors="replace")
    if asked or (not code and "stopped at step" in output):
        raise Stopped(asked_to_stop)
    if code:
        last = (output.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"the training of {name} ended with code {code}: {last} (see {log})")


def seconds(folder: Path) -> float:
    """How long all attempts of a training took together."""
    return sum(map(float, (folder / "seconds.txt").read_text().split()))


def _run(
    words: list[str],
    log: Path,
    before: int,
    on: set[int],
    report: Report | None,
    every: float,
) -> tuple[int, bool]:
    """The exit code of a training, and whether a signal was passed on to it.

    Args:
      before: bytes of the log that earlier attempts wrote.
    """
    limit = {"OMP_NUM_THREADS": str(len(on))} if len(on) < (os.cpu_count() or 1) else {}
    with (
        log.open("ab") as out,
        passing_on() as passed,
        contextlib.ExitStack() as after,
        subprocess.Popen(
            [sys.executable, "-m", "hlm_jax.train", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | limit,
            # A terminal's Ctrl-C comes once, through us.
            process_group=None if passed is None else 0,
        ) as process,
    ):
        _running.append(process)
        after.callback(_running.remove, process)  # once it has ended, after an error here as well
        if passed:  # it came before there was a process
            process.terminate()
        # From here and not with preexec_fn, which would fork a process that runs JAX's threads.
        if _PINS:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, on)
        while process.poll() is None:
            try:
                process.wait(every if report else None)
            except subprocess.TimeoutExpired:
                if report and (steps := _STEP.findall(log.read_bytes()[before:][-_TAIL:])):
                    report(*map(int, steps[-1]))
    return process.returncode, bool(passed)


_running: list[subprocess.Popen] = []  # the trainings of this process
_passed: list[int] | None = None  # the signals that were passed on; None where none would be


@contextlib.contextmanager
def passing_on() -> Iterator[list[int] | None]:
    """Passes signals on to all trainings of this process, those of other threads as well.

    Python allows handlers in the main thread alone. Another thread gets what the main thread's call
    gets, which is to last longer than the thread's trainings.

    Yields:
      The signals that came, or None where nothing passes them on.
    """
    global _passed
    if _passed is not None:
        yield _passed
        return
    came: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        came.append(number)
        with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
            print("\nstopping …", file=sys.stderr, flush=True)
        for process in list(_running):
            process.send_signal(number)

    with signals.handled(pass_on) as handles:
        if not handles:
            yield None
            return
        _passed = came
        try:
            yield came
        finally:
            _passed = None


# --- one after another ---


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: its name in messages, its folder, its config and "section.key=value" words.

    Attributes:
      config: a config file.
      moves: keys with lists of paths that its command sets and that move together with its folder.
    """

    name: str
    folder: Path
    config: str
    words: tuple[str, ...]
    moves: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether `train_all` has seen it end."""
        return (self.folder / FINISHED).exists()


def train_all(
    jobs: Sequence[Job],
    book: Mapping[str, Any],
    say: Say,
    after: Callable[[Job], None] | None = None,
    before: Callable[[Job], None] | None = None,
) -> None:
    """Trains what is not finished, one after another, and says how long the rest will take.

    Args:
      book: the report of the Corpus that they are trained on.
      after: is called with every training, also one that was finished before, in their order.
      before: is called with every training that is not finished, before it begins or goes on.

    Raises:
      UserError: before anything is trained, a folder that holds another training; later, one that
        failed.
      Stopped: a training was asked to stop.
    """
    for job in jobs:
        _refuse_other(job, book)
    clock = _Clock(jobs)
    for job in jobs:
        if not job.finished:
            if before:
                before(job)
            verb = "goes on" if (job.folder / "checkpoints").exists() else "trains"
            say(f"{job.name}: {verb} in {job.folder}; its output goes to log.txt")

            def report(steps: int, of: int, name: str = job.name) -> None:
                say(f"{name}: step {steps} of {of}{clock.left(steps / of)}")

            train(job.config, job.words, job.folder, name=job.name, report=report)
            (job.folder / FINISHED).touch()
            clock.done += 1
            say(f"{job.name}: trained in {duration(seconds(job.folder))}{clock.left(0)}")
        if after:
            after(job)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are not there.

    Raises:
      UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder} ({error.strerror}): choose another place"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all; makes its folder.

    Raises:
      UserError: it cannot be written.
    """
    make_folder(path.parent)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror})") from error


def _refuse_other(job: Job, book: Mapping[str, Any]) -> None:
    paths = [job.folder / name for name in ("config.json", "corpus.json")]
    if not all(path.exists() for path in paths):
        return
    saved, saved_book = map(_read_object, paths)
    now = configs.recorded(configs.load_config(job.config, job.words))
    changed = configs.differences(_without_places(saved, job), _without_places(now, job))
    if why := difference(book, saved_book):
        changed.append(f"the book: {why}")
    if changed:
        raise UserError(
            f"{job.folder} holds another training ({'; '.join(changed)}): use another --workdir"
        )


def _without_places(config: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """A recorded config with the names alone of the paths that move with the job's folder."""
    flat = configs.flatten(config)
    return flat | {key: [Path(path).name for path in flat.get(key) or ()] for key in job.moves}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: use another --workdir, or delete {path.parent}")
    return found


class _Clock:
    """The time left, from the progress of this command alone; all trainings count as equally long.

    Attributes:
      done: trainings that are finished, of those that it is for.
    """

    def __init__(self, jobs: Sequence[Job]):
        waiting = [job for job in jobs if not job.finished]
        self.done, self._total = len(jobs) - len(waiting), len(jobs)
        # The first training may go on from a step that only its first report tells.
        resumed = bool(waiting) and (waiting[0].folder / "checkpoints").exists()
        self._first = None if resumed else (time.monotonic(), float(self.done))
        self._last = self._first

    def left(self, part: float) -> str:
        """ "; 12 min left" where the pace is known; `part` of the training now running.

        The pace is that until the newest step that a training has logged. Until its next step the
        time counts down. If it reaches 0 before that, nothing is said.
        """
        now, progress = time.monotonic(), self.done + part
        if self._first is None:
            self._first = now, progress
        if self._last is None or progress > self._last[1]:
            self._last = now, progress
        (began, first), (seen, last) = self._first, self._last
        if not first < last < self._total:
            return ""
        left = (seen - began) / (last - first) * (self._total - last) - (now - seen)
        return f"; {duration(left)} left" if left > 0 else ""
