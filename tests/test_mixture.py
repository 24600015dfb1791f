import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.measures import mixture
from hlm_jax.measures.mixture import NgramMixture, ensemble_nats, fitting_texts, mix
from hlm_jax.measures.ngram import KneserNey, Learner
from hlm_jax.measures.pool import Predictions, fit_weights, pooled_nats
from hlm_jax.measures.readings import Counts, read
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

    def log_probabilities(self, sequences, learning_rate=None):
        return self.evaluator.log_probabilities(self.params, sequences, learning_rate=learning_rate)


@pytest.fixture(scope="module")
def members():
    return [Member(0), Member(1, "qwen3")]


def test_a_mean_of_models_is_a_distribution_over_the_vocabulary(members):
    rng = np.random.default_rng(0)
    weights = [0.4, 0.6]
    for context in ([5], [5, 7, 7], rng.integers(0, 61, 24).tolist()):
        rows = [[*context, token] for token in range(61)]
        nats = [member.token_nats(rows) for member in members]
        last = np.array([n[-1] for n in mix(nats, weights)])
        assert np.exp(-last).sum() == pytest.approx(1.0, abs=1e-5)
        by_hand = sum(
            weight * np.exp(-np.array([n[-1] for n in of]))
            for weight, of in zip(weights, nats, strict=True)
        )
        np.testing.assert_allclose(np.exp(-last), by_hand, rtol=1e-6)
        assert np.ptp(by_hand) > 0.01
    with pytest.raises(ValueError, match="sum to 1"):
        mix(nats, [0.4, 0.4])


@pytest.mark.parametrize("rate", [None, 0.01])
def test_a_log_linear_mixture_is_a_distribution_over_the_vocabulary(members, rate):
    """All that one token may follow, by the same weights: their probabilities sum to 1."""
    letters = [chr(96 + token) for token in range(1, 27)]
    training = ["abcabcabc", "xyzabc", "".join(letters)] * 3
    counts = Counts(Letters(), training)
    texts = [f"abxyza{letter}" for letter in letters]
    weights = np.array([0.5, 0.3, 0.4, -0.2][: 3 if rate is None else 4])
    p = []
    for text in texts:  # each on its own, so that a model that learns has not read the others
        (one,) = read(members, [text], rate, counts=counts, expected=True)
        p.append(np.exp(-pooled_nats(one.expected, weights)[-1]))
        rows = [rows[-1:] for rows in one.expected.rows]
    others = [0, *range(27, 61)]  # tokens that are no letters
    rest = Predictions([np.repeat(of, len(others), axis=0) for of in rows], np.array(others))
    assert sum(p) + np.exp(-pooled_nats(rest, weights)).sum() == pytest.approx(1, abs=1e-4)
    assert np.ptp(p) > 0.01


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
    told = []
    ways = mixture.evaluate(
        members[:1],
        TEXTS,
        adaptive_rate=0.01,
        ngram=ngram,
        progress=lambda *at: told.append(at),
    )
    assert told == sorted(told)
    assert told[-1] == (42, 42)  # the texts' 21 characters, as the models stay and as they learn
    assert (21, 42) in told
    weights = {"n-gram of tokens": 2, "adaptive + n-gram of tokens": 3}  # one of them learns
    assert list(ways) == ["", "adaptive", *weights]
    for name, way in ways.items():
        assert [(score.tokens, score.chars) for score in way.scores] == [(15, 15), (6, 6)]
        assert len(way.weights) == weights.get(name, 0)
        assert way.cross_fitted == (name in weights)
        number = r"-?\d\.\d{3}, "
        shown = rf" \(weights ({number}){{{len(way.weights)}}}cross-fitted\)"
        label = mixture.label(name, way.weights, way.cross_fitted)
        assert re.fullmatch(re.escape(name) + shown * bool(way.weights), label)
    # Here an n-gram model knows more than random weights do.
    mixed = ways["n-gram of tokens"]
    assert mixed.scores[0].nats < ways[""].scores[0].nats
    # The weights are fitted on the validation texts, not on those to score.
    other = dataclasses.replace(ngram, validation=["zzzzzzzzzz"])
    way = mixture.evaluate(members[:1], TEXTS, ngram=other)["n-gram of tokens"]
    assert not way.cross_fitted
    assert way.weights != pytest.approx(mixed.weights, rel=0.01)
    first, second = way.weights
    assert mixture.label("a", way.weights) == f"a (weights {first:.3f}, {second:.3f})"
    assert mixture.label("a", (-0.0003, 1.0)) == "a (weights 0.000, 1.000)"
    assert list(mixture.evaluate(members[:1], TEXTS)) == [""]


def test_of_one_model_a_power_is_fitted(members):
    """A member's random weights are too sure of what they expect: the power is below 1."""
    ways = mixture.evaluate(members[:1], TEXTS, learn_on=["zyxcbazyxcba"])
    way, plain = ways["log-linear"], ways[""]
    (weight,) = way.weights
    assert 0 < weight < 0.9
    for i, (own, nats) in enumerate(
        zip(read(members[:1], TEXTS, expected=True), way.scores, strict=True)
    ):
        rows = weight * own.expected.rows[0].astype(float)
        p = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
        by_hand = -np.log(p[np.arange(len(p)), own.expected.symbols]).sum()
        assert nats.nats == pytest.approx(by_hand, rel=1e-3)
        assert nats.nats < plain.scores[i].nats


