import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlm_jax.book.corpus import Chapter, Corpus, split_chapters
from hlm_jax.errors import UserError
from hlm_jax.measures.leakage import (
    GRAM,
    LEAST,
    REFUSE_HELD,
    WARN_HELD,
    Copy,
    Held,
    Leakage,
    find_held_out,
    find_leakage,
    held_out_problems,
    problems,
    refuse,
    refuse_held_out,
)


def prose(seed, length):
    """Random Chinese characters with some punctuation: no 24-gram of two seeds is the same."""
    characters = [chr(code) for code in range(0x4E00, 0x5E00)] + list("，。") * 300
    return "".join(random.Random(seed).choices(characters, k=length))


def book(*texts, held_out=True):
    chapters = [Chapter(i, f"第{i}回", text) for i, text in enumerate(texts, start=1)]
    return split_chapters(chapters, held_out=held_out)


def novel(n):
    return [prose(seed, 400) for seed in range(n)]


def test_fractions_of_a_book_made_by_hand():
    shared, own = "".join(map(chr, range(0x4E00, 0x4E00 + 26))), "龘" * 10
    splits = {
        "train": [Chapter(1, "", shared + "甲乙丙丁"), Chapter(2, "", "甲" * 100)],
        # 26 + 10 characters have 13 24-grams; 3 lie within the 26.
        "val": [Chapter(3, "", shared + own)],
        # A chapter counts a 24-gram once; 23 characters have none.
        "test": [Chapter(4, "", "丑" * 50), Chapter(5, "", shared[:23])],
    }
    leakage = find_leakage(splits)
    assert leakage == Leakage(3 / 14, ((splits["val"][0], 3 / 13),), ())
    assert problems(leakage) == [
        "21.4% of the held-out text stands in training chapters too: chapter 3 23%"
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "val", "test"]),
            st.lists(st.sampled_from(["甲" * 9, "乙" * 9, "丙", "，\n", "x"]), max_size=20),
        ),
        max_size=6,
    )
)
def test_fractions_are_those_of_plain_sets(chapters):
    splits = {"train": [], "val": [], "test": []}
    for number, (split, parts) in enumerate(chapters, start=1):
        splits[split].append(Chapter(number, "", "".join(parts)))

    def grams(chapter):
        text = "".join(filter(str.isalnum, chapter.text))
        return {text[i : i + GRAM] for i in range(len(text) - GRAM + 1)}

    known = set().union(*map(grams, splits["train"]))
    held_out = [gram for c in splits["val"] + splits["test"] for gram in grams(c)]
    leakage = find_leakage(splits)
    assert leakage.fraction == sum(g in known for g in held_out) / max(1, len(held_out))
    book = list(itertools.chain(*splits.values()))
    for copy in leakage.copies:
        own, other = grams(copy.chapter), grams(copy.source)
        assert 0.5 <= copy.fraction <= len(own & other) / len(own)
    # Whatever repeats a chapter word for word is found, unless the text stands before both.
    for a, b in itertools.combinations(sorted(book, key=lambda c: c.number), 2):
        before = set().union(*(grams(c) for c in book if c.number < a.number))
        if grams(b) and grams(a) == grams(b) and not grams(a) & before:
            assert any(copy.chapter == b and copy.fraction == 1 for copy in leakage.copies)


def test_a_held_out_chapter_that_stands_in_training_is_named():
    texts = novel(20)
    texts[16] = texts[9]
    splits = book(*texts)
    leakage = find_leakage(splits)
    ten, seventeen = splits["val"][0], splits["train"][13]
    assert leakage.copies == (Copy(seventeen, ten, 1.0, ("train", "val")),)
    assert leakage.chapters == ((ten, 1.0),)
    assert leakage.fraction == pytest.approx(1 / 4, abs=0.02)
    held_out, copies = problems(leakage)
    assert re.fullmatch(r"2\d\.\d% of the held-out text .*: chapter 10 \(第10回\) 100%", held_out)
    assert copies == "chapter 17 (第17回) repeats chapter 10 (第10回), 100% of it"
    refuse(leakage)


