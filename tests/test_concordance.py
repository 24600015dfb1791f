import csv
import itertools
import math

import numpy as np
import pytest

from hlm_jax.analysis.stylometry import concordance
from hlm_jax.analysis.stylometry.concordance import Hit, dispersion, kwic
from hlm_jax.book.chapters import Chapter
from hlm_jax.errors import UserError

CHAPTERS = [
    Chapter(1, "第一回 甲", "第一回 甲\n宝玉笑道：“好。”黛玉笑道：“不好。”\n"),
    Chapter(2, "第二回 乙", "第二回 乙\n众人都笑了。宝玉道：“是。”\n笑道"),
    Chapter(4, "第四回 丙", "第四回 丙\n无话。\n"),
]


def test_hits_against_a_search_by_hand():
    for word, width in itertools.product(["笑", "笑道", "宝玉", "。", "道：“"], [0, 2, 50]):
        expected = []
        for chapter in CHAPTERS:
            at = chapter.text.find(word)
            while at >= 0:
                end = at + len(word)
                left = chapter.text[max(0, at - width) : at]
                expected.append(
                    Hit(chapter.number, at, left, word, chapter.text[end : end + width])
                )
                at = chapter.text.find(word, end)
        assert kwic(CHAPTERS, word, width=width) == expected
        assert expected


def test_contexts_are_exact_and_stay_in_the_chapter():
    first, second, third = kwic(CHAPTERS, "笑道", width=5)
    assert first == Hit(1, 8, " 甲\n宝玉", "笑道", "：“好。”")
    assert third == Hit(2, 21, "“是。”\n", "笑道", "")
    assert second.chapter == 1


def test_sorting_by_what_stands_left_and_right():
    hits = kwic(CHAPTERS, "玉", width=4, sort="left")
    assert [hit.left[-1] for hit in hits] == ["宝", "宝", "黛"]
    hits = kwic(CHAPTERS, ["笑", "道"], width=3, sort="right")
    assert [hit.right for hit in hits] == sorted(hit.right for hit in hits)
    hits = kwic(CHAPTERS, ["笑", "道"], width=3, sort="left")
    keys = [hit.left[::-1] for hit in hits]
    assert keys == sorted(keys)


def test_several_words_and_expressions():
    assert [hit.match for hit in kwic(CHAPTERS[:1], ["笑", "笑道"])] == ["笑道", "笑道"]
    assert [hit.match for hit in kwic(CHAPTERS, "[宝黛]玉.?道", regex=True)] == [
        "宝玉笑道",
        "黛玉笑道",
        "宝玉道",
    ]
    assert kwic(CHAPTERS, "玉.", regex=False) == []
    assert kwic(CHAPTERS, ".笑道", regex=True)[-1].chapter == 1  # . is no line end


@pytest.mark.parametrize(
    ("words", "more", "message"),
    [
        ([], {}, "give a word"),
        ("", {}, "give a word"),
        ("(", {"regex": True}, "no regular expression"),
        ("玉*", {"regex": True}, "empty text"),
        (["(?P<a>玉)", "(?P<a>道)"], {"regex": True}, "do not go together"),
        ("玉", {"sort": "up"}, "no sort 'up'"),
        ("玉", {"width": -1}, "at least 0"),
    ],
)
def test_what_cannot_be_looked_for(words, more, message):
    with pytest.raises(UserError, match=message):
        kwic(CHAPTERS, words, **more)


def test_dispersion_by_hand():
    # Gries 2008: v = (3/4, 1/4, 0), s = (1/2, 1/4, 1/4): (1/4 + 0 + 1/4) / 2
    found = dispersion([3, 1, 0], [20, 10, 10])
    assert found.dp == pytest.approx(0.25)
    assert found.dp_norm == pytest.approx(0.25 / 0.75)
    assert found.rates == pytest.approx([1500, 1000, 0])
    assert found.rate == pytest.approx(10_000 * 4 / 40)
    # Juilland: rates (3/20, 1/10, 0), mean 1/12, deviation √(7/1800) with N = 3
    assert found.d == pytest.approx(1 - math.sqrt(7 / 1800) / (1 / 12) / math.sqrt(2))


