"""Tables of contents and volumes: which headings begin no chapter of their own."""

import re

import pytest
from books import BODY, HEADINGS, PROSE, book, han, numbers

from hlm_jax.book.outline import outline, outline_by


@pytest.mark.parametrize("label", ["", "目录\n", "目 錄：\n", "【目录】\n"])
@pytest.mark.parametrize("page", ["", " …… 12", "\t3"])
def test_a_table_of_contents_is_no_chapter(label, page):
    table = label + "".join(f"{line}{page}\n" for line in HEADINGS)
    text = "书名\n" + table + "这是一篇序言，讲这本书的来历。\n" * 20 + book(*HEADINGS)
    found = outline(text)
    assert [start.number for start in found.starts] == list(range(1, 13))
    assert found.starts[0].at == text.rindex("第一回")
    ((start, end),) = found.contents
    assert text[start:end] == table
    assert found.warnings == ()


def test_a_table_of_contents_with_titles_on_lines_of_their_own_is_no_chapter():
    table = "".join(f"第{han(n)}回\n甄士隐梦幻识通灵\n" for n in range(1, 13))
    found = outline(table + "序言。\n" * 90 + book(*HEADINGS))
    assert [start.heading for start in found.starts] == HEADINGS
    assert len(found.contents) == 1


def test_a_table_of_contents_without_chapters_is_no_chapter():
    text = "书名\n" + "".join(f"第 {han(n)} 回　标题\n" for n in range(1, 41))
    assert outline(text).starts == ()
    assert len(outline(text).contents) == 1


def test_summaries_of_the_chapters_are_no_chapters():
    summary = "这一回讲甄士隐做了一个梦，醒来之后女儿丢了，家也烧了，他便跟着道士走了。\n" * 2
    summaries = book(*HEADINGS, body=summary)
    text = summaries + book(*HEADINGS, body=BODY * 3)
    found = outline(text)
    assert [start.heading for start in found.starts] == HEADINGS
    assert found.starts[0].at >= len(summaries)
    assert len(found.apart) == 1


def test_a_list_of_acts_in_the_story_is_text():
    acts = "第一出《豪宴》；\n第二出《乞巧》；\n第三出《仙缘》；\n第四出《离魂》。\n"
    text = book(*HEADINGS[:6]) + acts + BODY + book(*HEADINGS[6:])
    found = outline(text)
    assert [start.heading for start in found.starts] == HEADINGS
    assert found.contents == ()


def test_two_levels_are_cut_at_the_lower_one():
    text = ""
    for volume in range(1, 4):
        text += f"第{han(volume)}卷 卷名\n"
        text += book(*(f"第{han(n)}回 标题" for n in range(4 * volume - 3, 4 * volume + 1)))
    found = outline(text)
    assert [start.number for start in found.starts] == list(range(1, 13))
    assert text[found.starts[4].at :].startswith("第二卷")  # the volume's name opens its chapter
    assert found.warnings == ()


def test_numbers_may_start_anew_in_every_volume():
    text = ""
    for volume in range(1, 4):
        text += f"第{han(volume)}卷\n" + book(*(f"第{han(n)}章" for n in range(1, 6)))
    assert numbers(text) == [1, 2, 3, 4, 5] * 3
    assert outline(text).warnings == ()
    parts = "".join(
        f"PART {part}\n" + book(*(f"Chapter {n}" for n in range(1, 6)), body=PROSE)
        for part in ("ONE", "TWO")
    )
    assert numbers(parts) == [1, 2, 3, 4, 5] * 2
    one_line = [f"第{han(v)}卷 第{han(n)}章 标题" for v in (1, 2) for n in range(1, 6)]
    assert numbers(book(*one_line)) == [1, 2, 3, 4, 5] * 2


def test_lower_headings_in_one_chapter_alone_do_not_cut_the_book():
    sections = book(*(f"第{han(n)}节" for n in range(1, 20)))
    text = book(*HEADINGS[:5]) + sections + book(*HEADINGS[5:])
    assert [start.heading for start in outline(text).starts] == HEADINGS


def test_the_same_headings_in_another_volume_are_no_table_of_contents():
    pattern = re.compile(r"^\d+\.$")
    volume = "".join(f"{n}.\n{BODY[n : n + 40]}\n" for n in range(1, 11))
    found = outline_by(pattern, f"卷上\n{volume}卷下\n{volume}")
    assert [start.number for start in found.starts] == [*range(1, 11)] * 2
    assert found.contents == ()


@pytest.mark.parametrize("preface", ["", "这是一篇序言，讲这本书的来历。\n" * 20])
@pytest.mark.parametrize("title", ["", "甄士隐梦幻识通灵\n"])
def test_entries_of_a_table_are_no_headings_of_a_pattern_of_the_users_own(preface, title):
    table = "".join(f"{n}.\n{title}" for n in range(1, 11))
    text = table + preface + "".join(f"{n}.\n{BODY}" for n in range(1, 11))
    found = outline_by(re.compile(r"^\d+\.$"), text)
    assert [start.number for start in found.starts] == list(range(1, 11))
    assert found.starts[0].at == len(table + preface)
    if not title:
        assert found.contents == ((0, len(table)),)