def test_a_book_that_stands_twice_in_the_file_is_refused_with_the_range_to_remove():
    texts = novel(12)
    with pytest.raises(UserError) as error:
        refuse(find_leakage(book(*texts, *texts)))
    assert str(error.value) == (
        "100.0% of the held-out text stands in training chapters too: chapters 13 to 24 "
        "(第13回 to 第24回) repeat chapters 1 to 12 (第1回 to 第12回), 100% of each; "
        "remove chapters 13 to 24"
    )


def test_copies_are_found_without_held_out_chapters():
    texts = novel(12)
    leakage = find_leakage(book(*texts, *texts, held_out=False))
    assert leakage.fraction == 0.0
    assert leakage.chapters == ()
    assert len(leakage.copies) == 12
    assert len(problems(leakage)) == 1
    refuse(leakage)


def test_punctuation_and_layout_do_not_hide_a_copy():
    texts = novel(10)
    texts[9] = "　　" + re.sub("，", "、", texts[2]).replace("。", "”\n\n“")
    (copy,) = find_leakage(book(*texts)).copies
    assert (copy.chapter.number, copy.source.number, copy.fraction) == (10, 3, 1.0)


@pytest.mark.parametrize(("kept", "found"), [(260, True), (140, False)])
def test_a_chapter_is_a_copy_from_one_half_on(kept, found):
    texts = novel(9)
    texts[8] = texts[3][:kept] + texts[8][: 400 - kept]
    copies = find_leakage(book(*texts)).copies
    assert bool(copies) == found
    assert all((c.chapter.number, c.source.number) == (9, 4) for c in copies)


def test_a_short_chapter_that_later_long_ones_contain_is_the_copy():
    texts = novel(10)
    texts[8] += prose(100, 4000) + texts[3]
    texts[9] += prose(101, 4000) + texts[3][:300]
    (copy,) = find_leakage(book(*texts)).copies
    assert (copy.chapter.number, copy.source.number, copy.fraction) == (4, 9, 1.0)


def test_formulas_at_the_ends_of_chapters_are_no_leakage():
    end = "要知端的，再看下回。未知后事如何，且听下回分解。"
    leakage = find_leakage(book(*(text + end for text in novel(20))))
    assert leakage.fraction == 0.0
    assert problems(leakage) == []


def test_a_leak_that_no_copy_explains_names_the_held_out_chapters():
    texts = novel(10)
    for held_out in (4, 9):  # a third of each of two training chapters
        texts[held_out] = "".join(texts[held_out - k][:150] for k in (3, 2)) + texts[held_out][:100]
    leakage = find_leakage(book(*texts))
    assert leakage.copies == ()
    assert leakage.fraction > 0.5
    with pytest.raises(
        UserError, match=r"too: chapter .* \d\d%, chapter .* \d\d%; remove chap"
    ) as e:
        refuse(leakage)
    assert str(e.value).endswith("remove chapters 5, 10")


@pytest.mark.parametrize(
    ("fraction", "warned", "refused"),
    [(0.0, 0, 0), (0.029, 0, 0), (0.03, 1, 0), (0.3, 1, 0), (0.301, 0, 1)],
)
def test_thresholds(fraction, warned, refused):
    chapter = Chapter(5, "", "")
    leakage = Leakage(fraction, ((chapter, fraction),), ())
    assert len(problems(leakage)) == warned
    if refused:
        with pytest.raises(UserError, match=r"30\.1% of the held-out .*remove chapter 5$"):
            refuse(leakage)
    else:
        refuse(leakage)


def test_many_scattered_copies_are_counted_instead_of_listed():
    texts = [text for text in novel(20) for _ in range(2)]
    lines = problems(find_leakage(book(*texts)))
    assert len(lines) == 4  # the error names the share
    assert lines[-1] == "17 more chapters repeat others"


