import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.measures import mixture
from hlm_jax.measures.mixture import NgramMixture, ensemble_nats, mix, mix_text
from hlm_jax.measures.ngram import KneserNey, Learner
from hlm_jax.measures.readings import Counts, read
from hlm_jax.measures.score import Evaluator, encode
from hlm_jax.measures.weights import ContextWeights, fit_weights, fitting_texts
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

    def nats_and_entropy(self, sequences, learning_rate=None):
        return self.evaluator.nats_and_entropy(self.params, sequences, learning_rate=learning_rate)


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
    plain, adaptive, mixed, by_context, both, both_by_context = ways
    assert (plain, adaptive) == ("", "adaptive")
    assert re.fullmatch(r"n-gram of tokens \(weight [01]\.\d{3}, fitted on these chapters\)", mixed)
    assert by_context == "n-gram of tokens by context, cross-fitted"
    assert both.startswith("adaptive + n-gram of tokens (weight 0.")
    assert both_by_context == f"adaptive + {by_context}"
    for scores in ways.values():
        assert [(score.tokens, score.chars) for score in scores] == [(15, 15), (6, 6)]
    # Here an n-gram model knows more than random weights do.
    assert ways[mixed][0].nats < ways[""][0].nats
    # The weight is fitted on the validation texts, not on those to score.
    other = dataclasses.replace(ngram, validation=["zzzzzzzzzz"])
    names = list(mixture.evaluate(members[:1], TEXTS, ngram=other))
    assert re.fullmatch(r"n-gram of tokens \(weight [01]\.\d{3}\)", names[1])
    assert names[1][:-1] not in mixed
    assert names[2] == "n-gram of tokens by context"
    assert list(mixture.evaluate(members[:1], TEXTS)) == [""]
    # One chapter of several is seen by the one weight as well; a text besides them is not all seen.
    assert (
        "fitted on these chapters" in list(mixture.evaluate(members[:1], TEXTS[1:], ngram=ngram))[1]
    )
    more = [*TEXTS, "zzz"]
    assert "fitted on these chapters" not in "".join(
        mixture.evaluate(members[:1], more, ngram=ngram)
    )
    # A text that is the only validation text has nothing to be fitted on.
    alone = dataclasses.replace(ngram, validation=TEXTS[:1])
    assert len(mixture.evaluate(members[:1], TEXTS[:1], ngram=alone)) == 2


def test_an_ngram_model_learns_where_the_models_learn():
    member, training = Member(1), ["abcabcabc"] * 9
    counts = Counts(member.tokenizer, training)
    tokens = [member.tokenizer.encode(text) for text in training]
    model = KneserNey(tokens, alphabet_size=member.tokenizer.vocab_size)
    learner = Learner(model)
    for static, learning, text in zip(
        read([member], TEXTS, None, counts), read([member], TEXTS, 0.01, counts), TEXTS, strict=True
    ):
        ids = member.tokenizer.encode(text)
        np.testing.assert_allclose(static.ngram, -np.log(model.probabilities(ids)))
        assert (static.lengths == model.context_lengths(ids)).all()
        p, lengths = learner.read(ids)
        np.testing.assert_allclose(learning.ngram, -np.log(p))
        assert (learning.lengths == lengths).all()
    # Training has no xyz; the second text begins with what ends the first.
    assert learning.ngram[:3].sum() < static.ngram[:3].sum() - 3
    assert learning.lengths[2] > static.lengths[2]


def test_learned_weights_join_every_way(members):
    ngram = NgramMixture(training=["abcabcabc"] * 9, validation=TEXTS)
    named = {"adaptive_rate": 0.01, "ngram": ngram, "learn_on": TEXTS}
    ways = mixture.evaluate(members, ["xyzxyz"], **named)
    learned = [name.split(" (")[0] for name in ways]
    assert learned == [
        "",
        "adaptive",
        "learned weights",
        "adaptive + learned weights",
        "n-gram of tokens",
        "n-gram of tokens by context",
        "learned weights",
        "adaptive + n-gram of tokens",
        "adaptive + n-gram of tokens by context",
        "adaptive + learned weights",
    ]
    name = list(ways)[2]
    weights = [float(word) for word in name.split(" (")[1].rstrip(")").split(", ")]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert list(ways)[6] == f"{name} + n-gram of tokens by context"
    nats = [member.token_nats(encode(Letters(), ["xyzxyz"])) for member in members]
    by_hand = mix(nats, fit_weights([m.token_nats(encode(Letters(), TEXTS)) for m in members]))
    assert ways[name][0].nats == pytest.approx(by_hand[0].sum(), rel=1e-6)


