"""Many mixed requests to one server, and what must not happen meanwhile. bench_serve.py runs it."""

import asyncio
import collections
import dataclasses
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from bench_serve_load import Client, WrongAnswer, settled

TEXT = (
    "次日，宝玉方才起来，只见黛玉从外头进来，笑道：“你今儿倒起得早。”宝玉笑道：“妹妹怎么也这样早？”"
    "黛玉道：“我听见老太太那里有客，才过去瞧了一瞧。”说着，便坐下吃茶。一时凤姐打发人来请，二人便一同出来。"
)
ODD = (
    "",
    " ",
    "\r\n宝玉\r\n",
    "😀黛玉👩‍👩‍👧",
    "\u0000\ufeff",
    "Wilhelm Meister",
    "\t“……”",
    "𠮷" * 9,
)
HUGE = b" " * 2**22  # four times the limit
CHECKS = 50  # readings of memory and compilations in a soak
SHOWN = 10  # errors that are kept in full


@dataclasses.dataclass(frozen=True)
class Case:
    """One request of a soak.

    Attributes:
      kind: what it is counted as.
      method, path, params, body: of the request; a body that is bytes is sent as it is.
      content_type: of the body.
      expect: the statuses that are right.
      choices: that the answer of a completion must have.
      leave: chunks after which the client of a stream goes away; 0 is at once. None: it stays.
    """

    kind: str
    path: str = "/v1/completions"
    method: str = "POST"
    params: dict[str, str] | None = None
    body: Any = None
    content_type: str = "application/json"
    expect: tuple[int, ...] = (200,)
    choices: int = 0
    leave: int | None = None


def plan(n: int, seed: int = 0) -> list[Case]:
    """n cases in a random order that `seed` fixes; every kind is among the first hundred."""
    rng = random.Random(seed)
    cases: list[Case] = []
    while len(cases) < n:
        hundred = [make(rng) for make, times in KINDS.items() for _ in range(times)]
        rng.shuffle(hundred)
        cases += hundred
    return cases[:n]


def prompt(rng: random.Random) -> str:
    begin = rng.randrange(len(TEXT))
    return TEXT[begin : begin + rng.randint(1, 40)] if rng.random() < 0.8 else rng.choice(ODD)


def sampling(rng: random.Random) -> dict[str, Any]:
    every = {
        "temperature": round(rng.choice((0.0, rng.uniform(0.2, 1.5))), 2),
        "top_p": round(rng.uniform(0.3, 1.0), 2),
        "top_k": rng.choice((0, 1, 20, 200)),
        "min_p": round(rng.uniform(0.0, 0.2), 3),
        "repetition_penalty": round(rng.uniform(1.0, 1.5), 2),
        "seed": rng.randrange(2**31),
    }
    return {name: value for name, value in every.items() if rng.random() < 0.5}


def completion(kind: str, rng: random.Random, choices: int = 1, **fields: Any) -> Case:
    body = {"prompt": prompt(rng), "max_tokens": rng.randint(1, 48)} | sampling(rng) | fields
    return Case(kind, body=body, choices=choices)


def several(rng: random.Random) -> Case:
    n, prompts = rng.randint(1, 3), [prompt(rng) for _ in range(rng.randint(1, 3))]
    return completion("list of prompts", rng, n * len(prompts), prompt=prompts, n=n)


def ids(rng: random.Random) -> Case:
    prompts = [[rng.randrange(2, 250) for _ in range(rng.randint(1, 30))] for _ in range(2)]
    given = rng.choice((prompts, prompts[0]))
    return completion("token ids", rng, 1 + (given is prompts), prompt=given)


def scoring(rng: random.Random) -> Case:
    begin, tokens = rng.randrange(len(TEXT)), rng.choice((0, 0, 1))
    text = (TEXT * 5)[begin : begin + rng.randint(5, 300 if not tokens else 40)]
    logprobs = rng.randint(0, 20)
    return completion(
        "echo + logprobs", rng, prompt=text, max_tokens=tokens, echo=True, logprobs=logprobs
    )


def leaving(rng: random.Random) -> Case:
    n = rng.choice((1, 1, 3))
    case = completion("client leaves", rng, n, max_tokens=256, stream=True, n=n)
    return dataclasses.replace(case, leave=rng.choice((0, 1, 2, 5)))


