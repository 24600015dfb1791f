"""Generation: every row is a function of its own prompt and SamplingParams."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.model import generate as module
from hlm_jax.model.generate import (
    Decoder,
    Program,
    Row,
    SamplingParams,
    anything,
    generate,
    program,
    samples,
    stream,
)
from hlm_jax.model.gpt import GPT, GPTConfig
from hlm_jax.model.sampling import SamplingArrays, exponentials
from scripts.bench import gpu_program

CFG = GPTConfig(
    "qwen3",
    vocab_size=61,
    block_size=16,
    n_layer=2,
    n_head=2,
    n_embd=16,
    dropout=0.1,
    rope_theta=1e4,
)
MODEL = GPT(CFG)
PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5]]
GREEDY = SamplingParams(temperature=0.0)
DIFFERENT = [
    SamplingParams(temperature=0.7, top_k=5, seed=1),
    SamplingParams(temperature=1.3, top_p=0.8, repetition_penalty=1.5, seed=2),
    GREEDY,
]


@pytest.fixture(scope="module")
def params():
    """Random weights large enough that the model's predictions differ by context."""
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), jnp.float32), shapes)


def made(params, prompts=PROMPTS, sampling=None, n=8, **more):
    more = {"dispatch_tokens": 8} | more
    sampling = [GREEDY] * len(prompts) if sampling is None else sampling
    return generate(MODEL, params, prompts, sampling, max_new_tokens=n, **more)


@jax.jit
def full_forward(params, tokens_BT):
    return MODEL.apply({"params": params}, tokens_BT)[0]


def next_logits(params, ids):
    """By a full forward without a cache: no token to the right of a position matters to it."""
    padded = jnp.array([ids + [0] * (CFG.block_size - len(ids))], jnp.int32)
    return full_forward(params, padded)[0, len(ids) - 1]


def naive(params, ids, n, seed=None):
    """One full forward per token; drawn at temperature 1, or the likeliest where seed is None."""
    ids = list(ids)
    for i in range(n):
        logits = next_logits(params, ids)
        if seed is None:
            ids.append(int(jnp.argmax(logits)))
        else:
            noise = np.asarray(exponentials([seed], [i], CFG.vocab_size)[0], np.float64)
            ids.append(int(np.argmax(np.asarray(logits) - np.log(noise))))
    return ids[-n:]


def test_greedy_decoding_equals_a_full_forward_per_token(params):
    tokens = made(params)
    assert tokens.dtype == np.int32
    for prompt, row in zip(PROMPTS, tokens.tolist(), strict=True):
        assert row == naive(params, prompt, 8)


def test_drawn_tokens_equal_those_of_a_full_forward_with_the_same_keys(params):
    tokens = made(params, sampling=samples(SamplingParams(seed=5), 3))
    for row, (prompt, ids) in enumerate(zip(PROMPTS, tokens.tolist(), strict=True)):
        assert ids == naive(params, prompt, 8, seed=5 + row)


def test_the_same_seed_gives_the_same_tokens_however_they_are_dispatched(params):
    rows = samples(SamplingParams(seed=1), 3)
    tokens = made(params, sampling=rows, n=40)
    np.testing.assert_array_equal(made(params, sampling=rows, n=40, dispatch_tokens=3), tokens)
    others = samples(SamplingParams(seed=2), 3)
    assert (made(params, sampling=others, n=40) != tokens).any(axis=1).all()


def test_a_gpu_decodes_in_loops_of_a_known_length(params):
    expected = made(params, n=21)
    program.cache_clear()
    with gpu_program.gpu_branches():
        rows = [GREEDY] * len(PROMPTS)
        blocks = list(stream(MODEL, params, PROMPTS, rows, max_new_tokens=21, dispatch_tokens=8))
        compiled = program(MODEL, CFG.block_size, 8, 0)
    program.cache_clear()
    np.testing.assert_array_equal(np.concatenate([b.tokens for b in blocks], 1), expected)
    sizes = {block.tokens.shape[1] for block in blocks}
    assert sizes <= {1, 2, 4, 8}
    assert compiled.decode._cache_size() == len(sizes)  # one program for each length


