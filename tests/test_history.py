import math

import pytest

from hlm_jax.training.history import METRIC, History


def evaluated(*scores, patience=0):
    history = History()
    for step, score in enumerate(scores, start=1):
        history = history.after(step, {METRIC: score, "val_nats_per_token": score}, patience)
    return history


def test_the_best_score_and_how_long_ago_it_was():
    history = evaluated(7.0, 6.0, 6.5, 6.0)
    assert (history.best, history.best_step, history.evaluations_since_best) == (6.0, 2, 2)
    assert history.newest[METRIC] == 6.0
    assert History().best is None


def test_a_score_that_is_not_a_number_is_never_the_best():
    history = evaluated(math.nan, math.inf)
    assert history.best is None
    assert history.evaluations_since_best == 2
    assert evaluated(math.nan, 6.0, math.nan).best == 6.0


@pytest.mark.parametrize(
    ("scores", "stops"),
    [((7, 6, 6.5, 6.6), True), ((7, 6, 6.5), False), ((math.nan, math.nan), True), ((7, 6), False)],
)
def test_patience(scores, stops):
    assert evaluated(*scores, patience=2).stopped_early is stops
    assert not evaluated(*scores, patience=0).stopped_early


def test_a_checkpoint_between_evaluations_is_not_ranked_by_an_older_score():
    history = evaluated(7.0, 6.0)
    assert history.as_metrics()[METRIC] == 6.0
    later = history.at(3).as_metrics()
    assert METRIC not in later
    assert later["best_" + METRIC] == 6.0


def test_a_checkpoint_brings_the_history_back():
    for history in (evaluated(7.0, 6.0, 6.5), evaluated(math.nan), evaluated(7, 8, patience=1)):
        back = History.from_metrics(history.step, history.as_metrics())
        assert repr(back.as_metrics()) == repr(history.as_metrics())  # nan is not equal to itself
        assert back.after(9, {METRIC: 6.4}, 0).best == history.after(9, {METRIC: 6.4}, 0).best
    between = History.from_metrics(3, evaluated(7.0, 6.0).at(3).as_metrics())
    assert between.after(4, {METRIC: 6.5}, 1).stopped_early
    assert History.from_metrics(5, {}) == History(step=5)


def test_the_metrics_of_version_0_1_0_are_understood():
    old = {
        "val_nats_per_token": 5.87,
        "val_bits_per_char": 7.898,
        "ngram_bits_per_char": 4.07,
        "best_val_bits_per_char": 7.898,
        "best_step": 6,
        "evaluations_since_best": 0,
    }
    history = History.from_metrics(6, old)
    assert (history.best, history.best_step, history.evaluated_at) == (7.898, 6, 6)
    assert history.as_metrics() == old
