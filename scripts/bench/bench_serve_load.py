"""Clients of an OpenAI-completions server and what they time. bench_serve.py runs them."""

import asyncio
import dataclasses
import json
import re
import statistics
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx

STREAMS = 8  # at once
LEAVES_AFTER = 3  # chunks
# At most 9 characters, so that a token of each byte still fits the smallest block.
PROMPTS = (
    "却说宝玉听了",
    "黛玉笑道：",
    "贾母因问",
    "次日清晨",
    "王夫人忙命人",
    "一时凤姐来了",
    "众人听说，都笑",
    "话说那日雪后",
)
COUNTED = {
    "hlm_compilations_total",
    "hlm_dispatches_total",
    "hlm_generated_tokens_total",
    "hlm_rows_active",
    "hlm_sequences_waiting",
}
Events = AsyncGenerator[dict[str, Any] | None, None]
LINE = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)(\{.*\})?\s+(?P<value>\S+)(\s+\d+)?$")


class WrongAnswer(Exception):
    """The server did not answer as the protocol says; the text says how."""


@dataclasses.dataclass(frozen=True)
class Streamed:
    """One streamed text.

    Attributes:
      first: seconds until the first character, None where there was none.
      seconds: until the end of the stream.
      tokens: written, by the server's own count; None where it gave none.
      text: of the first choice.
      chunks: with text.
      done: the stream ended with [DONE].
    """

    first: float | None
    seconds: float
    tokens: int | None
    text: str
    chunks: int
    done: bool


class Client:
    """A client of one server.

    Args:
      url: of the server, without a path.
      extra: fields that every request for a completion has.
      seconds: that an answer may take.
    """

    def __init__(self, url: str, extra: Mapping[str, Any] | None = None, seconds: float = 120):
        self.extra = dict(extra or {})
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self.http = httpx.AsyncClient(base_url=url, timeout=seconds, limits=limits)

    async def __aenter__(self) -> "Client":
        await self.http.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.http.__aexit__(*error)

    async def events(
        self, fields: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, Any] | None, None]:
        """The objects of a streamed completion as they come, and None for [DONE].

        Raises:
          WrongAnswer: the status is not 200, or an event is an error.
        """
        body = self.extra | dict(fields) | {"stream": True}
        async with self.http.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")
                raise WrongAnswer(f"status {response.status_code}: {text[:300]}")
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[len("data:") :].strip()
                event = None if data == "[DONE]" else json.loads(data)
                if event is not None and "error" in event:
                    raise WrongAnswer(f"an error in the stream: {data[:300]}")
                yield event

    async def stream(self, fields: Mapping[str, Any]) -> Streamed:
        """A streamed completion, read to its end."""
        began = time.perf_counter()
        first, tokens, done, texts = None, None, False, []
        async for event in self.events(fields):
            if event is None:
                done = True
                continue
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            for choice in event["choices"]:
                if choice["text"] and choice["index"] == 0:
                    first = first or time.perf_counter() - began
                    texts.append(choice["text"])
        seconds = time.perf_counter() - began
        return Streamed(first, seconds, tokens, "".join(texts), len(texts), done)

    async def metrics(self) -> dict[str, float]:
        """The server's counters and gauges by name, summed over their labels.

        Raises:
          WrongAnswer: one of COUNTED is missing.
        """
        response = await self.http.get("/metrics")
        response.raise_for_status()
        found = parse_metrics(response.text)
        if missing := COUNTED - found.keys():
            raise WrongAnswer(f"GET /metrics tells no {', '.join(sorted(missing))}")
        return found


def parse_metrics(text: str) -> dict[str, float]:
    """Prometheus' text format by name, summed over labels."""
    out: dict[str, float] = {}
    for found in filter(None, map(LINE.match, text.splitlines())):
        out[found["name"]] = out.get(found["name"], 0.0) + float(found["value"])
    return out


def fields_of(prompt: str, tokens: int) -> dict[str, Any]:
    """What every server of a comparison is asked for."""
    return {
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0.8,
        "top_p": 1.0,
        "stream_options": {"include_usage": True},
    }