def test_a_book_without_chapters_or_24_grams_has_no_leakage():
    none = Leakage(0.0, (), ())
    assert find_leakage(book()) == find_leakage(book(*["短"] * 20)) == none


def test_a_sound_novel_raises_no_alarm(edition):
    leakage = find_leakage(split_chapters(edition.chapters, held_out=True))
    assert leakage.fraction < 0.001
    assert problems(leakage) == []


def test_a_warning_is_no_longer_than_two_lines_of_a_terminal():
    heading = "第一百二十回 甄士隐详说太虚情 贾雨村归结红楼梦"
    leaks = tuple((Chapter(1000 + n, heading, ""), 0.2) for n in range(9))
    copies = tuple(
        Copy(Chapter(1000 + 9 * n, heading, ""), Chapter(100 + n, heading, ""), 0.7, ("val", "val"))
        for n in range(9)
    )
    lines = problems(Leakage(0.2, leaks, copies))
    assert len(lines) == 5
    assert max(map(len, lines)) <= 200
    assert lines[0].endswith("more")
    with pytest.raises(UserError) as error:
        refuse(Leakage(0.5, leaks, copies))
    assert len(str(error.value).split("; remove")[0]) <= 200


# --- held-out chapters in further texts ---


def further(name, *texts):
    chapters = tuple(Chapter(n, f"卷{n}", text) for n, text in enumerate(texts, start=1))
    return Corpus(name, chapters, {"source": {"path": f"/texts/{name}.txt"}})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["甲" * 9, "着", "著", "裡", "里", "，\n", "x乙"]))),
    st.lists(st.lists(st.sampled_from(["甲" * 9, "着", "著", "裡", "里", "。", "x乙"]))),
    st.lists(st.integers(0, 30), min_size=8, max_size=8),
)
def test_shares_are_those_of_plain_sets(held, places, lengths):
    # 200 characters that many chapters share in part.
    known = "".join(map(chr, range(0x5000, 0x5000 + 200)))
    held = ["".join(parts) + known[: 5 * n] for parts, n in zip(held, lengths, strict=False)]
    places = ["".join(p) + known[2 * n :] for p, n in zip(places, lengths[4:], strict=False)]
    splits = {"train": [], "val": [], "test": []}
    for n, text in enumerate(held):
        splits["val" if n % 2 else "test"].append(Chapter(n, "", text))
    found = find_held_out([further("a", *places[:2]), further("b", *places[2:])], splits)

    def grams(text):
        text = text.replace("著", "着").replace("裡", "里")
        text = "".join(filter(str.isalnum, text))
        return {text[i : i + GRAM] for i in range(len(text) - GRAM + 1)}

    expected = {}
    for n, place in enumerate(places):
        for chapter in splits["val"] + splits["test"]:
            a, b = grams(place), grams(chapter.text)
            least = min(len(a), len(b))
            if len(a & b) >= LEAST and len(a & b) >= WARN_HELD * least:
                expected["ab"[n >= 2], n % 2 + 1 if n < 2 else n - 1, chapter.number] = (
                    len(a & b) / least
                )
    assert {(h.path[7], h.place.number, h.chapter.number): h.fraction for h in found} == expected


def test_two_chapters_of_a_novel_share_far_less_than_is_warned_of(edition, monkeypatch):
    splits = split_chapters(edition.chapters, held_out=True)
    trained = Corpus("train", tuple(splits["train"]), {"source": {}})
    assert find_held_out([trained], splits) == ()
    monkeypatch.setattr("hlm_jax.measures.leakage.LEAST", 1)
    monkeypatch.setattr("hlm_jax.measures.leakage.WARN_HELD", 1e-9)
    assert 0 < max(one.fraction for one in find_held_out([trained], splits)) < 0.0002


