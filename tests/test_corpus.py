import re

import opencc
import pytest
from conftest import REPO

from hlm_jax.book import corpus, edition
from hlm_jax.book.corpus import clean_prompt, clean_text, load_corpus, split_chapters
from hlm_jax.book.edition import EditionError
from hlm_jax.book.files import CorpusError, read_book, read_text


def load(path="", tmp_path=None, **more):
    options = {
        "edition": "zhiyanzhai",
        "cache_dir": str(tmp_path),
        "convert": "",
        "parts": 20,
    } | more
    return load_corpus(path=str(path), **options)


def test_edition_has_80_plausible_chapters_and_no_commentary(edition):
    assert [c.number for c in edition.chapters] == list(range(1, 81))
    text = "".join(c.text for c in edition.chapters)
    assert not re.search("[【】]|侧批|眉批|夹批|校者注|脂批|（按|畸笏|庚辰本", text)
    assert not re.search(r"[a-zA-Z0-9<>\"'#\ue000-\uf8ff□■]", text)
    assert all(
        re.fullmatch(r"第[一二三四五六七八九十]+回\u3000\S+\u3000\S+", c.heading)
        for c in edition.chapters
    )
    assert all(4_000 < len(c.text) < 13_000 and c.text.endswith("\n") for c in edition.chapters)
    assert not re.search(r"\n\n|\n[ \u3000]|[ \u3000]\n| ", text)
    assert edition.chapters[0].text.split("\n")[1].startswith("列位看官：你道此书从何而来")


def test_report_names_and_counts_every_rule(edition):
    rules = {rule.__name__.strip("_") for rule in edition_rules()}
    assert rules <= set(edition.report["cleaning"])
    assert edition.report["cleaning"]["commentary"] == 4100
    assert edition.report["cleaning"]["byte_shift"] > 240


def test_the_cleaned_edition_is_the_text_that_runs_were_trained_on(edition):
    sha256 = "886623827e4219502ead860dd3629fdb8c3d59be5b529f68825be85b7d9dc63c"
    assert edition.report["sha256"] == sha256


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_reading_a_book_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "book.txt"
    path.write_text("宝玉笑道：“好。”\n" * 60, encoding="utf-8")
    report = load(path, tmp_path / "data").report
    assert report["source"] == {"path": str(path)}
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


LAYOUTS = [
    "　　宝玉笑道：“好。”\n　　黛玉听了。\n",
    "宝玉笑道：“好。”\n\n\n黛玉听了。",
    "\n  宝玉笑道：“好。”　\r\n \r\n\t黛玉听了。\r\n\r\n",
    "\ufeff宝玉笑道：“好。”\r黛玉\x0c听了。\n\u3000\n",
]


@pytest.mark.parametrize("text", LAYOUTS)
def test_the_same_text_in_any_layout_is_the_same_clean_text(text):
    clean = "宝玉笑道：“好。”\n黛玉听了。\n"
    assert clean_text(text) == clean
    assert clean_text(clean) == clean
    assert clean_prompt(text).strip() == clean.strip()


def test_a_text_is_cleaned_as_the_corpus_is(tmp_path):
    raw = "".join(f"　　第{i}段，寶玉笑道：「妙極。」\n\n" for i in range(40))
    (tmp_path / "book.txt").write_text(raw, encoding="utf-8")
    book = load(tmp_path / "book.txt", tmp_path, convert="t2s")
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


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "book.txt").write_text("宝玉笑道。\n" * 60, encoding="utf-8")
    assert read_text("~/book.txt").startswith("宝玉")
    name, text, source = read_book("~/book.txt")
    assert (name, text[:2], source) == ("book", "宝玉", {"path": str(tmp_path / "book.txt")})
    assert load("~/book.txt", "~/data").name == "book"


def test_a_table_of_contents_alone_is_cut_into_equal_parts(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"第{i}回 宝玉黛玉\n" for i in range(1, 41)), encoding="utf-8")
    assert load(path, tmp_path).report["cut_by"] == "equal parts"


def edition_rules():
    return edition.RULES


def test_every_repair_applies_and_most_are_proved_by_the_bytes_that_survived():
    rows = edition.repairs()
    proved = sum(edition.proved_by_bytes(*row) for row in rows)
    assert len(rows) > 240
    assert proved / len(rows) > 0.85
    assert edition.proved_by_bytes("其艳若何？ 加 澄塘", "其艳若何？霞映澄塘")
    assert not edition.proved_by_bytes("其艳若何？ 加 澄塘", "其艳若何？月照澄塘")


def test_mended_passages_read_as_the_novel_does(edition):
    text = "".join(c.text for c in edition.chapters)
    for passage in (
        "尤氏等送至大厅，只见灯烛辉煌，众小厮都在丹墀侍立",
        "乳名宝钗，生得肌骨莹润，举止娴雅",
        "囊中尚有一把鸳鸯剑，乃吾家传代之宝",
        "谁按着你的头，叫你必定说这些字样呢？",
    ):
        assert passage in text


