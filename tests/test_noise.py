"""Noise of downloaded books: each rule alone, with a text that it must leave."""

from pathlib import Path

import pytest

from hlm_jax.book import licences, noise, pages, site_lines
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.noise import remove_noise

INPUTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "inputs"
ABOVE, BELOW = "　　话说宝玉回家，见过了贾母。\n", "　　且说黛玉坐在房中，不在话下。\n"
START = "*** START OF THE PROJECT GUTENBERG EBOOK A TALE ***\n"
END = "*** END OF THE PROJECT GUTENBERG EBOOK A TALE ***\n"
LICENCE = (
    "Section 5. General Information About Project Gutenberg™ electronic works\n\n"
    "Project Gutenberg™ eBooks are often created from several printed\neditions.\n\n"
    "Most people start at our website: www.gutenberg.org.\n"
)


def cleaned(text, **options):
    """The text without noise; removing noise twice must change nothing more."""
    once = remove_noise([text], **options)
    twice = remove_noise(once.texts, **options)
    assert twice.texts == once.texts
    assert not twice.counts
    assert not twice.dropped
    return once


def test_the_keys_above_a_page_of_a_site_generator():
    text = "---\ntitle: 第一回\ntags:\n  - 小说\n---\n" + ABOVE
    found = cleaned(text)
    assert found.texts == (ABOVE,)
    assert [part.what for part in found.dropped] == ["front matter"]
    assert cleaned("---\n" + ABOVE + "---\n" + BELOW).dropped == ()


# --- Headers, licences and colophons. ---


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("The Project Gutenberg eBook of A Tale\n\nTitle: A Tale\n\n" + START, END + LICENCE),
        ("", "\nEnd of Project Gutenberg's A Tale, by A. Writer\n\n" + END + LICENCE),
        (
            "***START OF THE PROJECT GUTENBERG EBOOK A TALE***\n",
            "End of the Project Gutenberg EBook",
        ),
        ("Etext\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n", ""),
        (START + "\nProduced by A. Reader\nand others\n\n\nTranscriber's Note: none.\n\n", END),
        ("*** START OF THIS PROJECT GUTENBERG EBOOK A VERY\nLONG TITLE ***\n", END),
        ("The Project Gutenberg eBook of A Tale\n\nTitle: A Tale\n\nLanguage: English\n\n", ""),
        ("", "\n" + LICENCE),
        ("", "\nroject Gutenberg web pages for\ncurrent donations.\n\n" + LICENCE),
    ],
)
def test_gutenberg_header_and_licence(before, after):
    body = "CHAPTER I\n\nIt was a fine day.\n\nHe left.\n"
    done = cleaned(before + body + after)
    assert done.texts[0].strip() == body.strip()
    dropped = sum(part.chars for part in done.dropped)
    assert dropped == pytest.approx(len(before) + len(after), abs=3)
    assert {part.what for part in done.dropped} <= {
        "Project Gutenberg header",
        "Project Gutenberg licence",
    }


def test_gutenberg_two_books_in_one_file():
    text = START + "One.\n" + END + LICENCE + START + "Two.\n" + END + LICENCE
    assert cleaned(text).texts[0].split() == ["One.", "Two."]


@pytest.mark.parametrize(
    "text",
    [
        "He had the Bible that Gutenberg printed.\n\nIt was worth a fortune.\n",
        "I found it at Project Gutenberg, she said.\n\nHe laughed.\n\nThey left.\n",
        "He laughed.\n\nWe left.\n\nI found it at Project Gutenberg, she said.\n",
        "It was Project Gutenberg's license, a trademark and a refund.\n\nHe laughed.\n",
        "The end of the project was near.\n\nShe gave a donation.\n",
        "He gave it a Creative Commons license.\n\nThey left.\n",
        "Title: none\n\nHe wrote nothing else.\n",
    ],
)
def test_a_tale_that_names_gutenberg_stays(text):
    done = cleaned(text)
    assert (done.texts[0], done.dropped) == (text, ())


