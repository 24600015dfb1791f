import numpy as np
import pytest

from hlm_jax.book.corpus import split_chapters
from hlm_jax.errors import UserError
from hlm_jax.measures.style import EXCERPT, Style, excerpts


@pytest.fixture(scope="module")
def splits(edition):
    return split_chapters(edition.chapters, held_out=True)


@pytest.fixture(scope="module")
def style(splits):
    return Style([c.text for c in splits["train"]], [c.text for c in splits["val"]])


def test_pieces():
    assert [len(p) for p in excerpts("玉" * (2 * EXCERPT + EXCERPT // 2))] == [
        EXCERPT,
        EXCERPT,
        EXCERPT // 2,
    ]
    assert len(excerpts("玉" * (EXCERPT + 10))) == 1


def test_texts_too_short_to_measure_are_refused(style):
    with pytest.raises(UserError, match="no text has 250 characters"):
        style.distance(["宝玉笑道", ""])


def test_measures_by_hand(style):
    measures = style.measure("宝玉笑道：“好。”黛玉道：“不好！”说着太太太太走了。")
    assert measures["in loops"] == pytest.approx(4 / 27)
    assert measures["speeches closed"] == 1.0
    assert measures["speeches per 100"] == pytest.approx(100 * 2 / 27)
    assert measures["names per 100"] == pytest.approx(100 * 2 / 27)
    assert style.measure("“好“好”“好”“")["speeches closed"] == pytest.approx(2 / 3)
    assert style.measure("一二三。四五六七八。")["sentence length"] == pytest.approx(5.0)
    assert style.measure("一二三。四五六七八。")["its spread"] == pytest.approx(1.0)
    assert style.measure("来来去去")["distinct 2-grams"] == 1.0
    assert style.measure("来来来来")["distinct 2-grams"] == pytest.approx(1 / 3)


def test_real_chapters_are_near_and_damage_is_far(style, splits):
    real = [c.text for c in splits["test"]]
    _, away = style.distance(real)
    assert away < 0.35
    rng = np.random.default_rng(0)
    shuffled = ["".join(rng.permutation(list(text))) for text in real]
    unclosed = [text.replace("”", "") for text in real]
    looping = [text[:40] * (len(text) // 40) for text in real]
    for damaged in (shuffled, unclosed, looping):
        assert style.distance(damaged)[1] > away + 0.3
