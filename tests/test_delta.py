"""Burrows' Delta and its relatives, against cases that were computed by hand."""

import math

import numpy as np
import pytest

from hlm_jax.analysis.authorship.delta import CharacterCounts, Scale, delta_to_sides, distances

# Frequencies of three features in four training texts: mean 2, 4, 1; deviations 1, 2, 0.
TRAIN = np.array([[1.0, 2, 1], [2, 4, 1], [3, 6, 1], [2, 4, 1]])


def test_scale_is_of_the_training_texts_and_a_constant_feature_counts_nothing():
    scale = Scale.of(TRAIN)
    np.testing.assert_allclose(scale.mean_F, [2, 4, 1])
    np.testing.assert_allclose(scale.deviation_F, [math.sqrt(2 / 3), math.sqrt(8 / 3), 0])
    z = scale.z(np.array([[2 + math.sqrt(2 / 3), 4.0, 9.0]]))
    np.testing.assert_allclose(z, [[1.0, 0.0, 0.0]])
    assert (Scale.of(TRAIN[:1]).z(TRAIN) == 0).all(), "one text has no deviation"


@pytest.mark.parametrize(
    ("measure", "by_hand"),
    [
        ("delta", (1 + 2 + 3) / 3),
        ("manhattan", (1 + 2 + 3) / 3),
        ("eder", (1 * 3 / 3 + 2 * 2 / 3 + 3 * 1 / 3) / 3),
        ("cosine", 1 - (1 * 2 + 1 * -1 + 0 * 3) / (math.sqrt(2) * math.sqrt(14))),
    ],
)
def test_distances_by_hand(measure, by_hand):
    first, second = np.array([[1.0, 1, 0]]), np.array([[2.0, -1, 3]])
    np.testing.assert_allclose(distances(first, second, measure), [[by_hand]])


def test_an_unknown_distance_is_named():
    with pytest.raises(ValueError, match="nearest"):
        distances(TRAIN, TRAIN, "nearest")


def test_delta_to_sides_by_hand():
    """Texts of ten characters; the two most frequent characters of the training texts are features.

    甲: 6, 4 of A and 2, 0 of B: mean 3, deviation sqrt(20 / 3). 乙: 4, 6, 8, 10: mean 7, the same
    deviation, opposite. The tested text has 5 and 5.
    """
    texts = ["甲" * k + "乙" * (10 - k) for k in (6, 4, 2, 0, 5)]
    counts = CharacterCounts(texts)
    away_a, away_b = delta_to_sides(
        counts, np.array([0, 1]), np.array([2, 3]), np.array([4]), count=2
    )
    deviation = math.sqrt(20 / 3)
    # z of the tested text is (5 - 3) / deviation; those of the sides are 2 and -2 over it.
    np.testing.assert_allclose(away_a, [0.0], atol=1e-12)
    np.testing.assert_allclose(away_b, [4 / deviation])


def test_features_come_from_the_training_texts_alone():
    texts = ["甲乙" * 5, "甲乙" * 4 + "乙乙", "丙" * 50]
    counts = CharacterCounts(texts)
    features = [counts.characters[k] for k in counts.most_frequent(np.array([0, 1]), 10)]
    assert features == ["乙", "甲"], "丙 stands in the tested text only"
    before = delta_to_sides(counts, np.array([0]), np.array([1]), np.array([2]))
    longer = CharacterCounts([*texts[:2], "丙" * 50, "丁" * 1000])
    np.testing.assert_array_equal(
        before, delta_to_sides(longer, np.array([0]), np.array([1]), np.array([2]))
    )