RULE = "-" * 55 + "\n"
JAPANESE = (
    "　私《わたくし》はその人を常に先生と呼んでいた。だからここでもただ先生と書くだけである。\n"
)
COLOPHON = (
    "底本：「こころ」集英社文庫\n入力：某\n青空文庫作成ファイル：\nボランティアの皆さんです。\n"
)


def test_aozora_legend_colophon_ruby_and_notes():
    legend = RULE + "【テキスト中に現れる記号について】\n\n《》：ルビ\n" + RULE
    body = (
        JAPANESE
        + "　｜東京市《とうきょうし》の［＃「市の」に傍点］はなしをきいたのである。〔e'〕\n"
    )
    done = cleaned("こころ\n" + legend + body + COLOPHON)
    assert done.texts[0] == (
        "こころ\n　私はその人を常に先生と呼んでいた。だからここでもただ先生と書くだけである。\n"
        "　東京市のはなしをきいたのである。〔e'〕\n"
    )
    assert done.counts == {"ruby": 2, "aozora_notes": 1}
    assert [part.what for part in done.dropped] == ["Aozora legend", "Aozora colophon"]
    assert sum(part.chars for part in done.dropped) == len(legend + COLOPHON)


@pytest.mark.parametrize(
    "text",
    [
        "底本：不详\n" + ABOVE,
        RULE + "却说\n" + RULE,
        "他读《红楼梦》，又读｜金《瓶梅》。\n",
        "《かな》という本を読んだのである。そしてねむった。彼は《それ》を見た。\n",
    ],
)
def test_what_only_looks_like_aozora_stays(text):
    assert cleaned(text).texts[0] == text


@pytest.mark.parametrize(
    "line",
    [
        "本作品在全世界都属于公有领域，因为作者逝世已经超过100年。\n",
        "Public domainPublic domainfalsefalse\n",
        "This work is in the public domain in the United States.\n",
        "本站文字在知识共享 署名-相同方式共享 4.0协议之条款下提供\n",
        "关于这个数字版本\n这本电子书来自在线图书馆维基文库。\n",
    ],
)
def test_public_domain_notices(line):
    done = cleaned(ABOVE + line)
    assert done.texts[0] == ABOVE
    assert [part.chars for part in done.dropped] == [len(line)]


# --- Tags, entities, characters. ---


@pytest.mark.parametrize(
    ("rule", "text", "right", "count"),
    [
        (noise.html_tags, "一<br>二<br/>\n三", "一\n二\n三", 2),
        (noise.html_tags, "<p class=x>一</p>\n<P>二</P>", "一\n二", 4),
        (noise.html_tags, "<i>one</i> <font color='red'>two</font>", "one two", 4),
        (noise.html_tags, "a < b > c, a <b> c, <unk>, <s>, 《p》 <一>", None, 0),
        (noise.html_entities, "&ldquo;A&amp;B&#8221;&nbsp;&#x4e00;", "“A&B” 一", 5),
        (noise.html_entities, "AT&T; &c. &c; R&D &amp &notit;", None, 0),
        (noise.zero_width, "a\u200bb\ufeffc\u2060", "abc", 3),
        (noise.zero_width, "a long some\xad\nthing", "a long \nsomething", 1),
        (noise.zero_width, "می\u200cخواهم 👨\u200d👩", None, 0),
        (
            noise.emphasis,
            "“_You_ want _to tell\nme_, I said.”",
            "“You want to tell\nme, I said.”",
            2,
        ),
        (noise.emphasis, "snake_case_name ___ a _ b _ c __init__", None, 0),
        (noise.illustrations, "One.\n[Illustration]\nTwo.\n", "One.\nTwo.\n", 1),
        (noise.illustrations, "[Illustration: The house]\nsee {3} and {1}\n", None, 0),
        (noise.aozora_notes, "字［＃「※［＃「口＋世」］」に傍点］だ", "字だ", 2),
        (noise.aozora_notes, "字［あ］だ［＃あ\n］", None, 0),
    ],
)
def test_rule(rule, text, right, count):
    assert rule(text) == (text if right is None else right, count)