@pytest.mark.parametrize(
    ("raw", "rule", "clean"),
    [
        ("宝玉【甲：妙【又：极】。】笑道", "commentary", "宝玉笑道"),
        ("贤袭人【庚辰侧批：当得起。】娇嗔箴宝玉", "commentary", "贤袭人娇嗔箴宝玉"),
        ("前一段。\n批语之末。】\n后一段。", "commentary", "前一段。\n\n后一段。"),
        ("名……，（按：此处有缺文。）内曾", "editorial_notes", "名……，内曾"),
        ("他道：”好。“\n", "quotes", "他道：“好。”\n"),
        ('他道："好。"便去', "quotes", "他道：“好。”便去"),
        ("你──好", "glyphs", "你——好"),
        ("　　段一。　　段二。\n\n\n段三。\n", "spacing", "段一。\n段二。\n段三。\n"),
    ],
)
def test_each_rule_alone(raw, rule, clean):
    text, count = getattr(edition, f"_{rule}")(raw)
    assert text == clean
    assert count >= 1


def test_unbalanced_commentary_and_strange_characters_stop_the_cleaning():
    with pytest.raises(EditionError, match="unbalanced"):
        edition._commentary("宝玉【甲戌侧批：妙")
    with pytest.raises(EditionError, match=r"U\+25A1"):
        edition._strange_characters("贾□")


def test_cache_works_offline_and_without_cache_two_lines_say_what_to_do(
    tmp_path, monkeypatch, edition
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EditionError) as error:
        load(tmp_path=tmp_path)
    assert len(str(error.value).splitlines()) == 2
    assert "--config.corpus.path=BOOK.txt" in str(error.value)
    again = load(tmp_path=REPO / "data")
    assert again.report["sha256"] == edition.report["sha256"]


def test_a_damaged_download_is_refused(tmp_path):
    with pytest.raises(EditionError, match="sha256"):
        edition._verify(b"something else", edition.MEMBER_SHA256, "book")


TRADITIONAL = opencc.OpenCC("s2t").convert


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "big5"]
)
@pytest.mark.parametrize("length", [21, 400, 50_000])  # 21: the first heading alone
def test_encodings_are_recognised(tmp_path, edition, encoding, length):
    text = "".join(c.text for c in edition.chapters[:12])[:length]
    if encoding == "big5":
        text = TRADITIONAL(text).encode("big5", "ignore").decode("big5")
    path = tmp_path / "book.txt"
    path.write_bytes(text.encode(encoding))
    assert read_text(path) == text


def test_unreadable_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / "book.txt"
    for data, message in ((bytes(range(128, 256)) * 40, "not text in"), (b" \n", "empty")):
        path.write_bytes(data)
        with pytest.raises(CorpusError, match=message):
            read_text(path)
    with pytest.raises(CorpusError, match="no such file"):
        read_text(tmp_path / "absent.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CorpusError, match=r"no \.txt files"):
        load(tmp_path / "folder", tmp_path)


def test_a_book_with_other_headings_and_a_folder_of_chapters_give_the_same_chapters(
    tmp_path, edition
):
    three_kingdoms = [
        f"第{n}回 宴桃园豪杰三结义\n话说天下大势，分久必合，合久必分。{n}。\n"
        for n in ("一", "二", "十", "一百二十", *map(str, range(5, 15)))
    ]
    (tmp_path / "book.txt").write_text(
        "三国演义\n罗贯中\n" + "".join(three_kingdoms), encoding="utf-8"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, chapter in enumerate(three_kingdoms):
        (folder / f"chapter-{i + 1}.txt").write_text(chapter, encoding="gb18030")
    one, many = load(tmp_path / "book.txt", tmp_path), load(folder, tmp_path)
    assert [c.text for c in one.chapters] == [c.text for c in many.chapters]
    assert len(one.chapters) == 14
    assert "罗贯中" not in one.chapters[0].text


def test_a_book_without_headings_is_cut_equally(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"第{i}段，宝玉笑道：“妙极。”\n" for i in range(400)), encoding="utf-8")
    book = load(path, tmp_path)
    lengths = [len(c.text) for c in book.chapters]
    assert len(lengths) == 20
    assert max(lengths) < 1.3 * min(lengths)
    assert "".join(c.text for c in book.chapters) == path.read_text(encoding="utf-8")
    path.write_text("宝玉笑道。" * 200, encoding="utf-8")  # one line
    assert len(load(path, tmp_path).chapters) == 20
    path.write_text("宝玉。", encoding="utf-8")
    with pytest.raises(CorpusError, match="too short"):
        load(path, tmp_path)


def test_traditional_becomes_simplified_on_request(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("寶玉看著那塊玉，說道：「這個著作」。\n" * 40, encoding="utf-8")
    text = "".join(c.text for c in load(path, tmp_path, convert="tw2s").chapters)
    assert "宝玉看着那块玉" in text
    assert "著作" in text
    with pytest.raises(CorpusError, match="OpenCC"):
        load(path, tmp_path, convert="nonsense")


def test_split_is_by_chapter(edition):
    splits = split_chapters(edition.chapters, held_out=True)
    assert [c.number for c in splits["test"]] == list(range(5, 80, 10))
    assert [c.number for c in splits["val"]] == list(range(10, 81, 10))
    assert len(splits["train"]) == 64
    assert len(split_chapters(edition.chapters, held_out=False)["train"]) == 80
    fewer = split_chapters(edition.chapters, held_out=True, train_every=4)
    assert fewer["train"] == splits["train"][::4]
    assert (fewer["val"], fewer["test"]) == (splits["val"], splits["test"])


def test_a_wrong_number_of_chapters_is_an_error(edition):
    with pytest.raises(CorpusError, match="should have 80"):
        corpus._check_edition(edition.chapters[:79])
    with pytest.raises(CorpusError, match="expected"):
        corpus._check_edition((*edition.chapters[:79], corpus.Chapter(80, "第八十回", "短")))
