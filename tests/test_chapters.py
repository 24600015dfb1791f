"""Clean text -> chapters: fronts, files, few chapters, equal parts."""

import pytest

from hlm_jax.book.chapters import cut_book
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.files import TextFile

BODY = "话说那日宝玉往潇湘馆来，只见凤尾森森，龙吟细细。\n黛玉在里面叹了一声，不觉滚下泪来。\n" * 5
HEADINGS = [f"第{n}回 题目之{n}" for n in range(1, 13)]
BOOK = "".join(f"{line}\n{BODY}" for line in HEADINGS)


def cut(*texts, names=None, heading="", parts=20, is_epub=False):
    names = names or [f"{i + 1}.txt" for i in range(len(texts))]
    files = [TextFile(name, text) for name, text in zip(names, texts, strict=True)]
    return cut_book(files, heading=heading, parts=parts, is_epub=is_epub)


def numbers(found):
    return [chapter.number for chapter in found.chapters]


def test_every_character_of_the_chapters_is_kept():
    found = cut(BOOK)
    assert "".join(chapter.text for chapter in found.chapters) == BOOK
    assert [chapter.heading for chapter in found.chapters] == HEADINGS
    assert found.chapters[0].body == BODY
    assert (found.cut_by, found.dropped, found.warnings, found.problem) == ("headings", (), (), "")


def test_title_page_and_preface_are_left_out_and_named():
    front = "书名\n作者：某人\n序\n" + "这篇序讲这本书的来历，与正文无关。\n" * 70
    found = cut(front + BOOK)
    assert numbers(found) == list(range(1, 13))
    (dropped,) = found.dropped
    assert (dropped.what, dropped.chars) == ("preface", len(front))
    assert dropped.first.startswith("书名 作者：某人")
    assert any("楔子" in warning for warning in found.warnings)  # it is long: how to keep it
    found = cut(f"{front}楔子\n{BODY}{BODY}{BOOK}")
    assert numbers(found) == list(range(13))
    assert any("are left out ('书名" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "title", ["楔子", "引首", "自序", "楔子 张天师祈禳瘟疫", "PROLOGUE", "【引子】"]
)
def test_a_prologue_is_chapter_0(title):
    found = cut(f"书名\n{title}\n{BODY}{BODY}" + BOOK)
    assert numbers(found) == list(range(13))
    assert found.chapters[0].heading == title
    assert found.chapters[0].text == f"{title}\n{BODY}{BODY}"
    assert [part.first for part in found.dropped] == ["书名"]
    assert "chapter 0" in found.warnings[0]


def test_a_short_prologue_is_no_chapter():
    found = cut("楔子\n一句话。\n" + BOOK)
    assert numbers(found) == list(range(1, 13))
    assert len(found.dropped) == 1


def test_a_table_of_contents_between_prologue_and_chapters_is_dropped():
    table = "目录\n" + "".join(f"{line}\n" for line in HEADINGS)
    found = cut(f"楔子\n{BODY}{BODY}{table}" + BOOK)
    assert numbers(found) == list(range(13))
    assert found.chapters[0].text == f"楔子\n{BODY}{BODY}"
    assert [(part.what, part.chars) for part in found.dropped] == [
        ("table of contents", len(table))
    ]


def test_a_first_chapter_without_its_heading_is_not_lost():
    found = cut(BOOK.split("\n", 1)[1])
    assert numbers(found) == list(range(1, 13))
    assert found.chapters[0].text == BODY
    assert "chapter 1, whose heading is missing" in "".join(found.warnings)


def test_repeated_headings_are_left_out_and_counted():
    found = cut("".join(f"{line}\n{line}\n{BODY}" for line in HEADINGS))
    assert "".join(chapter.text for chapter in found.chapters) == BOOK
    assert found.counts == {"repeated_headings": 12}


def test_chapters_keep_their_own_numbers_where_these_rise():
    part = "".join(f"第{n}回 题目\n{BODY}" for n in [*range(81, 90), *range(91, 95)])
    assert numbers(cut(part)) == [*range(81, 90), *range(91, 95)]
    assert numbers(cut(BOOK + BOOK)) == list(range(1, 25))


