"""One thread that writes all texts of a server: waiting requests join between two dispatches.

Rows of different requests share every dispatch. Places are kept in powers of two, each with one
compiled program; `start` compiles them all, so that no request waits for a compiler.
"""

import asyncio
import dataclasses
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from hlm_jax.book.utf8 import StreamDecoder
from hlm_jax.completion import Part, Text, Token
from hlm_jax.errors import UserError
from hlm_jax.language_model import DISPATCH_TOKENS, LanguageModel
from hlm_jax.model.generate import Decoder, Program, Row, SamplingParams

__all__ = ["Busy", "Engine", "EngineStats", "Part", "Request", "Token"]


class Busy(Exception):
    """The engine takes no more: too many texts wait, or it is closing."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One text to write.

    Attributes:
      prompt: token ids, 1 to block_size - 1 of them.
      sampling: how it is drawn; the seed is this text's own.
      max_tokens: at least 1.
      stop: strings that end the text; they are no part of it.
      end_token: an id that ends the text.
      top_logprobs: how many of the likeliest tokens to report for each, 0 to Engine.TOP.
    """

    prompt: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    stop: tuple[str, ...] = ()
    end_token: int | None = None
    top_logprobs: int = 0


class EngineStats(NamedTuple):
    """What an engine does now, and what it has done since its start."""

    active: int
    waiting: int
    tokens: int
    dispatches: int


class _Job:
    """The texts that one caller waits for."""

    def __init__(self, requests: Sequence[Request], loop: asyncio.AbstractEventLoop):
        self.requests = requests
        self.cancelled = False
        self.parts: asyncio.Queue[tuple[int, Part] | BaseException] = asyncio.Queue()
        self._loop = loop

    def deliver(self, what: tuple[int, Part] | BaseException) -> None:
        try:
            self._loop.call_soon_threadsafe(self.parts.put_nowait, what)
        except RuntimeError:  # the caller's loop is closed: nobody waits any more
            self.cancelled = True


@dataclasses.dataclass(eq=False)
class _Writing:
    """One text on its way: where it belongs and what it has."""

    job: _Job
    index: int  # of the request in the job
    request: Request
    row: Row
    text: Text


