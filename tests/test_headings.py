"""Which lines of a book begin its chapters. Every input is made here."""

import re

import pytest
from books import BODY, HEADINGS, PROSE, book, han, numbers

from hlm_jax.book.headings import candidates, number_in, numbers_in
from hlm_jax.book.outline import outline, outline_by


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("第一百二十回 甄士隐详说太虚情", 120),
        ("第一二零回", 120),
        ("第一〇〇回", 100),
        ("第120回", 120),
        ("第１２回", 12),
        ("第001章", 1),
        ("第廿一回", 21),
        ("第卅回", 30),
        ("第卅五回", 35),
        ("第卌二章", 42),
        ("第两回", 2),
        ("第壹回", 1),
        ("第拾贰章", 12),
        ("第一千零一十章", 1010),
        ("第一百零五回", 105),
        ("第一百一回", 101),
        ("第百二十回", 120),
        ("第十回", 10),
        ("第 一 回", 1),
        ("第\u3000二十\u3000一\u3000回", 21),
        ("正文 第五回 捉奸情", 5),
        ("上卷 第五回", 5),
        ("## 第七章 标题", 7),
        ("【第十章】", 10),
        ("《红楼梦》第三回", 3),
        ("第一卷 第三回 标题", 3),
        ("卷之十一 标题", 11),
        ("卷三十八 两错认莫大姐私奔", 38),
        ("第3节", 3),
        ("第三则", 3),
        ("第六折", 6),
        ("第二篇", 2),
        ("第二部", 2),
        ("第四集", 4),
        ("Chapter I.", 1),
        ("CHAPTER XLII", 42),
        ("Chapter 12: The Storm", 12),
        ("CHAPTER TWENTY-ONE", 21),
        ("Chapter the Third", 3),
        ("第十七至十八回 大观园试才题对额", 17),
        ("学而第一", 1),
        ("宝玉笑道", None),
        ("Chapterhouse", None),
    ],
)
def test_numerals_of_all_forms(line, number):
    assert number_in(line) == number
    found = candidates(line + "\n")
    assert (found[0].first if found else None) == number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("012", 12),
        ("chapter-10", 10),
        ("3. Title", 3),
        ("十二、标题", 12),
        ("一", 1),
        ("红楼梦 12", 12),
        ("005 第一回 标题", 5),
        ("notes", None),
    ],
)
def test_numbers_of_file_names(name, number):
    assert number_in(name) == number


def test_every_number_of_a_line_is_read():
    assert numbers_in("第一卷 第三回 标题") == (1, 3)


@pytest.mark.parametrize(
    "form",
    [
        "第{han}回 甄士隐梦幻识通灵",
        "第{han}回甄士隐梦幻识通灵贾雨村风尘怀闺秀",
        "第{n}章",
        "第{n:03d}章 标题",
        "第 {n} 节",
        "正文 第{han}回",
        "【第{han}回】 标题",
        "## 第{n}章",
        "红楼梦 第{han}回",
        "红楼梦第{han}回 标题",
        "卷之{han} 标题",
        "卷{han}",
        "第{han}折　标题",
        "第{han}则",
        "Chapter {n}",
        "CHAPTER {n}. The Title",
        "第{han}回　" + "一个很长的题目" * 10,
        "第{han}回 题目诗曰：宝玉笑道，这话说得是。黛玉听了，也笑了。",
    ],
)
def test_forms_of_headings(form):
    lines = [form.format(n=n, han=han(n)) for n in range(1, 31)]
    found = outline(book(*lines))
    assert [start.number for start in found.starts] == list(range(1, 31))
    assert found.warnings == ()


