import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.model.generate import (
    Generator,
    Strategy,
    extracted_tokens,
    filter_logits,
    spread_windows,
)
from hlm_jax.model.gpt import GPT, GPTConfig

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
PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5]]


@pytest.fixture(scope="module")
def params():
    return jax.jit(GPT(CFG).init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


@pytest.fixture(scope="module")
def greedy():
    return Generator(GPT(CFG), Strategy(temperature=0.0), dispatch_tokens=8)


@pytest.fixture(scope="module")
def random():
    return Generator(GPT(CFG), Strategy(temperature=1.0), dispatch_tokens=8)


full_forward = jax.jit(lambda params, tokens_BT: GPT(CFG).apply({"params": params}, tokens_BT)[0])


def naive(params, ids, n, key=None, row=0):
    """One full forward per token, no cache, no window; what stands to the right of a token cannot matter to it."""
    ids = list(ids)
    for i in range(n):
        logits = full_forward(params, jnp.array([ids + [0] * (16 - len(ids))], jnp.int32))[
            0, len(ids) - 1
        ]
        if key is None:
            ids.append(int(jnp.argmax(logits)))
        else:
            ids.append(
                int(
                    jax.random.categorical(
                        jax.random.fold_in(jax.random.fold_in(key, i), row), logits
                    )
                )
            )
    return ids[-n:]


def test_greedy_batch_equals_naive_decoding(params, greedy):
    found = greedy.generate(params, PROMPTS, 8, seed=0)
    for prompt, row in zip(PROMPTS, found.tolist(), strict=True):
        assert row == naive(params, prompt, 8)


def test_drawn_tokens_equal_naive_decoding_with_the_same_keys(params, random):
    found = random.generate(params, PROMPTS, 8, seed=5)
    for row, (prompt, ids) in enumerate(zip(PROMPTS, found.tolist(), strict=True)):
        assert ids == naive(params, prompt, 8, jax.random.key(5), row)


def test_same_seed_same_tokens_however_they_are_dispatched(params, random):
    found = random.generate(params, PROMPTS, 40, seed=1)
    other = Generator(GPT(CFG), Strategy(temperature=1.0), dispatch_tokens=3)
    np.testing.assert_array_equal(other.generate(params, PROMPTS, 40, seed=1), found)
    np.testing.assert_array_equal(random.generate(params, PROMPTS[:1], 8, seed=1)[0], found[0, :8])
    assert (random.generate(params, PROMPTS, 40, seed=2) != found).any()


def test_the_window_slides_past_the_block(params, greedy):
    found = greedy.generate(params, [[3, 1, 4]], 50, seed=0)[0].tolist()
    assert len(found) == 50
    # Width 4 for a prompt of 3, so the window fills after 12 new tokens; then the latest 8 are read again, 8 at a time.
    history = [3, 1, 4, *found]
    at = 3 + 12
    while at < len(history):
        n = min(8, len(history) - at)
        assert history[at : at + n] == naive(params, history[at - 8 : at], n)
        at += n


def test_blocks_of_the_stream_add_up(params, random):
    blocks = list(random.stream(params, PROMPTS, 20, seed=1))
    assert [b.shape for b in blocks] == [(3, 8), (3, 8), (3, 4)]
    np.testing.assert_array_equal(
        np.concatenate(blocks, axis=1), random.generate(params, PROMPTS, 20, seed=1)
    )


def test_an_automaton_rules_what_may_follow_across_dispatches_and_windows(params, greedy, random):
    """Here: ids alternate between even ones and odd ones."""
    odd = np.arange(61) % 2 == 1
    automaton = np.stack([~odd, odd]), np.stack([np.full(61, 1), np.full(61, 0)])
    for one in (greedy, random):
        found = one.generate(params, PROMPTS, 50, seed=3, automaton=automaton)
        assert (found % 2 == np.arange(50) % 2).all()
        everything = np.ones((1, 61), bool), np.zeros((1, 61), int)
        free = one.generate(params, PROMPTS, 20, seed=3)
        np.testing.assert_array_equal(
            one.generate(params, PROMPTS, 20, seed=3, automaton=everything), free
        )


LOGITS = jnp.log(jnp.array([[0.5, 0.25, 0.15, 0.07, 0.03]]))
NONE_SEEN = jnp.zeros((1, 5), bool)


def kept(**options):
    return np.isfinite(np.asarray(filter_logits(LOGITS, NONE_SEEN, Strategy(**options))))[
        0
    ].tolist()


def test_filters():
    assert kept(top_k=2) == [True, True, False, False, False]
    assert kept(top_k=99) == [True] * 5
    assert kept(top_p=0.6) == [True, True, False, False, False]
    assert kept(top_p=0.0) == [True, False, False, False, False]
    assert kept(min_p=0.2) == [True, True, True, False, False]
    assert kept(temperature=2.0) == [True] * 5
    np.testing.assert_allclose(
        filter_logits(LOGITS, NONE_SEEN, Strategy(temperature=0.5)), 2 * LOGITS
    )
    seen = jnp.array([[True, False, False, False, False]])
    logits = jnp.array([[2.0, 1.0, -1.0, 0.0, 0.0]])
    found = filter_logits(logits, seen, Strategy(repetition_penalty=2.0))
    assert found.tolist() == [[1.0, 1.0, -1.0, 0.0, 0.0]]
    found = filter_logits(-logits, seen, Strategy(repetition_penalty=2.0))
    assert float(found[0, 0]) == -4.0


def test_draws_follow_the_probabilities():
    from hlm_jax.model.generate import _draw

    n = 4000
    drawn = _draw(jnp.repeat(LOGITS, n, 0), jnp.zeros((n, 5), bool), jax.random.key(0), Strategy())
    share = np.bincount(np.asarray(drawn), minlength=5) / n
    np.testing.assert_allclose(share, np.exp(LOGITS[0]), atol=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"temperature": -1}, "negative"),
        ({"repetition_penalty": 0}, "positive"),
    ],
)
def test_impossible_strategies(options, message):
    with pytest.raises(UserError, match=message):
        Strategy(**options)


