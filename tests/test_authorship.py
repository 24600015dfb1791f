"""Two sides told apart by models that never saw the text they judge, and the measures of it."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from hlm_jax.analysis.authorship import (
    Material,
    clusters,
    cross_fit,
    cross_fit_grammar,
    decisions,
    editions,
    evidence,
    grammar,
)
from hlm_jax.analysis.authorship.conclusions import (
    FIRST,
    conclusions,
    largest,
    stretches,
)
from hlm_jax.analysis.authorship.masks import NAME
from hlm_jax.analysis.authorship.neural import masked_ratio, score_pairs
from hlm_jax.analysis.authorship.questions import (
    Texts,
    boundaries,
    budget_of,
    checked,
    controls_of,
    deal,
    divide,
    training_parts,
)
from hlm_jax.analysis.authorship.refits import Collection
from hlm_jax.analysis.authorship.study import study
from hlm_jax.analysis.authorship.unknown import verdicts
from hlm_jax.book.chapters import Chapter
from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "hongloumeng-120.txt"
COMMON = "的了不一我他你是道说人来去这那个有在上下里大小好看听见"


def written(seed: int, habit: str, chars: int = 700) -> str:
    """A text in which every fifth character, about, is one of `habit`."""
    rng = np.random.default_rng(seed)
    pool = COMMON * 4 + habit * (len(COMMON) // len(habit))
    text = "".join(rng.choice(list(pool), chars))
    return "，".join(text[i : i + 7] for i in range(0, len(text), 7)) + "。\n"


@pytest.fixture(scope="module")
def novel():
    """Twelve chapters of one hand and twelve of another, each with a heading."""
    hands = ["咧罢"] * 12 + ["呢吗"] * 12
    return [
        f"第{n}回 某事\n「某人道：{written(n, hand)}」\n" for n, hand in enumerate(hands, start=1)
    ]


@pytest.fixture(scope="module")
def texts(novel):
    chapters = tuple(Chapter(n, f"第{n}回", text) for n, text in enumerate(novel, 1))
    return Texts(chapters, np.arange(24) < 12, ("1-12", "13-24"), "某书", True)


@pytest.fixture(scope="module")
def scores(novel, texts):
    rows = np.arange(24)
    one = divide("1-12/13-24", rows, texts.is_a, 4)
    return cross_fit(Material(novel), one, detail=True)


@pytest.fixture
def novel_file(novel, tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(novel), encoding="utf-8")
    return path


# --- models of parts of a collection ---


@pytest.mark.parametrize("order", [1, 2, 5])
def test_models_of_parts_are_those_of_kneser_ney(novel, order):
    strings = [*novel[:6], "玉" * 30, "甲"]
    collection = Collection(strings, order)
    for parts in ({0: 10**9, 2: 300}, {1: 10**9, 6: 10**9, 3: 1}, {7: 1}):
        ours = collection.fit(parts)
        oracle = KneserNey([strings[k][:chars] for k, chars in sorted(parts.items())], order)
        for index, text in enumerate(strings):
            expected = -np.log2(oracle.probabilities(text))
            np.testing.assert_allclose(ours.bits(index), expected, rtol=1e-11, atol=1e-11)


# --- folds and sides ---


def test_every_fold_holds_out_texts_of_both_sides():
    is_a = np.array([True] * 7 + [False] * 5)
    for blocks in (False, True):
        fold = deal(is_a, 3, blocks=blocks)
        for k in range(3):
            assert is_a[fold == k].any()
            assert (~is_a[fold == k]).any()
    assert (np.diff(deal(is_a, 3, blocks=True)[:7]) >= 0).all(), "blocks are neighbours"


def test_both_sides_train_on_as_many_characters():
    lengths = np.array([100, 300, 200, 50, 400, 120, 80, 90])
    one = divide("", np.arange(8), np.arange(8) < 5, 3)
    budget = budget_of(one, lengths)
    for fold in range(3):
        for side in (True, False):
            rows = one.rows[(one.is_a == side) & (one.fold != fold)]
            parts = training_parts(rows, lengths, budget, fold)
            assert sum(parts.values()) == budget
            assert set(parts) <= set(rows.tolist())
            assert all(chars <= lengths[row] for row, chars in parts.items())


def test_the_longer_side_is_spread_over_the_book():
    lengths = np.full(80, 100)
    taken = sorted(training_parts(np.arange(80), lengths, 4000, 0))
    assert len(taken) == 40
    assert max(np.diff(taken)) <= 4


def test_sides_that_cannot_be_judged_are_refused(texts):
    few = dataclasses.replace(texts, is_a=np.arange(24) < 1)
    with pytest.raises(UserError, match="side a has 1 text"):
        checked(few)
    with pytest.raises(UserError, match="side b has 4 texts, so give 2 to 4"):
        deal(np.arange(24) < 20, 10)
    with pytest.raises(UserError, match="2 to 12"):
        deal(texts.is_a, 1)


def test_controls_by_their_names(texts):
    found = controls_of(texts, ["halves", "odd/even", "random", "1-3/20-24"], 10, draws=3)
    assert list(found) == ["1-6/7-12", "13-18/19-24", "odd/even", "random", "1-3/20-24"]
    assert found["1-6/7-12"][0].folds == 6, "no more folds than texts of a side"
    assert len(found["random"]) == 3
    halves = found["13-18/19-24"][0]
    assert halves.rows.tolist() == list(range(12, 24))
    assert halves.is_a.tolist() == [True] * 6 + [False] * 6
    assert found["1-3/20-24"][0].folds == 3
    assert controls_of(texts, [__file__], 10, draws=1) == {}, "another book: book_controls"
    for word in ("thirds", "1-3/3-6", "1/2-9", "1-3/30"):
        with pytest.raises(UserError, match="--controls"):
            controls_of(texts, [word], 10, draws=1)


def test_boundaries_with_as_many_texts_on_both_sides(texts):
    assert [number for number, _ in boundaries(texts, 3)] == [
        2,
        4,
        6,
        8,
        10,
        12,
        14,
        16,
        18,
        20,
        22,
    ]
    for number, one in boundaries(texts, 3, window=4):
        assert 4 <= number <= 20
        assert one.is_a.sum() == (~one.is_a).sum() == 4
        assert one.rows[one.is_a].max() == number - 1


# --- scores ---


def test_two_hands_are_told_apart_and_one_hand_is_not(scores, novel, texts):
    found = scores.figures()
    assert found["ngram"]["correct"] == 24
    assert found["ngram"]["auc"] == found["delta"]["auc"] == 1.0
    assert found["ngram"]["effect_low"] > 0.2
    same = divide("", np.arange(12), np.arange(12) % 2 == 0, 3)
    one_hand = cross_fit(Material(novel), same).figures()["ngram"]
    assert abs(one_hand["effect"]) < 0.1 * found["ngram"]["effect"]


def test_scores_are_those_of_models_fitted_without_the_text(scores, novel):
    one = scores.question
    place = 17
    sides = []
    for side in (True, False):
        rows = one.rows[(one.is_a == side) & (one.fold != one.fold[place])]
        lengths = np.array([len(text) for text in novel])
        parts = training_parts(rows, lengths, budget_of(one, lengths), int(one.fold[place]))
        model = KneserNey([novel[row][:chars] for row, chars in sorted(parts.items())])
        sides.append(model.bits(novel[place]))
    assert scores.bits_a[place] == pytest.approx(sides[0])
    assert scores.bits_b[place] == pytest.approx(sides[1])
    assert scores.ratio[place] == pytest.approx((sides[1] - sides[0]) / len(novel[place]))
    assert scores.detail[place].sum() == pytest.approx(sides[1] - sides[0])


def test_a_text_has_no_part_in_its_own_fold(novel, texts, scores):
    """What a held-out text says changes neither the models nor the Delta of its fold."""
    changed = [*novel[:4], novel[4].replace("的", "之"), *novel[5:]]
    again = cross_fit(Material(changed), scores.question)
    others = (scores.question.fold == scores.question.fold[4]) & (np.arange(24) != 4)
    np.testing.assert_allclose(again.ratio[others], scores.ratio[others])
    np.testing.assert_allclose(again.delta[others], scores.delta[others])
    elsewhere = scores.question.fold != scores.question.fold[4]
    assert (again.ratio[elsewhere] != scores.ratio[elsewhere]).any()


def test_grammar_keeps_function_characters_alone():
    assert (
        grammar.grammar_of("宝玉便笑道：「你的了。」")
        == f"{NAME}{NAME}便{NAME}{NAME}：「你的了。」"
    )
    bits = {"a": 4.0, "b": 9.0, "first": 5.0, "second": 7.0}
    lambda_a, lambda_b = grammar.lambdas(
        lambda rows: np.array([bits[rows[0]]]), ["a"], ["b"], [["first"], ["second"]]
    )
    assert (lambda_a[0], lambda_b[0]) == (6 - 4, 6 - 9)


def test_grammar_ratio_is_that_of_the_two_grammar_models(novel, texts):
    material = Material([grammar.grammar_of(text) for text in novel])
    one = divide("", np.arange(24), texts.is_a, 3)
    lambda_a, lambda_b = cross_fit_grammar(material, one, samples=2)
    np.testing.assert_allclose(lambda_a - lambda_b, cross_fit(material, one).ratio)
    assert decisions.auc(lambda_a, texts.is_a) == 1.0


# --- measures ---


def test_measures_by_hand():
    is_a = np.array([True, True, True, False, False])
    scores = np.array([3.0, 1.0, -1.0, 0.0, 1.0])
    assert decisions.auc(scores, is_a) == pytest.approx((2 + 1.5 + 0) / 6)
    variance = (2 * 4.0 + 1 * 0.5) / 3
    assert decisions.cohens_d(scores, is_a) == pytest.approx((1 - 0.5) / math.sqrt(variance))
    p = np.array([0.9, 0.55, 0.2, 0.3, 0.8])  # right, no answer, wrong, right, wrong
    assert decisions.c_at_1(p, is_a) == pytest.approx((2 + 1 * 2 / 5) / 5)
    assert decisions.f_05_u(p, is_a) == pytest.approx(1.25 / (1.25 + 0.25 * (1 + 1) + 1))
    assert decisions.brier(p, is_a) == pytest.approx((0.01 + 0.2025 + 0.64 + 0.09 + 0.64) / 5)


def test_permutation_p_counts_the_divisions():
    """Of the 20 ways to give three of six texts to A, one is as good as the true one: itself."""
    scores = np.array([5.0, 6, 7, 1, 2, 3])
    p = decisions.permutation_p(scores, np.arange(6) < 3, draws=4000)
    assert p == pytest.approx(1 / 20, abs=0.015)
    assert decisions.permutation_p(-scores, np.arange(6) < 3) == 1.0


def test_the_interval_of_the_effect_covers_it():
    rng = np.random.default_rng(0)
    is_a, covered = np.arange(60) < 40, 0
    for _ in range(60):
        scores = rng.normal(size=60) + 1.0 * is_a
        found = decisions.figures(scores, is_a, np.full(60, 0.5))
        covered += found["effect_low"] <= 1.0 <= found["effect_high"]
    assert 51 <= covered <= 60


def test_the_logistic_maximises_its_penalised_likelihood():
    rng = np.random.default_rng(1)
    is_a = np.arange(50) < 30
    x = rng.normal(size=(50, 2)) + is_a[:, None] * [1.0, 0.3]
    fitted = decisions.Logistic.fit(x, is_a)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    weight = np.where(is_a, 0.5 / 30, 0.5 / 20) * 50

    def loss(weights, bias):
        p = 1 / (1 + np.exp(-(x @ weights + bias)))
        likelihood = np.log(np.where(is_a, p, 1 - p)) @ weight
        return -likelihood + 0.5 * ((weights * spread) ** 2).sum()

    at = loss(fitted.weights, fitted.bias)
    shift = fitted.bias + fitted.weights @ mean  # the bias of the standardised scores
    assert abs(shift) < 5
    for step in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        changed = fitted.weights + np.array(step) / spread
        assert loss(changed, fitted.bias - np.array(step) / spread @ mean) > at
    assert loss(fitted.weights, fitted.bias + 0.01) > at
    assert loss(fitted.weights, fitted.bias - 0.01) > at


def test_probabilities_come_from_the_other_folds():
    is_a, fold = np.arange(8) % 2 == 0, np.arange(8) // 2
    scores = np.where(is_a, 1.0, -1.0)
    before = decisions.calibrated(scores, is_a, fold)
    assert ((before > 0.5) == is_a).all()
    scores[:2] = -9.0, 9.0  # fold 0, absurd
    after = decisions.calibrated(scores, is_a, fold)
    expected = decisions.Logistic.fit(scores[2:], is_a[2:])(scores[:2])
    np.testing.assert_allclose(after[:2], expected)


# --- editions ---


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("「」", "“”", "quotation marks 「」"),
        ("说", "說", "说 for 說"),
        ("「」", "", "quotation marks"),
        ("，", "、", "，"),
    ],
)
def test_two_editions_are_refused(novel, texts, old, new, named):
    strings = [text * 3 + "「" * 20 + "」" * 20 for text in novel]
    assert editions.edition_differences(strings, texts.is_a) == []
    table = {ord(c): new[k] if new else None for k, c in enumerate(old)}
    mixed = [text.translate(table) if k >= 12 else text for k, text in enumerate(strings)]
    found = editions.edition_differences(mixed, texts.is_a)
    assert named in " ".join(map(str, found))
    with pytest.raises(UserError, match="two editions"):
        editions.refuse(found)


def test_punctuation_that_drifts_is_no_other_edition():
    """A rate that rises through the book differs between its halves, and so it does inside them."""
    rng = np.random.default_rng(0)
    rising = ["话" * 2000 + "；" * int(k + rng.integers(6)) for k in range(40)]
    first = np.arange(40) < 20
    assert editions.edition_differences(rising, first) == []
    jump = ["话" * 2000 + "；" * int(30 * (k >= 20) + rng.integers(6)) for k in range(40)]
    assert [d.trait for d in editions.edition_differences(jump, first)] == ["；"]


# --- without labels, evidence, unknown texts ---


def test_adjusted_rand_by_hand():
    first = np.array([True, True, True, False, False, False])
    assert clusters.adjusted_rand(first, ~first) == 1.0
    second = np.array([True, True, False, False, False, False])
    # 4 of 15 pairs are together in both; 6 and 7 in each: expected 6 * 7 / 15.
    assert clusters.adjusted_rand(first, second) == pytest.approx((4 - 2.8) / (6.5 - 2.8))


def test_groups_and_breaks_without_labels():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(30, 6))
    z[18:] += 3.0
    group = clusters.two_means(z)
    assert clusters.adjusted_rand(group, np.arange(30) < 18) == 1.0
    at, explained = clusters.best_break(z)
    assert at == 18
    left, right = z[:18], z[18:]
    within = ((left - left.mean(0)) ** 2).sum() + ((right - right.mean(0)) ** 2).sum()
    assert explained[18] == pytest.approx(1 - within / ((z - z.mean(0)) ** 2).sum())
    scores, shares = clusters.pca(z)
    assert scores[:, 0] @ scores[:, 1] == pytest.approx(0, abs=1e-9)
    assert shares[0] == pytest.approx((scores[:, 0] ** 2).sum() / ((z - z.mean(0)) ** 2).sum())


def test_pieces_sum_the_evidence():
    strings, detail = (
        ["甲乙甲", "乙甲乙丙", "甲乙\n"],
        [
            np.array([1.0, 2, 3]),
            np.array([-1.0, 4, -9, 50]),
            np.array([0.5, 0.5, 7]),
        ],
    )
    for_a, for_b = evidence.pieces(strings, detail, np.array([True, True, False]))
    assert [(piece.text, piece.bits, piece.texts) for piece in for_a] == [("甲", 8.5, 3)]
    assert [(piece.text, piece.bits) for piece in for_b] == [("乙", -7.5)], "丙 is in one text only"
    assert for_a[0].rate_a == pytest.approx(1e4 * (2 / 3 + 1 / 4) / 2)
    for_a, for_b = evidence.pieces(strings, detail, np.array([True, True, False]), size=2)
    assert [(piece.text, piece.bits) for piece in for_a] == [("乙甲", 5 + 3)]
    assert [(piece.text, piece.bits) for piece in for_b] == [("甲乙", 3 - 5 + 1)]
    highest, lowest = evidence.passages(detail, length=2, top=1)
    assert (highest[0].place, highest[0].start, highest[0].bits) == (1, 2, 41.0)
    assert (lowest[0].place, lowest[0].start, lowest[0].bits) == (1, 1, -5.0)


def test_characters_of_one_side_alone():
    strings = ["甲乙" * 30, "甲丁", "乙" * 30 + "丙" * 25, "丙" * 30]
    first, second = evidence.one_sided(strings, np.array([True, True, False, False]))
    assert (first, second) == ([("甲", 31, 2)], [("丙", 55, 2)])


def test_an_unknown_text_is_placed_or_left_open(novel, texts):
    unknown = [written(99, "呢吗", 2000), written(98, "咧罢呢吗", 2000), "之乎者也" * 400, novel[3]]
    one = divide("", np.arange(24), texts.is_a, 4)
    found = verdicts(
        cross_fit(Material([*novel, *unknown]), one, unknown=4, detail=True),
        ["b", "mixed", "strange", "known"],
        unknown,
        texts.names,
        novel,
    )
    assert found[0].probability < 0.1
    assert (
        found[0].words
        == f"more like 13-24: {1 - found[0].probability:.0%}, if one of the two wrote it"
    )
    assert abs(found[1].probability - 0.5) < abs(found[0].probability - 0.5)
    assert "unlike the texts of both sides" in found[2].words
    assert found[2].strangeness == 0.0
    assert "occurs in the texts of the sides" in found[3].words


def judged(effect, d=None, width=0.1):
    d = 5 * effect if d is None else d
    return {
        "correct": 9, "chapters": 10, "auc": 0.9, "effect": effect, "effect_low": effect - width,
        "effect_high": effect + width, "cohens_d": d, "cohens_d_low": d - 0.5,
        "cohens_d_high": d + 0.5,
    }  # fmt: skip


def said(summary):
    return " ".join(english for english, _ in conclusions(summary))


ASKED = {"a": "1-5", "b": "6-10", "ngram": judged(1.0), "controls": {}}
STRONG = "two bodies of text"


def test_the_conclusions_begin_with_what_cannot_be_concluded():
    for summary in (ASKED, ASKED | {"controls": {"1-2/3-5": {"ngram": judged(0.2)}}}):
        assert conclusions(summary)[0] == FIRST
    assert FIRST[0] == "It cannot be concluded from this who wrote either side."


def test_conclusions_follow_the_controls():
    assert "nothing can be concluded" in said(ASKED)
    assert "the sides are not told apart" in said(ASKED | {"ngram": judged(0.05)})
    random = {"draws": 5, "ngram": judged(0.99)}
    across = {"straddles": True, "ngram": judged(0.99)}
    for effect, words in (
        (0.9, "nothing about authors follows"),
        (0.6, "about half of the difference needs no second author"),
        (0.2, STRONG),
    ):
        controls = {"1-2/3-5": {"ngram": judged(effect)}, "random": random, "3-5/6-8": across}
        summary = ASKED | {"controls": controls}
        most = largest(summary, "ngram")
        assert (most.name, most.share()) == ("1-2/3-5", pytest.approx(effect))
        assert words in said(summary)
        assert (STRONG in said(summary)) == (effect == 0.2)
        assert "not drift" not in said(summary)


def test_the_largest_stretch_counts_whichever_controls_were_drawn():
    points = [
        {"after": 2, "own": False, "one_side": True} | judged(0.84, 2.0),
        {"after": 4, "own": False, "one_side": False} | judged(2.0),
        {"after": 5, "own": True, "one_side": False} | judged(0.9),
    ]
    curves = {"boundary_local": points, "boundary_window": 2}
    small = ASKED | curves | {"controls": {"1-2/3-5": {"ngram": judged(0.2)}}}
    most = largest(small, "ngram")
    assert (most.name, most.window, most.share()) == ("2", 2, pytest.approx(0.84 / 0.9))
    assert {one.name for one in stretches(small, "ngram")} == {"1-2/3-5", "2"}
    words = said(small)
    assert "the boundary after chapter 2 (2 chapters on each side)" in words
    assert "0.840 [0.740, 0.940] against 0.900 [0.800, 1.000]" in words
    assert "intervals overlap" in words
    assert "The scales do not agree" in words, "d of that stretch is 2.0 of 4.5"
    assert STRONG not in words


def test_intervals_that_overlap_allow_no_strong_words():
    wide = {"1-2/3-5": {"ngram": judged(0.4, 1.0, width=0.55)}}
    words = said(ASKED | {"controls": wide})
    assert "cannot be told apart in size" in words
    assert STRONG not in words


def test_gpt_models_do_not_hide_a_control_that_they_lack():
    controls = {
        "1-2/3-5": {"ngram": judged(0.2), "both": judged(0.2)},
        "other": {"ngram": judged(0.9)},
    }
    words = said(ASKED | {"both": judged(1.0), "controls": controls})
    assert "the control other" in words
    assert STRONG not in words


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"median_chars": 400}, "WARNING: the texts are short"),
        ({"texts_a": 80, "texts_b": 5}, "WARNING: the smaller side has 5 texts"),
        ({"lambdag": judged(0.05) | {"auc": 0.52}}, "The methods disagree"),
    ],
)
def test_worthless_input_gets_no_confident_words(more, words):
    summary = ASKED | {"controls": {"1-2/3-5": {"ngram": judged(0.1)}}}
    assert STRONG in said(summary)
    assert words in said(summary | more)
    assert STRONG not in said(summary | more)
    assert "nothing about authors follows" in said(summary | more)


def test_every_conclusion_has_its_chinese():
    summary = ASKED | {"controls": {"1-2/3-5": {"ngram": judged(0.5)}}, "texts_b": 30}
    for english, chinese in conclusions(summary):
        assert english.isascii()
        assert any("一" <= c <= "鿿" for c in chinese)
        assert "推移" not in chinese
        assert "篇" not in chinese


def test_few_chapters_of_one_file_are_no_two_editions():
    rng = np.random.default_rng(0)
    strings = [
        written(k, "咧罢", 900).strip() + "！" * int(40 * (k >= 20) + rng.integers(3))
        for k in range(25)
    ]
    chapters = tuple(Chapter(n, f"第{n}回", text + "\n") for n, text in enumerate(strings, 1))
    few = Texts(chapters, np.arange(25) < 20, ("1-20", "21-25"), "某书", True)
    assert editions.edition_differences(few.strings, few.is_a)
    lines = []
    found = study(few, folds=2, control_words=["halves"], draws=1, say=lines.append)
    assert any("cannot be judged" in line for line in lines)
    assert found.summary["editions_unsure"]
    with pytest.raises(UserError, match="two editions"):
        study(dataclasses.replace(few, in_order=False), folds=2, control_words=[])


def test_what_both_sides_have_comes_first():
    strings = ["甲乙" * 3, "甲乙", "乙" * 3, "乙丙" * 2]
    detail = [np.ones(len(text)) for text in strings]
    for_a, _ = evidence.pieces(strings, detail, np.array([True, True, False, False]), top=2)
    assert [(piece.text, piece.alone) for piece in for_a] == [("乙", False), ("甲", True)]


def test_chapters_that_were_supplied_are_known_in_every_text_of_the_novel():
    from hlm_jax.analysis.authorship.questions import _is_the_novel
    from hlm_jax.book.corpus import Corpus

    chapters = [Chapter(n, "", "五美吟" if n == 64 else "话") for n in range(1, 121)]
    assert _is_the_novel(Corpus("text", tuple(chapters), {}))
    assert not _is_the_novel(Corpus("text", tuple(chapters[:70]), {}))
    assert not _is_the_novel(Corpus("text", tuple(chapters[:63] + chapters[64:]), {}))


# --- GPT models ---


def test_gpt_ratio_of_one_run_with_itself_is_nothing(trained, novel):
    from hlm_jax.run import load_run

    workdir, _ = trained
    strings = [text[:120] for text in novel[:4]]
    one = divide("", np.arange(4), np.arange(4) < 2, 2)
    found = score_pairs(one, strings, [(workdir, workdir)] * 2, unknown=[strings[0]])
    np.testing.assert_allclose(found.ratio, 0.0, atol=1e-12)
    expected = load_run(workdir, "latest").score(strings)
    per_char = [score.bits_per_char for score in expected]
    np.testing.assert_allclose(found.bits_a / found.chars, per_char, rtol=1e-5)
    assert found.unknown_a[0] == pytest.approx(found.bits_a[0], rel=1e-6)


def test_masked_ratio_sums_what_is_left(scores, novel):
    expected = [
        costs[[c not in "，。「」：\n " for c in text]].mean()
        for text, costs in zip(novel, scores.detail, strict=True)
    ]
    found = masked_ratio(scores, novel, ["punctuation"], ())
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(masked_ratio(scores, novel, (), ()), scores.ratio)


# --- the command ---


def run(script, out, *words):
    return script("authorship", *words, "--out", out)


def test_the_command_writes_its_three_files(script, novel_file, tmp_path):
    unknown = tmp_path / "unknown.txt"
    unknown.write_text(written(77, "咧罢", 1500), encoding="utf-8")
    out = tmp_path / "out"
    words = ("--text", novel_file, "--a", "1-12", "--b", "13-24", "--folds", 3, "--random", 2)
    controls = ("--controls", "halves", "random", novel_file)
    done = run(script, out, *words, "--unknown", unknown, "--mask", "headings", *controls)
    assert done.returncode == 0, done.stderr
    assert "24 of 24 held-out texts" in done.stdout
    assert "more like 1-12" in done.stdout
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    keys = {"accuracy", "correct", "chapters", "auc", "effect", "effect_low", "effect_high"}
    keys |= {"permutation_p", "c_at_1", "f_05_u", "brier", "cohens_d"}
    for kind in ("ngram", "delta", "lambdag"):
        assert keys <= set(summary[kind])
        assert keys <= set(summary["controls"]["1-6/7-12"][kind])
    assert list(summary["masks"]) == ["none", "names", "punctuation", "verse", "headings", "all"]
    assert summary["boundary_local_maximum"]["effect"] == 12
    assert summary["controls"]["random"]["draws"] == 2
    other = summary["controls"]["book 1-12/13-24"]
    assert other["lambdag"]["effect"] == pytest.approx(summary["lambdag"]["effect"], rel=0.1)
    rows = list(csv.DictReader((out / "authorship.csv").open(encoding="utf-8")))
    assert ",".join(rows[0]).startswith(
        "chapter,side,fold,chars,bits_a,bits_b,llr_bits_per_char,ngram_llr,delta_a,delta_b,"
    )
    assert list(rows[0])[-1] == "flags"
    assert [row["side"] for row in rows] == ["a"] * 12 + ["b"] * 12
    assert float(rows[0]["ngram_llr"]) > 0 > float(rows[-1]["ngram_llr"])
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert html.index("It cannot be concluded from this who wrote") < html.index(
        "24 of 24 held-out"
    )
    cited = summary["provenance"]
    assert cited["sources"][0]["file"] == "book.txt"
    assert cited["sources"][0]["sha256"] in html
    assert cited["hlm_jax"] in html
    assert cited["arguments"]["mask"] == "headings"
    assert [p["after"] for p in summary["boundary_local"] if p["own"]] == [12]
    assert all("lambdag" in point for point in summary["boundary_local"])
    assert done.stdout.startswith(FIRST[0])
    assert "WARNING: the texts are short" in done.stderr
    assert "nothing about authors follows" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--a", "1-12", "--b", "13"), "side b has 1 text"),
        (("--a", "1-12", "--b", "13-16", "--folds", "10"), "side b has 4 texts, so give 2 to 4"),
        (("--a", "1-12", "--b", "12-24"), "chapter 12 stands in --a and in --b"),
        (("--a", "1-12", "--b", "13-99"), "the book has no chapter 25-99"),
        (("--a", "1-12", "--b", "elsewhere"), "no such file or folder"),
        (("--a", "1-12", "--b", "13-24", "--mask", "rhymes"), "there is no mask 'rhymes'"),
        (("--a", "1-12", "--b", "13-24", "--controls", "thirds"), "--controls thirds"),
        (("--a", "1-12", "--b", "13-24", "--models", "bert"), "use ngram or ngram,gpt"),
        (("--a", "1-12", "--b", "13-24", "--unknown", "missing.txt"), "missing.txt"),
    ],
)
def test_what_cannot_be_answered_is_refused(script, novel_file, tmp_path, words, message):
    done = run(script, tmp_path / "out", "--text", novel_file, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error" in line]) == 1
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_book_of_four_short_chapters(script, novel, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("".join(novel[k][:90] + "\n" for k in (0, 1, 12, 13)), encoding="utf-8")
    heading = "--config.corpus.heading=第.*回 某事"
    words = ("--text", path, "--a", "1-2", "--b", "3-4", "--folds", "2", heading)
    done = run(script, tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_two_folders_of_texts(script, novel, tmp_path):
    for name, part in (("first", novel[:12]), ("second", novel[12:])):
        (tmp_path / name).mkdir()
        for k, text in enumerate(part):
            changed = text.replace("「", "“").replace("」", "”") if name == "second" else text
            (tmp_path / name / f"{k:02d}.txt").write_text(changed * 2, encoding="utf-8")
    words = ("--a", tmp_path / "first", "--b", tmp_path / "second", "--folds", "3")
    few = ("--controls", "halves")
    done = run(script, tmp_path / "out", *words, *few)
    assert done.returncode == 2
    assert "two editions (quotation marks" in done.stderr
    done = run(script, tmp_path / "out", *words, *few, "--allow_editions", "--mask", "punctuation")
    assert done.returncode == 0, done.stderr
    assert "look like two editions" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert "boundary" not in summary, "texts of folders have no order"
    assert summary["a"] == "first"


def test_counting_loads_no_jax(command, novel_file, tmp_path):
    code = (
        "import sys, runpy; sys.argv = ['authorship.py', *sys.argv[1:]]\n"
        "runpy.run_path('scripts/authorship.py', run_name='__main__')\n"
        "print([m for m in ('jax', 'flax', 'scipy') if m in sys.modules])"
    )
    words = (
        "--text",
        novel_file,
        "--a",
        "1-12",
        "--b",
        "13-24",
        "--folds",
        "2",
        "--controls",
        "halves",
    )
    done = command("-c", code, *words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("mask", [False, True])
def test_gpt_models_are_trained_and_mixed(script, novel_file, tiny, tmp_path, mask):
    size = [w for w in tiny if ".corpus." not in w and "held_out" not in w]
    words = (
        "--text",
        novel_file,
        "--a",
        "1-12",
        "--b",
        "13-24",
        "--folds",
        "3",
        "--controls",
        "halves",
    )
    gpt = ("--models", "ngram,gpt", "--gpt_folds", "2", "--gpt_controls", "0")
    masked = ("--mask", "headings") if mask else ()
    done = run(script, tmp_path / "out", *words, *gpt, *masked, *size)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert {"gpt", "both", "gpt_masks"} <= set(summary)
    rows = list(csv.DictReader((tmp_path / "out" / "authorship.csv").open(encoding="utf-8")))
    mean = (float(rows[0]["llr_bits_per_char"]) + float(rows[0]["ngram_llr"])) / 2
    assert float(rows[0]["both_llr"]) == pytest.approx(mean, abs=1e-5)


def test_chapters_that_the_default_edition_lacks(monkeypatch):
    from hlm_jax.analysis.authorship import questions
    from hlm_jax.book.corpus import Corpus

    chapters = tuple(Chapter(n, "", "话\n") for n in range(1, 81))
    book = Corpus(questions.EDITION, chapters, {"sha256": ""})
    monkeypatch.setattr(questions, "read_book", lambda *words: book)
    words = "no --text was given, and the default edition ends with chapter 80"
    with pytest.raises(UserError, match=words):
        questions.read_sides("configs/tiny.py", [], None, "1-80", "81-120")


@pytest.mark.skipif(not DATA.exists(), reason="needs the 120-chapter text of shared/")
def test_the_novel_of_120_chapters():
    from hlm_jax.analysis.authorship.questions import read_sides

    with pytest.warns(UserWarning, match="without a glyph"):
        texts = read_sides("configs/tiny.py", [], str(DATA), "1-80", "81-120")
    assert editions.edition_differences(texts.strings, texts.is_a) == []
    material = Material(texts.strings)
    found = cross_fit(material, divide("", np.arange(120), texts.is_a, 10)).figures()["ngram"]
    assert found["correct"] >= 117
    control = divide("", np.arange(80), np.arange(80) < 40, 10)
    drift = cross_fit(material, control).figures()["ngram"]
    assert drift["auc"] > 0.95, "one author's halves are told apart nearly as well"
    assert drift["effect"] < 0.55 * found["effect"]