def reading(rng: random.Random) -> Case:
    path = rng.choice(("/v1/models", "/health", "/metrics", "/tokenizer_info", "/chapters", "/"))
    return Case(path, path, "GET")


def bad(rng: random.Random) -> Case:
    good: dict[str, Any] = {"prompt": "宝玉", "max_tokens": 4}
    wrong: tuple[dict[str, Any], ...] = (
        {"max_token": 4},
        {"max_tokens": "ten"},
        {"max_tokens": -1},
        {"temperature": -1},
        {"temperature": "warm"},
        {"top_p": 2},
        {"n": 0},
        {"n": 10**6},
        {"stop": list("宝玉黛钗湘")},
        {"logprobs": 21},
        {"prompt": [10**9]},
        {"prompt": {"text": "宝玉"}},
        {"prompt": TEXT * 60},
        {"seed": "x"},
        {"suffix": "了"},
    )
    case = rng.choice(
        (
            *(Case("bad request", body=good | change, expect=(400,)) for change in wrong),
            Case("bad request", body=b"{", expect=(400,)),
            Case("bad request", body=[good], expect=(400,)),
            Case("bad request", body=b"", expect=(400,)),
            Case("bad request", body=good, content_type="text/plain", expect=(415,)),
            Case("bad request", body=HUGE, expect=(413,)),
            Case("bad request", body=good | {"model": "none"}, expect=(400, 404)),
            Case("bad request", method="GET", expect=(405,)),
            Case("bad request", "/v1/nothing", body=good, expect=(404,)),
            Case("bad request", "/tokenize", body={}, expect=(400,)),
            Case("bad request", "/surprisal", body={"text": 1}, expect=(400,)),
            Case("bad request", "/kwic", "GET", expect=(400,)),
        )
    )
    return case


KINDS: dict[Callable[[random.Random], Case], int] = {
    lambda rng: completion("completion", rng): 24,
    lambda rng: completion("stream", rng, stream=True): 18,
    lambda rng: completion("stop", rng, stop=rng.sample("，。道了的", rng.randint(1, 4))): 7,
    lambda rng: completion("stream with stop", rng, stream=True, stop="。"): 3,
    lambda rng: completion("n", rng, 3, n=3): 5,
    lambda rng: completion("stream with n", rng, 2, n=2, stream=True): 2,
    lambda rng: completion("logprobs", rng, logprobs=rng.randint(0, 20)): 3,
    several: 3,
    ids: 4,
    scoring: 8,
    lambda rng: Case("tokenize", "/tokenize", body={"prompt": prompt(rng)}): 2,
    lambda rng: Case("detokenize", "/detokenize", body={"tokens": [5, 9, 40]}): 1,
    lambda rng: Case("surprisal", "/surprisal", body={"text": TEXT[: rng.randint(5, 80)]}): 4,
    lambda rng: Case("kwic", "/kwic", "GET", {"words": rng.choice(("宝玉", "笑道", "史太君"))}): 2,
    leaving: 6,
    reading: 3,
    bad: 5,
}


async def send(client: Client, case: Case) -> None:
    """Sends a case and checks its answer.

    Raises:
      WrongAnswer: the status or the form of the answer is wrong.
    """
    if case.leave is not None or (case.choices and case.body.get("stream")):
        await read_stream(client, case)
        return
    raw = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    headers = {} if case.method == "GET" else {"content-type": case.content_type}
    content = None if case.method == "GET" else raw
    response = await client.http.request(
        case.method, case.path, params=case.params, content=content, headers=headers
    )
    if response.status_code not in case.expect:
        asked = " or ".join(map(str, case.expect))
        raise WrongAnswer(f"status {response.status_code}, not {asked}: {response.text[:300]}")
    if response.status_code >= 400:
        if not response.json().get("error", {}).get("message"):
            raise WrongAnswer(f"no error object: {response.text[:300]}")
    elif case.choices:
        check_choices(response.json()["choices"], case)


