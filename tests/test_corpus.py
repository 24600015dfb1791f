"""A book from its files to chapters and splits, and the clean-up of other texts."""

import re

import pytest
from books import epub, load, written
from conftest import REPO

from hlm_jax.book import corpus, edition
from hlm_jax.book.corpus import (
    Chapter,
    describe_split,
    opening,
    split_chapters,
    write_chapters,
)
from hlm_jax.book.files import CorpusError, read_text
from hlm_jax.book.report import full, summary

INPUTS = REPO.parent / "shared" / "data" / "inputs"
BODY = "话说那日宝玉往潇湘馆来，只见凤尾森森，龙吟细细。\n黛玉在里面叹了一声，不觉滚下泪来。\n" * 5


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --- reading ---


def test_reading_a_book_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "book.txt", "宝玉笑道：“好。”\n" * 60)
    report = load(path, tmp_path / "data").report
    assert report["source"] == {"path": str(path), "encoding": "utf-8"}
    assert report["cut_by"] == "equal parts"
    load("book.txt", "data")
    assert files_in(tmp_path) == ["book.txt"]


def test_only_a_fetched_edition_is_written_and_only_where_asked(tmp_path, monkeypatch):
    data = (REPO / "data" / "zhiyanzhai" / "source.txt").read_bytes()
    monkeypatch.setattr(edition, "_download", lambda cached: data)
    load(tmp_path=tmp_path, write_cache=False)
    assert files_in(tmp_path) == []
    load(tmp_path=tmp_path)
    assert files_in(tmp_path) == ["zhiyanzhai", "zhiyanzhai/source.txt"]


def test_the_raw_text_of_the_edition_is_cleaned_as_the_edition_is(tmp_path, edition):
    again = load(REPO / "data" / "zhiyanzhai" / "source.txt", tmp_path)
    assert again.report == edition.report


def test_an_old_run_can_read_the_revision_that_it_was_trained_on(tmp_path, edition):
    old = load(tmp_path=REPO / "data", revision=1)
    sha256 = "886623827e4219502ead860dd3629fdb8c3d59be5b529f68825be85b7d9dc63c"
    assert old.report["sha256"] == sha256
    assert old.report["source"]["revision"] == 1
    assert edition.report["source"]["revision"] == 2
    assert edition.report["sha256"] != sha256


def test_a_wrong_number_of_chapters_is_an_error(edition):
    with pytest.raises(CorpusError, match="should have 80"):
        corpus._check_edition(edition.chapters[:79])
    with pytest.raises(CorpusError, match="expected"):
        corpus._check_edition((*edition.chapters[:79], Chapter(80, "第八十回", "短")))


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / "book.txt", "宝玉笑道。\n" * 60)
    assert read_text("~/book.txt").startswith("宝玉")
    assert load("~/book.txt", "~/data").name == "book"


def test_a_book_and_a_folder_of_its_chapters_give_the_same_chapters(tmp_path):
    chapters = [
        f"第{n}回 宴桃园豪杰三结义\n话说天下大势，分久必合。{n}。\n{BODY}" for n in range(1, 15)
    ]
    written(tmp_path / "book.txt", "三国演义\n罗贯中\n" + "".join(chapters))
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, chapter in enumerate(chapters):
        written(folder / f"chapter-{i + 1}.txt", chapter, "gb18030")
    one, many = load(tmp_path / "book.txt", tmp_path), load(folder, tmp_path)
    assert [c.text for c in one.chapters] == [c.text for c in many.chapters] == chapters
    assert one.report["dropped"] == [
        {"what": "before the first chapter", "chars": 9, "first": "三国演义 罗贯中"}
    ]
    assert many.report["source"]["files"] == 14


def test_the_report_names_everything_that_happened(tmp_path):
    text = "书名\n" + "".join(f"第{n}回\n{BODY}" for n in [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12])
    report = load(written(tmp_path / "b.txt", text), tmp_path).report
    assert report["chapters"] == 11
    assert report["cut_by"] == "headings"
    assert report["dropped"][0]["first"] == "书名"
    assert any("no chapter 6" in warning for warning in report["warnings"])