def test_training_chapters_in_a_further_text_are_no_mistake():
    texts = novel(20)
    splits = book(*texts)
    held = {chapter.number for name in ("val", "test") for chapter in splits[name]}
    trained = [text for number, text in enumerate(texts, start=1) if number not in held]
    assert find_held_out([further("a", *trained)], splits) == ()


def test_a_further_text_may_quote_a_poem_and_is_warned_of_from_a_passage_on():
    texts = [prose(seed, 9000) for seed in range(10)]
    splits = book(*texts)  # chapters 5 and 10 are held out

    def quoting(n):
        """Whether a chapter that shares n 24-grams with chapter 5 is warned of."""
        letters = "".join(filter(str.isalnum, texts[4]))[100 : 100 + n + GRAM - 1]
        found = find_held_out([further("a", prose(50, 9000) + letters)], splits)
        refuse_held_out(found)
        return held_out_problems(found)

    assert quoting(LEAST - 1) == []
    assert quoting(LEAST) == [
        "/texts/a.txt shares passages with held-out chapters: its chapter 1 (卷1) and the held-out "
        "chapter 5 (第5回) 0.6%"
    ]


def test_a_chapter_that_is_cut_otherwise_is_found_in_all_its_places():
    texts = [prose(seed, 3000) for seed in range(10)]
    parts = [texts[4][:1500], prose(60, 500) + texts[4][1500:], texts[9] + prose(61, 9000)]
    found = find_held_out([further("a", *parts)], book(*texts))
    assert [(one.place.number, one.chapter.number) for one in found] == [(1, 5), (2, 5), (3, 10)]
    with pytest.raises(UserError, match="its chapters 1 to 3 hold chapters 5, 10, "):
        refuse_held_out(found)


def test_one_chapter_is_refused_in_the_singular():
    texts = novel(10)
    other = [prose(70 + n, 400) for n in range(4)]
    for extra, words in (
        (further("a", *other, texts[4]), "its chapter 5 holds the chapter of this number, 100% of"),
        (further("a", texts[9]), "its chapter 1 holds chapter 10, 100% of each word for word"),
    ):
        with pytest.raises(UserError, match=words):
            refuse_held_out(find_held_out([extra], book(*texts)))


@pytest.mark.parametrize(
    ("fraction", "warned", "refused"),
    [(WARN_HELD, 1, 0), (REFUSE_HELD - 1e-6, 1, 0), (REFUSE_HELD, 0, 1), (1.0, 0, 1)],
)
def test_thresholds_of_further_texts(fraction, warned, refused):
    found = [Held("/a.txt", Chapter(7, "", ""), Chapter(5, "", ""), fraction)]
    assert len(held_out_problems(found)) == warned
    if refused:
        with pytest.raises(UserError, match=r"^/a\.txt holds held-out .*its chapter 7 holds"):
            refuse_held_out(found)
    else:
        refuse_held_out(found)


def test_messages_about_many_chapters_and_texts_stay_readable():
    heading = "第一百二十回 甄士隐详说太虚情 贾雨村归结红楼梦"

    def held(path, share):
        return [
            Held(path, Chapter(5 * n, heading, ""), Chapter(5 * n, heading, ""), share)
            for n in range(1, 401)
        ]

    with pytest.raises(UserError) as error:
        refuse_held_out(held("/a.txt", 0.3) + held("/b.txt", 0.2) + held("/c d.txt", 0.2))
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    assert "(so do 2 more texts): its chapters 5, 10, " in message
    assert "195, 200 and 360 more hold the chapters of these numbers, 30% of each" in message
    (line,) = held_out_problems(held("/a.txt", 0.004))
    assert len(line) < 250
    assert line.endswith("more")


def test_further_texts_without_24_grams_or_chapters_hold_nothing():
    splits = book(*novel(10))
    assert find_held_out([], splits) == ()
    assert find_held_out([further("a"), further("b", "短", "，。")], splits) == ()
    assert find_held_out([further("a", "短")], book(*["短"] * 20)) == ()
