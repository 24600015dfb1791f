"""What teachers predict of a book: against each prediction made alone; no room for the file."""

import dataclasses
import errno
import os

import jax
import numpy as np
import pytest
from scipy.special import softmax

from hlm_jax.errors import UserError
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import GPTConfig
from hlm_jax.training import teaching
from hlm_jax.training.teaching import Teaching

CFG = GPTConfig(
    form="qwen3",
    vocab_size=23,
    block_size=8,
    n_layer=1,
    n_head=2,
    n_embd=8,
    dropout=0.0,
    rope_theta=10000.0,
)
TOKENS = np.random.default_rng(0).integers(0, 23, 61, dtype=np.int32)


def teachers():
    """A transformer of 8 tokens and a wider one of 11, with weights large enough to predict."""
    for seed, changes in enumerate(({}, {"n_embd": 16, "block_size": 11})):
        model = GPT(dataclasses.replace(CFG, **changes))
        params = jax.jit(model.init)(jax.random.key(seed), TOKENS[None, :1])["params"]
        yield model, jax.tree.map(lambda x: np.asarray(20 * x), params)


@pytest.fixture(scope="module")
def alone():
    """How the mean of both predicts with exactly `context` tokens: (place, context) -> [V]."""
    models = [(jax.jit(model.apply), params) for model, params in teachers()]

    def predict(place, context):
        read = TOKENS[None, place + 1 - context : place + 1]
        return np.mean([softmax(apply({"params": p}, read)[0][0, -1]) for apply, p in models], 0)

    return predict


@pytest.mark.parametrize("rows", [32, 4, 1])
def test_every_prediction_has_half_a_block_or_more_before_it(alone, rows, monkeypatch):
    monkeypatch.setattr(teaching, "ROWS", rows)
    found = Teaching(list(teachers()), TOKENS, 8).rows_at(np.array([0, 3, 53, -1, 50]))
    assert found.dtype == np.float16
    assert found.shape == (5, 8, 23)
    assert not found[3].any()
    for row, start in ((0, 0), (1, 3), (2, 53), (4, 50)):
        for t in range(8):
            place = start + t
            # The first window is read whole. Each later one gives its second half; the last ends
            # with the text.
            ends = [7, *range(11, 60, 4), 60]
            end = next(end for end in ends if end >= place)
            expected = alone(place, 8 - (end - place))
            np.testing.assert_allclose(found[row, t], expected, atol=1e-3)


def test_the_teachers_read_once_and_only_when_asked(monkeypatch):
    calls = []
    real = teaching.mean_probabilities
    monkeypatch.setattr(teaching, "mean_probabilities", lambda *of: calls.append(of) or real(*of))
    made = Teaching(list(teachers()), TOKENS, 8)
    assert made.n_bytes == 61 * 23 * 2
    assert not calls
    first = made.rows_at(np.array([5]))
    np.testing.assert_array_equal(made.rows_at(np.array([5])), first)
    assert len(calls) == 1  # traced once


def test_no_room_for_the_predictions_is_one_line(monkeypatch):
    class Full:
        def __enter__(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(teaching.tempfile, "TemporaryFile", Full)
    with pytest.raises(UserError, match=r"No space left on device.*set TMPDIR") as refused:
        Teaching(list(teachers()), TOKENS, 8).rows_at(np.array([0]))
    assert "\n" not in str(refused.value)
