import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.measures.score import Evaluator, Score, scores, sliding_windows, total
from hlm_jax.model.gpt import GPT, GPTConfig

CFG = GPTConfig(
    "gpt2",
    vocab_size=61,
    block_size=16,
    n_layer=1,
    n_head=2,
    n_embd=16,
    dropout=0.1,
    rope_theta=1e4,
)


def init(model):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


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
    params = init(model)
    forward = jax.jit(lambda tokens_BT: model.apply({"params": params}, tokens_BT)[0])
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 61, n).tolist() for n in (2, 17, 18, 61)]
    every = Evaluator(model, batch_size=3).token_nats(params, sequences)
    for ids, nats in zip(sequences, every, strict=True):
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


def test_a_score_of_nothing_is_refused(tokenizer):
    evaluator = Evaluator(GPT(CFG))
    with pytest.raises(UserError, match="text 2 is empty") as error:
        evaluator.score({}, tokenizer, ["宝玉", ""])
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no text to score"):
        total([])
    with pytest.raises(ValueError, match="0 characters"):
        Score(1.0, 1, 0)
    with pytest.raises(ValueError, match="0 tokens"):
        scores([np.zeros(0, np.float32)], [""])
    assert evaluator.score({}, tokenizer, []) == []


def test_an_untrained_uniform_model_costs_the_logarithm_of_its_vocabulary(tokenizer):
    cfg = GPTConfig(
        "gpt2",
        vocab_size=5000,
        block_size=16,
        n_layer=1,
        n_head=1,
        n_embd=8,
        dropout=0.0,
        rope_theta=1e4,
    )
    model = GPT(cfg)
    params = jax.tree.map(jnp.zeros_like, init(model))
    text = "宝玉笑道：“好。”\n龘"
    (score,) = Evaluator(model).score(params, tokenizer, [text])
    assert score.chars == len(text)
    assert score.tokens == len(tokenizer.encode(text))
    assert score.nats == pytest.approx(score.tokens * math.log(5000), rel=1e-5)


def test_an_adaptive_score_learns_only_from_what_it_has_scored():
    model = GPT(CFG)
    params = init(model)
    evaluator = Evaluator(model)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 61, 120).tolist()
    plain = evaluator.token_nats(params, [ids])[0]
    frozen = evaluator.adaptive_token_nats(params, [ids], learning_rate=0.0)[0]
    np.testing.assert_allclose(frozen, plain, atol=1e-5)
    adaptive = evaluator.adaptive_token_nats(params, [ids], learning_rate=1e-2)[0]
    # The first window is scored before anything is learned.
    np.testing.assert_allclose(adaptive[:16], plain[:16], atol=1e-5)
    # What comes later changes no earlier score: weights never see a token before it is scored.
    changed = [*ids[:60], *rng.integers(0, 61, 60).tolist()]
    again = evaluator.adaptive_token_nats(params, [changed], learning_rate=1e-2)[0]
    np.testing.assert_allclose(again[:59], adaptive[:59], atol=1e-5)
    repeated = [ids[:40]] * 12
    learned = evaluator.adaptive_token_nats(params, repeated, learning_rate=1e-2)
    assert learned[-1].mean() < 0.5 * learned[0].mean()


def test_adaptive_probabilities_sum_to_one():
    """The score of a window is a softmax of weights that depend on earlier windows alone."""
    model = GPT(CFG)
    params = init(model)
    evaluator = Evaluator(model)
    context = np.random.default_rng(0).integers(0, 61, 20).tolist()
    last = [
        evaluator.adaptive_token_nats(params, [[*context, token]], learning_rate=1e-2)[0][-1]
        for token in range(61)
    ]
    assert np.exp(-np.array(last)).sum() == pytest.approx(1.0, abs=1e-5)