def check_choices(choices: Sequence[dict[str, Any]], case: Case) -> None:
    """Raises WrongAnswer where choices are missing, unfinished or their lists differ in length."""
    if sorted(choice["index"] for choice in choices) != list(range(case.choices)):
        raise WrongAnswer(f"{len(choices)} choices, not {case.choices}")
    for choice in choices:
        if choice["finish_reason"] not in ("stop", "length"):
            raise WrongAnswer(f"finish_reason {choice['finish_reason']!r}")
        if case.body.get("logprobs") is not None:
            lists = choice["logprobs"]
            names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
            if len({len(lists[name]) for name in names if lists[name] is not None}) != 1:
                raise WrongAnswer("lists of logprobs of different lengths")


async def read_stream(client: Client, case: Case) -> None:
    """Reads a stream to its end, or leaves it where the case says so."""
    events = client.events(case.body)
    if case.leave == 0:
        try:
            async with asyncio.timeout(0.005):
                await anext(events)
        except TimeoutError:
            pass  # the client went away before the first event
        finally:
            await events.aclose()  # closes the connection
        return
    finished, chunks, done = set(), 0, False
    try:
        async for event in events:
            if event is None:
                done = True
                continue
            chunks += 1
            if case.leave is not None and chunks >= case.leave:
                return
            finished |= {c["index"] for c in event["choices"] if c["finish_reason"]}
    finally:
        await events.aclose()
    if not done or finished != set(range(case.choices)):
        raise WrongAnswer(f"a stream ended with [DONE] {done}, finished choices {finished}")


async def soak(
    client: Client,
    cases: Sequence[Case],
    *,
    at_once: int,
    seconds: float,
    memory: Callable[[], float],
) -> dict[str, Any]:
    """Sends all cases, `at_once` at a time, and reads memory and counters on the way.

    Args:
      memory: bytes of the server's process.
      seconds: after which no further request is sent.

    Returns:
      sent, seconds, kinds (how many of each), errors (how many) and the first of them, memory and
      compilations by part of the requests done, tokens, and the rows in work at the end.
    """
    waiting, done = collections.deque(cases), 0
    kinds: collections.Counter[str] = collections.Counter()
    errors: list[dict[str, Any]] = []
    readings: list[dict[str, Any]] = []
    began = time.perf_counter()
    since: collections.Counter[str] = collections.Counter()

    async def read() -> None:
        metrics = await client.metrics()
        reading = {"done": done, "bytes": memory(), "kinds": dict(since)}
        since.clear()
        readings.append(reading | {"compilations": metrics["hlm_compilations_total"]})

    async def worker() -> None:
        nonlocal done
        while waiting and time.perf_counter() - began < seconds:
            case = waiting.popleft()
            try:
                await send(client, case)
            except (WrongAnswer, httpx.HTTPError, ValueError, LookupError) as error:
                what = f"{type(error).__name__}: {error}"
                body = str(case.body)[:200]
                errors.append({"kind": case.kind, "path": case.path, "error": what, "body": body})
            done += 1
            kinds[case.kind] += 1
            since[case.kind] += 1
            if done % max(1, len(cases) // CHECKS) == 0:
                await read()

    first = await client.metrics()
    await read()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    took = time.perf_counter() - began
    last = await settled(client)
    await read()
    return {
        "asked": len(cases),
        "sent": done,
        "seconds": took,
        "kinds": dict(kinds),
        "errors": len(errors),
        "first_errors": errors[:SHOWN],
        "bytes": {part: at(readings, part, done) for part in ("20%", "60%", "100%")},
        "compilations": last["hlm_compilations_total"] - first["hlm_compilations_total"],
        "compiled_with": [
            b["kinds"] | {"compilations": b["compilations"] - a["compilations"]}
            for a, b in itertools.pairwise(readings)
            if b["compilations"] > a["compilations"]
        ],
        "tokens": last["hlm_generated_tokens_total"] - first["hlm_generated_tokens_total"],
        "rows_left": last["hlm_rows_active"] + last["hlm_sequences_waiting"],
    }


def at(readings: Sequence[dict[str, Any]], part: str, done: int) -> float:
    """Bytes in the first reading after this part of the requests."""
    wanted = int(part[:-1]) / 100 * done
    return next(r["bytes"] for r in readings if r["done"] >= wanted)
