import os
import zipfile

import books
import pytest
from conftest import REPO

from hlm_jax.book import epub as epubs
from hlm_jax.book.files import CorpusError, read_source, read_text
from hlm_jax.book.markup import html_text

INPUTS = REPO.parent / "shared" / "data" / "inputs"
PAGE = "宝玉笑道：这个妹妹我曾见过的。\n"


def write(folder, files):
    """Files with their content; a list of names gives each a text of its own."""
    if isinstance(files, list):
        files = {
            name: f"{PAGE}{'一二三四五六七八九十'[i % 10]}{'日月' * i}\n"
            for i, name in enumerate(files)
        }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def names(source):
    return [file.name for file in source.files]


def refused(path, *words):
    with pytest.raises(CorpusError) as error:
        read_source(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_one_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, {"石头记.txt": PAGE.encode("gb18030")})
    source = read_source("~/石头记.txt")
    assert (source.name, source.path) == ("石头记", str(tmp_path / "石头记.txt"))
    assert [(f.name, f.text) for f in source.files] == [("石头记.txt", PAGE)]
    assert (source.encoding, source.notes, source.dropped, source.skipped) == (
        "gb18030",
        (),
        (),
        {},
    )
    assert read_text("~/石头记.txt") == PAGE


def test_a_damaged_prompt_is_read_with_a_warning(tmp_path):
    write(tmp_path, {"prompt.txt": PAGE.encode() + b"\xe4"})
    with pytest.warns(UserWarning, match=r"prompt\.txt: 1 damaged byte at offset 46 \(line 2\)"):
        assert read_text(tmp_path / "prompt.txt") == PAGE


def test_files_that_are_absent_empty_or_not_text_are_refused_in_one_line(tmp_path):
    write(
        tmp_path, {"blank.txt": " \n", "nul.txt": b"\0\0", "noise.txt": bytes(range(128, 256)) * 9}
    )
    refused(tmp_path / "absent.txt", "no such file")
    refused(tmp_path / "blank.txt", "empty")
    refused(tmp_path / "nul.txt", "no text")
    refused(tmp_path / "noise.txt", "not text in")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_text(tmp_path)
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "no text in this folder (it is empty)")


@pytest.mark.parametrize(
    ("name", "data", "advice"),
    [
        ("a.pdf", b"%PDF-1.7 \xe2\xe3", "pdftotext a.pdf a.txt"),
        ("a.txt", b"%PDF-1.7 \xe2\xe3", "pdftotext a.txt a-plain.txt"),
        ("a.docx", b"PK\3\4", "pandoc a.docx"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "plain text in UTF-8"),
        ("a.rtf", b"{\\rtf1 a}", "plain text in UTF-8"),
        ("a", b"a" * 60 + b"BOOKMOBI", "ebook-convert a a.epub"),
        ("a.azw3", b"a", "ebook-convert a.azw3 a.epub"),
        ("a.fb2", b"<?xml version='1.0'?><FictionBook>", "ebook-convert a.fb2 a.epub"),
        ("a.djvu", b"AT&TFORM", "djvutxt a.djvu"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "image"),
        ("a.txt", b"Rar!\x1a\x07\0", "unpack it into a folder"),
        ("a.txt.gz", b"\x1f\x8b\x08", "unpack it into a folder"),
        ("a.epub", b"PK\3\4 half of a file", "get it again"),
        ("a.epub", b"no archive", "get it again"),
    ],
)
def test_other_formats_are_refused_with_the_advice_that_helps(tmp_path, name, data, advice):
    refused(write(tmp_path, {name: data}) / name, advice)


@pytest.mark.parametrize(
    "ordered",
    [
        ["第一回.txt", "第二回 贾夫人.txt", "第十回.txt", "第十一回.txt", "第一百零一回.txt"],
        ["chapter-2.txt", "chapter-10.txt", "chapter-100.txt"],
        ["Prologue.txt", "Chapter I.txt", "Chapter V.txt", "Chapter IX.txt", "Epilogue.txt"],
        ["第一卷 第三回.txt", "第一卷 第十回.txt", "第二卷 第一回.txt", "第二卷 第二回.txt"],
        ["序.txt", "楔子.txt", "第1章.txt", "第2章.txt", "后记.txt"],
        ["三国（1）.txt", "三国（2）.txt", "三国（10）.txt"],
        ["上.txt", "中.txt", "下.txt"],
        ["I.txt", "II.txt", "V.txt", "IX.txt", "X.txt"],
        ["First.txt", "Second.txt", "Fifth.txt", "Tenth.txt"],
        ["第一回上.txt", "第一回下.txt", "第二回.txt"],
        ["3. Title", "4. A name", "10. Another"],
        ["hlm2-ch1.txt", "hlm2-ch2.txt", "hlm2-ch10.txt"],
        ["前言.txt", "卷一/第1回.txt", "卷一/第2回.txt", "卷二/第3回.txt", "卷十/第4回.txt"],
        ["第一回.html", "第二回.txt", "第三回.md", "第四回"],
    ],
)
def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path, ordered):
    write(tmp_path, sorted(ordered, reverse=True))
    assert names(read_source(tmp_path)) == ordered


