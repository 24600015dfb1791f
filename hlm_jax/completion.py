"""One text as it is written: tokens become characters, stop strings end it. No model, no device."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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


class Token(NamedTuple):
    """One token of a text.

    Attributes:
      id: of the vocabulary.
      start, end: its characters of the text; equal for bytes that complete no character.
      logprob: natural, of the model's own distribution.
      top: the likeliest ids and their logprobs, falling; empty unless asked for.
    """

    id: int
    start: int
    end: int
    logprob: float
    top: list[tuple[int, float]]


class Part(NamedTuple):
    """What became certain of a text since the last Part.

    Attributes:
      text: whole characters; nothing that may still be part of a stop string.
      tokens: those whose characters are all in the text so far. The bytes of one character come
        together. A token that a stop string cuts ends before it.
      finish_reason: None before the end, then "stop" or "length".
    """

    text: str
    tokens: list[Token]
    finish_reason: str | None


def feed(texts: list["Text"], blocks: Iterator[Block]) -> Iterator[None]:
    """A step per dispatch, and one at the end for what was held back."""
    for block in blocks:
        for row, text in enumerate(texts):
            text.feed(block, row)
        if all(text.stopped for text in texts):
            break  # what was not dispatched yet never is
        yield
    for text in texts:
        text.flush()
    yield


class Text:
    """One text as it is written."""

    def __init__(
        self,
        prompt: list[int],
        sampling: SamplingParams,
        decoder: StreamDecoder,
        stop: Sequence[str],
        end_token: int | None,
    ):
        self.prompt, self.sampling = prompt, sampling
        self._decoder, self._stop, self._end_token = decoder, stop, end_token
        self._text = ""  # decided
        self._held = ""  # may be the beginning of a stop string
        self._taken = 0  # characters
        self._tokens: list[Token] = []
        self._released = 0  # tokens
        self.stopped = False  # by a stop string or the end token
        self._over = False

    def feed(self, block: Block, row: int, tops: int | None = None) -> None:
        """Takes the row's new tokens, up to a stop, each with `tops` of the likeliest ones."""
        for i, token in enumerate(block.tokens[row].tolist()):
            if self.stopped:
                return
            ids = block.top_tokens[row, i, :tops].tolist()
            values = block.top_logprobs[row, i, :tops].tolist()
            top = list(zip(ids, values, strict=True))
            start = len(self._text) + len(self._held)
            if token != self._end_token:
                self._held += self._decoder.feed([token])
            end = len(self._text) + len(self._held)
            self._tokens.append(Token(token, start, end, float(block.logprobs[row, i]), top))
            if token == self._end_token:
                self._end(stopped=True)
                return
            starts = [at for text in self._stop if (at := self._held.find(text)) >= 0]
            if starts:
                self._held = self._held[: min(starts)]
                self._end(stopped=True)
                return
            keep = max((_beginning(self._held, text) for text in self._stop), default=0)
            cut = len(self._held) - keep
            self._text, self._held = self._text + self._held[:cut], self._held[cut:]

    def _end(self, *, stopped: bool) -> None:
        self._text, self._held = self._text + self._held, ""
        self.stopped, self._over = stopped, True

    def flush(self) -> None:
        """Decides what was held back: nothing more comes."""
        if not self._over:
            self._end(stopped=False)

    def take(self) -> Part:
        """What was decided since it was asked last."""
        new, self._taken = self._text[self._taken :], len(self._text)
        length, number = len(self._text), len(self._tokens)
        if not self._over:  # up to the last token that completes a character and is decided
            known = (
                at
                for at in range(number, self._released, -1)
                if self._tokens[at - 1].start < self._tokens[at - 1].end <= length
            )
            number = next(known, self._released)
        tokens = self._tokens[self._released : number]
        self._released = number
        if self.stopped:
            tokens = [
                token._replace(end=min(token.end, length))
                for token in tokens
                if token.start < length
            ]
        return Part(new, tokens, self._reason() if self._over else None)

    def _reason(self) -> str:
        return "stop" if self.stopped else "length"

    def completion(self) -> Completion:
        """The whole, once nothing more comes."""
        return Completion(
            self._text,
            [token.id for token in self._tokens],
            self._reason(),
            [token.logprob for token in self._tokens],
            [token.top for token in self._tokens],
        )


def _beginning(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
