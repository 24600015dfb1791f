"""The engine of the server: texts join and leave, and none depends on the others."""

import asyncio
import threading

import jax
import pytest

from hlm_jax.model.generate import SamplingParams
from hlm_jax.run import load_run
from hlm_jax.serving.engine import Busy, Engine, Request
from scripts.bench import gpu_program


@pytest.fixture(scope="module")
def run(trained):
    return load_run(trained[0])


@pytest.fixture(scope="module")
def engine(run):
    made = Engine(run, max_rows=4, max_waiting=6)
    assert not made.ready
    made.start()
    assert made.ready
    yield made
    made.close()


def request(run, prompt="宝玉", tokens=40, seed=0, **more):
    ids = tuple(run.encode_prompt(prompt))
    return Request(ids, SamplingParams(seed=seed), tokens, **more)


async def parts(engine, *requests):
    found = [[] for _ in requests]
    async for index, part in engine.stream(requests):
        found[index].append(part)
    return found


def text(found):
    return "".join(part.text for part in found)


def tokens(found):
    return [token for part in found for token in part.tokens]


def written(run, prompt="宝玉", n=40, seed=0, **more):
    return run.complete(
        prompt,
        max_new_tokens=n,
        seed=seed,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        repetition_penalty=1.0,
        **more,
    )[0]


def test_a_text_is_that_of_the_library(engine, run):
    (found,) = asyncio.run(parts(engine, request(run, tokens=70, top_logprobs=3)))
    expected = written(run, n=70, top_logprobs=3)
    assert text(found) == expected.text
    assert [token.id for token in tokens(found)] == expected.tokens
    assert [token.logprob for token in tokens(found)] == pytest.approx(expected.logprobs, abs=1e-5)
    for token, top in zip(tokens(found), expected.top, strict=True):
        assert [i for i, _ in token.top] == [i for i, _ in top]
        assert [p for _, p in token.top] == pytest.approx([p for _, p in top], abs=1e-5)
    assert [part.finish_reason for part in found[:-1]] == [None] * (len(found) - 1)
    assert found[-1].finish_reason == "length"
    assert len(found) >= 4  # in parts of at most 16 tokens


def test_characters_of_tokens_are_those_of_the_text(engine, run):
    (found,) = asyncio.run(parts(engine, request(run, "凤姐", tokens=60, seed=3)))
    whole, at = text(found), 0
    for part in found:
        assert all(token.end <= at + len(part.text) for token in part.tokens)
        at += len(part.text)
    place = 0
    for token in tokens(found):
        assert token.start == place
        place = token.end
        data = run.tokenizer.token_bytes(token.id)
        if token.end > token.start and data.decode(errors="ignore").encode() == data:
            assert data.decode() == whole[token.start : token.end]
    assert place == len(whole)
    raw = b"".join(run.tokenizer.token_bytes(token.id) for token in tokens(found))
    assert raw.decode(errors="ignore") == whole


def test_texts_written_together_are_those_written_alone(engine, run):
    requests = [
        request(run, prompt, n, seed)
        for prompt, n, seed in (
            ("宝玉", 50, 1),
            ("贾母笑道", 33, 2),
            ("宝玉", 17, 3),
            ("一", 64, 4),
        )
    ] * 2

    async def all_at_once():
        first = parts(engine, *requests[:4])
        second = parts(engine, *requests[4:8])
        return [found for some in await asyncio.gather(first, second) for found in some]

    together = asyncio.run(all_at_once())
    for one, found in zip(requests, together, strict=True):
        (alone,) = asyncio.run(parts(engine, one))
        assert [t.id for t in tokens(found)] == [t.id for t in tokens(alone)]
        assert text(found) == text(alone)
    assert engine.stats().active == engine.stats().waiting == 0


def test_stop_strings_and_the_end_token_end_a_text(engine, run):
    whole = written(run, n=60)
    stop = whole.text[7:9]
    (found,) = asyncio.run(parts(engine, request(run, tokens=60, stop=(stop,))))
    expected = whole.text[: whole.text.find(stop)]
    assert text(found) == expected
    assert found[-1].finish_reason == "stop"
    assert tokens(found)[-1].end == len(expected)
    end = whole.tokens[5]
    (found,) = asyncio.run(parts(engine, request(run, tokens=60, end_token=end)))
    assert [t.id for t in tokens(found)] == whole.tokens[: whole.tokens.index(end)]
    assert found[-1].finish_reason == "stop"


