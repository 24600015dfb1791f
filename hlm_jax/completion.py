"""One text as it is written: tokens become characters, stop strings end it. No model, no device."""

import dataclasses
from collections.abc import Iterator

from hlm_jax.book.utf8 import StreamDecoder
from hlm_jax.model.generate import Block, SamplingParams


@dataclasses.dataclass(frozen=True)
class Completion:
    """What one row of a generation wrote.

    Attributes:
      text: without the prompt and without the stop string.
      tokens: the ids that were drawn, those of the stop string included.
      finish_reason: "stop" at a stop string or a chapter's end, else "length".
      logprobs: natural logarithm of each token's probability under the model, before filters.
      top: for every token the likeliest ids and their logprobs; empty lists unless asked for.
    """

    text: str
    tokens: list[int]
    finish_reason: str
    logprobs: list[float]
    top: list[list[tuple[int, float]]]


def feed(rows: list["Row"], blocks: Iterator[Block]) -> Iterator[None]:
    """A step per dispatch, and one at the end for what was held back."""
    for block in blocks:
        for number, row in enumerate(rows):
            row.feed(block, number)
        if all(row.stopped for row in rows):
            break  # what was not dispatched yet never is
        yield
    for row in rows:
        row.flush()
    yield


class Row:
    """One text as it is written."""

    def __init__(
        self,
        prompt: list[int],
        sampling: SamplingParams,
        decoder: StreamDecoder,
        stop: list[str],
        end_token: int | None,
    ):
        self.prompt, self.sampling = prompt, sampling
        self._decoder, self._stop, self._end_token = decoder, stop, end_token
        self._text = ""  # decided
        self._held = ""  # may be the beginning of a stop string
        self._taken = 0
        self.stopped = False
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._top: list[list[tuple[int, float]]] = []

    def feed(self, block: Block, row: int) -> None:
        """Takes the row's new tokens, up to a stop."""
        for i, token in enumerate(block.tokens[row].tolist()):
            if self.stopped:
                return
            self._tokens.append(token)
            self._logprobs.append(float(block.logprobs[row, i]))
            ids, values = block.top_tokens[row, i].tolist(), block.top_logprobs[row, i].tolist()
            self._top.append(list(zip(ids, values, strict=True)))
            if token == self._end_token:
                self.flush()
                self.stopped = True
                return
            self._held += self._decoder.feed([token])
            starts = [at for text in self._stop if (at := self._held.find(text)) >= 0]
            if starts:
                self._held = self._held[: min(starts)]
                self.flush()
                self.stopped = True
                return
            keep = max((_beginning(self._held, text) for text in self._stop), default=0)
            cut = len(self._held) - keep
            self._text, self._held = self._text + self._held[:cut], self._held[cut:]

    def flush(self) -> None:
        """Decides what was held back: nothing more comes."""
        self._text, self._held = self._text + self._held, ""

    def take(self) -> str:
        """The decided text that was not taken before."""
        new, self._taken = self._text[self._taken :], len(self._text)
        return new

    def completion(self) -> Completion:
        reason = "stop" if self.stopped else "length"
        return Completion(self._text, self._tokens, reason, self._logprobs, self._top)


def _beginning(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
