"""A request for completions, read from its JSON object and checked against the limits."""

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

from hlm_jax.book.corpus import clean_prompt
from hlm_jax.model.generate import SamplingParams
from hlm_jax.serving.engine import Engine, Request
from hlm_jax.serving.http import Fields, Limits, Refusal
from hlm_jax.serving.models import Served, chosen

SEEDS = 2**31  # a seed that nobody chose lies below it
TEMPERATURE = 100.0  # the highest
NUMBERS = 2**20  # ids and scores that one answer may have; a score takes about 25 bytes


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
      ids: what the model reads.
      text: what `echo` gives back.
      context: how many of the ids stand before the text: 1 for a string after the separator.
    """

    ids: tuple[int, ...]
    text: str
    context: int


@dataclasses.dataclass(frozen=True)
class CompletionRequest:
    """A request for `n` texts of every prompt; docs/serving.md describes the fields.

    Attributes:
      served: the model.
      sampling: of the first text of every prompt; the seed of text i is i higher.
      logprobs: how many likeliest tokens to report; None: no scores at all.
      stop: strings; the separator's name among them has become `stop_at_chapter_end`.
    """

    served: Served
    prompts: list[Prompt]
    sampling: SamplingParams
    max_tokens: int
    n: int
    stop: tuple[str, ...]
    stop_at_chapter_end: bool
    echo: bool
    logprobs: int | None
    stream: bool
    include_usage: bool
    return_token_ids: bool
    copied: bool

    @property
    def scores_prompts(self) -> bool:
        """Whether the prompts' own tokens are scored."""
        return self.echo and self.logprobs is not None

    def sequences(self) -> list[Request]:
        """What the engine writes, a sequence for every choice, in the order of their indices."""
        tokenizer = self.served.run.tokenizer
        block = self.served.run.model.cfg.block_size
        end = tokenizer.separator_id if self.stop_at_chapter_end else None
        top = min(self.logprobs or 0, tokenizer.vocab_size)
        return [
            Request(
                # Only one more token may follow a prompt that fills the block.
                prompt=p.ids if len(p.ids) < block else p.ids[-max(1, block // 2) :],
                sampling=dataclasses.replace(self.sampling, seed=self.sampling.seed + i),
                max_tokens=self.max_tokens,
                stop=self.stop,
                end_token=end,
                top_logprobs=top,
            )
            for p in self.prompts
            for i in range(self.n)
        ]


def read_completion(
    body: Mapping[str, Any], models: Mapping[str, Served], limits: Limits
) -> CompletionRequest:
    """The request in a JSON object.

    Raises:
      Refusal: 400 with the field at fault, 404 for an unknown model.
    """
    fields = Fields(body)
    served = chosen(models, fields.text("model", most=500, default=None))
    n = fields.whole("n", low=1, high=limits.n, default=1)
    _refuse_the_unsupported(fields, n)
    add_separator = fields.flag("add_special_tokens", default=True)
    clean = fields.flag("clean", default=False)
    prompts = read_prompts(fields.take("prompt"), served, limits, add_separator, clean)
    block = served.run.model.cfg.block_size
    most = fields.whole("truncate_prompt_tokens", low=1, high=max(1, block - 1), default=None)
    if most is not None:
        prompts = [_end_of(prompt, served, most) for prompt in prompts]
    if len(prompts) * n > limits.sequences:
        raise Refusal(
            400,
            f"{len(prompts)} prompts x n = {len(prompts) * n} texts: at most {limits.sequences}",
            param="n",
        )
    stop, at_separator = _stops(fields, served, limits)
    stream = fields.flag("stream", default=False)
    request = CompletionRequest(
        served=served,
        prompts=prompts,
        sampling=read_sampling(fields, served),
        max_tokens=fields.whole("max_tokens", low=0, high=limits.max_tokens, default=16),
        n=n,
        stop=stop,
        stop_at_chapter_end=fields.flag("stop_at_chapter_end", default=False) or at_separator,
        echo=fields.flag("echo", default=False),
        logprobs=fields.whole("logprobs", low=0, high=Engine.TOP, default=None),
        stream=stream,
        include_usage=_include_usage(fields, stream),
        return_token_ids=fields.flag("return_token_ids", default=False),
        copied=fields.flag("copied", default=False),
    )
    fields.done()
    _require_that_it_fits(request, limits)
    return request


def read_sampling(fields: Fields, served: Served) -> SamplingParams:
    """The sampling settings; those left out are the run's own, and the seed is drawn."""
    own = served.run.sampling
    top_k = fields.whole("top_k", low=-1, high=2**31 - 1, default=own.top_k)
    return SamplingParams(
        temperature=fields.number("temperature", low=0, high=TEMPERATURE, default=own.temperature),
        top_k=max(0, top_k),  # vLLM writes -1 for all tokens
        top_p=fields.number("top_p", low=0, high=1, default=own.top_p),
        min_p=fields.number("min_p", low=0, high=1, default=own.min_p),
        repetition_penalty=fields.number(
            "repetition_penalty", low=0.01, high=100, default=own.repetition_penalty
        ),
        seed=fields.whole(
            "seed", low=-(2**63), high=2**63 - 1, default=random.SystemRandom().randrange(SEEDS)
        ),
    )


def read_prompts(
    given: Any, served: Served, limits: Limits, add_separator: bool, clean: bool
) -> list[Prompt]:
    """The prompts of a string, a list of strings, a list of ids or a list of such lists.

    Raises:
      Refusal: 400.
    """
    if isinstance(given, str):
        several: list[Any] = [given]
    elif isinstance(given, list) and given:
        several = given if isinstance(given[0], str | list) else [given]
    else:
        raise _no_prompt(given)
    if len(several) > limits.prompts:
        raise Refusal(400, f"{len(several):,} prompts: at most {limits.prompts}", param="prompt")
    if all(isinstance(one, str) for one in several):
        return [_of_text(one, served, add_separator, clean) for one in several]
    if not all(isinstance(one, list) for one in several):
        raise _no_prompt(given)
    if clean:
        message = "clean is of texts: a prompt of token ids is taken as it is"
        raise Refusal(400, message, param="clean")
    return [_of_ids(read_ids(one, served, "prompt"), served) for one in several]


def _no_prompt(given: Any) -> Refusal:
    rule = "a string, a list of strings, a list of token ids or a list of such lists"
    return Fields({}).wrong("prompt", rule, given)


def _of_text(text: str, served: Served, add_separator: bool, clean: bool) -> Prompt:
    tokenizer = served.run.tokenizer
    if clean:
        text = clean_prompt(text, served.run.convert)
    ids = tokenizer.encode(text)
    before = [tokenizer.separator_id] if add_separator or not ids else []
    return Prompt((*before, *ids), text, len(before))


def _of_ids(ids: tuple[int, ...], served: Served) -> Prompt:
    if not ids:
        raise Refusal(400, "a prompt has no token ids", param="prompt", code="invalid_value")
    return Prompt(ids, served.run.tokenizer.decode(ids), 0)


def _end_of(prompt: Prompt, served: Served, most: int) -> Prompt:
    """The prompt's last tokens, where it has more."""
    if len(prompt.ids) <= most:
        return prompt
    return _of_ids(prompt.ids[-most:], served)


def read_ids(given: list[Any], served: Served, name: str) -> tuple[int, ...]:
    """Token ids of the vocabulary.

    Raises:
      Refusal: 400.
    """
    size = served.run.tokenizer.vocab_size
    for token in given:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < size:
            raise Fields({}).wrong(name, f"token ids from 0 to {size - 1:,}", token)
    return tuple(given)


def _stops(fields: Fields, served: Served, limits: Limits) -> tuple[tuple[str, ...], bool]:
    """(stop strings, whether the separator's name is one)."""
    given: Any = fields.take("stop", [])
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise fields.wrong("stop", "a string or a list of strings", given)
    if len(stops) > limits.stop:
        raise Refusal(400, f"stop has {len(stops)} strings: at most {limits.stop}", param="stop")
    for text in stops:
        if not 1 <= len(text) <= limits.stop_chars:
            message = f"a stop string has {len(text):,} characters: 1 to {limits.stop_chars}"
            raise Refusal(400, message, param="stop")
    run = served.run
    separator = run.tokenizer.piece(run.tokenizer.separator_id)
    texts = tuple(dict.fromkeys(text for text in stops if text != separator))
    return texts, separator in stops


def _include_usage(fields: Fields, stream: bool) -> bool:
    options = fields.take("stream_options", None)
    if options is None:
        return False
    if not isinstance(options, dict):
        raise fields.wrong("stream_options", "an object", options)
    if not stream:
        raise Refusal(400, "stream_options needs stream: true", param="stream_options")
    inner = Fields(options)
    include = inner.flag("include_usage", default=False)
    inner.done()
    return include


def _refuse_the_unsupported(fields: Fields, n: int) -> None:
    """Fields of OpenAI's that would change the answer and cannot."""
    fields.neutral("best_of", n, why="every text that is written is answered, use n")
    fields.neutral("suffix", "", why="the model reads only what stands before")
    fields.neutral("logit_bias", {}, why="no single token can be made likelier")
    instead = "use repetition_penalty"
    fields.neutral("presence_penalty", 0, 0.0, why=instead)
    fields.neutral("frequency_penalty", 0, 0.0, why=instead)
    fields.neutral("user", "", why="the server knows no users")
    fields.neutral("messages", why="the model knows no chat, use prompt")


def _require_that_it_fits(request: CompletionRequest, limits: Limits) -> None:
    block = request.served.run.model.cfg.block_size
    if request.max_tokens == 0 and not request.echo:
        raise Refusal(
            400,
            "max_tokens must be at least 1, or 0 with echo: true to score the prompt",
            param="max_tokens",
        )
    if request.scores_prompts:
        total = sum(len(prompt.ids) for prompt in request.prompts)
        if total > limits.scored_tokens:
            message = f"the prompts have {total:,} tokens: at most {limits.scored_tokens:,}"
            raise Refusal(400, message, param="prompt", code="context_length_exceeded")
    _require_that_the_answer_is_not_too_long(request)
    if request.max_tokens == 0 or (request.max_tokens == 1 and request.echo):
        return
    for prompt in request.prompts:
        if len(prompt.ids) >= block:
            raise Refusal(
                400,
                f"the prompt has {len(prompt.ids):,} tokens and the model reads at most "
                f"{block - 1:,} before it writes: shorten the prompt",
                param="prompt",
                code="context_length_exceeded",
            )


def _require_that_the_answer_is_not_too_long(request: CompletionRequest) -> None:
    of_prompts = sum(len(prompt.ids) for prompt in request.prompts)
    texts, given = len(request.prompts) * request.n, request.echo or request.return_token_ids
    tokens = texts * request.max_tokens + (request.n * of_prompts if given else 0)
    each = 1 + (request.logprobs or 0)
    if tokens * each > NUMBERS:
        message = (
            f"the answer may have {tokens:,} tokens x (1 + logprobs) = {tokens * each:,} numbers: "
            f"at most {NUMBERS:,}"
        )
        raise Refusal(400, message, param="logprobs" if request.logprobs else "n")
