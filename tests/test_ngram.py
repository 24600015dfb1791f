import itertools
import math

import numpy as np
import pytest

from hlm_jax.book.corpus import split_chapters
from hlm_jax.measures.ngram import KneserNey, Learner


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_over_all_of_unicode_sum_to_one(order):
    texts = ["宝玉笑道：好。宝玉道：好。", "黛玉笑道：不好。"]
    model = KneserNey(texts, order)
    seen = {char for text in texts for char in text}
    n_unseen = 0x110000 - 0x800 - len(seen)
    for context in ("", "宝", "宝玉", "宝玉笑", "玉道：", "龘宝"):
        total = sum(model.probabilities(context + char)[-1] for char in seen)
        total += model.probabilities(context + "龘")[-1] * n_unseen
        assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("alphabet_size", [9, 40])
def test_probabilities_over_a_vocabulary_of_token_ids_sum_to_one(alphabet_size):
    texts = [[3, 1, 4, 1, 5, 2, 6, 5, 3, 5], [8, 0, 7, 3, 1, 4]]
    model = KneserNey(texts, 3, alphabet_size=alphabet_size)
    for context in ([], [3], [3, 1], [6, 6]):
        total = sum(model.probabilities([*context, token])[-1] for token in range(alphabet_size))
        assert total == pytest.approx(1.0, abs=1e-12)


def brute_force(texts, order, text):
    """Interpolated Kneser-Ney with the fixed discounts of a tiny text, from dictionaries."""
    pad = "\0" * (order - 1)
    grams = [set() for _ in range(order + 2)]
    counts = {}
    for t in texts:
        t = pad + t
        for i in range(order - 1, len(t)):
            for n in range(1, order + 1):
                gram = t[i - n + 1 : i + 1]
                grams[n].add(gram)
                if n == order:
                    counts[gram] = counts.get(gram, 0) + 1
    for n in range(1, order):
        for gram in grams[n + 1]:
            counts[gram[1:]] = counts.get(gram[1:], 0) + 1
    vocabulary = {c for t in texts for c in t}

    def p(char, context):
        lower = p(char, context[1:]) if context else 1 / (len(vocabulary) + 1)
        same = {
            g: c
            for g, c in counts.items()
            if len(g) == len(context) + 1 and g[:-1] == context and c
        }
        if not same:
            return lower
        total = sum(same.values())
        discount = lambda c: {1: 0.5, 2: 1.0}.get(c, 1.5)  # noqa: E731
        own = same.get(context + char, 0)
        return (own - (discount(own) if own else 0)) / total + sum(
            map(discount, same.values())
        ) / total * lower

    text = pad + text
    return [p(text[i], text[i - order + 1 : i]) for i in range(order - 1, len(text))]


def test_equals_a_plain_implementation():
    texts, order = ["宝玉笑道好宝玉道好宝玉", "黛玉笑道"], 3
    probabilities = KneserNey(texts, order).probabilities("黛玉道好宝")
    expected = brute_force(texts, order, "黛玉道好宝")
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)


def test_bits_count_every_character():
    model = KneserNey(["宝玉笑道：好。"], 2)
    assert model.bits("宝玉龘") == pytest.approx(-np.log2(model.probabilities("宝玉龘")).sum())
    assert model.bits_per_char(["宝玉", "玉"]) == pytest.approx(
        (model.bits("宝玉") + model.bits("玉")) / 3
    )
    assert model.bits("龘") > math.log2(1e6)


def test_the_baseline_of_the_edition(edition):
    splits = split_chapters(edition.chapters, held_out=True)
    model = KneserNey([c.text for c in splits["train"]])
    assert model.bits_per_char([c.text for c in splits["val"]]) == pytest.approx(6.0434, abs=0.0001)
    assert model.bits_per_char([c.text for c in splits["test"]]) == pytest.approx(
        6.2126, abs=0.0001
    )
    # The baseline has order 5 because longer contexts no longer help.
    longer = KneserNey([c.text for c in splits["train"]], 6).bits_per_char(
        [c.text for c in splits["val"]]
    )
    assert longer > 6.0434


def test_order_must_be_positive():
    with pytest.raises(ValueError, match="order"):
        KneserNey(["宝玉"], 0)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_a_model_that_goes_on_counting_equals_one_fitted_anew_before_every_symbol(
    order, monkeypatch
):
    """With fixed discounts of its own for every order, and symbols that training does not have."""
    fixed = itertools.cycle(np.array([0, 0.5, 1, 1.5]) / n for n in range(1, order + 1))
    monkeypatch.setattr("hlm_jax.measures.ngram.discounts_of", lambda _: next(fixed))
    training = ["宝玉笑道好宝玉道好宝玉", "黛玉笑道"]
    texts = ["黛玉道龘龘宝玉道龘", "宝玉笑道好龘黛玉道龘龘"]
    learner, read = Learner(KneserNey(training, order)), list[str]()
    for text in texts:
        probabilities = learner.read(text)
        for i in range(len(text)):
            so_far = [*training, *read, *([text[:i]] if i else [])]
            fitted = KneserNey(so_far, order)
            expected = fitted.probabilities(text[: i + 1])[-1]
            assert probabilities[i] == pytest.approx(expected, rel=1e-12)
        read.append(text)
    assert len(learner.read("")) == 0


@pytest.mark.parametrize("counts", [True, False])
def test_distributions_have_the_probabilities_of_all_symbols(counts):
    model = KneserNey([[3, 1, 4, 1, 5, 2, 6, 5, 3, 5], [8, 0, 7, 3, 1, 4]], 3, alphabet_size=12)
    texts = [[5, 9, 3, 1, 4, 1, 10, 9, 3, 1], [3, 1, 11, 5, 9, 10]]
    reader, other = Learner(model, counts=counts), Learner(model, counts=counts)
    part = Learner(model, counts=counts)
    for text in texts:
        found = list(reader.distributions(text, range(12)))
        rows = np.stack([row for _, row in found])
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)
        own = rows[np.arange(len(text)), text]
        np.testing.assert_allclose(own, other.read(text), rtol=1e-12)
        np.testing.assert_allclose(own, [p for p, _ in found], rtol=1e-12)
        some = np.stack([row for _, row in part.distributions(text, [9, 3])])
        np.testing.assert_array_equal(some, rows[:, [9, 3]])
        if not counts:
            np.testing.assert_allclose(own, model.probabilities(text), rtol=1e-12)
    assert (own[-2] > 2 * model.probabilities(text)[-2]) == counts


def test_a_model_that_goes_on_counting_costs_less(edition):
    """The static model has 6.0434 on the same chapters."""
    splits = split_chapters(edition.chapters, held_out=True)
    training, texts = ([c.text for c in splits[name]] for name in ("train", "val"))
    model = KneserNey(training)
    learner = Learner(model)
    bits = sum(float(-np.log2(learner.read(text)).sum()) for text in texts)
    assert bits / sum(map(len, texts)) == pytest.approx(5.9084, abs=0.0001)
