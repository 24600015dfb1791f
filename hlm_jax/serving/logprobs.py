"""The scores of tokens as OpenAI's completions answer them, with offsets in characters."""

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hlm_jax.measures.score import Details
from hlm_jax.serving.engine import Token
from hlm_jax.serving.models import LEAST, Served
from hlm_jax.serving.requests import Prompt

Logprobs = dict[str, list[Any]]


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
        top = token.top[:most]
        name = _cut(served, token, text, {names[other] for other, _ in top if other != token.id})
        found["tokens"].append(name)
        found["token_logprobs"].append(max(token.logprob, LEAST))
        found["top_logprobs"].append(_top(served, token.id, name, token.logprob, top))
        found["text_offset"].append(before + token.start)
    return found


def _cut(served: Served, token: Token, text: str, taken: set[str]) -> str:
    """The name of a token, or of what a stop string has left of it.

    That is its text up to there; the bytes of this where the token is named by its bytes, or where
    another token has that name.
    """
    name, data = served.names[token.id], served.run.tokenizer.token_bytes(token.id)
    # Bytes that end a character which began in a token before.
    begun = next((i for i, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    whole = len(decoder.decode(data[begun:])) + (0 < begun < len(data))
    cut = text[token.start : token.end]
    if len(cut) >= whole:
        return name
    if begun or cut in taken or name.startswith("<0x"):
        left = begun + len(cut[bool(begun) :].encode())
        return "".join(f"<0x{byte:02X}>" for byte in data[:left])
    return cut


def of_prompts(
    served: Served, prompts: Sequence[Prompt], most: int, check: Callable[..., None]
) -> list[Logprobs]:
    """The scores of the prompts' own tokens; takes a while, for the thread of jobs.

    The first token of a prompt without a separator before it has null: nothing foretells it.

    Args:
      check: called after every batch; what it raises ends the work.
    """
    scored = served.scores([prompt.ids for prompt in prompts], check)
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
        name = served.names[token]
        tops.append(_top(served, token, name, logprob, top, likeliest=rank == 1))
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
    name: str,
    logprob: float,
    top: Iterable[tuple[int, float]],
    *,
    likeliest: bool = False,
) -> dict[str, float]:
    """Likeliest tokens by name; the token itself has the very number that is its score.

    Args:
      name: of the token, as `tokens` has it.
      likeliest: of the token; then no number is above its own, whatever the rounding.
    """
    highest = logprob if likeliest else 0.0
    found = {
        name if i == token else served.names[i]: max(min(value, highest), LEAST) for i, value in top
    }
    return found | {name: max(logprob, LEAST)}


def offsets(served: Served, ids: Iterable[int]) -> list[int]:
    """Where every token's text begins: how many characters those before it complete."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    places, written = [], 0
    for token in ids:
        places.append(written)
        written += len(decoder.decode(served.run.tokenizer.token_bytes(token)))
    return places