def test_rows_of_different_settings_equal_the_rows_alone(params):
    tokens = made(params, sampling=DIFFERENT)
    for row, (prompt, sampling) in enumerate(zip(PROMPTS, DIFFERENT, strict=True)):
        np.testing.assert_array_equal(made(params, [prompt], [sampling])[0], tokens[row])


def test_rows_of_different_settings_equal_the_rows_alone_past_the_window(params):
    tokens = made(params, PROMPTS, DIFFERENT, n=50)
    for row, (prompt, sampling) in enumerate(zip(PROMPTS, DIFFERENT, strict=True)):
        alone = made(params, [prompt], [sampling], n=50)[0]
        np.testing.assert_array_equal(alone, tokens[row])


def test_a_rows_draws_do_not_depend_on_its_neighbours(params):
    row = SamplingParams(seed=7)
    (alone,) = made(params, [[3, 1, 4]], [row], n=20).tolist()
    for place in range(3):
        prompts, sampling = [[9], [8, 7, 6, 5, 4, 3, 2]], list(DIFFERENT[:2])
        prompts.insert(place, [3, 1, 4])
        sampling.insert(place, row)
        assert made(params, prompts, sampling, n=20)[place].tolist() == alone


def test_other_settings_compile_nothing():
    program.cache_clear()
    weights = MODEL.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    made(weights, n=24)
    compiled = program(MODEL, CFG.block_size, 8, 0)
    # All prompts at once, and one row whose window slides.
    assert (compiled.prefill._cache_size(), compiled.decode._cache_size()) == (2, 1)
    texts = set()
    for i in range(20):
        sampling = SamplingParams(0.1 * i, i, 1 - i / 40, i / 100, 1 + i / 10, seed=i)
        texts.add(made(weights, sampling=[sampling] * 3, n=5 + i).tobytes())
    assert len(texts) == 20
    assert program(MODEL, CFG.block_size, 8, 0) is compiled
    assert (compiled.prefill._cache_size(), compiled.decode._cache_size()) == (2, 1)
    assert program.cache_info().currsize == 1


def test_programs_are_kept_in_bounds():
    for tokens in range(1, 30):
        program(MODEL, CFG.block_size, tokens, 0)
    assert program.cache_info().currsize == program.cache_info().maxsize == 8


def test_the_window_slides_past_the_block(params):
    tokens = made(params, [[3, 1, 4]], n=50)[0].tolist()
    # The window of 16 is full after 13 new tokens. Then the latest 8 are read again, for 8 tokens
    # at a time.
    history = [3, 1, 4, *tokens]
    assert len(history) == 53
    assert history[3:16] == naive(params, [3, 1, 4], 13)
    for at in range(3 + 13, 53, 8):
        n = min(8, 53 - at)
        assert history[at : at + n] == naive(params, history[at - 8 : at], n)


def test_of_a_long_prompt_the_last_half_window_is_read(params):
    long = np.random.default_rng(0).integers(0, 61, 40).tolist()
    tokens = made(params, [long, [3, 1, 4], long[:15]])
    assert tokens[0].tolist() == naive(params, long[-8:], 8)
    # 15 fit: one token is made before the window slides.
    assert tokens[2, 0] == naive(params, long[:15], 1)[0]
    assert made(params, [long[:16]])[0].tolist() == naive(params, long[8:16], 8)


def test_blocks_of_the_stream_add_up(params):
    blocks = list(stream(MODEL, params, PROMPTS, DIFFERENT, max_new_tokens=20, dispatch_tokens=8))
    # The windows of 16 are full after 11, 13 and 15 tokens, the first one again after 19.
    assert [block.tokens.shape for block in blocks] == [(3, n) for n in (8, 3, 2, 2, 4, 1)]
    assert blocks[0].top_tokens.shape == (3, 8, 0)
    joined = np.concatenate([block.tokens for block in blocks], axis=1)
    np.testing.assert_array_equal(joined, made(params, sampling=DIFFERENT, n=20))