def test_a_file_without_a_heading_is_a_chapter_of_its_own():
    names = [f"{n:02d} 故事{n}.txt" for n in range(1, 13)]
    found = cut(*[f"{n}{BODY}" for n in range(1, 13)], names=names)
    assert found.cut_by == "files"
    assert [chapter.heading for chapter in found.chapters] == [name[3:-4] for name in names]
    assert [chapter.text for chapter in found.chapters] == [f"{n}{BODY}" for n in range(1, 13)]
    texts = [f"{line}\n{BODY}" for line in HEADINGS]
    texts[4] = BODY  # one of them without its heading
    found = cut(*texts)
    assert numbers(found) == list(range(1, 13))
    assert found.chapters[4].text == BODY
    assert found.chapters[5].text.startswith("第6回")


def test_a_line_above_the_first_heading_of_a_file_belongs_to_its_chapter():
    found = cut(*[f"红楼梦\n{line}\n{BODY}" for line in HEADINGS])
    assert numbers(found) == list(range(1, 13))
    assert found.chapters[1].text.startswith("红楼梦\n第2回")
    assert not found.chapters[0].text.endswith("红楼梦\n")


def test_numbers_may_start_anew_in_every_file():
    found = cut(*["".join(f"第{n}回\n{BODY}" for n in range(1, 6)) for _ in range(3)])
    assert numbers(found) == list(range(1, 16))
    assert found.warnings == ()


def test_short_pages_of_an_epub_are_no_chapters():
    pages = ["书名\n", *[f"{line}\n{BODY * 3}" for line in HEADINGS], "版权页\n"]
    found = cut(*pages, is_epub=True)
    assert [chapter.heading for chapter in found.chapters] == HEADINGS
    assert sorted(part.first for part in found.dropped) == ["书名", "版权页"]
    stories = [f"The Story of {n}\n" + "It was a dark night. " * 40 + "\n" for n in range(12)]
    found = cut(*stories, is_epub=True)
    assert [chapter.heading for chapter in found.chapters] == [s.split("\n")[0] for s in stories]


def test_pages_of_an_epub_about_the_book_are_no_chapters():
    pages = [f"{line}\n{BODY * 3}" for line in HEADINGS]
    found = cut(*pages, "About the Author\n" + BODY * 3, "注释\n" + BODY * 4, is_epub=True)
    assert [chapter.heading for chapter in found.chapters] == HEADINGS
    assert [part.chars for part in found.dropped] == [len(BODY) * 3 + 17, len(BODY) * 4 + 3]
    poems = [f"诗{n}\n{BODY[:60]}\n" for n in "甲乙丙丁戊己庚辛壬癸"]
    assert len(cut(*poems, is_epub=True).chapters) == 10


def test_a_chapter_may_go_on_in_the_next_page_of_an_epub():
    pages = [page for line in HEADINGS for page in (f"{line}\n{BODY}", BODY * 4)]
    found = cut(*pages, is_epub=True)
    assert [chapter.heading for chapter in found.chapters] == HEADINGS
    assert found.chapters[3].body == BODY * 5
    titles = [f"The Story of {n}\n{BODY * 4}" for n in range(12)]
    found = cut(*(page for title in titles for page in (title, BODY * 4)), is_epub=True)
    assert len(found.chapters) == 12
    assert len(cut(*[BODY * 4] * 12, is_epub=True).chapters) == 12  # no page has a title


def test_a_volumes_page_of_an_epub_opens_its_first_chapter():
    pages = []
    for n in range(12):
        pages += [f"第{n // 4 + 1}部\n"] * (n % 4 == 0) + [f"第{n % 4 + 1}章\n{BODY * 4}"]
    found = cut(*pages, is_epub=True)
    assert [chapter.heading for chapter in found.chapters] == [
        f"第{n % 4 + 1}章" for n in range(12)
    ]


def test_a_chapter_may_go_on_in_the_next_file():
    half = len(HEADINGS[0]) + 1 + len(BODY)
    found = cut(*(BOOK[i : i + half * 3] for i in range(60, len(BOOK), half * 3)))
    assert [chapter.body for chapter in found.chapters[1:]] == [BODY] * 11