@pytest.mark.parametrize(
    ("prompts", "n", "message"),
    [
        ([[]], 5, "0 tokens"),
        ([[1] * 16], 5, "1 to 15"),
        ([[61]], 5, r"outside 0\.\.60"),
        ([[1]], 0, "at least 1"),
    ],
)
def test_impossible_prompts(params, greedy, prompts, n, message):
    with pytest.raises(UserError, match=message):
        greedy.generate(params, prompts, n, seed=0)


def test_extracted_tokens_count_until_the_first_difference(params, greedy):
    prefixes = np.random.default_rng(0).integers(0, 61, (5, 6))
    made = greedy.generate(params, prefixes.tolist(), 6, seed=0)
    windows = np.concatenate([prefixes, made], axis=1).astype(np.int32)
    assert extracted_tokens(GPT(CFG), params, windows).tolist() == [6] * 5
    for row in range(5):
        windows[row, 6 + row] = (windows[row, 6 + row] + 1) % 61
    assert extracted_tokens(GPT(CFG), params, windows).tolist() == [0, 1, 2, 3, 4]


def test_windows_are_spread_evenly_and_stay_inside_their_sequence():
    sequences = [list(range(100)), list(range(200, 203)), list(range(300, 340))]
    windows = spread_windows(sequences, 5, 7)
    assert windows.shape == (7, 10)
    assert (np.diff(windows, axis=1) == 1).all()
    assert windows[0, 0] == 0
    assert windows[-1, 0] == 330
    assert spread_windows(sequences, 5, 1000).shape == (19 + 7, 10)
    assert spread_windows([[1, 2, 3]], 5, 7).shape == (0, 10)