def test_closing_the_stream_cancels_what_was_not_dispatched(params, monkeypatch):
    compiled = program(MODEL, CFG.block_size, 8, 0)
    decode, counts = compiled.decode, []

    def counted(*args, **more):
        counts.append(more["count"])
        return decode(*args, **more)

    monkeypatch.setattr(compiled, "decode", counted)
    rest = dict(max_new_tokens=10**6, dispatch_tokens=8)
    blocks = stream(MODEL, params, PROMPTS, DIFFERENT, **rest)
    assert counts == []
    next(blocks)
    next(blocks)
    blocks.close()
    assert counts == [8, 3]  # the longest prompt has filled its window
    assert list(blocks) == []


def test_logprobs_are_the_models_own(params):
    """Before filters and automaton."""
    odd = np.arange(61) % 2 == 1
    automaton = odd[None], np.zeros((1, 61), int)
    (block,) = stream(
        MODEL,
        params,
        PROMPTS,
        DIFFERENT,
        max_new_tokens=8,
        automaton=automaton,
        dispatch_tokens=8,
        top_logprobs=4,
    )
    assert block.top_tokens.shape == block.top_logprobs.shape == (3, 8, 4)
    assert (block.tokens % 2 == 1).all()
    assert (block.top_tokens % 2 == 0).any()
    for row, prompt in enumerate(PROMPTS):
        for i in range(8):
            ids = prompt + block.tokens[row, :i].tolist()
            expected = np.asarray(jax.nn.log_softmax(next_logits(params, ids)))
            order = np.argsort(-expected)[:4]
            np.testing.assert_array_equal(block.top_tokens[row, i], order)
            np.testing.assert_allclose(block.top_logprobs[row, i], expected[order], atol=2e-5)
            chosen = expected[block.tokens[row, i]]
            np.testing.assert_allclose(block.logprobs[row, i], chosen, atol=2e-5)


def test_the_logprobs_of_all_tokens_are_a_distribution(params):
    (block,) = stream(
        MODEL, params, [[1]], [GREEDY], max_new_tokens=8, dispatch_tokens=8, top_logprobs=61
    )
    np.testing.assert_allclose(np.exp(block.top_logprobs).sum(-1), 1, atol=1e-5)
    assert (np.sort(block.top_tokens[0], axis=-1) == np.arange(61)).all()
    np.testing.assert_array_equal(block.top_tokens[..., 0], block.tokens)
    np.testing.assert_array_equal(block.top_logprobs[..., 0], block.logprobs)


def test_an_automaton_rules_what_may_follow_across_dispatches_and_windows(params):
    """Here: even ids and odd ids take turns."""
    odd = np.arange(61) % 2 == 1
    automaton = np.stack([~odd, odd]), np.stack([np.full(61, 1), np.full(61, 0)])
    tokens = made(params, sampling=DIFFERENT, n=50, automaton=automaton)
    assert (tokens % 2 == np.arange(50) % 2).all()
    everything = np.ones((1, 61), bool), np.zeros((1, 61), int)
    np.testing.assert_array_equal(
        made(params, sampling=DIFFERENT, n=20, automaton=everything),
        made(params, sampling=DIFFERENT, n=20),
    )


def test_a_cache_in_the_models_dtype_changes_nothing(params, monkeypatch):
    model = GPT(CFG, "bfloat16")

    def logprobs():
        program.cache_clear()
        (block,) = stream(model, params, PROMPTS, DIFFERENT, max_new_tokens=8, dispatch_tokens=8)
        return block.logprobs

    narrow, init_cache = logprobs(), module.init_cache
    monkeypatch.setattr(module, "init_cache", lambda cfg, b, n, dtype: init_cache(cfg, b, n))
    np.testing.assert_array_equal(logprobs(), narrow)
    program.cache_clear()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the program of a CPU")