def test_few_chapters_of_unlike_length_stay_whole():
    found = cut("".join(f"第{n}回\n{BODY * (1 + n % 3)}" for n in range(1, 7)))
    assert numbers(found) == [1, 2, 3, 4, 5, 6]
    assert found.cut_by == "headings"
    assert found.warnings == ("note: only 6 chapters: whole ones are held out by their length",)


def test_text_before_one_stray_heading_is_kept():
    before, after = "甲" + BODY * 10, "乙" + BODY * 10
    found = cut(f"{before}第一回 甲乙\n{after}")
    assert found.cut_by == "equal parts"
    assert "".join(c.text for c in found.chapters) == f"{before}第一回 甲乙\n{after}"
    assert found.dropped == ()
    assert len(found.warnings) == 1  # nothing was left out
    assert cut(f"书名\n第一回 甲乙\n{after}").dropped[0].first == "书名"
    pages = [f"故事{n}\n{BODY * 4}" for n in range(20)]
    pages[8] += f"第一回 甲乙\n{BODY * 4}"
    found = cut(*pages, is_epub=True)
    assert "".join(c.text for c in found.chapters) == "".join(pages)
    found = cut(pages[8], *pages[:8])
    assert "".join(c.text for c in found.chapters) == pages[8] + "".join(pages[:8])


def test_a_heading_without_text_is_named():
    found = cut(BOOK + "第13回 题目\n")
    assert numbers(found) == list(range(1, 13))
    assert found.warnings == ("chapter 13 has no text below the heading: left out",)
    stories = [f"{n}{BODY}" for n in range(11)]
    found = cut(*stories, "尾声\n", names=[*map(str, range(11)), "z.txt"], heading="^尾声|^7")
    assert found.dropped[0].first == "尾声"  # below a pattern's own it is an entry of a table


def test_a_heading_may_hold_the_beginning_of_its_text():
    text = "".join(
        f"第{n}回 题目诗曰：宝玉笑道。{BODY[:70].replace(chr(10), '')}\n{BODY}"
        for n in range(1, 13)
    )
    first = cut(text).chapters[0]
    assert first.heading == "第1回 题目诗曰：宝玉笑道"
    assert first.body == f"{BODY[:70].replace(chr(10), '')}\n{BODY}"
    assert first.text.endswith(first.body)


@pytest.mark.parametrize(
    ("name", "title", "number"),
    [
        ("000 楔子.txt", "楔子", 0),
        ("卷一/03. The Title.md", "The Title", 3),
        ("3. The Title", "The Title", 3),
        ("012.txt", "012", 12),
        ("12-13.txt", "12-13", 12),
        ("05 诗.txt", "诗", 5),
        ("19-20 日记.txt", "19-20 日记", 19),
        ("红楼梦 12.txt", "红楼梦 12", 12),
    ],
)
def test_the_title_in_a_files_name_is_its_heading(name, title, number):
    texts = [f"{n}{BODY}" for n in range(12)]
    found = cut(*texts, names=[name, *(f"{n} 甲.txt" for n in range(81, 92))])
    assert (found.chapters[0].heading, found.chapters[0].number) == (title, number)


def test_a_prologue_ends_at_a_preface():
    preface = f"凡例\n{BODY}"
    found = cut(f"楔子\n{BODY}{BODY}{preface}" + BOOK)
    assert found.chapters[0].text == f"楔子\n{BODY}{BODY}"
    assert [part.chars for part in found.dropped] == [len(preface)]
    found = cut(f"楔子\n{BODY[:20]}\n{preface}" + BOOK)  # it is too near: a line of the prologue
    assert found.chapters[0].text.endswith(preface)


def test_text_above_a_heading_behind_a_file_without_one_is_a_chapter():
    texts = [f"{line}\n{BODY}" for line in HEADINGS]
    texts[4], texts[5] = BODY, f"{BODY}{BODY}{texts[5]}"
    found = cut(*texts, names=[f"{n}.txt" for n in "abcdefghijkl"])
    assert [c.heading for c in found.chapters[3:7]] == [HEADINGS[3], "e", "f", HEADINGS[5]]
    assert found.chapters[5].text == BODY + BODY