def test_names_without_numbers_are_ordered_by_the_first_lines(tmp_path):
    heads = {"甲.txt": "第三回", "乙.txt": "第一回", "丙.txt": "第二回", "序.txt": "红楼梦"}
    write(tmp_path, {name: f"\n{head} 某某\n{PAGE}" for name, head in heads.items()})
    source = read_source(tmp_path)
    assert names(source) == ["序.txt", "乙.txt", "丙.txt", "甲.txt"]
    assert source.notes == (
        f"{tmp_path.name}: in the order of the numbers in the files' first lines",
    )


def test_a_title_with_a_number_does_not_order(tmp_path):
    write(tmp_path, {"红楼梦120回 甲.txt": "第二回\n甲", "红楼梦120回 乙.txt": "第一回\n乙"})
    assert names(read_source(tmp_path)) == ["红楼梦120回 乙.txt", "红楼梦120回 甲.txt"]


def test_what_is_doubtful_about_the_order_is_said(tmp_path):
    write(tmp_path, ["第1回.txt", "第2回.txt", "第2回 新.txt", "第5回.txt", "人物.txt"])
    source = read_source(tmp_path)
    assert names(source)[-1] == "人物.txt"
    book = tmp_path.name
    assert source.notes == (
        f"{book}: several files have number 2",
        f"{book}: without a number and read last: 人物",
        f"{book}: no file has number 3, 4",
    )


def test_files_about_a_book_are_left_out_and_named(tmp_path):
    about = ["README.md", "LICENSE", "CHANGELOG.txt", "说明.txt", "目录.txt", "index.html"]
    about += ["SUMMARY.md", "_sidebar.md", "CNAME", "封面.txt"]
    write(
        tmp_path, [*about, ".git/config.txt", "__MACOSX/1.txt", "01.txt", "02 说明.txt", "03.txt"]
    )
    write(
        tmp_path,
        {"cover.jpg": b"\xff\xd8", "back.jpg": b"\xff\xd8", "notes": b"\x7fELF\0\xff\0\xfe"},
    )
    source = read_source(tmp_path)
    assert names(source) == ["01.txt", "02 说明.txt", "03.txt"]
    assert sorted(part.what for part in source.dropped) == sorted(f"file {name}" for name in about)
    assert all(part.chars > 10 and part.first.startswith("宝玉笑道") for part in source.dropped)
    assert source.skipped == {"": 1, ".jpg": 2}


def test_a_readme_alone_in_its_subfolder_is_a_chapter(tmp_path):
    write(tmp_path, ["README.md", "2/README.md", "10/README.md", "11/README.md", "11/a.md"])
    assert names(read_source(tmp_path)) == ["2/README.md", "10/README.md", "11/a.md"]


def test_a_description_that_is_the_only_text_is_the_book(tmp_path):
    write(tmp_path, {"说明.txt": PAGE, "LICENSE": "MIT", "a.pdf": b"%PDF"})
    assert names(read_source(tmp_path)) == ["说明.txt"]
    (tmp_path / "说明.txt").unlink()
    refused(tmp_path, "only 1 .pdf, file LICENSE")


def test_a_folder_tells_of_empty_and_equal_files_and_names_one_that_cannot_be_read(tmp_path):
    write(tmp_path, {"1.txt": PAGE, "2.txt": "", "3.txt": PAGE, "4.txt": PAGE + "完"})
    source = read_source(tmp_path)
    assert names(source) == ["1.txt", "3.txt", "4.txt"]
    assert f"{tmp_path / '2.txt'}: the file is empty" in source.notes
    assert f"{tmp_path.name}: 1.txt and 3.txt have the same text" in source.notes
    write(tmp_path, {"5.txt": bytes(range(128, 256)) * 20})
    with pytest.raises(CorpusError, match=r"5\.txt: not text in"):
        read_source(tmp_path)


def test_a_file_without_text_is_a_note_in_a_folder(tmp_path):
    write(
        tmp_path, {"1.txt": PAGE, "2.txt": b"\xef\xbb\xbf", "3.html": "<html><img src='a'></html>"}
    )
    source = read_source(tmp_path)
    assert names(source) == ["1.txt"]
    assert source.notes == (f"{tmp_path / '2.txt'} and 1 more: no text in it",)
    refused(tmp_path / "3.html", "no text in it")
    (tmp_path / "1.txt").unlink()
    refused(tmp_path, "no text in this folder (only 2 without text)")