@pytest.mark.parametrize("batch", [1, 3])
def test_the_cache_is_written_in_place(batch):
    compiled = Program(MODEL, CFG.block_size, 8, 0)
    init = functools.partial(MODEL.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    params = jax.eval_shape(init)["params"]
    tokens_BT, of_rows = jnp.zeros((batch, 4), jnp.int32), jnp.zeros(batch, jnp.int32)
    seen_BV = jnp.zeros((batch, 61), bool)
    state = jax.eval_shape(compiled.prefill, params, tokens_BT, of_rows, seen_BV, of_rows)
    rows = SamplingArrays.of([GREEDY] * batch)
    head_DV = jax.ShapeDtypeStruct((CFG.n_embd, 61), jnp.float32)
    args = params, head_DV, state, rows, anything(61), of_rows, of_rows, np.bool_(False), 8
    options = {"xla_cpu_use_fusion_emitters": True}  # as outside this suite
    text = compiled.decode.lower(*args).compile(options).as_text()
    whole_cache = rf"= f32\[{batch * CFG.n_head},16,8\]\S* (\w[\w-]*)\("
    made_by = collections.Counter(re.findall(whole_cache, text))
    # One update for the keys and one for the values of each layer; XLA counts it in its fusion too.
    assert made_by["fusion"] == made_by["scatter"] == 2 * CFG.n_layer
    assert made_by["copy"] == 0


def written(decoder, wanted):
    """Dispatches until all rows have `wanted` tokens; rows leave when they have theirs."""
    while any(decoder.rows):
        decoder.dispatch(min(wanted[id(row)] - row.made for row in decoder.rows if row))
        for row in list(decoder.rows):
            if row and row.made == wanted[id(row)]:
                decoder.leave(row)


def test_rows_join_and_leave_and_write_what_they_write_alone(params):
    compiled = program(MODEL, CFG.block_size, 4, 3)
    decoder = Decoder(compiled, params, anything(61))
    rows = [Row(list(p), s) for p, s in zip(PROMPTS, DIFFERENT, strict=True)]
    rows += [Row([8, 7, 6], SamplingParams(seed=n)) for n in (1, 2)]
    wanted = {id(row): n for row, n in zip(rows, (30, 9, 40, 21, 12), strict=True)}
    with pytest.raises(ValueError, match="no row has joined"):
        decoder.dispatch(4)
    decoder.resize(1)
    decoder.join([0], rows[:1])
    decoder.dispatch(3)
    decoder.resize(2)
    decoder.join([1], rows[1:2])
    with pytest.raises(ValueError, match="place 0 is taken"):
        decoder.join([0], rows[2:])
    decoder.dispatch(4)
    decoder.resize(8)
    decoder.join([2, 3, 4], rows[3:])  # the same prompt with two seeds
    decoder.join([7], rows[2:3])
    decoder.dispatch(2)
    decoder.leave(rows[0])  # cancelled
    with pytest.raises(ValueError, match="4 rows do not fit in 2 places"):
        decoder.resize(2)
    decoder.resize(4)
    assert decoder.rows == [rows[1], rows[3], rows[4], rows[2]]
    written(decoder, wanted)
    for row in rows:
        n = row.made
        assert n == (9 if row is rows[0] else wanted[id(row)])
        assert row.ids[-n:] == made(params, [row.ids[:-n]], [row.sampling], n=n)[0].tolist()


def test_a_row_that_reads_its_window_again_keeps_the_automatons_state(params):
    odd = np.arange(61) % 2 == 1
    automaton = np.stack([~odd, odd]), np.stack([np.full(61, 1), np.full(61, 0)])
    tokens = made(params, [[3, 1, 4], [1]], [GREEDY] * 2, n=50, automaton=automaton)
    assert (tokens % 2 == np.arange(50) % 2).all()


@pytest.mark.parametrize(
    ("prompts", "more", "message"),
    [
        ([], {}, "no prompt"),
        ([[]], {}, "no tokens"),
        ([[61]], {}, r"outside 0\.\.60"),
        ([[-1]], {}, r"outside 0\.\.60"),
        ([[1]], {"n": 0}, "--max_new_tokens must be at least 1, not 0"),
        ([[1]], {"dispatch_tokens": 0}, "dispatch_tokens must be at least 1"),
    ],
)
def test_impossible_requests_are_refused(params, prompts, more, message):
    with pytest.raises(UserError, match=message):
        made(params, prompts, **more)


def test_requests_are_refused_before_the_first_block_is_asked_for(params):
    with pytest.raises(UserError, match="top_logprobs must lie between 0 and 61, not 62"):
        stream(MODEL, params, [[1]], [GREEDY], max_new_tokens=1, top_logprobs=62)
    with pytest.raises(ValueError, match="1 prompts, but 2 SamplingParams"):
        stream(MODEL, params, [[1]], [GREEDY] * 2, max_new_tokens=1)