@pytest.mark.parametrize("scored", [0, 1, 2])
def test_weights_for_a_validation_text_never_see_it(members, scored):
    """Another text in its place leaves the weights as they are: its cost by them is the same.

    Held against weights that have seen it, which are others.
    """
    texts = ["abcabcabcabcxyz", "xyzabcyyyyyyyy", "abcbcbcbcbcbca"]
    training = ["abcabcabc"] * 9
    other = [*texts[:scored], "klmnoklmnoklmno", *texts[scored + 1 :]]

    def costs(validation):
        ngram = NgramMixture(training, validation)
        ways = mixture.evaluate(members, texts, ngram=ngram, learn_on=validation)
        return {
            "+".join(word.split(" (")[0].split(",")[0] for word in name.split(" + ")): of[scored]
            for name, of in ways.items()
        }

    own, replaced = costs(texts), costs([t for i, t in enumerate(texts) if i != scored])
    seen = costs(other)
    for name in ("learned weights", "n-gram of tokens by context"):
        assert own[name] == replaced[name]
        assert own[name] != seen[name]
    name = "learned weights+n-gram of tokens by context"
    assert own[name] == replaced[name]
    assert fitting_texts(texts[scored], texts) == tuple(i for i in range(3) if i != scored)
    assert fitting_texts(f"z{texts[scored]}z", texts) == fitting_texts(texts[scored], texts)
    assert fitting_texts(texts[scored][2:9], texts) == fitting_texts(texts[scored], texts)
    assert fitting_texts("qqq", texts) == (0, 1, 2)


def test_entropies_are_those_of_the_whole_distribution(members):
    sequences = encode(Letters(), ["abcabcabcabcxyzabcaaabbb", "xyz"])
    for member in members:
        nats, entropies = member.nats_and_entropy(sequences)
        for one, plain in zip(nats, member.token_nats(sequences), strict=True):
            np.testing.assert_allclose(one, plain, rtol=1e-6)
        details = member.evaluator.token_details(member.params, sequences)
        for one, of in zip(entropies, details, strict=True):
            np.testing.assert_allclose(one, of.entropy, rtol=1e-4, atol=1e-5)
        adaptive, learning = member.nats_and_entropy(sequences, 0.01)
        for one, plain in zip(adaptive, member.adaptive_token_nats(sequences, 0.01), strict=True):
            np.testing.assert_allclose(one, plain, rtol=1e-5)
        np.testing.assert_allclose(learning[0][:2], entropies[0][:2], rtol=1e-4)
        assert (learning[1] != entropies[1]).all()


def test_a_mixture_by_context_is_a_distribution_over_the_vocabulary(members):
    """Every weight of one place is the same, whichever token comes."""
    rng = np.random.default_rng(0)
    counts = KneserNey([rng.integers(0, 40, 300).tolist()], 4, alphabet_size=61)
    weights = ContextWeights(np.array([0.5, 1.0, 2.0]), rng.uniform(0.1, 0.9, (4, 4)))
    used = set()
    for context in ([5], [5, 7, 7], rng.integers(0, 40, 14).tolist()):
        rows = [[*context, token] for token in range(61)]
        nats, entropies = members[0].nats_and_entropy(rows)
        total = 0.0
        for row, own, entropy in zip(rows, nats, entropies, strict=True):
            at = weights.at(counts.context_lengths(row[1:]), entropy)
            other = -np.log(counts.probabilities(row[1:]))
            total += np.exp(-mix_text([own, other], [1 - at, at])[-1])
            used.add(round(float(at[-1]), 6))
        assert total == pytest.approx(1.0, abs=1e-5)
    assert 1 < len(used) <= 3  # one for each context


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
        with pytest.raises(UserError, match="cannot be learned: every validation chapter contains"):
            mixture.evaluate(members, [text], learn_on=TEXTS[:1])
    with pytest.raises(UserError, match="cannot be learned: no validation chapters are held out"):
        mixture.evaluate(members, TEXTS[:1], learn_on=[])


def test_the_one_weight_of_characters_says_where_it_is_fitted_on_what_is_scored():
    texts = ["abcabc", "abca"]
    nats = [[np.full(len(text), 2.0) for text in texts]]
    ngram = NgramMixture(["abcabcabcabd"] * 5, texts)
    _, name = mixture.evaluate_characters(nats, texts, ngram=ngram, validation_nats=nats)
    assert re.fullmatch(r"exact .* \(weight [01]\.\d{3}, fitted on these chapters\)", name)
