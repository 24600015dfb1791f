"""The clean-up of any text: a book's, a file to score, a prompt."""

import pytest
from books import load, written

from hlm_jax.book.corpus import clean_file, clean_prompt, clean_text
from hlm_jax.book.errors import CorpusError


def test_a_file_to_score_is_cleaned_as_the_book_is(tmp_path):
    noisy = "<p>宝玉【批】笑道。</p>\n-----Page2-----\n　　黛玉&nbsp;听了。\n"
    path = written(tmp_path / "text.txt", noisy)
    removed = "text.txt: removed: html_tags 2, html_entities 1, page_marks 1, brackets 1$"
    with pytest.warns(UserWarning, match=removed):
        assert clean_file(path, drop_brackets="【】") == "宝玉笑道。\n黛玉 听了。\n"
    path.write_bytes("宝玉笑道。\n黛玉听了。\n".encode() + b"\xff")
    with pytest.warns(UserWarning, match="offset"):
        assert clean_file(path) == "宝玉笑道。\n黛玉听了。\n"
    with pytest.raises(CorpusError, match="no text"):
        clean_file(written(path, "-----Page2-----\n"))


LAYOUTS = [
    "　　宝玉笑道：“好。”\n　　黛玉听了。\n",
    "宝玉笑道：“好。”\n\n\n黛玉听了。",
    "\n  宝玉笑道：“好。”　\r\n \r\n\t黛玉听了。\r\n\r\n",
    "\ufeff宝玉笑道：“好。”\r黛玉\x00听了。\n\u3000\n",
    "宝玉笑道：“好。”\u2028黛玉听了。\x0c",
    "宝玉笑道：“好。”\x85\xa0\xa0黛玉听了。\x0b",
]


@pytest.mark.parametrize("text", LAYOUTS)
def test_the_same_text_in_any_layout_is_the_same_clean_text(text):
    clean = "宝玉笑道：“好。”\n黛玉听了。\n"
    assert clean_text(text) == clean
    assert clean_text(clean) == clean
    assert clean_prompt(text).strip() == clean.strip()


@pytest.mark.parametrize("tab", ["\t", "\t\t", " \t ", "\u3000\t\u3000"])
def test_a_tab_inside_a_line_is_a_space(tmp_path, tab):
    assert clean_text(f"\t宝玉{tab}黛玉\t\n\t\n") == "宝玉 黛玉\n"
    assert clean_prompt(f"\t宝玉{tab}黛玉") == "宝玉 黛玉"
    path = written(tmp_path / "b.txt", f"\t宝玉{tab}黛玉\n" * 60)
    assert load(path, tmp_path).report["cleaning"]["tabs"] == 60
    assert clean_file(path) == "宝玉 黛玉\n" * 60


def test_a_text_is_cleaned_as_the_corpus_is(tmp_path):
    raw = "".join(f"　　第{i}段，寶玉笑道：「妙極。」\n\n" for i in range(40))
    book = load(written(tmp_path / "book.txt", raw), tmp_path, convert="t2s")
    assert clean_text(raw, "t2s") == "".join(chapter.text for chapter in book.chapters)
    assert "宝玉笑道" in clean_text(raw, "t2s")
    assert "寶玉笑道" in clean_text(raw)
    with pytest.raises(CorpusError, match="OpenCC"):
        clean_text(raw, "nonsense")


@pytest.mark.parametrize("text", ["", " \n　\n", "\x00"])
def test_white_space_alone_is_an_empty_text(text):
    assert clean_text(text) == ""


@pytest.mark.parametrize(
    ("prompt", "clean"),
    [
        ("宝玉笑道：", "宝玉笑道："),
        ("　　宝玉笑道：", "宝玉笑道："),
        ("好。\n\n　　宝玉笑道：", "好。\n宝玉笑道："),
        ("好。\n", "好。\n"),
        ("好。  \r\n\r\n", "好。\n"),
        ("第六回　", "第六回　"),
        ("好。\n　　", "好。\n"),
        ("", ""),
    ],
)
def test_the_end_of_a_prompt_stays(prompt, clean):
    assert clean_prompt(prompt) == clean


def test_a_prompt_is_converted_as_the_corpus_is():
    assert clean_prompt("寶玉笑道：", "t2s") == "宝玉笑道："