def test_the_report_of_a_folder_names_what_its_files_hold(tmp_path):
    licence = "*** END OF THE PROJECT GUTENBERG EBOOK A TALE ***\nSection 1. Donations\n"
    for n in range(1, 13):
        text = f"第{n}回\n{n}&amp;{BODY * 3}" + licence * (n in (3, 12))
        (tmp_path / f"{n}.txt").write_bytes(text.encode() + b"\xff" * (n == 2))
    written(tmp_path / "13.txt", "-----Page2-----\n")
    written(tmp_path / "14.txt", f"第14回\n{BODY[:5]}。\n")
    written(tmp_path / "README", "本仓库\n")
    for name in ("a.pdf", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"\0")
    report = load(tmp_path, tmp_path).report
    warnings = report["warnings"]
    assert f"{tmp_path / '2.txt'}: 1 damaged byte at offset" in warnings[0]
    assert "nothing but noise in 13.txt: left out" in warnings
    assert "files that were not read: 2 .jpg, 1 .pdf" in warnings
    assert any("chapter 14: under 5 % of" in line for line in warnings)
    assert [(part["what"], part["chars"]) for part in report["dropped"]] == [
        ("file README", 4),
        ("Project Gutenberg licence (2 places)", 2 * len(licence)),
    ]
    assert report["cleaning"]["html_entities"] == 12
    assert report["cleaning"]["page_marks"] == 1


def test_the_report_of_an_epub_names_what_its_pages_hold(tmp_path):
    pages = [f"<p>第{n}回</p><p>{BODY}<sup><a>1</a></sup></p>" for n in range(1, 13)]
    path = epub(tmp_path / "b.epub", "<p>书名</p>", *pages, "<p>版权页</p>")
    book = load(path, tmp_path, parts=5)
    assert [c.number for c in book.chapters] == list(range(1, 13))
    assert book.report["source"]["encoding"] == "epub (utf-8)"
    assert book.report["source"]["files"] == 14
    assert {part["what"] for part in book.report["dropped"]} == {
        "footnotes (12 places)",
        "before the first chapter",
        "page without a chapter",
    }
    plain = epub(tmp_path / "c.epub", f"<p>{BODY.replace(chr(10), '<br/>') * 9}</p>")
    assert len(load(plain, tmp_path, parts=5).chapters) == 5


def test_the_script_of_a_japanese_book_is_not_converted(tmp_path):
    line = "彼は東京の学校に通い、時々この話を聞いて、門の前で長い間、車を見ていた。\n"
    path = written(tmp_path / "b.txt", line * 40)
    assert not any("convert" in w for w in load(path, tmp_path).report["warnings"])
    kanji = re.sub("[ぁ-ん]", "", line)
    path = written(tmp_path / "c.txt", kanji * 40)
    assert any("convert" in w for w in load(path, tmp_path).report["warnings"])


def test_a_text_that_is_too_short_is_refused_unless_it_is_only_looked_at(tmp_path):
    path = written(tmp_path / "book.txt", "宝玉。")
    with pytest.raises(CorpusError, match="too short"):
        load(path, tmp_path)
    assert "too short" in load(path, tmp_path, strict=False).report["warnings"][-1]


@pytest.mark.parametrize(
    ("char_pairs", "expected"),
    [
        ("寶玉說：這個時候還沒見過他們來，後來過了兩個月，聽說他們會來問話。", "traditional"),
        ("宝玉说：这个时候还没见过他们来，后来过了两个月，听说他们会来问话。", None),
        (
            "寶玉說：這個時候還沒見過他們來。宝玉说：这个时候还没见过他们来，后来过了两个月。",
            "mixed",
        ),
    ],
)
def test_the_script_of_the_characters_is_noticed(tmp_path, char_pairs, expected):
    path = written(tmp_path / "book.txt", (char_pairs + "\n") * 40)
    warnings = [w for w in load(path, tmp_path).report["warnings"] if "convert" in w]
    assert len(warnings) == (expected is not None)
    assert expected is None or expected in warnings[0]
    if expected == "traditional":
        assert not any(
            "convert" in w for w in load(path, tmp_path, convert="t2s").report["warnings"]
        )


def test_traditional_becomes_simplified_on_request(tmp_path):
    path = written(tmp_path / "book.txt", "寶玉看著那塊玉，說道：「這個著作」。\n" * 40)
    text = "".join(c.text for c in load(path, tmp_path, convert="tw2s").chapters)
    assert "宝玉看着那块玉" in text
    assert "著作" in text
    with pytest.raises(CorpusError, match="OpenCC"):
        load(path, tmp_path, convert="nonsense")


def test_a_chapter_of_another_length_is_named(tmp_path):
    text = "".join(f"第{n}回\n{BODY * (30 if n == 7 else 1)}" for n in range(1, 31))
    warnings = load(written(tmp_path / "b.txt", text), tmp_path).report["warnings"]
    assert any("chapter 7: over eight times" in warning for warning in warnings)


