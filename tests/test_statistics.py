import csv

import numpy as np
import pytest

from hlm_jax.analysis.stylometry.statistics import (
    chapter_statistics,
    statistics_table,
    write_statistics,
)
from hlm_jax.analysis.stylometry.verse import verse_mask
from hlm_jax.book.chapters import Chapter
from hlm_jax.measures.style import NAMES

HEADING = "第一回 宝玉笑道"
TEXT = f"{HEADING}\n宝玉笑道：“你来了，坐。”\n黛玉不答。她走了！\n"


def verse(text):
    """The parts of a text that verse_mask finds."""
    mask = np.concatenate([[False], verse_mask(text), [False]])
    edges = np.flatnonzero(mask[1:] != mask[:-1])
    return [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_a_chapter_by_hand():
    got = chapter_statistics(
        Chapter(1, HEADING, TEXT), names=["宝玉", "黛玉"], words=["笑道", "道"]
    )
    body = TEXT.split("\n", 1)[1]
    assert got["chars"] == len(TEXT) == 33
    assert (got["paragraphs"], got["sentences"]) == (2, 3)
    # 宝玉笑道：“你来了，坐。 黛玉不答。 她走了！; a mark of the end that stands alone is none
    assert got["sentence_length"] == pytest.approx((12 + 5 + 4) / 3)
    assert got["dialogue_share"] == pytest.approx(8 / len(body))
    assert got["verse_share"] == 0
    assert got["names_per_10000"] == pytest.approx(10_000 * 3 / len(TEXT))  # one in the heading
    assert got["笑道_per_10000"] == got["道_per_10000"] == pytest.approx(10_000 * 2 / len(TEXT))
    letters = [c for c in body if c.isalpha()]
    assert len(letters) == 15
    assert got["distinct"] == len(set(letters)) == 13  # 玉 and 了 stand twice
    assert got["hapaxes"] == 11
    assert got["distinct_in_2000"] is None


def test_distinct_characters_of_a_fixed_stretch_do_not_grow_with_the_chapter():
    letters = [chr(0x4E00 + i) for i in range(500)]
    short = chapter_statistics(Chapter(1, "", "".join(letters * 4) + "\n"))
    long = chapter_statistics(Chapter(1, "", "".join(letters * 40) + "\n"))
    assert short["distinct_in_2000"] == long["distinct_in_2000"] == 500


def test_english_sentences_and_straight_quotes():
    text = 'The price is 3.50 today. "Go," she said. Is it so? Yes!\n'
    got = chapter_statistics(Chapter(1, "", text))
    assert got["sentences"] == 4
    assert got["dialogue_share"] is None  # straight quotes do not say where a speech ends
    assert got["names_per_10000"] is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # couplets, a line of each alone, and four lines in one paragraph
        ("满纸荒唐言，一把辛酸泪！\n都云作者痴，谁解其中味？\n", 2),
        ("无材可去补苍天，\n枉入红尘若许年。\n", 2),
        ("世人都晓神仙好，惟有功名忘不了。古今将相在何方？荒冢一堆草没了。\n", 1),
        ("一局输赢料不真\n香销茶尽尚逡巡\n", 2),  # without marks
    ],
)
def test_verse_in_paragraphs_of_its_own(text, found):
    assert verse(text) == text.split("\n")[:found]


def test_verse_inside_prose():
    poem = "可叹停机德，堪怜咏絮才。玉带林中挂，金簪雪里埋。"
    assert verse(f"也有四句诗道：{poem}宝玉看了不解。\n") == [poem]
    assert verse(f"因自念一偈曰：「{poem}」五祖便传了他。\n") == [poem]


@pytest.mark.parametrize(
    "text",
    [
        "忽见一个道人走来。\n宝玉听了便问道：“是谁？”\n",
        "东海缺少白玉床。\n",  # one line alone
        "假作真时真亦假，无为有处有还。\n",  # seven and six
        "拿不动线，只会偷嘴吃！眼皮子又浅，打嘴现世的，不如戳烂了！再说。\n",  # not couplets
        "獭子皮二十张，獭子皮二十张。说完了这些话便去。\n",  # one couplet in prose
        "霁月难逢，彩云易散。\n心比天高，身为下贱。\n",  # lines of four are not looked for
        "It was the best of times, it was the worst of times.\n",
        "\n\n",
        "",
    ],
)
def test_what_is_no_verse(text):
    assert verse(text) == []


def test_the_verse_of_the_default_edition(edition):
    by_number = {chapter.number: verse_mask(chapter.body) for chapter in edition.chapters}
    shares = {number: mask.mean() for number, mask in by_number.items()}
    # 葬花吟, the chrysanthemums, the linked verses on snow, 桃花行
    assert set(sorted(shares, key=shares.get)[-6:]) >= {27, 38, 50, 70}
    assert shares[67] == 0
    assert sum(map(np.sum, by_number.values())) == pytest.approx(7164, abs=60)


def test_the_table_of_the_novel_has_names_and_another_book_none(edition, tmp_path):
    head, rows = statistics_table(edition.chapters[:20])
    assert head[:3] == ["number", "heading", "chars"]
    assert head[-2:] == ["笑道_per_10000", "道_per_10000"]
    column = head.index("names_per_10000")
    some = [Chapter(1, "", "宝玉道：好。\n"), Chapter(2, "", "黛玉去了。\n")]
    assert {row[column] for row in statistics_table(some)[1]} == {None}
    every = [Chapter(1, "", "。".join(NAMES) + "\n")]
    assert statistics_table(every)[1][0][column] > 0
    assert statistics_table([])[0] == []

    path = write_statistics(tmp_path / "deep" / "stats.csv", edition.chapters[:20])
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.reader(file))
    assert read[0] == head
    assert [row[0] for row in read[1:]] == [str(n) for n in range(1, 21)]
    assert float(read[1][head.index("verse_share")]) == pytest.approx(
        rows[0][head.index("verse_share")], rel=1e-5
    )


def test_the_command(script, book, tmp_path):
    path = tmp_path / "stats.csv"
    done = script("book", book, "--stats", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"20 chapters: {path}\n"
    assert len(path.read_text(encoding="utf-8").splitlines()) == 21
    done = script("book", book, "--stats", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
    assert script("book", book, "--stats", path, "--json").returncode == 2