def test_a_caller_that_goes_away_frees_its_rows_within_one_dispatch(engine, run):
    async def leave():
        endless = engine.stream([request(run, tokens=10**6, seed=n) for n in range(4)])
        await anext(endless)
        assert engine.stats().active == 4
        await endless.aclose()
        before = engine.stats().dispatches
        while engine.stats().active:
            await asyncio.sleep(0.001)
        return engine.stats().dispatches - before

    assert asyncio.run(leave()) <= 1

    async def cancel():
        task = asyncio.create_task(parts(engine, request(run, tokens=10**6)))
        while not engine.stats().active:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while engine.stats().active:
            await asyncio.sleep(0.001)

    asyncio.run(cancel())


def test_too_many_waiting_texts_are_refused_and_impossible_ones_too(engine, run):
    async def fill():
        first = engine.stream([request(run, tokens=10**6, seed=n) for n in range(10)])
        await anext(first)
        assert engine.stats()[:2] == (4, 6)
        with pytest.raises(Busy):
            await anext(engine.stream([request(run)]))
        await first.aclose()
        return await parts(engine, request(run))

    assert asyncio.run(fill())
    ids = (1, 2)
    for wrong in (
        Request((), SamplingParams(), 1),
        Request((1,) * run.model.cfg.block_size, SamplingParams(), 1),
        Request((10**6,), SamplingParams(), 1),
        Request(ids, SamplingParams(), 0),
        Request(ids, SamplingParams(), 1, top_logprobs=21),
    ):
        with pytest.raises(ValueError, match=r"prompt|max_tokens"):
            asyncio.run(parts(engine, wrong))


def test_nothing_compiles_after_the_start(engine, run):
    names = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: names.append(name) if "backend_compile" in name else None
    )
    try:
        asyncio.run(parts(engine, *(request(run, "宝玉" * (1 + n), 5 + 9 * n) for n in range(4))))
        some = [request(run, "宝玉笑", 40, n, top_logprobs=n) for n in range(3)]
        asyncio.run(parts(engine, *some))
    finally:
        jax.monitoring.clear_event_listeners()
    assert names == []


def test_a_gpu_compiles_every_length_of_a_dispatch_at_the_start(run):
    with gpu_program.gpu_branches():
        engine = Engine(run, max_rows=2)
        engine.start()
        lengths = engine._program.decode._cache_size()
        for n in (1, 2, 3, 7, 16, 25):
            asyncio.run(parts(engine, request(run, tokens=n), request(run, tokens=n)))
            asyncio.run(parts(engine, request(run, tokens=n)))
        assert engine._program.counts == [1, 2, 4, 8, 16]
        assert engine._program.decode._cache_size() == lengths == 2 * 5
        engine.close()


def test_a_start_that_is_broken_off_ends_soon(run):
    engine = Engine(run)
    engine.close()
    with pytest.raises(Busy):
        engine.start()
    assert not engine.ready


def test_an_engine_that_closes_finishes_what_it_has(run):
    engine = Engine(run, max_rows=2)
    engine.start()

    async def close_meanwhile():
        writing = asyncio.create_task(parts(engine, request(run, tokens=60)))
        while not engine.stats().active:
            await asyncio.sleep(0.001)
        closing = threading.Thread(target=engine.close)
        closing.start()
        (found,) = await writing
        with pytest.raises(Busy):
            await parts(engine, request(run))
        closing.join()
        return found

    assert text(asyncio.run(close_meanwhile())) == written(run, n=60).text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_reaches_every_caller(run, monkeypatch):
    engine = Engine(run, max_rows=2)
    engine.start()

    def broken(most):
        raise MemoryError("no room")

    monkeypatch.setattr(engine._decoder, "dispatch", broken)
    for error in (MemoryError, RuntimeError):  # the one that waits, and the one that comes after
        with pytest.raises(error):
            asyncio.run(parts(engine, request(run)))
    assert not engine.ready
    engine.close()