def test_an_ngram_model_learns_where_the_models_learn():
    member, training = Member(1), ["abcabcabc"] * 9
    counts = Counts(member.tokenizer, training)
    tokens = [member.tokenizer.encode(text) for text in training]
    model = KneserNey(tokens, alphabet_size=member.tokenizer.vocab_size)
    learner, rates = Learner(model), (None, 0.01)
    every = [read([member], TEXTS, rate, counts=counts, expected=True) for rate in rates]
    for static, learning, text in zip(*every, TEXTS, strict=True):
        ids = member.tokenizer.encode(text)
        at = np.arange(len(ids)), ids
        np.testing.assert_array_equal(static.expected.symbols, ids)
        assert [len(one.expected.rows) for one in (static, learning)] == [2, 3]
        own, learned = static.expected.rows[1][at], learning.expected.rows[2][at]
        np.testing.assert_array_equal(learning.expected.rows[1], static.expected.rows[1])
        np.testing.assert_allclose(learning.nats[2], -learned, rtol=1e-3)
        np.testing.assert_allclose(own, np.log(model.probabilities(ids)), rtol=1e-3)
        np.testing.assert_allclose(learned, np.log(learner.read(ids)), rtol=1e-3)
    # Training has no xyz; the second text begins with what ends the first.
    assert learned[:3].sum() > own[:3].sum() + 3


@pytest.mark.parametrize("rate", [None, 0.01])
def test_what_is_expected_are_all_probabilities(members, rate):
    texts = ["abcabcabcabcxyzabcaaabbb", "xyz"]
    sequences = encode(Letters(), texts)
    plain = [read(members, texts, rate), read(members, texts, rate, expected=True)]
    for nats, found, ids in zip(*plain, sequences, strict=True):
        assert nats.expected is None
        for own, one, rows in zip(nats.nats, found.nats, found.expected.rows, strict=True):
            np.testing.assert_allclose(one, own, rtol=1e-5)
            np.testing.assert_allclose(rows[np.arange(len(own)), ids[1:]], -own, rtol=2e-3)
            np.testing.assert_allclose(np.exp(rows.astype(float)).sum(axis=1), 1, rtol=5e-3)


def test_weights_join_every_way(members):
    ngram = NgramMixture(training=["abcabcabc"] * 9, validation=TEXTS)
    named = {"adaptive_rate": 0.01, "ngram": ngram, "learn_on": TEXTS}
    ways = mixture.evaluate(members, ["xyzxyz"], **named)
    assert list(ways) == [
        "",
        "adaptive",
        "log-linear",
        "adaptive + log-linear",
        "n-gram of tokens",
        "adaptive + n-gram of tokens",
    ]
    way = ways["log-linear"]
    validation = [one.expected for one in read(members, TEXTS, expected=True)]
    (own,) = read(members, ["xyzxyz"], expected=True)
    weights = fit_weights(validation)
    assert way.weights == pytest.approx(weights, abs=1e-4)
    assert way.scores[0].nats == pytest.approx(pooled_nats(own.expected, weights).sum(), rel=1e-6)


@pytest.mark.parametrize("scored", [0, 1, 2])
def test_weights_for_a_validation_text_never_see_it(members, scored):
    """They are those of the other validation texts; one more text would change them."""
    texts = ["abcabcabcabcxyz", "xyzabcyyyyyyyy", "abcbcbcbcbcbca"]
    training = ["abcabcabc"] * 9
    without = [text for i, text in enumerate(texts) if i != scored]

    def costs(validation):
        ngram = NgramMixture(training, validation)
        ways = mixture.evaluate(members, texts, ngram=ngram, learn_on=validation)
        return {name: way.scores[scored] for name, way in ways.items()}

    own, of_others, of_more = costs(texts), costs(without), costs([*without, "klmnoklmnoklmno"])
    for name in ("log-linear", "n-gram of tokens"):
        assert own[name].nats == pytest.approx(of_others[name].nats, rel=1e-6)
        assert own[name].nats != pytest.approx(of_more[name].nats, rel=1e-4)
    assert fitting_texts(texts[scored], texts) == tuple(i for i in range(3) if i != scored)
    assert fitting_texts(f"z{texts[scored]}z", texts) == fitting_texts(texts[scored], texts)
    assert fitting_texts(texts[scored][2:9], texts) == fitting_texts(texts[scored], texts)
    # A file ends with a line end, wherever in a chapter it was cut.
    assert fitting_texts(f"{texts[scored][2:9]}\n", texts) == fitting_texts(texts[scored], texts)
    assert fitting_texts("qqq", texts) == (0, 1, 2)


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
    for text in (TEXTS[0], f"{TEXTS[0]}abc", TEXTS[0][:5]):
        with pytest.raises(UserError, match="cannot be fitted: every validation chapter contains"):
            mixture.evaluate(members, [text], learn_on=TEXTS[:1])
    with pytest.raises(UserError, match="cannot be fitted: no validation chapters are held out"):
        mixture.evaluate(members, TEXTS[:1], learn_on=[])
