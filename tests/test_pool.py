import numpy as np
import pytest

from hlm_jax.errors import UserError
from hlm_jax.measures import pool
from hlm_jax.measures.pool import Predictions, fit_weights, pooled_nats


def distributions(rng, places, sharpness, own=None, skill=0.0):
    """Logarithms of random distributions over 7 symbols, [places, 7]; `own` is likelier."""
    rows = sharpness * rng.standard_normal((places, 7))
    if own is not None:
        rows[np.arange(places), own] += skill
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def text(rng, places=400):
    symbols = rng.integers(0, 7, places)
    rows = [distributions(rng, places, s, symbols, skill) for s, skill in ((1, 1), (2, 1), (1, 0))]
    return Predictions(rows, symbols)


def by_hand(of, weights):
    product = np.exp(sum(p * rows for p, rows in zip(weights, of.rows, strict=True)))
    return -np.log(product[np.arange(len(of.symbols)), of.symbols] / product.sum(axis=1))


def test_a_pool_is_the_product_of_weights_divided_by_its_sum():
    of, weights = text(np.random.default_rng(0), 1300), np.array([0.7, 0.2, -0.3])
    np.testing.assert_allclose(pooled_nats(of, weights), by_hand(of, weights), rtol=1e-4, atol=1e-5)
    # The symbol that comes changes nothing but which probability is looked at.
    rows = [np.repeat(one[:1], 7, axis=0) for one in of.rows]
    every = pooled_nats(Predictions(rows, np.arange(7)), weights)
    assert np.exp(-every).sum() == pytest.approx(1, abs=1e-5)
    assert np.ptp(every) > 0.1
    nothing = Predictions([np.zeros((0, 7))], np.zeros(0, int))
    assert pooled_nats(nothing, np.ones(1)).shape == (0,)


def test_the_fitted_weights_are_the_best_ones(monkeypatch):
    rng = np.random.default_rng(1)
    texts = [text(rng, 900), text(rng, 1100)]
    monkeypatch.setattr(pool, "PRIOR", 1e-6)
    weights = fit_weights(texts)

    def cost(weights):
        return sum(by_hand(of, weights).sum() for of in texts)

    assert weights[1] > 0.1  # a model that says too much has less than its due
    assert abs(weights[2]) < 0.1  # a model that knows nothing has none
    best = cost(weights)
    for k in range(3):
        for away in (-0.03, 0.03):
            assert cost(weights + away * np.eye(3)[k]) > best
    assert best < cost(np.full(3, 1 / 3)) - 10
    # With every third place the weights are much the same, whatever the texts' borders.
    monkeypatch.setattr(pool, "SAMPLE", 700)
    np.testing.assert_allclose(fit_weights(texts), weights, atol=0.1)


def test_models_that_are_alike_share_their_weight():
    rng = np.random.default_rng(2)
    of = text(rng, 2000)
    alone = fit_weights([Predictions(of.rows[:1], of.symbols)])
    twice = fit_weights([Predictions([of.rows[0], of.rows[0]], of.symbols)])
    assert twice[0] == pytest.approx(twice[1], abs=1e-3)
    assert twice.sum() == pytest.approx(alone[0], abs=0.02)


def test_few_places_give_no_wild_weights():
    """One symbol that a model expected would have a weight without bound."""
    rows = np.log(np.array([[0.9, 0.05, 0.05]]))
    found = fit_weights([Predictions([rows], np.array([0]))])
    assert 1 < found[0] < 1.5
    rows[0, 1] = np.nan
    with pytest.raises(UserError, match="no numbers"):
        fit_weights([Predictions([rows], np.array([0]))])
    with pytest.raises(ValueError, match="without a token"):
        fit_weights([Predictions([rows[:0]], np.zeros(0, int))])