@pytest.mark.parametrize(
    "ordered",
    [
        ["红楼梦上.txt", "红楼梦下.txt"],
        ["上/1.txt", "上/2.txt", "下/3.txt"],
        ["第一回上.txt", "第一回下.txt", "第二回.txt"],
    ],
)
def test_halves_leave_no_gap(tmp_path, ordered):
    source = read_source(write(tmp_path, ordered))
    assert (names(source), source.notes) == (ordered, ())


def test_two_files_of_the_same_half_are_named(tmp_path):
    write(tmp_path, ["甲上.txt", "乙上.txt", "下.txt", "第2回上.txt", "2上.txt", "第4回.txt"])
    assert read_source(tmp_path).notes == (
        f"{tmp_path.name}: several files have number 上, 2上",
        f"{tmp_path.name}: no file has number 3",
    )


def test_what_is_said_of_every_file_is_said_once(tmp_path):
    korean = (
        "그는 말했다. 나는 그 사람을 보았다. 이것은 우리가 하는 일이다. 그리고 모두가 웃었다.\n"
    )
    write(tmp_path, {f"{n}.txt": (korean * 3 + f"{n}").encode("euc_kr") for n in range(1, 13)})
    (note,) = read_source(tmp_path).notes
    assert note.startswith(f"{tmp_path / '1.txt'} and 11 more: read as euc_kr (Korean)")
    path = books.epub(tmp_path / "b.epub", korean * 3, korean * 4, encoding="euc_kr")
    assert read_source(path).notes[0].startswith(f"{path}/0.xhtml and 1 more: read as euc_kr")
    appendix = {f"卷{n}/{name}.txt": f"{n}{name}{PAGE}" for n in "一二" for name in "12甲"}
    (note,) = read_source(write(tmp_path / "volumes", appendix)).notes
    assert note == "卷一 and 1 more: without a number and read last: 甲"


def test_a_circle_of_links_ends(tmp_path):
    write(tmp_path, ["1.txt", "part 2/2.txt"])
    os.symlink(tmp_path, tmp_path / "part 2" / "again")
    source = read_source(tmp_path)
    assert names(source) == ["1.txt", "part 2/2.txt"]
    assert any("read already" in note for note in source.notes)


def test_the_encodings_of_a_folder_are_listed_most_frequent_first(tmp_path):
    write(tmp_path, {"1.txt": PAGE, "2.txt": (PAGE * 2).encode("gb18030"), "3.txt": PAGE * 3})
    write(tmp_path, {"4.htm": f"<html><p>{PAGE * 4}".encode("gb18030")})
    assert read_source(tmp_path).encoding == "utf-8, gb18030, html (gb18030)"


def test_xhtml_with_empty_elements_and_no_foreign_files(tmp_path):
    secret = write(tmp_path, {"secret": "秘密"}) / "secret"
    text, _ = html_text(
        f'<?xml version="1.0"?><!DOCTYPE html [<!ENTITY s SYSTEM "file://{secret}">]>'
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>'
        '<body><a id="p1"/><p>甲&s;&nbsp;乙</p></body></html>'
    )
    assert "甲" in text
    assert "乙" in text
    assert "秘密" not in text


def test_html_is_recognised_by_its_content_and_its_charset(tmp_path):
    page = "<html><meta charset=gb2312><p>宝玉笑道。<p>黛玉听了。"
    lines = "<p>宝玉笑道。</p>\n<p>黛玉听了。</p>\n<p>宝钗道。</p>\n"
    czech = "<meta charset=windows-1250><p>Když se Řehoř Samsa jednoho rána probudil"
    write(
        tmp_path,
        {"1.txt": page.encode("gb18030"), "2.txt": lines, "3.txt": "a<b 宝玉<p>道\n" + PAGE},
    )
    write(tmp_path, {"4.html": czech.encode("cp1250")})
    assert read_text(tmp_path / "1.txt") == "宝玉笑道。\n黛玉听了。\n"
    assert read_text(tmp_path / "2.txt") == "宝玉笑道。\n黛玉听了。\n宝钗道。\n"
    assert read_text(tmp_path / "3.txt").startswith("a<b 宝玉<p>道\n")
    assert read_text(tmp_path / "4.html") == "Když se Řehoř Samsa jednoho rána probudil\n"