async def turn(client: Client, *, tokens: int, waves: int, firsts: int) -> dict[str, Any]:
    """One server's measures: first tokens, one stream after another, and STREAMS at once.

    Returns:
      first_ms: milliseconds to the first character, `firsts` of them, each of an idle server.
      one, many: tokens per second of one stream and of all STREAMS.
      client: the load generator's part of the wall time with STREAMS at once.

    Raises:
      WrongAnswer: a text does not have `tokens` tokens.
    """
    await streams(client, PROMPTS, tokens)  # warm-up
    first_ms = []
    for i in range(firsts):
        (text,) = await streams(client, [PROMPTS[i % len(PROMPTS)]], 8)
        if text.first is None:
            raise WrongAnswer("a stream of 8 tokens without a character")
        first_ms.append(1e3 * text.first)
        await asyncio.sleep(0.02)  # the server is idle again
    one, many, client_seconds = [], [], 0.0
    for wave in range(waves):
        prompt = PROMPTS[wave % len(PROMPTS)]
        one.append((await streams(client, [prompt], tokens))[0].seconds)
        began, cpu = time.perf_counter(), time.process_time()
        await streams(client, PROMPTS, tokens)
        many.append(time.perf_counter() - began)
        client_seconds += time.process_time() - cpu
    return {
        "first_ms": first_ms,
        "one": waves * tokens / sum(one),
        "many": waves * tokens * len(PROMPTS) / sum(many),
        "client": client_seconds / sum(many),
    }


async def streams(client: Client, prompts: Sequence[str], tokens: int) -> list[Streamed]:
    """A text of each prompt, all at once.

    Raises:
      WrongAnswer: one has another number of tokens than asked for.
    """
    done = await asyncio.gather(*(client.stream(fields_of(p, tokens)) for p in prompts))
    for text in done:
        if text.tokens != tokens:
            raise WrongAnswer(f"not the same work: {text.tokens} tokens, {tokens} asked for")
    return done


async def freed(client: Client, *, tokens: int, seconds: float = 10) -> dict[str, float]:
    """What an idle server still does for a client that went away in the middle of a stream.

    Returns:
      dispatches: those of this text less the chunks that the client had read as it left. It is an
        upper bound: it holds those that ran while a chunk and the news of the end were on the way.
      seconds: until the row was seen to be free.

    Raises:
      WrongAnswer: the row is not free after `seconds`, or the text ended before the client left.
    """
    before, chunks = await settled(client), 0
    events = client.events(fields_of(PROMPTS[0], tokens))
    async for event in events:
        chunks += bool(event and event["choices"])
        if chunks == LEAVES_AFTER:
            break
    await events.aclose()  # closes the connection
    began = time.perf_counter()
    after = await settled(client, seconds)
    if after["hlm_rows_active"]:
        raise WrongAnswer(f"the row of a client that left is not free after {seconds} s")
    done = {name: after[name] - before[name] for name in COUNTED}
    if done["hlm_generated_tokens_total"] >= tokens:
        raise WrongAnswer(f"a text of {tokens} tokens ended before its client could leave")
    spent = time.perf_counter() - began
    return {"dispatches": done["hlm_dispatches_total"] - chunks, "seconds": spent}


async def settled(client: Client, seconds: float = 5) -> dict[str, float]:
    """The counters once no row is in work, or after `seconds`."""
    began = time.perf_counter()
    while True:
        metrics = await client.metrics()
        busy = metrics["hlm_rows_active"] + metrics["hlm_sequences_waiting"]
        if not busy or time.perf_counter() - began > seconds:
            return metrics
        await asyncio.sleep(0.01)


def compare(rounds: Mapping[str, Sequence[Mapping[str, Any]]], ours: str) -> dict[str, Any]:
    """Ratios of the first server to the fastest other one, by measure; above 1 ours is faster.

    Args:
      rounds: what `turn` returned, by server and round.
      ours: the server that the others are compared with.

    Returns:
      By measure (first_ms, one, many): the peer against which ours is slowest, the median ratio,
      the worst round's, and all ratios by peer.
    """
    out: dict[str, Any] = {}
    for measure, value in VALUES.items():
        mine = [value(turn) for turn in rounds[ours]]
        ratios: dict[str, list[float]] = {}
        for peer in (name for name in rounds if name != ours):
            pairs = zip(mine, map(value, rounds[peer]), strict=True)
            ratios[peer] = [b / a if measure == "first_ms" else a / b for a, b in pairs]
        if ratios:
            peer = min(ratios, key=lambda name: statistics.median(ratios[name]))
            median, worst = statistics.median(ratios[peer]), min(ratios[peer])
            out[measure] = {"peer": peer, "median": median, "worst": worst, "rounds": ratios}
    return out


VALUES = {
    "first_ms": lambda turn: statistics.median(turn["first_ms"]),
    "one": lambda turn: turn["one"],
    "many": lambda turn: turn["many"],
}
