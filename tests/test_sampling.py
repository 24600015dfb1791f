"""How a token is drawn: filters, noise, and the parameters that rule them."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hlm_jax.errors import UserError
from hlm_jax.model.sampling import (
    SamplingArrays,
    SamplingParams,
    draw,
    exponentials,
    filter_logits,
    penalise,
    samples,
)

LOGITS = jnp.log(jnp.array([[0.5, 0.25, 0.15, 0.07, 0.03]]))


def filtered(logits_BV, seen_BV, rows):
    arrays = SamplingArrays.of(rows)
    return filter_logits(penalise(logits_BV, seen_BV, arrays.repetition_penalty), arrays)


def kept(**options):
    logits = filtered(LOGITS, jnp.zeros((1, 5), bool), [SamplingParams(**options)])
    return np.isfinite(np.asarray(logits))[0].tolist()


def test_filters_by_hand():
    assert kept(top_k=2) == [True, True, False, False, False]
    assert kept(top_k=99) == [True] * 5
    assert kept(top_p=0.6) == [True, True, False, False, False]
    assert kept(top_p=0.0) == [True, False, False, False, False]
    assert kept(min_p=0.2) == [True, True, True, False, False]
    assert kept(min_p=1.0) == [True, False, False, False, False]
    assert kept(top_k=3, top_p=0.8) == [True, True, False, False, False]
    assert kept(temperature=2.0) == [True] * 5
    coldest = filtered(LOGITS, jnp.zeros((1, 5), bool), [SamplingParams(temperature=1e-37)])
    assert jax.nn.softmax(coldest).tolist() == [[1, 0, 0, 0, 0]]
    seen = jnp.array([[True, False, False, False, False]])
    logits, penalty = jnp.array([[2.0, 1.0, -1.0, 0.0, 0.0]]), jnp.array([2.0])
    assert penalise(logits, seen, penalty).tolist() == [[1.0, 1.0, -1.0, 0.0, 0.0]]
    assert penalise(-logits, seen, penalty).tolist() == [[-4.0, -1.0, 1.0, 0.0, 0.0]]


SETTINGS = {
    "temperature": 0.7,
    "top_k": 9,
    "top_p": 0.6,
    "min_p": 0.03,
    "repetition_penalty": 1.4,
}


def test_filters_equal_transformers():
    """Alone and in every combination, each a row of one batch."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    theirs = {
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }
    combinations = [
        names for n in range(6) for names in itertools.combinations(theirs, n) for _ in range(4)
    ]
    rng = np.random.default_rng(0)
    logits_BV = rng.normal(0, 2, (len(combinations), 61)).astype(np.float32)
    ids_BT = rng.integers(0, 61, (len(combinations), 12))
    seen_BV = np.zeros(logits_BV.shape, bool)
    np.put_along_axis(seen_BV, ids_BT, True, axis=1)
    rows = [SamplingParams(**{name: SETTINGS[name] for name in names}) for names in combinations]
    ours = jax.jit(filtered, static_argnums=2)(logits_BV, seen_BV, tuple(rows))
    ours = np.asarray(jax.nn.softmax(ours))
    for row, names in enumerate(combinations):
        chain = LogitsProcessorList(theirs[name](SETTINGS[name]) for name in names)
        expected = chain(torch.tensor(ids_BT[[row]]), torch.tensor(logits_BV[[row]]))
        expected = expected.softmax(-1).numpy()[0]
        np.testing.assert_array_equal(ours[row] > 0, expected > 0, err_msg=str(names))
        np.testing.assert_allclose(ours[row], expected, atol=1e-6, err_msg=str(names))
    assert len(set((ours > 0).sum(1))) > 5


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_cuts_by_count_and_by_sum_equal_those_by_hand(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(0)
    logits_BV = rng.normal(0, 3, (300, 61)).astype(np.float32)
    logits_BV[::7, :30] = logits_BV[::7, 30:60]  # ties
    logits_BV[::5, 3] = 0.0
    logits_BV[0] = 0.0
    logits_BV[0, ::2] *= -1.0  # zeros of both signs are as likely
    logits_BV[::11] *= 1e-3
    rows = [
        SamplingParams(top_k=int(rng.integers(0, 70)), top_p=float(rng.choice([1.0, rng.random()])))
        for _ in logits_BV
    ]
    rows[0] = SamplingParams(top_k=1)
    ours = np.asarray(filter_logits(jnp.asarray(logits_BV), SamplingArrays.of(rows)))
    for logits, row, found in zip(logits_BV.astype(np.float64), rows, ours, strict=True):
        falling = np.sort(logits)[::-1]
        if 0 < row.top_k < 61:
            falling = falling[falling >= falling[row.top_k - 1]]
        p = np.exp(falling) / np.exp(falling).sum()
        before = np.cumsum(p) - p
        least = falling[(before < row.top_p) | (before == 0)].min()
        np.testing.assert_array_equal(np.isfinite(found), logits >= least)


def test_draws_follow_the_probabilities():
    n = 4000
    rows = SamplingArrays.of(samples(SamplingParams(), n))
    drawn = draw(jnp.repeat(LOGITS, n, 0), jnp.zeros((n, 5), bool), rows, jnp.zeros(n, jnp.int32))
    fractions = np.bincount(np.asarray(drawn), minlength=5) / n
    np.testing.assert_allclose(fractions, np.exp(LOGITS[0]), atol=0.03)


def test_noise_is_exponential_and_differs_by_seed_and_number():
    n = 256
    grid = np.meshgrid(np.arange(n, dtype=np.uint32), np.arange(n))
    draws = np.asarray(exponentials(grid[0].ravel(), grid[1].ravel(), 5))
    assert (draws > 0).all()
    assert np.isfinite(draws).all()
    assert len(np.unique(draws)) > 0.99 * draws.size
    for axis in range(5):
        assert scipy.stats.kstest(draws[:, axis], "expon").pvalue > 1e-3
    square = draws[:, 0].reshape(n, n)
    for one, other in ((square[1:], square[:-1]), (square[:, 1:], square[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.02


FIRST = jnp.zeros(8, jnp.int32)


def test_greedy_batches_draw_nothing_and_mixed_ones_keep_their_greedy_rows():
    rng = np.random.default_rng(0)
    logits_BV = jnp.asarray(rng.normal(size=(8, 61)), jnp.float32)
    seen_BV = jnp.asarray(rng.random((8, 61)) < 0.3)
    greedy = SamplingParams(temperature=0.0, top_k=3, repetition_penalty=1.3)
    alone = draw(logits_BV, seen_BV, SamplingArrays.of([greedy] * 8), FIRST)
    penalised = penalise(logits_BV, seen_BV, jnp.full(8, 1.3))
    np.testing.assert_array_equal(alone, penalised.argmax(-1))
    mixed = [greedy, SamplingParams(seed=4)] * 4
    np.testing.assert_array_equal(
        draw(logits_BV, seen_BV, SamplingArrays.of(mixed), FIRST)[::2], alone[::2]
    )
    arrays = SamplingArrays.of(mixed)
    work = jax.make_jaxpr(lambda arrays: draw(logits_BV, seen_BV, arrays, FIRST))(arrays)
    names = list(primitives(work.jaxpr))
    assert (0, "reduce_min") in names  # the likeliest token
    # Both are inside of a choice; the two cuts are inside of a second one each.
    assert {depth for depth, name in names if name.startswith("random_")} == {1}
    assert [depth for depth, name in names if name == "scan"] == [2, 2]
    assert not any(name == "sort" for _, name in names)


def primitives(jaxpr, depth=0):
    """(how many choices it is inside of, its name) of every operation."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield depth, name
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner, depth + (name == "cond"))


def test_samples_are_rows_with_seeds_of_their_own():
    rows = samples(SamplingParams(temperature=0.5, seed=2**32 - 1), 3)
    assert rows[0] == SamplingParams(temperature=0.5, seed=2**32 - 1)
    assert SamplingArrays.of(rows).seed.tolist() == [2**32 - 1, 0, 1]
    assert [dataclasses.replace(row, seed=0) for row in rows] == [SamplingParams(0.5)] * 3
    with pytest.raises(UserError, match="--num_samples must be at least 1, not 0"):
        samples(SamplingParams(), 0)


@pytest.mark.parametrize(
    "options",
    [
        {"top_p": 1.5},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "hot"},
        {"top_k": -1},
        {"top_k": 2.5},
        {"repetition_penalty": 0},
        {"repetition_penalty": 1e-60},
        {"repetition_penalty": math.nan},
        {"seed": 1.5},
        {"seed": True},
    ],
)
def test_impossible_settings_are_refused(options):
    (name,) = options
    with pytest.raises(UserError, match=f"^--{name} must be .*, not "):
        SamplingParams(**options)
