import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.measures import mixture
from hlm_jax.measures.mixture import NgramMixture, ensemble_nats, fit_weight, mix
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.score import Evaluator, encode
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
TEXTS = ["abcabcabcabcxyz", "xyzabc"]


class Letters:
    """A tokenizer of single letters."""

    separator_id, vocab_size, fingerprint = 0, 61, "letters"

    def encode(self, text):
        return [ord(char) - 96 for char in text]


class Member:
    """A small model with random weights, far from uniform."""

    tokenizer = Letters()

    def __init__(self, seed, form="gpt2"):
        model = GPT(dataclasses.replace(CFG, form=form))
        params = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32))["params"]
        self.params = jax.tree.map(lambda x: x * 4, params)
        self.evaluator = Evaluator(model)

    def token_nats(self, sequences):
        return self.evaluator.token_nats(self.params, sequences)

    def adaptive_token_nats(self, sequences, learning_rate):
        return self.evaluator.adaptive_token_nats(
            self.params, sequences, learning_rate=learning_rate
        )


@pytest.fixture(scope="module")
def members():
    return [Member(0), Member(1, "qwen3")]


def test_a_mixture_of_models_and_ngrams_is_a_distribution_over_the_vocabulary(members):
    rng = np.random.default_rng(0)
    ngram = KneserNey([rng.integers(0, 40, 300).tolist()], 3, alphabet_size=61)
    weights = [0.4, 0.35, 0.25]
    for context in ([5], [5, 7, 7], rng.integers(0, 61, 24).tolist()):
        rows = [[*context, token] for token in range(61)]
        nats = [member.token_nats(rows) for member in members]
        nats.append([-np.log(ngram.probabilities(row[1:])) for row in rows])
        last = np.array([n[-1] for n in mix(nats, weights)])
        assert np.exp(-last).sum() == pytest.approx(1.0, abs=1e-5)
        by_hand = sum(
            weight * np.exp(-np.array([n[-1] for n in of]))
            for weight, of in zip(weights, nats, strict=True)
        )
        np.testing.assert_allclose(np.exp(-last), by_hand, rtol=1e-6)
        assert np.ptp(by_hand) > 0.01
    with pytest.raises(ValueError, match="sum to 1"):
        mix(nats, [0.4, 0.4, 0.4])


def test_the_fitted_weight_is_the_best_one():
    rng = np.random.default_rng(0)
    a, b = ([rng.exponential(3, 400)] for _ in range(2))
    weight = fit_weight(a, b)

    def cost(w):
        return mix([a, b], [1 - w, w])[0].sum()

    assert 0.05 < weight < 0.95
    assert cost(weight) <= min(cost(w) for w in np.linspace(0.01, 0.99, 99))


def test_an_ensemble_averages_probabilities(members):
    sequences = encode(Letters(), TEXTS)
    one, two = (member.token_nats(sequences) for member in members)
    for nats, a, b in zip(ensemble_nats(members, TEXTS), one, two, strict=True):
        np.testing.assert_allclose(np.exp(-nats), (np.exp(-a) + np.exp(-b)) / 2, rtol=1e-5)
    np.testing.assert_allclose(ensemble_nats(members[:1], TEXTS)[0], one[0], rtol=1e-6)
    adaptive = ensemble_nats(members[:1], TEXTS, 0.01)
    assert (adaptive[1] != one[1]).all()


def test_every_way_of_scoring_has_its_name(members):
    ngram = NgramMixture(training=["abcabcabc"] * 9, validation=TEXTS)
    ways = mixture.evaluate(members[:1], TEXTS, adaptive_rate=0.01, ngram=ngram)
    plain, adaptive, mixed, both = ways
    assert (plain, adaptive) == ("", "adaptive")
    assert mixed.startswith("n-gram of tokens (weight 0.")
    assert both.startswith("adaptive + n-gram of tokens (weight 0.")
    for scores in ways.values():
        assert [(score.tokens, score.chars) for score in scores] == [(15, 15), (6, 6)]
    # Here an n-gram model knows more than random weights do.
    assert ways[mixed][0].nats < ways[""][0].nats
    # The weight is fitted on the validation texts, not on those to score.
    other = dataclasses.replace(ngram, validation=["zzzzzzzzzz"])
    assert list(mixture.evaluate(members[:1], TEXTS, ngram=other))[1] != mixed
    assert list(mixture.evaluate(members[:1], TEXTS)) == [""]


def test_what_cannot_be_mixed_is_refused(members):
    other = Member(2)
    other.tokenizer = types.SimpleNamespace(fingerprint="other")
    with pytest.raises(UserError, match="model 3 of the ensemble has another tokenizer"):
        ensemble_nats([*members, other], TEXTS)
    with pytest.raises(UserError, match="at least one model"):
        ensemble_nats([], TEXTS)
    with pytest.raises(UserError, match="no validation chapters"):
        mixture.evaluate(members, TEXTS, ngram=NgramMixture(TEXTS, []))
    with pytest.raises(UserError, match="text 2 is empty"):
        mixture.evaluate(members, ["abc", ""])