def test_entities_twice_escaped_are_undone_at_once():
    assert cleaned("&amp;ldquo;是&amp;lt;br&amp;gt;").texts[0] == "“是"


def test_emphasis_needs_a_gutenberg_text():
    assert cleaned("_You_ want it.\n").texts[0] == "_You_ want it.\n"
    assert "\nYou want it." in cleaned(START + "\n_You_ want it.\n" + END).texts[0]


# --- Page marks and lines of download sites. ---

PAGE_MARKS = """-----------------------Page2-----------------------
- Page 3 -
[Page 12]
[pg 12]
page 12
Page 12 of 300
第 12 页
第12页/共300页
===第３頁===
分节阅读 1
分节阅读1
红楼梦_分節閱讀_12"""
NOT_PAGES = """第十二页
第12页上写着几个字。
分节阅读
He turned to page 12.
Page 12 was torn out.
The Page
12
- 12 -"""


@pytest.mark.parametrize("line", PAGE_MARKS.split("\n"))
def test_page_marks(line):
    done = cleaned(f"{ABOVE}\n　　{line}\n\n{BELOW}")
    assert done.texts[0] == f"{ABOVE}\n{BELOW}"
    assert done.counts == {"page_marks": 1}


@pytest.mark.parametrize("line", NOT_PAGES.split("\n"))
def test_what_only_looks_like_a_page_mark_stays(line):
    assert cleaned(f"{ABOVE}　　{line}\n{BELOW}").texts[0] == f"{ABOVE}　　{line}\n{BELOW}"


def test_page_mark_inside_a_sentence():
    assert pages.page_marks("he said [Pg 12] so; some[Pg 13]thing") == ("he said so; something", 2)
    text = "he went\n\n[Page 12]\n\nhome again."
    assert pages.page_marks(text) == ("he went\nhome again.", 1)


def numbered(ending):
    prose = "却说宝玉因见众人都在房中，便往园里来" * 30
    return "".join(f"{prose}{ending}\n{n}\n" for n in range(7, 17))


def test_numbers_that_rise_inside_sentences_are_pages():
    done = cleaned(numbered("，只见"))
    assert done.counts == {"page_marks": 10}
    assert not any(char.isdigit() for char in done.texts[0])


def test_a_running_header_goes_with_the_page_numbers():
    text = numbered("，只见").replace("\n却说", "\n\n石头记\n\n却说")
    done = cleaned(text)
    assert done.counts == {"page_marks": 19}
    assert "石头记" not in done.texts[0]
    assert "石头记" in cleaned(numbered("。").replace("\n却说", "\n石头记\n却说")).texts[0]


@pytest.mark.parametrize("mark", ["{}", "- {} -", "－{}－", "第 {} 页"])
@pytest.mark.parametrize("blank", ["", "\n"])
def test_a_wrapped_book_is_joined_over_its_page_marks(mark, blank):
    prose = (
        "却说宝玉因见众人都在房中，便往园里来，只见黛玉坐在石上，手里拿着一本书，" * 5 + "不提。"
    )
    lines = ["　　" + prose[:28], *(prose[i : i + 30] for i in range(28, len(prose), 30))] * 40
    for page in range(13, 0, -1):
        lines.insert(page * 20, f"{blank}{mark.format(page)}{blank}")
    done = cleaned("\n".join(lines))
    assert [line for line in done.texts[0].split("\n") if line] == ["　　" + prose] * 40
    assert done.counts["page_marks"] == 13


