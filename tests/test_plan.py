import threading

import pytest

from hlm_jax.training.plan import Plan, prefetched

PLAN = Plan(total_steps=50, steps_per_dispatch=4, save_every_steps=20, eval_every_steps=12)


@pytest.mark.parametrize("start", [0, 3, 4, 49, 50])
def test_spans_follow_one_grid_from_any_start(start):
    spans = list(PLAN.spans(start))
    steps = [step for first, end in spans for step in range(first, end)]
    assert steps == list(range(start, 50))
    assert all(end % 4 == 0 or end == 50 for _, end in spans)


def test_what_is_due():
    assert [step for step in range(1, 51) if PLAN.evaluates_at(step)] == [12, 24, 36, 48, 50]
    assert [s for s in range(1, 51) if PLAN.pauses_at(s)] == [12, 20, 24, 36, 40, 48, 50]
    without = Plan(50, 4, 20, 0)
    assert [step for step in range(1, 51) if without.pauses_at(step)] == [20, 40, 50]
    assert not any(map(without.evaluates_at, range(1, 51)))


def test_batches_are_loaded_one_ahead_and_in_order():
    second = threading.Event()

    def load(span):
        if span == (40, 44):
            second.set()
        return sum(span)

    batches = prefetched(PLAN.spans(38), load)
    assert next(batches) == ((38, 40), 78)
    assert second.wait(10)  # nobody has asked for the second batch yet
    assert [span for span, _ in batches] == [(40, 44), (44, 48), (48, 50)]


def test_an_error_while_loading_reaches_the_loop():
    def load(_):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        next(prefetched(PLAN.spans(0), load))
