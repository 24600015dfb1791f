"""POST /v1/completions: the choices of a request as they are written, streamed or all at once.

The answer that is not streamed is the sum of the chunks of the one that is.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from hlm_jax.serving import logprobs as scores
from hlm_jax.serving.answers import answered, as_json, while_wanted
from hlm_jax.serving.connection import EventStream, while_connected
from hlm_jax.serving.copied import CopiedSpans, merged, recitation
from hlm_jax.serving.engine import Busy, Part
from hlm_jax.serving.http import Refusal, busy, read_object
from hlm_jax.serving.logprobs import Logprobs
from hlm_jax.serving.metrics import Metrics
from hlm_jax.serving.models import Jobs
from hlm_jax.serving.requests import CompletionRequest, Prompt, read_completion

Chunk = dict[str, Any]
LONG = 2000  # tokens or characters of a chunk that a thread encodes
SEARCHED = 200  # characters that are looked for in the book without a thread


async def completions(http: HTTPRequest) -> Response:
    """The route."""
    state, begin = http.app.state, time.monotonic()
    body = await read_object(http)
    request = await asyncio.to_thread(read_completion, body, state.models, state.limits)
    answer = Answer(request, state.jobs, state.metrics, begin)
    if request.stream:
        events = answer.events()
        # The first event comes before the status is sent: a refusal can still have its own.
        first = await while_connected(http.receive, anext(events))
        return EventStream(first, events)
    whole = await while_connected(http.receive, answer.whole())
    return answered(await asyncio.to_thread(as_json, whole))


class Choice:
    """One text as it is written.

    Attributes:
      text: so far, without the prompt.
    """

    def __init__(self, request: CompletionRequest, index: int):
        self.request, self.index = request, index
        self.prompt: Prompt = request.prompts[index // request.n]
        self.text = ""
        self._spans: CopiedSpans | None = None
        if request.copied and request.served.reference is not None:
            self._spans = CopiedSpans(request.served.reference.overlap_index)

    async def echo(self, logprobs: Logprobs | None) -> Chunk:
        """The prompt, as the first chunk."""
        reason = None if self.request.max_tokens else "length"
        chunk = self._chunk(self.prompt.text, logprobs, [], reason)
        return chunk | ({"copied": await self._copied("")} if self.request.copied else {})

    async def part(self, part: Part) -> Chunk:
        """What the engine has written."""
        request, found = self.request, None
        self.text += part.text
        if request.logprobs is not None:
            before = len(self.prompt.text) if request.echo else 0
            found = scores.of_tokens(
                request.served, part.tokens, self.text, before, request.logprobs
            )
        ids = [token.id for token in part.tokens]
        chunk = self._chunk(part.text, found, ids, part.finish_reason)
        return chunk | ({"copied": await self._copied(part.text)} if request.copied else {})

    def _chunk(
        self, text: str, logprobs: Logprobs | None, ids: list[int], reason: str | None
    ) -> Chunk:
        chunk = {"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return chunk | ({"token_ids": ids} if self.request.return_token_ids else {})

    async def _copied(self, text: str) -> list[list[int]] | None:
        """[start, end, chapter] of spans that became known or grew; None without the book."""
        if self._spans is None:
            return None
        if self._spans.open + len(text) > SEARCHED:
            found = await asyncio.to_thread(self._spans.feed, text)
        else:
            found = self._spans.feed(text)
        return [[span.start, span.end, span.chapter] for span in found]


class Answer:
    """The answer to one request.

    Args:
      begin: when the request came, of time.monotonic().
    """

    def __init__(self, request: CompletionRequest, jobs: Jobs, metrics: Metrics, begin: float):
        self._request, self._jobs, self._metrics, self._begin = request, jobs, metrics, begin
        self._choices = [Choice(request, i) for i in range(len(request.prompts) * request.n)]
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.served.name,
        }
        self._tail = {"seed": request.sampling.seed}
        self._prompt_tokens = sum(len(prompt.ids) for prompt in request.prompts)
        self._written = 0

    async def whole(self) -> dict[str, Any]:
        """The object of an answer that is not streamed."""
        choices: dict[int, Chunk] = {}
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                index = chunk["index"]
                choices[index] = sum_of(choices[index], chunk) if index in choices else chunk
        ordered = [choices[index] for index in sorted(choices)]
        for chunk in ordered:
            if chunk.get("copied"):
                chunk["copied"] = merged(chunk["copied"])
        return self._head | {"choices": ordered, "usage": self._usage()} | self._tail

    async def events(self) -> AsyncGenerator[str, None]:
        """The events of an answer that is streamed."""
        usage: dict[str, Any] = {"usage": None} if self._request.include_usage else {}
        begun = False
        try:
            async with contextlib.aclosing(self.chunks()) as chunks:
                async for chunk in chunks:
                    data = self._head | {"choices": [chunk]} | usage | self._tail
                    yield await asyncio.to_thread(_event, data) if _long(chunk) else _event(data)
                    begun = True
        except Exception:
            if begun:  # the status is sent: an event tells it, and the log has the traceback
                yield _event(Refusal(500, "the server failed while it wrote this text").body())
            raise
        if usage:
            yield _event(self._head | {"choices": [], "usage": self._usage()} | self._tail)
        yield "data: [DONE]\n\n"

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The parts of all choices as they come; those of one choice are in their order.

        Raises:
          Refusal: 429 where too many texts wait, before the first chunk.
        """
        request = self._request
        of_prompts = await self._score_prompts()
        self._metrics.prompt_tokens.inc(self._prompt_tokens)
        async with contextlib.aclosing(self._parts()) as parts:
            waiting: tuple[int, Part] | None = await anext(parts, None)
            for choice in self._choices:
                if request.echo:
                    found = of_prompts[choice.index // request.n] if of_prompts else None
                    yield self._with_prompt(choice, await choice.echo(found))
                elif request.return_token_ids:
                    nothing = await choice.part(Part("", [], None))
                    yield self._with_prompt(choice, nothing)
            while waiting is not None:
                index, part = waiting
                self._count(part)
                choice = self._choices[index]
                chunk = await choice.part(part)
                if part.finish_reason and request.copied:
                    chunk["recitation"] = await asyncio.to_thread(
                        recitation, request.served.reference, choice.text
                    )
                yield chunk
                waiting = await anext(parts, None)

    def _with_prompt(self, choice: Choice, chunk: Chunk) -> Chunk:
        if self._request.return_token_ids:
            chunk["prompt_token_ids"] = list(choice.prompt.ids)
        return chunk

    async def _parts(self) -> AsyncGenerator[tuple[int, Part], None]:
        """Those of the engine; none where no token is asked for."""
        if not self._request.max_tokens:
            return
        stream: AsyncIterator[tuple[int, Part]]
        stream = self._request.served.engine.stream(self._request.sequences())
        async with contextlib.aclosing(stream) as parts:  # type: ignore[type-var]
            try:
                async for item in parts:
                    yield item
            except Busy:
                raise busy("too many texts wait to be written: try again in a second") from None

    async def _score_prompts(self) -> list[Logprobs] | None:
        request = self._request
        if not request.scores_prompts:
            return None
        most = request.logprobs or 0
        return await while_wanted(
            self._jobs, scores.of_prompts, request.served, request.prompts, most
        )

    def _count(self, part: Part) -> None:
        if not self._written and part.tokens:
            self._metrics.first_token.observe(time.monotonic() - self._begin)
        self._written += len(part.tokens)
        self._metrics.generated_tokens.inc(len(part.tokens))

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._written,
            "total_tokens": self._prompt_tokens + self._written,
        }


def sum_of(first: Chunk, second: Chunk) -> Chunk:
    """Two chunks of one choice, the second after the first."""
    both = first | second
    both["text"] = first["text"] + second["text"]
    both["logprobs"] = scores.joined(first["logprobs"], second["logprobs"])
    for name in ("token_ids", "copied"):
        if first.get(name) is not None and second.get(name) is not None:
            both[name] = first[name] + second[name]
    return both


def _event(data: dict[str, Any]) -> str:
    return f"data: {as_json(data)}\n\n"


def _long(chunk: Chunk) -> bool:
    ids, logprobs = chunk.get("prompt_token_ids", ()), chunk["logprobs"] or scores.empty()
    return len(chunk["text"]) + len(ids) + len(logprobs["tokens"]) > LONG