@pytest.mark.parametrize(
    "text",
    [
        numbered("。"),  # chapter numbers
        "".join(f"{n}\n春眠不觉晓\n处处闻啼鸟\n" for n in range(1, 20)),  # poems
        "".join(f"{n}\n" + "春眠不觉晓\n处处闻啼鸟\n" * 40 for n in range(1, 20)),
        numbered("，只见") + "7\n",  # not rising
    ],
)
def test_other_numbers_stay_and_are_noted(text):
    done = cleaned(text)
    assert done.texts[0] == text
    assert "line with only a number" in done.notes[0]


SITE_LINES = """更新时间：2012-3-4 12:00:00 本章字数：3045
更新時間:2009-9-25
更多精彩小说请访问 http://www.example.com/
更多精彩内容，请登录www.example.com
手机用户请到m.example.com阅读。
紅樓夢最新章節
最新章节请到某某阁阅读
《红楼梦》TXT下载
红楼梦全集txt电子书免费下载
本书由某某中文网首发，欢迎读者登录www.example.com查看更多作品。
本书由【书香之家论坛】整理制作
声明：本书由网友上传，版权归作者或出版社所有。
仅供试读，请在下载后24小时内删除。
求收藏，求推荐票！
PS：求月票～
未完待续
（未完待续。如果您喜欢这部作品，欢迎您来投推荐票、月票，您的支持，就是动力。）
书友QQ群：123456789
关注微信公众号：好书，更多好书等你来
一秒记住【某某阁】，为您提供精彩小说阅读。
天才一秒记住本站地址：www.example.com 最快更新！无广告！
章节目录 | 上一章 | 下一章 | 返回目录
上一页 返回书页 下一页
本章未完，请点击下一页继续阅读
------章节内容开始-------
http://www.example.com/book/12/
【www.example.com】
某某中文网www.example.com欢迎广大书友光临阅读，最新、最快的连载作品！
Downloaded from www.example.com"""
NOVEL_LINES = """他打开电脑，输入www.example.com，屏幕上什么也没有。
“网址是 http://www.example.com 。”
他一秒记住了所有的单词。
求收藏的人很多，都被回绝了。
人人到处求支持。
更多的人请求留下来。
更多内容请看下一回。
最新章节还没有写完。
本书由三位作者整理而成，历时十年。
本书由中华书局整理出版。
目录
首页
上一章说到宝玉回家，下一章再说。
故事未完待续，读者自行想象。
声明：我与此事无关。
二十四小时内必须找到凶手。
作者的来源不明，网址 www.example.com 上写着一个名字。
版权归作者所有，这句话他念了三遍。
全书完
他想下载一个txt文件。
公众号令一声，三军齐发。
“免费下载请到www.example.com。”
小城里的人都知道那个论坛的地址是www.example.com，于是人人到那里看新闻。"""


@pytest.mark.parametrize("line", SITE_LINES.split("\n"))
def test_site_lines(line):
    done = cleaned(f"{ABOVE}　　{line}\n{BELOW}")
    assert done.texts[0] == ABOVE + BELOW
    assert done.counts == {"site_lines": 1}


@pytest.mark.parametrize("line", NOVEL_LINES.split("\n"))
def test_a_sentence_of_the_novel_stays(line):
    assert cleaned(f"{ABOVE}　　{line}\n{BELOW}").texts[0] == f"{ABOVE}　　{line}\n{BELOW}"


def test_site_insertions_inside_a_line():
    text = (
        "宝玉（www.example.com）笑道，黛玉【某某论坛 http://www.example.com】也笑。（未完待续）\n"
    )
    done = cleaned(text)
    assert done.texts[0] == "宝玉笑道，黛玉也笑。\n"
    assert done.counts == {"site_lines": 3}
    text = "宝玉（他的网页www.example.com）笑道。\n"
    done = cleaned(text)
    assert done.texts[0] == text
    assert "web address" in done.notes[0]


def test_chapter_end_marks():
    assert site_lines.chapter_end_marks("就此去了。（本章完）\n(本章完)\n") == ("就此去了。\n\n", 2)
    text = "（完）\n他说：“本章完了。”\n（本章完）之后\n"
    assert site_lines.chapter_end_marks(text) == (text, 0)


