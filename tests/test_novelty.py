import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlm_jax.book.corpus import Chapter, split_chapters
from hlm_jax.measures.overlap import (
    ORDERS,
    SPAN,
    Marker,
    TrainingText,
    describe,
    mark,
    suffix_array,
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
def test_matches_are_the_longest_prefixes_in_the_book(chapters, text):
    book = TrainingText(Chapter(i, "", chapter) for i, chapter in enumerate(chapters, start=1))
    lengths, places = book.matches(text)
    for i in range(len(text)):
        longest = max(
            n
            for n in range(len(text) - i + 1)
            if n == 0 or any(text[i : i + n] in chapter for chapter in chapters)
        )
        assert lengths[i] == longest
        if longest:
            assert text[i : i + longest] in chapters[book.chapter_of(places[i]) - 1]


@pytest.fixture(scope="module")
def splits(edition):
    return split_chapters(edition.chapters, held_out=True)


@pytest.fixture(scope="module")
def book(splits):
    return TrainingText(splits["train"])


def test_measures_of_a_text_made_by_hand(book, splits):
    chapter = splits["train"][20]
    copied, own = chapter.text[1000:1040], "龘" * 30
    found = book.measure(own + copied + own)
    assert [(s.start, s.end, s.chapter) for s in found.spans] == [(30, 70, chapter.number)]
    assert found.copied_share == 0.4
    assert found.seen[10] == (31, 91)
    assert found.seen[2] == (39, 99)
    assert found.longest_lengths().tolist() == [40]
    assert mark(own + copied + own, book) == f"{own}⟦{copied}⟧{own}"
    assert "copied spans of 15+ 40.0% of the characters" in describe(found, found)
    assert f"longest 40 (chapter {chapter.number})" in describe(found, found)


def test_spans_that_overlap_are_counted_once(book, splits):
    a, b = splits["train"][3].text, splits["train"][40].text
    text = a[500:530] + b[700:725]
    found = book.measure(text)
    assert found.copied_share == 1.0
    covered = [i for s in found.spans for i in range(s.start, s.end)]
    assert covered == sorted(set(covered)) == list(range(55))


@pytest.mark.parametrize("piece", [1, 2, 7, 40])
def test_a_text_that_arrives_in_pieces_is_marked_like_a_whole_one(book, splits, piece):
    a, b = splits["train"][3].text, splits["train"][40].text
    text = (
        a[500:530] + "龘" + b[700:725] + b[900:910] + "他笑道：“" + a[40:80] + "龘" + b[2000:2020]
    )
    marker = Marker(book)
    parts = [marker.feed(text[i : i + piece]) for i in range(0, len(text), piece)]
    whole = "".join(parts) + marker.flush()
    assert whole == mark(text, book)
    assert whole.replace("⟦", "").replace("⟧", "") == text
    assert whole.count("⟦") == whole.count("⟧") == 4
    marked = sum(len(part.split("⟧")[0]) for part in whole.split("⟦")[1:])
    assert marked == round(book.measure(text).copied_share * len(text))
    if piece == 1:  # nothing that is not part of a running match waits
        assert parts[30] == "⟧龘"
        assert parts[20]


def test_training_text_is_all_copied_and_an_unknown_script_not_at_all(book, splits):
    own = book.measure(splits["train"][7].text[:1200])
    assert own.copied_share == 1.0
    assert all(own.seen_share(n) == 1.0 for n in ORDERS)
    foreign = book.measure("lorem ipsum " * 3)
    assert foreign.copied_share == 0.0
    assert foreign.seen_share(2) == 0.0
    assert "no character of it is in the book" in describe(book.measure("龘"), own)
    assert "held-out" in describe(foreign, own)
    assert "held-out" not in describe(foreign, None)
    assert np.isnan(book.measure("宝").seen_share(2))


def test_the_human_row(book, splits):
    """Real chapters that the training text lacks share ever fewer n-grams with it, and hardly a span of fifteen characters."""
    human = sum(
        (book.measure(c.text) for c in splits["val"][1:]), book.measure(splits["val"][0].text)
    )
    shares = [human.seen_share(n) for n in ORDERS]
    assert shares == sorted(shares, reverse=True)
    assert human.seen_share(2) == pytest.approx(0.84, abs=0.02)
    assert human.seen_share(5) == pytest.approx(0.12, abs=0.02)
    assert human.copied_share < 0.01
    assert np.percentile(human.longest_lengths(), 90) < SPAN
    assert human.chars == sum(len(c.text) for c in splits["val"])