def test_brackets_are_left_out_on_request(tmp_path):
    text = "".join(f"第{n}回\n宝玉【甲戌侧批：妙。】笑道。\n{BODY}" for n in range(1, 13))
    path = written(tmp_path / "b.txt", text)
    assert "【" in load(path, tmp_path).chapters[0].text
    book = load(path, tmp_path, drop_brackets="【】")
    assert book.chapters[0].text == f"第1回\n宝玉笑道。\n{BODY}"


# --- written chapters ---


@pytest.mark.parametrize("prologue", ["", f"楔子 甲/乙：丙\n{BODY}{BODY}"])
@pytest.mark.parametrize("numbers", [range(1, 13), [1, 2, 3, 4, 5, 6] * 2, range(100, 112)])
def test_written_chapters_are_read_back_as_they_were(tmp_path, prologue, numbers):
    text = "".join(f"第{n}回 题目/{n}？\n{BODY}{i}。\n" for i, n in enumerate(numbers))
    book = load(written(tmp_path / "b.txt", prologue + text), tmp_path)
    folder = write_chapters(book, tmp_path / "chapters")
    again = load(folder, tmp_path)
    assert [(c.number, c.heading, c.text) for c in again.chapters] == [
        (c.number, c.heading, c.text) for c in book.chapters
    ]
    with pytest.raises(CorpusError, match="not empty"):
        write_chapters(book, folder)


# --- splits ---


def chapters_of(*lengths, first=1):
    return [Chapter(first + i, "", "字" * length) for i, length in enumerate(lengths)]


def test_split_is_by_chapter(edition):
    splits = split_chapters(edition.chapters, held_out=True)
    assert [c.number for c in splits["test"]] == list(range(5, 80, 10))
    assert [c.number for c in splits["val"]] == list(range(10, 81, 10))
    assert len(splits["train"]) == 64
    assert len(split_chapters(edition.chapters, held_out=False)["train"]) == 80
    fewer = split_chapters(edition.chapters, held_out=True, train_every=4)
    assert fewer["train"] == splits["train"][::4]
    assert (fewer["val"], fewer["test"]) == (splits["val"], splits["test"])
    line = describe_split(splits, 80)
    assert line.startswith("held out: chapters 10, 20, …, 80 for validation, chapters 5, 15, …, 75")


def test_chapters_are_held_out_by_their_numbers():
    chapters = chapters_of(*[100] * 21, first=0)

    def numbers(**named):
        splits = split_chapters(chapters, held_out=True, **named)
        assert splits["val"] == []
        line = describe_split(splits, 21)
        return [[c.number for c in splits[name]] for name in ("train", "test")], line

    (train, test), line = numbers(test="0,7-9")
    assert test == [0, 7, 8, 9]
    assert train == [*range(1, 7), *range(10, 21)]
    assert line == (
        "held out: chapters 0, 7, 8, 9 for the test (as split.test names them; 19% of the text)"
    )
    (train, test), line = numbers(train="3,1", test="20")
    assert (train, test) == ([1, 3], [20])
    assert line.endswith("33% of the text in use); 2 of 21 chapters are trained on")
    (train, test), line = numbers(train="1-20")
    assert (train, test) == ([*range(1, 21)], [])
    assert line == "held out: nothing; 20 of 21 chapters are trained on"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"test": "8-10"}, "split.test=8-10: the book has no chapter 10; it has 1-9"),
        ({"train": "0-2", "test": "5"}, "split.train=0-2: the book has no chapter 0"),
        ({"test": "1-9"}, "split.test=1-9 names every chapter: none is left to train on"),
    ],
)
def test_numbers_that_the_book_does_not_allow_are_refused(named, message):
    with pytest.raises(CorpusError) as refused:
        split_chapters(chapters_of(*[100] * 9), held_out=False, **named)
    assert str(refused.value).startswith(message)


def test_a_prologue_is_trained_on_and_not_counted():
    splits = split_chapters(chapters_of(*[100] * 21, first=0), held_out=True)
    assert [c.number for c in splits["val"]] == [10, 20]
    assert splits["train"][0].number == 0
    assert "every tenth" in describe_split(splits, 21)
    short = split_chapters(chapters_of(*[100] * 10, first=0), held_out=True)
    assert "short book" in describe_split(short, 10)


def test_thinned_training_chapters_do_not_change_the_rule():
    splits = split_chapters(chapters_of(*[100] * 20), held_out=True, train_every=4)
    assert "every tenth" in describe_split(splits, 20)


