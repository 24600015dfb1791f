import numpy as np
import pytest

from hlm_jax.book.corpus import Chapter
from hlm_jax.book.windows import DataError, Windows, token_stream


def windows(n=1003, block=10, batch=8, seed=0):
    return Windows(np.arange(n, dtype=np.int32), block_size=block, batch_size=batch, seed=seed)


def test_an_epoch_covers_the_text_once_without_overlap():
    w = windows()
    rows = w.rows_at(np.arange(w.windows_per_epoch))
    inputs = np.sort(rows[:, :-1].ravel())
    assert len(np.unique(inputs)) == len(inputs) == w.windows_per_epoch * 10
    assert inputs[-1] - inputs[0] + 1 == len(inputs)
    np.testing.assert_array_equal(rows[:, 1:], rows[:, :-1] + 1)


def test_epochs_differ_in_offset_and_order():
    w = windows()
    n = w.windows_per_epoch
    starts = [w.rows_at(np.arange(e * n, (e + 1) * n))[:, 0] for e in range(6)]
    assert len({int(s.min()) for s in starts}) > 2
    assert len({tuple(np.argsort(s)) for s in starts}) == 6
    assert all(s.min() >= 0 and s.max() + 10 <= 1002 for s in starts)


def test_a_batch_is_a_function_of_seed_and_step():
    a, b = windows(), windows()
    expected = a.batch_at(57)
    for step in (3, 90):
        b.batch_at(step)
    np.testing.assert_array_equal(b.batch_at(57), expected)
    assert (windows(seed=1).batch_at(57) != expected).any()
    assert expected.shape == (8, 11)
    assert expected.dtype == np.int32


def test_batches_run_on_over_epochs_and_skip_nothing():
    w = windows(batch=7)
    n = w.windows_per_epoch
    rows = np.concatenate([w.batch_at(s) for s in range(n)])  # seven epochs
    np.testing.assert_array_equal(rows, w.rows_at(np.arange(7 * n)))
    assert w.steps_per_epoch == n / 7


def test_processes_read_their_own_rows():
    w = windows()
    np.testing.assert_array_equal(
        np.concatenate([w.batch_at(5, slice(0, 4)), w.batch_at(5, slice(4, 8))]), w.batch_at(5)
    )


def test_too_short_a_text():
    with pytest.raises(DataError, match="fewer than two blocks"):
        windows(n=19)
    assert windows(n=20).windows_per_epoch == 1


def test_a_separator_starts_every_chapter(tokenizer):
    chapters = [Chapter(1, "", "宝玉笑道。"), Chapter(2, "", "黛玉听了。")]
    stream = token_stream(tokenizer, chapters)
    at = np.flatnonzero(stream == tokenizer.separator_id)
    assert at.tolist() == [0, 1 + len(tokenizer.encode("宝玉笑道。"))]
    assert tokenizer.decode(stream.tolist()) == "宝玉笑道。黛玉听了。"
