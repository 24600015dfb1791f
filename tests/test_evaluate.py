import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.evaluate import Evaluator, Score, sliding_windows, total
from hlm_jax.model import GPT, GPTConfig

CFG = GPTConfig("gpt2", vocab_size=61, block_size=16, n_layer=1, n_head=2, n_embd=16, dropout=0.1, rope_theta=1e4)


@pytest.mark.parametrize("length", [1, 7, 8, 16, 17, 24, 25, 100])
def test_every_prediction_is_scored_once_with_half_a_block_of_context(length):
    windows = sliding_windows(length, 16)
    scored = [i for _, first, end in windows for i in range(first, end)]
    assert scored == list(range(length))
    for start, first, end in windows:
        assert end - start <= 16
        assert first == 0 or first - start >= 8


def test_token_nats_equal_window_by_window_forward_passes():
    model = GPT(CFG)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    forward = jax.jit(lambda tokens_BT: model.apply({"params": params}, tokens_BT)[0])
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 61, n).tolist() for n in (2, 17, 18, 61)]
    found = Evaluator(model, batch_size=3).token_nats(params, sequences)
    for ids, nats in zip(sequences, found, strict=True):
        assert len(nats) == len(ids) - 1
        for start, first, end in sliding_windows(len(ids) - 1, 16):
            row = ids[start:end] + [0] * (16 - (end - start))
            log_p = np.asarray(jax.nn.log_softmax(forward(jnp.array([row], jnp.int32))[0]))
            expected = [-log_p[i - start, ids[i + 1]] for i in range(first, end)]
            np.testing.assert_allclose(nats[first:end], expected, atol=1e-5)


def test_bits_per_character_count_every_character():
    score = Score(nats=math.log(2) * 60, tokens=8, chars=10)
    assert score.bits_per_char == pytest.approx(6.0)
    assert score.nats_per_token == pytest.approx(math.log(2) * 7.5)
    assert total([score, score]) == Score(score.nats * 2, 16, 20)


def test_an_untrained_uniform_model_costs_the_logarithm_of_its_vocabulary(tokenizer):
    cfg = GPTConfig("gpt2", vocab_size=5000, block_size=16, n_layer=1, n_head=1, n_embd=8, dropout=0.0, rope_theta=1e4)
    model = GPT(cfg)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"])
    text = "宝玉笑道：“好。”\n龘"
    (score,) = Evaluator(model).score(params, tokenizer, [text])
    assert score.chars == len(text)
    assert score.tokens == len(tokenizer.encode(text))
    assert score.nats == pytest.approx(score.tokens * math.log(5000), rel=1e-5)