def test_a_report_tells_another_text_and_another_cut(tmp_path):
    text = "".join(f"第{n}回\n{n}{BODY}" for n in range(1, 13))
    report = load(written(tmp_path / "a.txt", text), tmp_path).report
    assert corpus.difference(report, report) == ""
    other = load(written(tmp_path / "b.txt", text.replace("宝玉", "贾母", 1)), tmp_path).report
    assert "sha256" in corpus.difference(other, report)
    merged = load(tmp_path / "a.txt", tmp_path, heading="^第[^7]*回").report
    assert merged["sha256"] == report["sha256"]
    assert "cut into 11 chapters" in corpus.difference(merged, report)
    # A run of before recorded no borders: what it recorded is compared.
    old = {key: value for key, value in report.items() if key != "lengths_sha256"}
    assert corpus.difference(report, old) == ""
    assert "as an earlier version" in corpus.difference(merged, old)
    assert "earlier version" in corpus.difference(other, old)


@pytest.mark.parametrize(
    ("lengths", "val", "test"),
    [
        ([100] * 9, [1], [2]),
        ([100] * 6, [1], []),
        ([500, 90, 400, 110, 600], [4], [2]),
        ([100, 100], [1], []),
        ([100], [], []),
    ],
)
def test_a_short_book_holds_whole_chapters_out(lengths, val, test):
    splits = split_chapters(chapters_of(*lengths), held_out=True)
    assert [c.number for c in splits["val"]] == val
    assert [c.number for c in splits["test"]] == test
    assert sum(map(len, splits.values())) == len(lengths)
    line = describe_split(splits, len(lengths))
    assert ("nothing" in line) == (not val)
    if val:
        assert f"chapter {val[0]} for validation" in line
        assert "short book" in line


@pytest.mark.parametrize(
    ("heading", "text", "expected"),
    [
        ("第十回 题目", "第十回 题目\n话说那日宝玉，走来。\n", "第十回 题目\n话说那日宝玉，"),
        (
            "CHAPTER X",
            "CHAPTER X\nThe Mock Turtle sighed, and\n",
            "CHAPTER X\nThe Mock Turtle sighed,",
        ),
        (
            "CHAPTER X",
            "CHAPTER X\nThe Lobster Quadrille\nThe Mock Turtle sighed deeply, and\n",
            "CHAPTER X\nThe Lobster Quadrille\nThe Mock Turtle sighed deeply,",
        ),
        ("第十回 题目", "第十回 题目\n诗曰：\n花落水流红，\n", "第十回 题目\n诗曰："),
        ("故事", "从前有座山，山里有座庙。\n", "从前有座山，"),
        ("", "字" * 100 + "\n", "字" * 40),
    ],
)
def test_the_opening_is_how_a_chapter_begins(heading, text, expected):
    chapter, other = Chapter(10, heading, text), Chapter(1, "", "别的。\n")
    assert opening({"train": [other], "val": [chapter], "test": []}) == expected
    assert opening({"train": [chapter, other], "val": [], "test": []}) == expected


# --- small real books that went wrong, where they are at hand ---

SHARED = {
    "hlm12_ch5_opens_with_第四回.txt": (list(range(1, 13)), {}),
    "toc_then_preface.txt": (list(range(1, 17)), {}),
    "half_prefixed_zhengwen.txt": (list(range(1, 21)), {}),
    "heading_and_text_on_one_line.txt": (list(range(1, 31)), {}),
    "folder_cn_numerals": (list(range(1, 13)), {}),
    "folder_with_readme": (list(range(1, 13)), {}),
    "gutenberg_english.txt": (list(range(1, 13)), {}),
}


@pytest.mark.skipif(not INPUTS.exists(), reason="the inputs are not at hand")
@pytest.mark.parametrize("name", SHARED)
def test_chapters_of_books_that_went_wrong(name, tmp_path):
    numbers, options = SHARED[name]
    book = load(INPUTS / name, tmp_path, **options)
    assert [c.number for c in book.chapters] == numbers
    assert all(c.heading for c in book.chapters)
    text = "".join(c.text for c in book.chapters)
    for noise in ("Gutenberg", "MIT License", "本仓库", "版本：", "-----Page"):
        assert noise not in text