def test_roman_numbers_and_words():
    roman = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
    assert numbers(book(*(f"CHAPTER {n}." for n in roman), body=PROSE)) == list(range(1, 13))
    words = ["One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "TEN"]
    assert numbers(book(*(f"Chapter {n}" for n in words), body=PROSE)) == list(range(1, 11))


def test_prefixes_may_vary_within_a_book():
    lines = [f"{'正文 ' if n % 3 else ''}第{han(n)}回 标题" for n in range(1, 21)]
    assert numbers(book(*lines)) == list(range(1, 21))


@pytest.mark.parametrize(
    "sentence",
    [
        "第四回中既将薛家母子在荣府内寄居等事略已表明，此回则暂不能写矣。",
        "第六回合，两人又斗了起来，不分胜负。",
        "第六回说到刘姥姥进了荣国府，只见门前车马甚多。",
        "第一回",
        "第五回完",
        "（第五回完）",
        "第五回 终",
    ],
)
def test_a_sentence_that_begins_like_a_heading_is_none(sentence):
    text = book(*HEADINGS)
    at = text.index("第六回")
    found = outline(text[:at] + sentence + "\n" + text[at:])
    assert [start.number for start in found.starts] == list(range(1, 13))
    at = text.index("\n", text.index("第五回")) + 1  # right below a heading
    found = outline(text[:at] + sentence + "\n" + text[at:])
    assert [start.heading for start in found.starts] == HEADINGS


@pytest.mark.parametrize(
    ("wanted", "warning"),
    [
        ([1, 2, 3, 4, 5, 7, 8, 9], "gap: no chapter 6"),
        ([1, 2, 3, 4, 8, 9, 10], "gap: no chapter 5 to 7"),
        ([1, 2, 3, 4, 4, 5, 6], "repeat: chapter 4"),
        ([1, 2, 3, 1, 2, 3], "jump back: chapter 1 follows 3"),
        ([31, 32, 33, 34], "first chapter is numbered 31"),
    ],
)
def test_gaps_repeats_and_jumps_are_named(wanted, warning):
    found = outline(book(*(f"第{han(n)}回 题目{i}" for i, n in enumerate(wanted))))
    assert [start.number for start in found.starts] == wanted
    assert any(warning in line for line in found.warnings), found.warnings


def test_a_misnumbered_chapter_is_kept():
    wrong = [n if n != 7 else 17 for n in range(1, 13)]
    found = outline(book(*(f"第{han(n)}回 题目{i}" for i, n in enumerate(wrong))))
    assert [start.number for start in found.starts] == wrong
    assert len(found.warnings) == 2


def test_another_unit_fills_a_gap():
    lines = [f"第{han(n)}{'章' if n == 6 else '回'} 标题" for n in range(1, 13)]
    assert numbers(book(*lines)) == list(range(1, 13))


def test_a_heading_repeated_in_its_own_chapter_is_marked():
    text = "".join(f"{line}\n{line}\n{BODY}{line}\n{BODY}" for line in HEADINGS)
    found = outline(text)
    assert [start.heading for start in found.starts] == HEADINGS
    assert len(found.repeated) == 24
    assert all(text[slice(*place)].strip() in HEADINGS for place in found.repeated)


def test_a_heading_of_two_chapters_leaves_no_gap():
    lines = [f"第{han(n)}回" for n in range(1, 17)] + ["第十七至十八回 大观园"]
    lines += [f"第{han(n)}回" for n in range(19, 25)]
    assert outline(book(*lines)).warnings == ()
    assert len(outline(book(*lines)).starts) == 23


def test_a_stray_heading_is_named_and_left_in_the_text():
    text = book(*HEADINGS[:6]) + book("第九十回 别的题目") + book(*HEADINGS[6:])
    found = outline(text)
    assert [start.heading for start in found.starts] == HEADINGS
    assert any("第九十回" in line for line in found.warnings)


def test_a_pattern_of_the_users_own():
    text = "".join(f"{n:03d}张九龄：感遇\n兰叶春葳蕤，桂华秋皎洁。\n" for n in range(1, 31))
    found = outline_by(re.compile(r"^\d{3}"), text)
    assert [start.number for start in found.starts] == list(range(1, 31))
    found = outline_by(re.compile(r"^=+ (?P<number>\w+)"), "=== IV here\ntext\n== VI\ntext\n")
    assert [start.number for start in found.starts] == [4, 6]
    assert "gap: no chapter 5" in found.warnings[0]


@pytest.mark.parametrize(
    "form",
    [
        "{han}",
        "{han}、标题",
        "{n}. 标题",
        "{n}",
        "（{han}）",
        "{n:03d}标题",
        "{han}回 标题",
        "第{han}夜",
    ],
)
def test_numbered_lines_of_one_form_are_headings_where_there_are_no_others(form):
    lines = [form.format(n=n, han=han(n)) for n in range(1, 25)]
    found = outline(book("书名") + book(*lines))
    assert [start.heading for start in found.starts] == lines
    assert found.warnings == ()


@pytest.mark.parametrize("form", ["{}", "{}.", "{}. The Storm, and After", "SONNET {}", "§ {}"])
def test_roman_numerals_alone_are_headings(form):
    roman = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
    lines = [form.format(n) for n in roman]
    table = "CONTENTS\n" + "".join(f"{line}\n" for line in lines)
    assert numbers(table + book(*lines, body=PROSE)) == list(range(1, 13))


def test_a_numbered_list_is_no_chapter():
    items = "一、头一件要紧\n二、第二件要紧\n三、第三件要紧\n四、第四件要紧\n"
    assert outline(BODY * 20 + items + BODY * 20).starts == ()
    assert outline(items + BODY * 20).starts == ()
    notes = "".join(f"［{n}］{BODY[:12]}\n" for n in range(1, 7))
    volumes = "".join(f"卷{han(n)}\n{BODY * 9}{notes}" for n in range(1, 9))
    assert numbers(volumes) == list(range(1, 9))
    assert outline("".join(f"{BODY}图{n} 标题\n" for n in range(1, 20))).starts == ()
    sections = "".join(f"{name}的故事\n" + book("一", "二", "三") for name in "甲乙丙丁戊己")
    assert outline(sections).starts == ()


def test_marked_titles_are_headings():
    text = book("# Book", body="") + book("## The Storm", "## A Visitor", "## Home", body=PROSE)
    assert outline(text).starts[0].heading == "## The Storm"


@pytest.mark.parametrize(
    "title", ["第一回合", "第三节课", "第一章程", "第二章", "第四十二章经", "（第三章送到）", "终"]
)
def test_a_number_in_a_title_is_not_the_chapters(title):
    lines = [f"第{han(n)}章 {title if n in (4, 8) else '标题'}" for n in range(1, 13)]
    assert numbers(book(*lines, body=BODY * 2)) == list(range(1, 13))


@pytest.mark.parametrize("line", ["第七回", "第七回见面是在桥上", "《三国演义》第七回"])
def test_a_line_of_another_style_does_not_come_before_a_heading(line):
    text = book(*HEADINGS)
    for n in (3, 5, 7, 9, 11):
        at = text.index(HEADINGS[n])
        text = f"{text[:at]}{line}\n{BODY}{text[at:]}"
    assert [start.heading for start in outline(text).starts] == HEADINGS


@pytest.mark.parametrize("line", ["第六张 标题", "六章 标题", "第六 标题"])
def test_a_misspelt_heading_fills_a_gap_and_is_named(line):
    lines = [f"第{han(n)}章 标题" if n != 6 else line for n in range(1, 13)]
    found = outline(book(*lines))
    assert [start.number for start in found.starts] == list(range(1, 13))
    (warning,) = found.warnings
    assert line in warning


@pytest.mark.parametrize("sentence", ["第六回他没有来", "第六回说到那日宝玉没有来。"])
def test_a_sentence_does_not_go_on_where_the_numbers_start_anew(sentence):
    text = "上卷\n" + book(*HEADINGS[:5]) + f"{sentence}\n{BODY}下卷\n" + book(*HEADINGS[:4])
    assert numbers(text) == [1, 2, 3, 4, 5, 1, 2, 3, 4]


def test_letters_before_the_chapters_are_chapters():
    lines = [f"Letter {n}" for n in range(1, 5)] + [f"Chapter {n}" for n in range(1, 13)]
    assert [start.heading for start in outline(book(*lines, body=PROSE)).starts] == lines


def test_chapters_of_one_line_are_chapters():
    text = "".join(f"第{han(n)}章 {BODY[n : n + 30]}。\n" for n in range(1, 31))
    assert numbers(text) == list(range(1, 31))
    text = "".join(f"第{han(n)}章\n{BODY[n : n + 30]}。\n" for n in range(1, 31))
    assert numbers(text) == list(range(1, 31))


def test_the_halves_of_a_chapter_are_no_repeat():
    lines = [f"第{han(n)}章 标题（{half}）" for n in range(1, 8) for half in "上下"]
    found = outline(book(*lines))
    assert [start.heading for start in found.starts] == lines
    assert found.warnings == ()


def test_english_sentences_that_name_a_chapter_are_none():
    lines = [f"Chapter {n}" for n in range(1, 11)]
    text = book(*lines, body=PROSE)
    for n in (2, 5, 8):
        at = text.index(lines[n])
        text = f"{text[:at]}Chapter 4 of this book says nothing of the sort.\n{text[at:]}"
    assert [start.heading for start in outline(text).starts] == lines


def test_headings_of_a_long_book_are_found_in_linear_time():
    text = book(*(f"第{n}章 标题" for n in range(1, 2001)))
    assert numbers(text) == list(range(1, 2001))


def test_a_sentence_behind_the_last_chapter_is_none():
    text = book(*HEADINGS) + f"第十三回说到刘姥姥的事，后来再讲。\n{BODY}"
    assert [start.heading for start in outline(text).starts] == HEADINGS