def test_numbered_lines_within_volumes_are_the_lower_level():
    text = "".join(f"PART {n}\n" + book(*"1234", body=PROSE) for n in ("ONE", "TWO", "THREE"))
    assert numbers(text) == [1, 2, 3, 4] * 3
    assert outline(text).warnings == ()


@pytest.mark.parametrize("page", ["", " ........ 12"])
@pytest.mark.parametrize("lead", ["", "12. "])
def test_titles_that_a_table_of_contents_lists_are_headings(lead, page):
    titles = ["The Storm", "A Visitor", "The Long Road", "Home Again"]
    table = "".join(f"{lead}{title}{page}\n" for title in titles)
    text = (
        "Tales\nContents\n"
        + table
        + "These are old tales.\n"
        + book(*map(str.upper, titles), body=PROSE)
    )
    assert [start.heading for start in outline(text).starts] == [t.upper() for t in titles]
    lost = text.replace("A VISITOR\n", "")  # a title that is not found again
    assert outline(lost).starts == ()


def test_another_style_in_another_volume_is_kept():
    text = "第一卷\n" + book(*(f"第{han(n)}章 标题" for n in range(1, 21)))
    text += "第二卷\n" + book(*(f"第{han(n)}章" for n in range(1, 6)))
    assert numbers(text) == [*range(1, 21), *range(1, 6)]


@pytest.mark.parametrize("volume", ["上卷", "卷上", "上部 少年"])
def test_volumes_without_a_number_let_numbers_start_anew(volume):
    text = "".join(
        volume.replace("上", part) + "\n" + book(*(f"第{han(n)}章" for n in range(1, 6)))
        for part in "上中下"
    )
    assert numbers(text) == [1, 2, 3, 4, 5] * 3
    assert outline(text).warnings == ()


def test_a_volume_with_its_own_table_of_contents_lets_numbers_start_anew():
    text = ""
    for volume in range(1, 4):
        lines = [f"第{han(n)}章 题目{volume}" for n in range(1, 6)]
        table = "".join(f"{line}\n" for line in lines)
        text += f"第{han(volume)}卷 卷名\n目录\n{table}" + book(*lines)
    assert numbers(text) == [1, 2, 3, 4, 5] * 3
    assert outline(text).warnings == ()


@pytest.mark.parametrize("label", ["", "目录\n"])
def test_a_volume_right_after_the_table_of_contents_opens_the_first_chapter(label):
    table = label + "".join(f"{line}\n" for line in HEADINGS)
    text = table + "第一卷 卷名\n" + book(*HEADINGS[:6]) + "第二卷 卷名\n" + book(*HEADINGS[6:])
    found = outline(text)
    assert [start.heading for start in found.starts] == HEADINGS
    assert text[found.starts[0].at :].startswith("第一卷")
    assert [text[slice(*place)] for place in found.contents] == [table]


def test_a_volume_may_follow_a_table_of_contents_whose_numbers_start_anew():
    lines = [[f"第{han(n)}章 题目{volume}" for n in range(1, 6)] for volume in (1, 2, 3)]
    text = "".join(f"{line}\n" for volume in lines for line in volume)
    for n, volume in enumerate(lines, 1):
        text += f"第{han(n)}卷 卷名\n" + book(*volume)
    assert [start.heading for start in outline(text).starts] == [
        line for volume in lines for line in volume
    ]


def test_a_table_of_contents_of_volumes_alone_hides_no_chapters():
    text = "CONTENTS\nPART ONE\nPART TWO\nPREFACE\n" + PROSE
    for part in ("ONE", "TWO"):
        text += f"PART {part}\n" + book(*(f"Chapter {n}" for n in range(1, 6)), body=PROSE)
    assert numbers(text) == [1, 2, 3, 4, 5] * 2


def test_a_sentence_that_names_a_volume_opens_none():
    text = book(*HEADINGS)
    at = text.index(HEADINGS[6])
    text = f"{text[:at]}第三篇文章写得好\n宝玉点头。\n{text[at:]}"
    assert text[outline(text).starts[6].at :].startswith(HEADINGS[6])


def test_headings_of_three_levels_in_a_row_are_no_table_of_contents():
    text = ""
    for part in (1, 2):
        for volume in (1, 2):
            text += f"第{han(part)}部\n" * (volume == 1) + f"第{han(volume)}卷\n"
            text += book(*(f"第{han(n)}章" for n in range(1, 5)))
    assert numbers(text) == [1, 2, 3, 4] * 4


def test_the_number_of_a_volume_in_the_heading_lets_numbers_start_anew():
    lines = [f"第{han(n)}卷 第一章 谁是凶手？" for n in range(1, 13)]
    found = outline(book(*lines))
    assert [start.heading for start in found.starts] == lines
    assert found.warnings == ()
