import itertools

import numpy as np
import pytest

from hlm_jax.measures.mixture import mix, mix_text
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.weights import PRIOR, ContextWeights, fit_weight, fit_weights


def test_the_fitted_weights_are_the_best_ones():
    rng = np.random.default_rng(0)
    for models in (2, 3):
        nats = [[rng.exponential(3, 300), rng.exponential(3, 100)] for _ in range(models)]
        weights = fit_weights(nats)

        def cost(of, nats=nats):
            return sum(text.sum() for text in mix(nats, of))

        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert ((weights > 0.05) & (weights < 0.95)).all()
        steps = np.linspace(0, 1, 41)
        grid = itertools.product(*[steps] * (models - 1))
        best = min(cost([*few, 1 - sum(few)]) for few in grid if sum(few) <= 1)
        assert cost(weights) <= best + 1e-9
    assert fit_weight(*nats[:2]) == fit_weights(nats[:2])[1]


def test_the_best_of_two_models_that_are_nearly_alike_gets_all_the_weight():
    """As steps of one run; expectation maximisation gives 0.648 after 200 rounds."""
    rng = np.random.default_rng(0)
    first = rng.exponential(3, 100_000)
    second = first + 0.003 + 0.05 * rng.standard_normal(len(first))
    np.testing.assert_array_equal(fit_weights([[first], [second]]), [1, 0])
    assert fit_weight([second], [first]) == 1


@pytest.mark.parametrize("worse", [[0.002, 0.002, 0.004], [0, 0.01, 0.02], [0.02, 0, 0]])
def test_weights_of_models_that_are_nearly_alike_are_the_best_ones(worse):
    """Held against a fine grid, for two models and for three."""
    rng = np.random.default_rng(1)
    base = rng.exponential(3, 4000)
    nats = [[base + more + 0.05 * rng.standard_normal(4000)] for more in worse]
    p_NT = np.exp(base - np.concatenate(nats))
    for models in (2, 3):
        steps = np.linspace(0, 1, 101)
        grid = [of for of in itertools.product(*[steps] * (models - 1)) if sum(of) <= 1 + 1e-9]
        weights_WN = np.array([[*of, max(0.0, 1 - sum(of))] for of in grid])
        costs_W = [-np.log(of @ p_NT[:models]).mean() for of in weights_WN]
        found = fit_weights(nats[:models])
        assert found.sum() == pytest.approx(1, abs=1e-12)
        assert -np.log(found @ p_NT[:models]).mean() <= min(costs_W) + 1e-9
        np.testing.assert_allclose(found, weights_WN[np.argmin(costs_W)], atol=0.03)
        np.testing.assert_array_equal(found, fit_weights(nats[:models]))
    np.testing.assert_array_equal(fit_weights(nats[:1]), [1])


def test_weights_of_several_models_that_are_one_or_never_agree():
    same = [np.linspace(0, 5, 50)]
    for nats in ([same] * 3, [[np.eye(4)[i] * 900] for i in range(4)]):
        weights = fit_weights(nats)
        np.testing.assert_allclose(weights, np.full(len(nats), 1 / len(nats)), atol=1e-4)


def test_weights_by_context_of_models_that_are_nearly_alike_are_the_likeliest_ones():
    rng = np.random.default_rng(2)
    size = 20_000
    nats = rng.exponential(3, size)
    entropies = rng.uniform(0, 4, size)
    other = nats + 0.01 - 0.02 * (entropies > 3) + 0.1 * rng.standard_normal(size)
    fitted = ContextWeights.fit([nats], [other], [np.zeros(size, int)], [entropies], longest=0)
    of_all = fit_weight([nats], [other])
    assert 0 < of_all < 1
    kinds = np.searchsorted(fitted.edges, entropies, side="right")
    grid = np.linspace(0.0005, 0.9995, 1000)
    for kind, found in enumerate(fitted.weight_LE[0]):
        mine = kinds == kind
        p_T, other_T = np.exp(-nats[mine]), np.exp(-other[mine])
        costs = [
            -np.log((1 - w) * p_T + w * other_T).sum()
            - PRIOR * (of_all * np.log(w) + (1 - of_all) * np.log(1 - w))
            for w in grid
        ]
        assert found == pytest.approx(grid[np.argmin(costs)], abs=1e-3)
    assert np.ptp(fitted.weight_LE) > 0.1
    # The one weight of all places may be 0 or 1: a kind's own is then drawn towards that.
    for worse, end in ((9.0, 0), (-9.0, 1)):
        shifted = [nats + worse]
        fitted = ContextWeights.fit([nats], shifted, [np.zeros(size, int)], [entropies], longest=1)
        np.testing.assert_array_equal(fitted.weight_LE, end)