# --- Commentary in brackets, and what is left in. ---


@pytest.mark.parametrize(
    ("brackets", "text", "right"),
    [
        ("【】", "一【批【夹】语】二【三】四（五）", "一二四（五）"),
        ("【】（）", "一【批（夹）语】二（三）四", "一二四"),
        ("[]()", "a [b] c (d).", "a  c ."),
        ("【】", "一【批\n语】二", "一二"),
        ("【】", "一【批二\n", "一【批二\n"),
        ("【】", "一】二【三】四\n", "一】二四\n"),
        ("【】", "【开" + "一段。\n" * 700 + "【批】】", "【开" + "一段。\n" * 700 + "】"),
        ("", "一【批】二", "一【批】二"),
    ],
)
def test_brackets(brackets, text, right):
    assert cleaned(text, brackets=brackets).texts[0] == right


def test_an_unbalanced_bracket_is_noted_with_its_place():
    notes = cleaned("一\n二【批三\n", brackets="【】").notes
    assert notes == ("left in: 【 without its other half, line 2: …一 二【批三 …",)


@pytest.mark.parametrize("brackets", ["【", "【】【】", "（）【"])
def test_brackets_must_be_pairs(brackets):
    with pytest.raises(CorpusError, match="pairs"):
        remove_noise(["一"], brackets=brackets)


def test_notes_of_what_was_left_in():
    notes = remove_noise(["一\n", "一\n一□二□\ue000<unk> 求收藏的人\n"]).notes
    assert notes == (
        "left in: 1 × word of download sites (求收藏)",
        "left in: 3 × character without a glyph (□ U+E000), first in text 2, line 2: "
        "…一 一□二□\ue000<unk> 求收…",
        "left in: 1 × word in angle brackets (<unk>)",
    )


def test_a_clean_book_is_left_as_it_is():
    texts = [ABOVE * 50, "\n\n　　\n" + BELOW, ""]
    assert remove_noise(texts) == noise.Cleaned(tuple(texts), {}, (), ())


def test_of_many_brackets_without_their_other_half_ten_are_named():
    notes = remove_noise([f"{ABOVE}【甲】【\n" * 6] * 3, brackets="【】").notes
    assert len(notes) == 11
    assert notes[9].startswith("left in: 【 without its other half, text 2, line 8: ")
    assert notes[10] == "left in: 8 × more of 【】"


@pytest.mark.skipif(not INPUTS.is_dir(), reason="no shared inputs here")
@pytest.mark.parametrize(
    ("name", "joins", "licence"),
    [("hard_wrapped_pages.txt", 68, 0), ("gutenberg_english.txt", 54, 1200)],
)
def test_shared_inputs(name, joins, licence):
    done = cleaned((INPUTS / name).read_text(encoding="utf-8"))
    assert done.counts["hard_wraps"] == joins
    assert sum(part.chars for part in done.dropped) == licence
    assert "Page2" not in done.texts[0]
    assert "Gutenberg" not in done.texts[0]


def test_each_cut_leaves_other_texts():
    for cut in licences.CUTS:
        assert cut(ABOVE + BELOW) == (ABOVE + BELOW, [])


@pytest.mark.parametrize(
    ("line", "removed"),
    [
        ("www.example.com 更新时间：2012-03-04", True),
        ("更新时间：2012-03-04 http://www.example.com/1.html", True),
        ("本章未完，请翻页", True),
        ("（本章未完，請翻頁）", True),
        ("www.example.com 是宝玉记下的地方，更新时间已忘了。", False),
        ("戏本章未完，请翻页的人又睡着了。", False),
    ],
)
def test_lines_of_several_pieces_of_a_site(line, removed):
    done = remove_noise([f"{ABOVE}{line}\n{BELOW}"])
    assert done.counts == ({"site_lines": 1} if removed else {})
    assert (line in done.texts[0]) != removed
