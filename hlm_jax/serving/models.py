"""The runs that a server has open, their names, and the thread that computes scores and tables."""

import asyncio
import contextvars
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hlm_jax.book.tokenizer import BaseTokenizer
from hlm_jax.errors import UserError
from hlm_jax.measures.reference import Reference
from hlm_jax.measures.score import Details
from hlm_jax.run import Run
from hlm_jax.serving.engine import Engine
from hlm_jax.serving.http import Refusal, busy, draining

P = ParamSpec("P")
R = TypeVar("R")
# How many likeliest tokens every score reports, whatever was asked for: the evaluator compiles a
# program for each number.
TOP = Engine.TOP
LEAST = -9999.0  # JSON has no minus infinity


class Cancelled(Exception):
    """Raised by a job's progress function: nobody waits for the job, or the server shuts down."""


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
    """One run, ready to write and to score.

    Attributes:
      name: as clients call it; never a path of the machine.
      reference: the book; None where it is not at hand.
    """

    name: str
    run: Run
    engine: Engine
    reference: Reference | None
    _warm: threading.Event = dataclasses.field(default_factory=threading.Event, repr=False)

    @property
    def ready(self) -> bool:
        """Whether every program is compiled."""
        return self._warm.is_set() and self.engine.ready

    @property
    def failed(self) -> bool:
        """Whether the engine stopped working after it was warm."""
        return self._warm.is_set() and not self.engine.ready

    def warm(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Starts the engine and compiles all that requests need; takes seconds, blocks.

        Args:
          stopped: whether nobody needs it any more.

        Raises:
          Cancelled: `stopped` held.
          Busy: the engine was closed meanwhile.
        """
        if self._warm.is_set():
            return

        def go_on(*_: int) -> None:
            if stopped():
                raise Cancelled

        go_on()
        self.engine.start()
        go_on()
        self.scores([[self.run.tokenizer.separator_id] * 2], go_on)
        _ = self.names
        go_on()
        if self.reference is not None:
            _ = self.reference.overlap_index, self.reference.human_overlap
            _ = self.reference.extra_overlap_index, self.reference.extra_human_overlap
        self._warm.set()

    def scores(
        self,
        sequences: Sequence[Sequence[int]],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Details]:
        """token_details of sequences, with min(TOP, vocabulary) likeliest tokens."""
        run = self.run
        top = min(TOP, run.tokenizer.vocab_size)
        return run.evaluator.token_details(run.device_params, sequences, top=top, progress=progress)

    @functools.cached_property
    def names(self) -> list[str]:
        """How answers write every token."""
        return distinct_names(self.run.tokenizer)


def distinct_names(tokenizer: BaseTokenizer) -> list[str]:
    """The text of every token, or its bytes as <0xE5><0xAE>; no two tokens share a name.

    Bytes stand for a token that is not whole characters, for a byte token, and for one whose text
    is another's. A token without bytes, such as the separator, has its own name.
    """
    names: list[str] = []
    taken: set[str] = set()
    for token in range(tokenizer.vocab_size):
        data, piece = tokenizer.token_bytes(token), tokenizer.piece(token)
        spelled = "".join(f"<0x{byte:02X}>" for byte in data)
        try:
            name = spelled if piece == spelled else data.decode()
        except UnicodeDecodeError:
            name = spelled
        if not data:
            name = piece
        if name in taken:
            name = spelled if data and spelled not in taken else f"<|{token}|>"
        taken.add(name)
        names.append(name)
    return names


def names_of(places: Sequence[tuple[Path, int]]) -> list[str]:
    """The shortest ends of workdirs that tell them apart; with @STEP for one that is given twice.

    Raises:
      UserError: the same checkpoint twice.
    """
    if len(set(places)) < len(places):
        raise UserError(
            "the same checkpoint is given twice: leave out one --workdir, or set --step"
        )
    folders = [folder.resolve() for folder, _ in places]
    names = []
    for folder, (_, step) in zip(folders, places, strict=True):
        others = [other for other in folders if other != folder]
        length = 1
        while length < len(folder.parts) - 1 and any(
            other.parts[-length:] == folder.parts[-length:] for other in others
        ):
            length += 1
        name = "/".join(folder.parts[-length:])
        names.append(f"{name}@{step}" if folders.count(folder) > 1 else name)
    return names


def served(
    opened: Sequence[tuple[Run, Reference | None]], *, max_rows: int = 8, max_waiting: int = 64
) -> dict[str, Served]:
    """Runs by their names, in their order; `Served.warm` starts each.

    Raises:
      UserError: the same checkpoint twice.
    """
    names = names_of([(run.workdir, run.step) for run, _ in opened])
    return {
        name: Served(name, run, Engine(run, max_rows=max_rows, max_waiting=max_waiting), reference)
        for name, (run, reference) in zip(names, opened, strict=True)
    }


def chosen(models: Mapping[str, Served], name: str | None) -> Served:
    """The model of this name; the first where none is named.

    Raises:
      Refusal: 404.
    """
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        have = ", ".join(models)
        raise Refusal(
            404, f"there is no such model: use {have}", param="model", code="model_not_found"
        )
    return models[name]


class Jobs:
    """One thread for heavy synchronous work, so that the event loop and the streams go on.

    Args:
      waiting: how many jobs may wait for the one in work.

    Attributes:
      closing: set when the server shuts down; the progress function of a job raises Cancelled then.
    """

    def __init__(self, waiting: int):
        self._most = waiting + 1
        self._pool = ThreadPoolExecutor(1, "jobs")
        self._lock = threading.Lock()
        self._pending = 0
        self.closing = threading.Event()

    @property
    def pending(self) -> int:
        """Jobs in work or waiting."""
        return self._pending

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns. One that waits when its client leaves never begins.

        Raises:
          Refusal: 429 where too many jobs wait; 503 where the server shuts down before the end.
          Cancelled: the function raised it for another reason.
        """
        with self._lock:
            if self.closing.is_set():
                raise draining()
            if self._pending >= self._most:
                raise busy("too many scores and tables wait to be computed: try again in a second")
            # Counted until the thread is done with it, also where nobody waits for it any more.
            self._pending += 1
            call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
            future: Any = self._pool.submit(self._unless_closing, call)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wrap_future(future)
        except Cancelled:
            if self.closing.is_set():
                raise draining() from None
            raise

    def _unless_closing(self, call: Callable[[], R]) -> R:
        if self.closing.is_set():
            raise Cancelled
        return call()

    def _done(self, _: Any) -> None:
        with self._lock:
            self._pending -= 1

    def stop(self) -> None:
        """Ends the jobs that wait, and asks the one in work to end; returns at once."""
        with self._lock:
            self.closing.set()

    def close(self) -> None:
        """As `stop`, and waits for the job in work."""
        self.stop()
        self._pool.shutdown(wait=True)