def test_weights_of_what_never_or_always_helps_stay_within_0_and_1():
    good, bad = [np.full(500, 0.1)], [np.full(500, 900.0)]
    for nats in ([good, bad], [bad, good], [bad, good, bad]):
        weights = fit_weights(nats)
        assert ((weights >= 0) & (weights <= 1)).all()
        assert weights.max() == pytest.approx(1)
        assert np.isfinite(mix(nats, weights)[0]).all()
    with pytest.raises(ValueError, match="without a token"):
        fit_weights([[np.zeros(0)], [np.zeros(0)]])


def test_weights_by_context_are_the_best_ones_of_their_kinds():
    """Where the n-gram model is good depends on length and entropy; one kind is seldom."""
    rng = np.random.default_rng(1)
    size = 20_000
    lengths = rng.integers(0, 3, size)
    entropies = rng.uniform(0, 4, size)
    better = (lengths == 2) & (entropies > 3)
    nats = rng.exponential(2, size) + 2 * better
    other = rng.exponential(3, size)
    lengths[:5] = 3
    texts = [[array[:9000], array[9000:]] for array in (nats, other, lengths, entropies)]
    fitted = ContextWeights.fit(*texts, longest=4)
    np.testing.assert_allclose(fitted.edges, [1, 2, 3], atol=0.1)
    assert fitted.weight_LE.shape == (5, 4)
    assert ((fitted.weight_LE >= 0) & (fitted.weight_LE <= 1)).all()
    of_all = fit_weight([nats], [other])
    # A kind without tokens has the weight of all places, one of five tokens nearly that.
    np.testing.assert_allclose(fitted.weight_LE[4], of_all)
    np.testing.assert_allclose(fitted.weight_LE[3], of_all, atol=5 / PRIOR)
    assert fitted.weight_LE[2, 3] == fitted.weight_LE.max()
    kinds = np.searchsorted(fitted.edges, entropies, side="right")
    for length, entropy in ((2, 3), (0, 1)):
        mine = (lengths == length) & (kinds == entropy)
        count = mine.sum()

        def cost(w, mine=mine):
            """With the prior, up to a constant."""
            prior = of_all * np.log(w) + (1 - of_all) * np.log(1 - w)
            return mix_text([nats[mine], other[mine]], [1 - w, w]).sum() - PRIOR * prior

        found = fitted.weight_LE[length, entropy]
        best = min(np.linspace(0.001, 0.999, 999), key=cost)
        assert count > 1000
        assert found == pytest.approx(best, abs=1e-3)
        assert fitted.at(lengths[mine], entropies[mine]) == pytest.approx(np.full(count, found))


def test_the_length_of_a_context_is_that_which_training_goes_on_from():
    model = KneserNey(["abcd", "xbc"], 4)
    #        before each: "", "a" "ab" "abc" "bcz"…
    assert model.context_lengths("abczd").tolist() == [0, 1, 2, 3, 0]
    # "bc" goes on in the first text; "xbc" and "d" end theirs, with nothing after them.
    assert model.context_lengths("xbcqdd").tolist() == [0, 1, 2, 2, 0, 0]
    rng = np.random.default_rng(0)
    text = rng.integers(0, 4, 40).tolist()
    train = [rng.integers(0, 4, 30).tolist() for _ in range(2)]
    found = KneserNey(train, 4, alphabet_size=9).context_lengths(text)

    def longest(i):
        for n in range(min(3, i), 0, -1):
            before = text[i - n : i]
            if any(t[j : j + n] == before for t in train for j in range(len(t) - n)):
                return n
        return 0

    assert found.tolist() == [longest(i) for i in range(len(text))]
    # It does not depend on the symbol itself.
    assert model.context_lengths("abcd").tolist() == model.context_lengths("abcq").tolist()
