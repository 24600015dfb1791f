"""The scores of tokens as OpenAI's completions answer them, with offsets in characters."""

import codecs
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from hlm_jax.measures.score import Details
from hlm_jax.serving.engine import Token
from hlm_jax.serving.models import LEAST, Served
from hlm_jax.serving.requests import Prompt

Logprobs = dict[str, list[Any]]


class Cancelled(Exception):
    """Nobody waits for these scores any more."""


def empty() -> Logprobs:
    """No tokens."""
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


def joined(first: Logprobs | None, second: Logprobs | None) -> Logprobs | None:
    """Both, one after the other; None where neither was asked for."""
    if first is None or second is None:
        return first or second
    return {name: first[name] + second[name] for name in first}


def of_tokens(
    served: Served, tokens: Iterable[Token], text: str, before: int, most: int
) -> Logprobs:
    """The scores of tokens that were written.

    Args:
      text: of the completion so far, in which the tokens have their places.
      before: characters of the answer that precede it.
      most: how many likeliest tokens to name; the one that was drawn is among them or comes on top.
    """
    found, names = empty(), served.names
    for token in tokens:
        name = names[token.id]
        cut = text[token.start : token.end]
        if cut and name.startswith(cut):
            name = cut  # a stop string may have cut it
        found["tokens"].append(name)
        found["token_logprobs"].append(max(token.logprob, LEAST))
        found["top_logprobs"].append(_top(served, token.id, token.logprob, token.top[:most]))
        found["text_offset"].append(before + token.start)
    return found


def of_prompts(
    served: Served, prompts: Sequence[Prompt], most: int, left: threading.Event
) -> list[Logprobs]:
    """The scores of the prompts' own tokens; takes a while, for the thread of jobs.

    The first token of a prompt without a separator before it has null: nothing foretells it.

    Args:
      left: set when nobody waits for the scores any more.

    Raises:
      Cancelled: it was.
    """

    def progress(*_: int) -> None:
        if left.is_set():
            raise Cancelled

    scored = served.scores([prompt.ids for prompt in prompts], progress)
    return [_of_prompt(served, p, d, most) for p, d in zip(prompts, scored, strict=True)]


def _of_prompt(served: Served, prompt: Prompt, details: Details, most: int) -> Logprobs:
    ids = prompt.ids[prompt.context :]
    logprobs: list[Any] = [max(-float(nats), LEAST) for nats in details.nats]
    tops: list[Any] = []
    ranks = details.rank.tolist()
    top_ids, top_logprobs = details.top_ids[:, :most], details.top_logprobs[:, :most]
    for token, logprob, rank, of_ids, of_logprobs in zip(
        prompt.ids[1:], logprobs, ranks, top_ids.tolist(), top_logprobs.tolist(), strict=True
    ):
        top = list(zip(of_ids, of_logprobs, strict=True))
        tops.append(_top(served, token, logprob, top, likeliest=rank == 1))
    if not prompt.context:
        logprobs, tops = [None, *logprobs], [None, *tops]
    return {
        "tokens": [served.names[token] for token in ids],
        "token_logprobs": logprobs,
        "top_logprobs": tops,
        "text_offset": offsets(served, ids),
    }


def _top(
    served: Served,
    token: int,
    logprob: float,
    top: Iterable[tuple[int, float]],
    *,
    likeliest: bool = False,
) -> dict[str, float]:
    """Likeliest tokens by name; the token itself has the very number that is its score.

    Args:
      likeliest: of the token; then no number is above its own, whatever the rounding.
    """
    highest = logprob if likeliest else 0.0
    found = {served.names[i]: max(min(value, highest), LEAST) for i, value in top}
    return found | {served.names[token]: max(logprob, LEAST)}


def offsets(served: Served, ids: Iterable[int]) -> list[int]:
    """Where every token's text begins: how many characters those before it complete."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    places, written = [], 0
    for token in ids:
        places.append(written)
        written += len(decoder.decode(served.run.tokenizer.token_bytes(token)))
    return places
