import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.score import (
    Evaluator,
    Score,
    fit_weight,
    mix,
    paired_difference,
    sliding_windows,
    total,
)
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
    params = jax.tree.map(
        jnp.zeros_like, model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    )
    text = "宝玉笑道：“好。”\n龘"
    (score,) = Evaluator(model).score(params, tokenizer, [text])
    assert score.chars == len(text)
    assert score.tokens == len(tokenizer.encode(text))
    assert score.nats == pytest.approx(score.tokens * math.log(5000), rel=1e-5)


def all_continuations(context, vocabulary=61):
    return [[*context, token] for token in range(vocabulary)]


def test_a_mixture_of_models_and_ngrams_is_a_distribution_over_the_vocabulary():
    rng = np.random.default_rng(0)
    models = [GPT(CFG), GPT(dataclasses.replace(CFG, form="qwen3"))]
    params = [
        m.init(jax.random.key(i), jnp.zeros((1, 1), jnp.int32))["params"]
        for i, m in enumerate(models)
    ]
    params = [jax.tree.map(lambda x: x * 4, p) for p in params]  # far from uniform
    ngram = KneserNey([rng.integers(0, 40, 300).tolist()], 3, alphabet_size=61)
    for context in ([5], [5, 7, 7], rng.integers(0, 61, 24).tolist()):
        rows = all_continuations(context)
        members = [Evaluator(m).token_nats(p, rows) for m, p in zip(models, params, strict=True)]
        members.append([-np.log(ngram.probabilities(row[1:])) for row in rows])
        last = np.array([n[-1] for n in mix(members, [0.4, 0.35, 0.25])])
        assert np.exp(-last).sum() == pytest.approx(1.0, abs=1e-5)
        by_hand = sum(
            w * np.exp(-np.array([n[-1] for n in of]))
            for w, of in zip([0.4, 0.35, 0.25], members, strict=True)
        )
        np.testing.assert_allclose(np.exp(-last), by_hand, rtol=1e-6)
        assert np.ptp(by_hand) > 0.01


def test_the_fitted_weight_is_the_best_one():
    rng = np.random.default_rng(0)
    a, b = ([rng.exponential(3, 400)] for _ in range(2))
    weight = fit_weight(a, b)
    cost = lambda w: mix([a, b], [1 - w, w])[0].sum()  # noqa: E731
    assert 0.05 < weight < 0.95
    assert cost(weight) <= min(cost(w) for w in np.linspace(0.01, 0.99, 99))


def test_an_adaptive_score_learns_only_from_what_it_has_scored():
    model = GPT(CFG)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    evaluator = Evaluator(model)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 61, 120).tolist()
    plain = evaluator.token_nats(params, [ids])[0]
    frozen = evaluator.adaptive_token_nats(params, [ids], learning_rate=0.0)[0]
    np.testing.assert_allclose(frozen, plain, atol=1e-5)
    found = evaluator.adaptive_token_nats(params, [ids], learning_rate=1e-2)[0]
    np.testing.assert_allclose(
        found[:16], plain[:16], atol=1e-5
    )  # the first window is scored before anything is learned
    # What comes later changes no earlier score: weights never see a token before it is scored.
    changed = [*ids[:60], *rng.integers(0, 61, 60).tolist()]
    again = evaluator.adaptive_token_nats(params, [changed], learning_rate=1e-2)[0]
    np.testing.assert_allclose(again[:59], found[:59], atol=1e-5)
    repeated = [ids[:40]] * 12
    learned = evaluator.adaptive_token_nats(params, repeated, learning_rate=1e-2)
    assert learned[-1].mean() < 0.5 * learned[0].mean()


def test_adaptive_probabilities_sum_to_one():
    """The score of a window is a softmax of weights that depend on earlier windows alone."""
    model = GPT(CFG)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    evaluator = Evaluator(model)
    context = np.random.default_rng(0).integers(0, 61, 20).tolist()
    last = [
        evaluator.adaptive_token_nats(params, [row], learning_rate=1e-2)[0][-1]
        for row in all_continuations(context)
    ]
    assert np.exp(-np.array(last)).sum() == pytest.approx(1.0, abs=1e-5)


def test_paired_differences():
    rng = np.random.default_rng(0)
    chars = rng.integers(5000, 9000, 8)
    difficulty = rng.normal(6, 0.5, 8)  # chapters differ far more than the models do
    base = np.stack([(difficulty + rng.normal(0, 0.01, 8)) * chars for _ in range(3)])
    better = base - 0.05 * chars + rng.normal(0, 0.01, (3, 8)) * chars
    middle, low, high = paired_difference(better, base, chars)
    assert middle == pytest.approx(-0.05, abs=0.01)
    assert low < middle < high < -0.03
    middle, low, high = paired_difference(base, base[::-1], chars)
    assert middle == pytest.approx(0, abs=1e-12)
    assert low < 0 < high
