import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.book.corpus import Chapter
from hlm_jax.measures.extraction import describe, extracted_tokens, extraction, spread_windows
from hlm_jax.model.gpt import GPT, GPTConfig

CFG = GPTConfig(
    "gpt2",
    vocab_size=61,
    block_size=16,
    n_layer=1,
    n_head=2,
    n_embd=16,
    dropout=0.0,
    rope_theta=1e4,
)


class Letters:
    """A tokenizer of single letters."""

    def encode(self, text):
        return [ord(char) - 96 for char in text]


@pytest.fixture(scope="module")
def model():
    return GPT(CFG)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


def greedy(model, params, ids, n):
    """Greedy decoding by whole forward passes, without a cache."""
    ids = list(ids)
    for _ in range(n):
        padded = jnp.array([ids + [0] * (model.cfg.block_size - len(ids))], jnp.int32)
        logits_BTV, _ = forward(model, params, padded)
        ids.append(int(logits_BTV[0, len(ids) - 1].argmax()))
    return ids


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, ids):
    return model.apply({"params": params}, ids)


def test_windows_are_spread_evenly():
    sequences = [list(range(100)), [7] * 9, list(range(100, 140))]
    windows = spread_windows(sequences, 5, 4)
    assert windows.shape == (4, 10)
    assert windows.dtype == np.int32
    assert windows[0].tolist() == list(range(10))
    assert windows[-1].tolist() == list(range(130, 140))
    assert (np.diff(windows, axis=1) == 1).all()
    assert len(spread_windows(sequences, 5, 1000)) == 19 + 7
    assert spread_windows([[1, 2, 3]], 5, 4).shape == (0, 10)


def test_tokens_are_counted_until_the_first_difference(model, params):
    whole = greedy(model, params, [5, 7, 9, 11], 4)
    windows = np.array([whole] * 3, np.int32)
    windows[1, 6] = (windows[1, 6] + 1) % 61
    windows[2, 4] = (windows[2, 4] + 1) % 61
    assert extracted_tokens(model, params, windows).tolist() == [4, 2, 0]


def test_extraction_of_chapters(model, params):
    known = greedy(model, params, [5, 7, 9, 11], 4)
    other = [*known[:5], (known[5] + 1) % 60 + 1, *known[6:]]
    chapters = [
        Chapter(number, "", "".join(chr(96 + i) for i in ids))
        for number, ids in enumerate((known, other), start=1)
    ]
    result = extraction(model, params, Letters(), chapters, tokens=4)
    assert (result.prefixes, result.exact, result.mean_tokens) == (2, 0.5, 2.5)
    line = describe("train", result)
    assert "50.0% of 2 greedy continuations" in line
    assert "all 4 tokens, 2.5 tokens on average" in line
    # More than half a block cannot be given and continued.
    assert extraction(model, params, Letters(), chapters, tokens=50).tokens == 8


def test_chapters_too_short_to_measure(model, params):
    result = extraction(model, params, Letters(), [Chapter(1, "", "abc")], tokens=5)
    assert result.prefixes == 0
    assert math.isnan(result.exact)
    assert describe("val", result) == "extraction, val chapters: none has 10 tokens"
