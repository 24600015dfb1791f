import numpy as np
import pytest

from hlm_jax.measures.bootstrap import paired_difference


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
