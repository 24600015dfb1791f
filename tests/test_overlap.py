import bisect
import itertools
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlm_jax.book.corpus import Chapter, split_chapters
from hlm_jax.measures.overlap import (
    ORDERS,
    SPAN,
    Marker,
    OverlapIndex,
    describe,
    mark,
    suffix_array,
    table,
)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="宝玉黛\n\0", min_size=1, max_size=40))
def test_the_suffix_array_sorts_all_suffixes(text):
    assert suffix_array(text).tolist() == sorted(range(len(text)), key=lambda i: text[i:])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(alphabet="宝玉黛笑", min_size=1, max_size=60), min_size=1, max_size=4),
    st.text(alphabet="宝玉黛笑钗\0", max_size=60),
)
def test_matches_are_the_longest_prefixes_that_occur_in_the_book(chapters, text):
    index = OverlapIndex(Chapter(i, "", chapter) for i, chapter in enumerate(chapters, start=1))
    lengths, places = index.matches(text)
    for i in range(len(text)):
        longest = max(
            n
            for n in range(len(text) - i + 1)
            if n == 0 or any(text[i : i + n] in chapter for chapter in chapters)
        )
        assert lengths[i] == longest
        if longest:
            assert text[i : i + longest] in chapters[index.chapter_of(places[i]) - 1]


def common(a, b):
    """Length of the common prefix."""
    return sum(itertools.takewhile(bool, (x == y for x, y in zip(a, b, strict=False))))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(alphabet="ab", max_size=40), min_size=1, max_size=4),
    st.text(alphabet="abc\0", max_size=80),
)
def test_the_place_is_that_of_a_neighbour_in_the_order_of_suffixes(chapters, text):
    index = OverlapIndex(Chapter(i, "", chapter) for i, chapter in enumerate(chapters, start=1))
    book = "\0" + "".join(chapter + "\0" for chapter in chapters)
    lengths, places = index.matches(text)
    suffixes = sorted((book[start:], start) for start in range(len(book)))
    for i in range(len(text)):
        rest = text[i:].split("\0")[0]
        rank = bisect.bisect_left(suffixes, (rest, 0))
        # Of two that share as much, max takes the first: the one before.
        neighbours = [
            (common(rest, s), start) for s, start in suffixes[max(0, rank - 1) : rank + 1]
        ]
        longest, place = max(neighbours, key=lambda pair: pair[0])
        assert (lengths[i], places[i]) == (longest, place if longest else 0)


@pytest.mark.parametrize(
    "book",
    ["甲" * 20_000, "甲乙" * 10_000, "".join(random.Random(1).choices("甲乙丙丁", k=20_000))],
    ids=["one character", "two characters", "random"],
)
def test_the_time_of_a_search_does_not_grow_with_what_is_copied(book):
    """0.1 s; a search that compares each match anew takes 10 s and more."""
    index = OverlapIndex([Chapter(1, "", book)])
    started = time.process_time()
    lengths, _ = index.matches(book + "龘" + book)
    assert time.process_time() - started < 2
    down = list(range(len(book), 0, -1))
    assert lengths.tolist() == [*down, 0, *down]


@pytest.fixture(scope="module")
def splits(edition):
    return split_chapters(edition.chapters, held_out=True)


@pytest.fixture(scope="module")
def index(splits):
    return OverlapIndex(splits["train"])


def test_measures_of_a_text_made_by_hand(index, splits):
    chapter = splits["train"][20]
    copied, own = chapter.text[1000:1040], "龘" * 30
    overlap = index.measure(own + copied + own)
    assert [(s.start, s.end, s.chapter) for s in overlap.spans] == [(30, 70, chapter.number)]
    assert overlap.copied_fraction == 0.4
    assert overlap.seen[10] == (31, 91)
    assert overlap.seen[2] == (39, 99)
    assert overlap.longest_lengths().tolist() == [40]
    assert mark(own + copied + own, index) == f"{own}⟦{copied}⟧{own}"
    assert "copied spans of 15+ 40.0% of the characters" in describe(overlap, overlap)
    assert f"longest 40 (chapter {chapter.number})" in describe(overlap, overlap)


def test_spans_that_overlap_are_counted_once(index, splits):
    a, b = splits["train"][3].text, splits["train"][40].text
    text = a[500:530] + b[700:725]
    overlap = index.measure(text)
    assert overlap.copied_fraction == 1.0
    covered = [i for s in overlap.spans for i in range(s.start, s.end)]
    assert covered == sorted(set(covered)) == list(range(55))


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_a_text_that_arrives_in_parts_is_marked_like_a_whole_one(index, splits, size):
    a, b = splits["train"][3].text, splits["train"][40].text
    text = (
        a[500:530] + "龘" + b[700:725] + b[900:910] + "他笑道：“" + a[40:80] + "龘" + b[2000:2020]
    )
    marker = Marker(index)
    parts = [marker.feed(text[i : i + size]) for i in range(0, len(text), size)]
    whole = "".join(parts) + marker.flush()
    assert whole == mark(text, index)
    assert whole.replace("⟦", "").replace("⟧", "") == text
    assert whole.count("⟦") == whole.count("⟧") == 4
    marked = sum(len(part.split("⟧")[0]) for part in whole.split("⟦")[1:])
    assert marked == round(index.measure(text).copied_fraction * len(text))
    if size == 1:  # nothing that is not part of a running match waits
        assert parts[30] == "⟧龘"
        assert parts[20]


def test_training_text_is_all_copied_and_an_unknown_script_not_at_all(index, splits):
    own = index.measure(splits["train"][7].text[:1200])
    assert own.copied_fraction == 1.0
    assert all(own.seen_fraction(n) == 1.0 for n in ORDERS)
    foreign = index.measure("lorem ipsum " * 3)
    assert foreign.copied_fraction == 0.0
    assert foreign.seen_fraction(2) == 0.0
    assert "no character of it is in the book" in describe(index.measure("龘"), own)
    assert "held-out" in describe(foreign, own)
    assert "held-out" not in describe(foreign, None)
    assert np.isnan(index.measure("宝").seen_fraction(2))


def test_real_chapters_are_hardly_copied(index, splits):
    """Held-out chapters share few long n-grams with the others, and hardly a span of fifteen."""
    human = sum(
        (index.measure(c.text) for c in splits["val"][1:]), index.measure(splits["val"][0].text)
    )
    fractions = [human.seen_fraction(n) for n in ORDERS]
    assert fractions == sorted(fractions, reverse=True)
    assert human.seen_fraction(2) == pytest.approx(0.84, abs=0.02)
    assert human.seen_fraction(5) == pytest.approx(0.12, abs=0.02)
    assert human.copied_fraction < 0.01
    assert np.percentile(human.longest_lengths(), 90) < SPAN
    assert human.chars == sum(len(c.text) for c in splits["val"])


def test_a_text_too_short_for_a_figure_shows_none(index):
    short = index.measure("宝玉")
    assert "5-grams from the training text –" in describe(short, None)
    assert "nan" not in describe(short, None) + table({"short": short})
