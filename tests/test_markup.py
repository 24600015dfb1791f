"""HTML -> text. Files of HTML are in test_files.py."""

from hlm_jax.book.dropped import together
from hlm_jax.book.markup import html_text


def test_html_is_read_as_lines():
    text, dropped = html_text(
        "<!DOCTYPE html><html><head><title>书</title><style>p{}</style></head><body>"
        "<h1>第一回</h1><p>宝玉<b>笑</b>道：\n    “好&amp;妙&hellip;”"
        "<br>黛玉&nbsp;<i>听</i>了。</p>"
        "<script>x()</script>末<!-- 批 --><table><tr><td>甲</td><td>乙</td></tr></table>"
        "<pre>  诗一\n\n  诗二</pre>It\n  is <span>so</span>."
    )
    assert text == (
        "第一回\n宝玉笑道：“好&妙…”\n黛玉 听了。\n末\n甲 乙\n  诗一\n\n  诗二\nIt is so.\n"
    )
    assert dropped == []


def test_notes_readings_and_navigation_are_left_out_and_listed():
    text, dropped = html_text(
        "<body><nav><a>目录</a></nav><p>漢<ruby>字<rp>(</rp><rt>じ</rt><rp>)</rp></ruby>だ"
        "<sup><a href='#1'>[1]</a></sup>甲<a class='noteref'>2</a>乙x<sup>2</sup><sup>①</sup>。</p>"
        "<p id='footnote1'>注一</p><div class='body footnotes'>注二</div>"
        "<aside epub:type='footnote'>注三</aside>尾</body>"
    )
    assert text == "漢字だ甲乙x2。\n尾\n"
    assert [(part.what, part.chars, part.first) for part in together(dropped)] == [
        ("navigation", 2, "目录"),
        ("ruby readings", 1, "じ"),
        ("footnotes (6 places)", 11, "[1]"),
    ]
