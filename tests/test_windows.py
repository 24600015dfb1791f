import numpy as np
import pytest

from hlm_jax.book.corpus import Chapter
from hlm_jax.book.windows import (
    Batches,
    DataError,
    Share,
    Stage,
    Windows,
    token_stream,
    windows_before,
)

FURTHER = 100_000  # added to the tokens of further texts


def windows(n=1003, seed=0, first=0):
    tokens = np.arange(first, first + n, dtype=np.int32)
    return Windows(tokens, block_size=10, seed=seed)


def batches(batch=8, **more):
    return Batches(windows(**more), None, [Stage(0, batch)])


def mixed(*stages):
    return Batches(windows(), windows(n=407, first=FURTHER), stages)


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
    a, b = batches(), batches()
    expected = a.batch_at(57)
    for step in (3, 90):
        b.batch_at(step)
    np.testing.assert_array_equal(b.batch_at(57), expected)
    assert (batches(seed=1).batch_at(57) != expected).any()
    assert expected.shape == (8, 11)
    assert expected.dtype == np.int32


def test_batches_run_on_over_epochs_and_skip_nothing():
    w, of = windows(), batches(batch=7)
    n = w.windows_per_epoch
    rows = np.concatenate([of.batch_at(s) for s in range(n)])  # seven epochs
    np.testing.assert_array_equal(rows, w.rows_at(np.arange(7 * n)))
    assert of.epochs(n) == (7.0, 0.0)


def test_processes_read_their_own_rows():
    w = mixed(Stage(0, 8, Share(0.5, 10, 20)))
    np.testing.assert_array_equal(
        np.concatenate([w.batch_at(5, slice(0, 4)), w.batch_at(5, slice(4, 8))]), w.batch_at(5)
    )


def test_too_short_a_text():
    with pytest.raises(DataError, match=r"^the training text has 19 .* fewer than two blocks"):
        windows(n=19)
    with pytest.raises(DataError, match=r"^corpus.extra has 19 tokens"):
        Windows(np.arange(19), block_size=10, seed=0, what="corpus.extra")
    assert windows(n=20).windows_per_epoch == 1


def test_another_batch_size_goes_on_where_the_one_before_stopped():
    w, of = windows(), Batches(windows(), None, [Stage(0, 8), Stage(5, 3), Stage(9, 16)])
    rows = np.concatenate([of.batch_at(step) for step in range(12)])
    assert [len(of.batch_at(step)) for step in (4, 5, 8, 9)] == [8, 3, 3, 16]
    np.testing.assert_array_equal(rows, w.rows_at(np.arange(5 * 8 + 4 * 3 + 3 * 16)))
    assert of.batch_size == 16


def test_further_texts_have_their_share_then_less_then_none():
    of = mixed(Stage(0, 20, Share(0.7, hold=30, end=55)))
    counts = [int((of.batch_at(step)[:, 0] >= FURTHER).sum()) for step in range(100)]
    assert counts[:30] == [14] * 30
    falling = [0.7 * 20 * (1 - (step + 0.5 - 30) / 25) for step in range(30, 55)]
    np.testing.assert_allclose(counts[30:55], falling, atol=1)
    assert sum(counts[30:55]) == pytest.approx(sum(falling), abs=1)
    assert counts[55:] == [0] * 45
    assert all(len(of.batch_at(step)) == 20 for step in (0, 40, 70))


def test_no_window_of_either_text_is_skipped_or_repeated():
    of = mixed(Stage(0, 7, Share(0.33, 10, 50)), Stage(20, 16, Share(0.61, 15, 90)))
    rows = np.concatenate([of.batch_at(step) for step in range(80)])
    further = rows[:, 0] >= FURTHER
    book, extra = windows(), windows(n=407, first=FURTHER)
    np.testing.assert_array_equal(rows[~further], book.rows_at(np.arange((~further).sum())))
    np.testing.assert_array_equal(rows[further], extra.rows_at(np.arange(further.sum())))
    epochs = (~further).sum() / book.windows_per_epoch, further.sum() / extra.windows_per_epoch
    assert of.epochs(80) == epochs


def test_further_texts_alone():
    of = mixed(Stage(0, 8, Share(1.0, hold=40, end=40)))
    assert (of.batch_at(39)[:, 0] >= FURTHER).all()
    assert (of.batch_at(40)[:, 0] < FURTHER).all()
    assert windows_before([Stage(0, 8, Share(1.0, 40, 40))], 41) == (8, 320)


def test_the_windows_of_a_step_are_named():
    of = mixed(Stage(0, 8, Share(0.5, 10, 10)), Stage(20, 4))
    assert of.describe(1) == "windows 4 to 7 and windows 4 to 7 of the further texts"
    assert of.describe(20) == "windows 120 to 123"


def test_a_separator_starts_every_chapter(tokenizer):
    chapters = [Chapter(1, "", "宝玉笑道。"), Chapter(2, "", "黛玉听了。")]
    stream = token_stream(tokenizer, chapters)
    at = np.flatnonzero(stream == tokenizer.separator_id)
    assert at.tolist() == [0, 1 + len(tokenizer.encode("宝玉笑道。"))]
    assert tokenizer.decode(stream.tolist()) == "宝玉笑道。黛玉听了。"


def test_places_of_windows_are_where_the_batch_was_cut():
    for made in (mixed(Stage(0, 8, Share(0.5, 20, 40))), batches()):
        tokens = made.book_tokens
        for step in (0, 25, 50):
            batch, starts = made.batch_at(step), made.starts_at(step)
            assert len(starts) == len(batch) == 8
            for row, start in zip(batch, starts, strict=True):
                if row[0] >= FURTHER:
                    assert start == -1
                else:
                    np.testing.assert_array_equal(row, tokens[start : start + 11])
    assert (made.starts_at(3, slice(2, 4)) == made.starts_at(3)[2:4]).all()
    assert (mixed(Stage(0, 8, Share(0.5, 20, 40))).starts_at(0) == -1).sum() == 4