CONTAINER = (
    "<container xmlns='urn:oasis:names:tc:opendocument:xmlns:container'><rootfiles>"
    "<rootfile full-path='OEBPS/book.opf'/></rootfiles></container>"
)
OPF = """<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="b" href="text/b.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/%E7%94%B2.xhtml" media-type="application/xhtml+xml"/>
<item id="n" href="notes.xhtml" media-type="application/xhtml+xml"/>
<item id="cover" href="cover.xhtml" media-type="application/xhtml+xml"/>
<item id="lost" href="lost.xhtml" media-type="application/xhtml+xml"/>
<item id="pic" href="pic.jpg" media-type="image/jpeg"/>
</manifest><spine><itemref idref="cover"/><itemref idref="nav"/><itemref idref="a"/>
<itemref idref="b"/><itemref idref="pic"/><itemref idref="lost"/><itemref idref="n" linear="no"/>
</spine><guide><reference type="cover" href="cover.xhtml"/></guide></package>"""


def epub(path, **more):
    xhtml = "<html xmlns='http://www.w3.org/1999/xhtml'><body>{}</body></html>"
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": OPF,
        "OEBPS/nav.xhtml": xhtml.format("<p>目录</p>"),
        "OEBPS/cover.xhtml": xhtml.format("<p>封面</p>"),
        "OEBPS/notes.xhtml": xhtml.format("<p>注</p>"),
        "OEBPS/text/甲.xhtml": xhtml.format("<h1>第一回</h1><p>宝玉<sup><a>1</a></sup>。</p>"),
        "OEBPS/text/b.xhtml": xhtml.format("<h1>第二回</h1><p>黛玉。</p>"),
        "OEBPS/pic.jpg": "x",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (files | more).items():
            archive.writestr(name, content)
    return path


def test_an_epub_is_read_in_the_order_of_its_spine(tmp_path):
    path = epub(tmp_path / "book.epub")
    source = read_source(path)
    assert (source.name, source.encoding) == ("book", "epub (utf-8)")
    assert [(file.name, file.text) for file in source.files] == [
        ("OEBPS/text/甲.xhtml", "第一回\n宝玉。\n"),
        ("OEBPS/text/b.xhtml", "第二回\n黛玉。\n"),
    ]
    assert {(part.what, part.chars) for part in source.dropped} == {
        ("EPUB cover", 3),
        ("EPUB table of contents", 3),
        ("EPUB pages outside the reading order", 2),
        ("footnotes", 1),
    }
    assert source.notes == (f"{path}: the spine names OEBPS/lost.xhtml, which is missing",)
    assert read_source(path.rename(tmp_path / "book.zip")).files == source.files


def test_epubs_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    data = epub(tmp_path / "a.epub").read_bytes()
    write(
        tmp_path, {"cut.epub": data[:-60], "changed.epub": data.replace(data[700:760], b"x" * 60)}
    )
    refused(tmp_path / "cut.epub", "damaged EPUB")
    refused(tmp_path / "changed.epub", "damaged EPUB")
    encrypted = (
        "<encryption xmlns='urn:oasis:names:tc:opendocument:xmlns:container' "
        "xmlns:e='http://www.w3.org/2001/04/xmlenc#'><e:EncryptedData>"
        "<e:EncryptionMethod Algorithm='{}'/></e:EncryptedData></encryption>"
    )
    locked, fonts = (
        "http://www.w3.org/2001/04/xmlenc#aes128-cbc",
        "http://www.idpf.org/2008/embedding",
    )
    name = "META-INF/encryption.xml"
    refused(epub(tmp_path / "drm.epub", **{name: encrypted.format(locked)}), "DRM")
    assert read_source(epub(tmp_path / "font.epub", **{name: encrypted.format(fonts)})).files
    refused(
        epub(tmp_path / "pics.epub", **{"OEBPS/book.opf": "<package/>"}), "no text in this EPUB"
    )
    with zipfile.ZipFile(tmp_path / "other.epub", "w") as archive:
        archive.writestr("1.txt", PAGE)
    refused(tmp_path / "other.epub", "unpack it into a folder")
    monkeypatch.setattr(epubs, "_MAX_BYTES", 1_000)
    refused(tmp_path / "a.epub", "unpacked")


@pytest.mark.skipif(not INPUTS.exists(), reason="needs the inputs beside the repository")
def test_real_inputs():
    numerals = ["一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二"]
    found = names(read_source(INPUTS / "folder_cn_numerals"))
    assert [name[1 : name.index("回")] for name in found] == numerals
    assert [int(name[:2]) for name in names(read_source(INPUTS / "folder_with_readme"))] == [
        *range(1, 13)
    ]
    assert read_source(INPUTS / "big5_hkscs_one_char.txt").encoding == "big5hkscs"
    assert read_source(INPUTS / "korean_euckr.txt").encoding == "euc_kr"
    assert "offset 898 (line 6)" in read_source(INPUTS / "utf8_one_bad_byte.txt").notes[0]