@pytest.mark.parametrize(
    ("sizes", "cut_by"), [((3, 3, 3, 3), "equal parts"), ((1, 5, 5, 5), "headings")]
)
def test_few_chapters_are_cut_into_parts_where_each_is_over_a_fifth(sizes, cut_by):
    found = cut("".join(f"第{n}回\n{BODY * size}" for n, size in enumerate(sizes, 1)))
    assert found.cut_by == cut_by
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("note: only 4 chapters")
    assert "corpus.heading" not in found.warnings[0]


def test_two_chapters_are_cut_into_parts_that_do_not_cross_their_border():
    found = cut(f"第1回\n{BODY * 8}第2回\n{BODY * 12}")
    assert found.cut_by == "equal parts"
    assert numbers(found) == list(range(1, 21))
    assert found.chapters[8].text.startswith("第2回")
    assert [c.heading for c in found.chapters[7:9]] == ["第1回 (8/8)", "第2回 (1/12)"]
    assert all(chapter.text.endswith("\n") for chapter in found.chapters)  # cut at paragraphs
    assert "corpus.heading" in found.warnings[0]


def test_parts_do_not_cross_the_border_of_two_files():
    found = cut("甲甲甲甲甲。\n" * 40, "乙乙乙乙乙。\n" * 60)
    assert found.cut_by == "equal parts"
    assert len(found.chapters) == 20
    assert not any("甲" in chapter.text and "乙" in chapter.text for chapter in found.chapters)


def test_one_long_line_is_cut_after_sentences():
    found = cut("宝玉笑道。" * 200)
    assert len(found.chapters) == 20
    assert all(chapter.text.rstrip().endswith("。") for chapter in found.chapters)


def test_a_text_that_is_too_short_has_a_problem():
    assert "too short" in cut("宝玉。").problem
    assert (
        "too short" in cut("书名\n一段。\n" + "".join(f"第{n}回\n" for n in range(1, 31))).problem
    )
    assert "table of contents" in cut("".join(f"第{n}回\n" for n in range(1, 31))).problem


def test_a_pattern_of_the_users_own_cuts_the_book():
    poems = "".join(f"张九龄感遇（{n:03d}）\n{BODY}" for n in range(1, 31))
    assert cut(poems).cut_by == "equal parts"
    found = cut(poems, heading=r"（(?P<number>\d{3})）$")
    assert numbers(found) == list(range(1, 31))
    assert found.chapters[2].heading == "张九龄感遇（003）"
    with pytest.raises(CorpusError, match="no line matches"):
        cut(poems, heading="^nothing")
    assert "matches one line" in cut(poems, heading="005").warnings[0]


def test_a_pattern_that_matches_too_much_is_named():
    assert "too much" not in "".join(cut(BOOK, heading="^第").warnings)
    alice = "爱丽丝笑道，这一句话不短。"
    text = "".join(f"{line}\n{line}{alice}\n{alice}{line}\n{BODY}" for line in HEADINGS)
    found = cut(text, heading="^第|爱丽丝")
    assert any("may match too much" in warning for warning in found.warnings)
    with pytest.raises(CorpusError, match="too much"):
        cut("".join(f"第{n}句，宝玉笑道。\n" for n in range(300)), heading=".")


def books_of(unit, n):
    return "".join(f"第{i}{unit} 题目\n{unit}{i}{BODY}" for i in range(1, n + 1))


def test_books_with_other_units_are_each_cut_by_their_own():
    found = cut(books_of("回", 12), books_of("卷", 6), books_of("回", 8))
    assert numbers(found) == list(range(1, 27))
    assert found.chapters[12].heading == "第1卷 题目"
    assert found.warnings == ()


def test_a_file_whose_unit_is_not_used_is_named():
    found = cut(books_of("回", 12), books_of("卷", 6), "甲" * 50 + "。\n" + BODY)
    assert found.warnings[0].startswith("1.txt: 12 headings with 回 are no chapters")
    assert not any("2.txt" in warning for warning in found.warnings)


def test_marks_of_markdown_before_headings_are_left_out():
    text = "".join(f"## {line}\n### 一节\n{BODY}" for line in HEADINGS)
    found = cut("# 第一部\n" + text)
    assert [chapter.heading for chapter in found.chapters] == HEADINGS
    assert found.chapters[0].text == f"第一部\n{HEADINGS[0]}\n### 一节\n{BODY}"
    assert found.chapters[1].body == f"### 一节\n{BODY}"
    assert found.counts["markdown_marks"] == 13