class Engine:
    """Writes texts of one model for any number of callers.

    Attributes:
      ready: all programs are compiled, and the thread works.
    """

    TOP = 20

    def __init__(self, model: LanguageModel, *, max_rows: int = 8, max_waiting: int = 64):
        cfg = model.model.cfg
        if max_rows < 1 or max_waiting < 1:
            raise ValueError("max_rows and max_waiting are at least 1")
        if cfg.block_size < 2:
            raise UserError(
                "a model with model.block_size=1 cannot generate: train one with 2 or more"
            )
        self.ready = False
        self._model = model
        self._max_rows, self._max_waiting = max_rows, max_waiting
        top = min(self.TOP, cfg.vocab_size)
        self._program = Program(model.model, cfg.block_size, DISPATCH_TOKENS, top)
        self._decoder = Decoder(self._program, model.device_params, model.tokenizer.utf8_automaton)
        self._waiting: deque[_Writing] = deque()
        self._active: list[_Writing] = []
        self._tokens = self._dispatches = 0
        self._changed = threading.Condition()
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    # --- for callers, on any thread ---

    def start(self) -> None:
        """Compiles everything, then starts the thread. Takes seconds to minutes.

        Raises:
          Busy: `close` was called meanwhile, on another thread.
        """
        self._warm_up()
        self._thread.start()
        self.ready = True

    async def stream(self, requests: Sequence[Request]) -> AsyncIterator[tuple[int, Part]]:
        """Yields (index in requests, Part) as texts grow; ends when all are finished.

        Closing the iterator frees the rows within one dispatch.

        Raises:
          Busy: more than max_waiting texts would wait, or the engine is closing.
          ValueError: a request is impossible.
        """
        for request in requests:
            self._check(request)
        job = _Job(requests, asyncio.get_running_loop())
        self._enter(job)
        left = len(requests)
        try:
            while left:
                what = await job.parts.get()
                if isinstance(what, BaseException):
                    raise what
                left -= what[1].finish_reason is not None
                yield what
        finally:
            job.cancelled = True

    def stats(self) -> EngineStats:
        with self._changed:
            return EngineStats(
                len(self._active), len(self._waiting), self._tokens, self._dispatches
            )

    def close(self) -> None:
        """Takes no more requests, finishes those it has, and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _check(self, request: Request) -> None:
        cfg = self._model.model.cfg
        if not 1 <= len(request.prompt) < cfg.block_size:
            raise ValueError(f"a prompt of {len(request.prompt)} tokens for {cfg.block_size} slots")
        if not 0 <= min(request.prompt) <= max(request.prompt) < cfg.vocab_size:
            raise ValueError(f"a prompt holds ids outside 0..{cfg.vocab_size - 1}")
        if request.max_tokens < 1 or not 0 <= request.top_logprobs <= self.TOP:
            raise ValueError("max_tokens is at least 1, and top_logprobs between 0 and TOP")

    def _enter(self, job: _Job) -> None:
        tokenizer = self._model.tokenizer
        writings = [
            _Writing(
                job,
                index,
                request,
                Row(list(request.prompt), request.sampling, tops=request.top_logprobs > 0),
                Text(
                    list(request.prompt),
                    request.sampling,
                    StreamDecoder(tokenizer),
                    request.stop,
                    request.end_token,
                ),
            )
            for index, request in enumerate(job.requests)
        ]
        with self._changed:
            if self._failure:
                raise RuntimeError("the engine has stopped") from self._failure
            wanted = [w for w in (*self._active, *self._waiting) if not w.job.cancelled]
            most = self._max_rows + self._max_waiting
            if self._closing or len(wanted) + len(writings) > most:
                raise Busy
            self._waiting.extend(writings)
            self._changed.notify_all()

    # --- the thread ---

    def _work(self) -> None:
        try:
            while self._admit():
                self._dispatch()
        except BaseException as error:  # every caller must hear of it
            with self._changed:
                self._failure, self.ready = error, False
                jobs = {writing.job for writing in (*self._active, *self._waiting)}
                self._active, self._waiting = [], deque()
            for job in jobs:
                job.deliver(error)
            raise

    def _admit(self) -> bool:
        """Lets waiting texts join and cancelled ones leave; False when there is nothing left to do.

        Sleeps while there is no text.
        """
        with self._changed:
            while True:
                self._drop_cancelled()
                if self._active or self._waiting:
                    break
                if self._closing:
                    return False
                self._changed.wait()
            free = self._max_rows - len(self._active)
            joining = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
            self._active += joining
        self._fit(len(self._active))
        while joining:
            alike = [w for w in joining if w.request.prompt == joining[0].request.prompt]
            joining = [w for w in joining if w not in alike]
            places = [place for place, row in enumerate(self._decoder.rows) if row is None]
            self._decoder.join(places, [w.row for w in alike])
        return True

    def _drop_cancelled(self) -> None:
        for writing in self._active:
            if writing.job.cancelled:
                self._decoder.leave(writing.row)
        self._active = [w for w in self._active if not w.job.cancelled]
        self._waiting = deque(w for w in self._waiting if not w.job.cancelled)

    def _fit(self, rows: int) -> None:
        """The least power of two of places that holds the rows, by doubling and halving."""
        while (places := len(self._decoder.rows)) < rows:
            self._decoder.resize(min(self._max_rows, 2 * places))
        while (half := _half(places)) >= rows:
            self._decoder.resize(half)
            places = half

    def _dispatch(self) -> None:
        left = min(w.request.max_tokens - w.row.made for w in self._active)
        block = self._decoder.dispatch(left)
        place = {id(row): at for at, row in enumerate(self._decoder.rows) if row}
        count = block.tokens.shape[1]
        finished, parts = [], []
        for writing in self._active:
            text, request = writing.text, writing.request
            text.feed(block, place[id(writing.row)], tops=request.top_logprobs)
            if text.stopped or writing.row.made >= request.max_tokens:
                text.flush()
                self._decoder.leave(writing.row)
                finished.append(writing)
            part = text.take()
            if part.text or part.tokens or part.finish_reason:
                parts.append((writing, part))
        with self._changed:
            self._tokens += count * len(self._active)
            self._dispatches += 1
            self._active = [w for w in self._active if w not in finished]
        for writing, part in parts:  # last: who has a whole text sees its row free
            writing.job.deliver((writing.index, part))

    def _warm_up(self) -> None:
        """Runs every program once: each window of a prompt, each number of places and of tokens."""
        decoder, slots = self._decoder, self._program.slots
        decoder.resize(1)
        sizes = [1]
        while sizes[-1] < self._max_rows:
            sizes.append(min(self._max_rows, 2 * sizes[-1]))
        widths = {self._program.width(length): length for length in range(1, slots)}
        for length in widths.values():
            self._warm_row([1] * length, 1)
        counts = [count for count in self._program.counts if count < slots]
        for size in sizes:
            decoder.resize(size)
            for count in counts:
                self._warm_row([1], count)
        for size in reversed(sizes[:-1]):
            decoder.resize(size)

    def _warm_row(self, ids: list[int], count: int) -> None:
        if self._closing:
            raise Busy
        row = Row(ids, SamplingParams())
        self._decoder.join([0], [row])
        self._decoder.dispatch(count)
        self._decoder.leave(row)


def _half(places: int) -> int:
    """The next smaller number of places; 0 where there is none."""
    return 1 << ((places - 1).bit_length() - 1) if places > 1 else 0
