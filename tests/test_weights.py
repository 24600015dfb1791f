import numpy as np
import pytest

from hlm_jax.measures.mixture import mix
from hlm_jax.measures.weights import fit_weight


def test_the_fitted_weight_is_the_best_one():
    rng = np.random.default_rng(0)
    nats, other = ([rng.exponential(3, 300), rng.exponential(3, 100)] for _ in range(2))
    weight = fit_weight(nats, other)
    assert 0.05 < weight < 0.95

    def cost(weight):
        return sum(text.sum() for text in mix([nats, other], [1 - weight, weight]))

    assert cost(weight) <= min(map(cost, np.linspace(0, 1, 1001))) + 1e-9


def test_the_best_of_two_models_that_are_nearly_alike_gets_all_the_weight():
    """As steps of one run; expectation maximisation gives 0.648 after 200 rounds."""
    rng = np.random.default_rng(0)
    first = rng.exponential(3, 100_000)
    second = first + 0.003 + 0.05 * rng.standard_normal(len(first))
    assert fit_weight([first], [second]) == 0
    assert fit_weight([second], [first]) == 1


def test_a_weight_of_what_never_or_always_helps_is_0_or_1():
    good, bad = [np.full(500, 0.1)], [np.full(500, 900.0)]
    assert fit_weight(good, bad) == 0
    assert fit_weight(bad, good) == 1
    with pytest.raises(ValueError, match="without a token"):
        fit_weight([np.zeros(0)], [np.zeros(0)])