@pytest.mark.skipif(not INPUTS.exists(), reason="the inputs are not at hand")
def test_other_books_that_went_wrong(tmp_path):
    hlm = load(INPUTS / "hlm12_ch5_opens_with_第四回.txt", tmp_path)
    assert hlm.chapters[4].heading.startswith("第五回　游幻境")
    assert hlm.chapters[4].body.startswith("第四回中既将")
    assert load(INPUTS / "toc_then_preface.txt", tmp_path).chapters[0].heading.startswith("第一回")
    contents = load(INPUTS / "toc_spaced_tens.txt", tmp_path, strict=False)
    assert not any("第" in c.heading for c in contents.chapters)
    assert contents.report["dropped"][0]["what"] == "table of contents"
    big5 = load(INPUTS / "big5_hkscs_one_char.txt", tmp_path, strict=False)
    assert big5.report["source"]["encoding"] in ("big5hkscs", "cp950")
    bad_byte = load(INPUTS / "utf8_one_bad_byte.txt", tmp_path, strict=False)
    assert any("offset" in warning for warning in bad_byte.report["warnings"])
    wrapped = load(INPUTS / "hard_wrapped_pages.txt", tmp_path)
    lines = [line for c in wrapped.chapters for line in c.body.splitlines()]
    assert max(map(len, lines)) > 100
    assert any("joined" in warning for warning in wrapped.report["warnings"])
    korean = load(INPUTS / "korean_euckr.txt", tmp_path)
    assert korean.report["source"]["encoding"] in ("euc_kr", "cp949")


# --- what the report says ---


def test_a_chapter_written_and_corrected_by_hand_leaves_no_gap(tmp_path):
    text = "".join(f"第{n}回\n{n}{BODY}" for n in range(1, 13) if n not in (7, 10))
    folder = write_chapters(load(written(tmp_path / "b.txt", text), tmp_path), tmp_path / "c")
    assert any("no chapter 7" in w for w in load(folder, tmp_path).report["warnings"])
    written(folder / "007 fix.txt", f"七{BODY}")
    warnings = load(folder, tmp_path).report["warnings"]
    assert [w for w in warnings if "gap" in w] == ["gap: no chapter 10 (before '第11回')"]
    written(folder / "010 鲁翰林怜才.txt", BODY)
    assert not any("gap" in w for w in load(folder, tmp_path, heading="^第").report["warnings"])
    book = load(folder, tmp_path)
    assert book.report["warnings"] == []
    assert [c.number for c in book.chapters] == list(range(1, 13))
    assert book.chapters[9].heading == "鲁翰林怜才"
    (folder / "007 fix.txt").rename(folder / "006b 七.txt")
    book = load(folder, tmp_path)
    assert [c.heading for c in book.chapters[5:8]] == ["第6回", "七", "第8回"]
    assert [c.number for c in book.chapters] == list(range(1, 13))
    assert not any("gap" in w or "several" in w for w in book.report["warnings"])


def test_plain_facts_are_notes_and_no_warnings(tmp_path):
    text = f"楔子\n{BODY}{BODY}" + "".join(f"第{n}回\n{BODY * n}" for n in range(1, 7))
    book = load(written(tmp_path / "b.txt", text + "第三回中已经说过此事。\n"), tmp_path)
    lines = summary(book.report, split_chapters(book.chapters, held_out=True)).splitlines()
    notes = [line for line in lines if line.startswith("  note: ")]
    assert any("chapter 0" in note for note in notes)
    assert any("whole ones are held out" in note for note in notes)
    assert any("1 line begins like a heading" in note and "第三回中" in note for note in notes)
    assert not any("warning: note" in line for line in lines)
    assert "sentences_like_headings" not in book.report["cleaning"]


def test_the_paragraphs_shown_are_long_ones_where_there_are(tmp_path):
    text = "".join(f"第{n}回\n{BODY}{'长' * 90 * (n < 4)}\n" for n in range(1, 13))
    book = load(written(tmp_path / "b.txt", text), tmp_path)
    shown = full(book, split_chapters(book.chapters, held_out=True), 0.5)
    assert shown.count("长" * 90) == 3
    assert "tokens per character: 0.500 (how many tokens the model reads" in shown


@pytest.mark.parametrize(
    ("chapters", "size", "named"), [(9, 3, True), (9, 2, False), (5, 3, False)]
)
def test_a_last_chapter_that_may_hold_another_is_named(tmp_path, chapters, size, named):
    text = "".join(f"第{n}回\n{BODY * (size if n == chapters else 1)}" for n in range(1, chapters))
    text += f"第{chapters}回\n{BODY * size}"
    warnings = load(written(tmp_path / "b.txt", text), tmp_path).report["warnings"]
    assert any("the last one, is more than twice" in w for w in warnings) == named


def test_empty_pages_of_an_epub_are_named(tmp_path):
    pages = [f"<p>第{n}回</p><p>{BODY}</p>" for n in range(1, 13)]
    nav = "<nav><ol><li>第1回</li></ol></nav>"
    path = epub(tmp_path / "b.epub", "<img src='cover.jpg'/>", nav, *pages)
    dropped = load(path, tmp_path).report["dropped"]
    assert [(part["what"], part["first"]) for part in dropped] == [
        ("page without text", "0.xhtml"),
        ("navigation", "第1回"),
    ]