def test_dispersion_at_its_ends():
    even = dispersion([2, 4, 6], [10, 20, 30])
    assert (even.dp, even.d) == (pytest.approx(0), pytest.approx(1))
    clumped = dispersion([0, 0, 0, 7], [10, 10, 10, 10])
    assert (clumped.dp_norm, clumped.d) == (pytest.approx(1), pytest.approx(0))
    nothing = dispersion([0, 0], [10, 10])
    assert (nothing.total, nothing.dp, nothing.dp_norm, nothing.d) == (0, None, None, None)
    one = dispersion([3], [10])
    assert (one.dp, one.dp_norm, one.d) == (0, None, None)


def test_places_and_counts():
    hits = kwic(CHAPTERS, "笑")
    lengths = [len(chapter.text) for chapter in CHAPTERS]
    assert concordance.borders(CHAPTERS) == [0, *np.cumsum(lengths)]
    whole = "".join(chapter.text for chapter in CHAPTERS)
    assert concordance.places(CHAPTERS, hits) == [i for i, c in enumerate(whole) if c == "笑"]
    assert concordance.dispersion_of(CHAPTERS, hits).counts.tolist() == [2, 2, 0]


def test_matches_stand_in_one_column():
    assert concordance.columns("宝玉 ab") == 7
    assert concordance.columns("e\u0301") == 1
    lines = concordance.lines(kwic(CHAPTERS, ["笑道", "笑"], width=6))
    assert len({concordance.columns(line.split("[")[0]) for line in lines}) == 1
    assert not any("\n" in line for line in lines)
    assert concordance.lines([]) == []


def test_the_bar_is_as_long_as_the_book():
    hits = kwic(CHAPTERS, "笑")
    blocks, ruler = concordance.bar(CHAPTERS, hits, width=20)
    assert len(blocks) == 20
    assert "█" in blocks
    assert blocks[-3:] == "   "  # chapter 4
    assert ruler.startswith("1")


def test_the_other_script_is_offered():
    assert concordance.variants(CHAPTERS, "寶玉") == {"宝玉": 2}
    (line,) = concordance.summary(CHAPTERS, {"寶玉": []})
    assert line == "寶玉: 0 in 3 chapters; it has 宝玉 (2)"
    (line,) = concordance.summary(CHAPTERS, {"石头": []})
    assert line == "石头: 0 in 3 chapters"


def test_the_table_reads_back(tmp_path):
    hits = kwic(CHAPTERS, "笑道", width=4)
    path = concordance.write_hits(tmp_path / "hits.csv", hits)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["chapter", "offset", "left", "match", "right"]
    assert [row["left"].replace("\\n", "\n") for row in rows] == [hit.left for hit in hits]
    assert [int(row["offset"]) for row in rows] == [hit.offset for hit in hits]


def test_the_command(script, book, tmp_path):
    files = {"csv": tmp_path / "hits.csv", "png": tmp_path / "hits.png"}
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    done = script("kwic", "宝玉", "--text", book, "--sort", "right", "--chapters", *words)
    assert done.returncode == 0, done.stderr
    text = book.read_text(encoding="utf-8")
    assert f"宝玉: {text.count('宝玉'):,} in " in done.stdout
    assert "[宝玉]" in done.stdout
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    assert files["csv"].read_text(encoding="utf-8").count("\n") == text.count("宝玉") + 1

    done = script("kwic", "天长地久海枯", "--text", book)
    assert (done.returncode, done.stdout) == (0, "天长地久海枯: 0 in 20 chapters\n")
    done = script("kwic", "(", "--regex", "--text", book)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    done = script("kwic", "宝玉", "--text", book, "--only", "5-30")
    assert done.returncode == 2
    assert "it has 1-20" in done.stderr


@pytest.mark.slow
def test_no_jax_is_loaded(command, book):
    code = f"""
import runpy, sys
sys.argv = ["kwic.py", "宝玉", "--text", {str(book)!r}]
runpy.run_path("scripts/kwic.py", run_name="__main__")
sys.argv = ["book.py", {str(book)!r}, "--stats", {str(book.with_suffix(".csv"))!r}]
runpy.run_path("scripts/book.py", run_name="__main__")
sys.argv = ["stylometry.py", {str(book)!r}, "--out", {str(book.parent / "out")!r}]
runpy.run_path("scripts/stylometry.py", run_name="__main__")
print("jax" in sys.modules)
"""
    done = command("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
