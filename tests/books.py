"""Small books for tests, and how tests load one."""

import zipfile

from hlm_jax.book import edition
from hlm_jax.book.corpus import load_corpus
from hlm_jax.book.outline import outline

BODY = "话说那日宝玉往潇湘馆来，只见凤尾森森，龙吟细细，一声也无。黛玉在里面叹了一声。\n" * 4
PROSE = "It was late in the evening, and nobody had seen the lamps being lit.\n" * 6


def book(*lines, body=BODY):
    return "".join(f"{line}\n{body}" for line in lines)


def han(n):
    """1 to 199 as 一百二十一 is written."""
    digits = "零一二三四五六七八九"
    hundreds, rest = divmod(n, 100)
    tens, ones = divmod(rest, 10)
    text = "一百" if hundreds else ""
    if hundreds and not tens and ones:
        text += "零"
    if tens:
        text += ("" if tens == 1 and not hundreds else digits[tens]) + "十"
    return text + (digits[ones] if ones else "")


def numbers(text, **more):
    return [start.number for start in outline(text, **more).starts]


HEADINGS = [f"第{han(n)}回 题目之{han(n)}" for n in range(1, 13)]


def load(path="", tmp_path=None, **more):
    options = {
        "edition": "zhiyanzhai",
        "revision": edition.REVISION,
        "cache_dir": str(tmp_path),
        "convert": "",
        "heading": "",
        "drop_brackets": "",
        "parts": 20,
    } | more
    return load_corpus(path=str(path), **options)


def written(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def epub(path, *pages, encoding="utf-8"):
    """An EPUB of pages 0.xhtml, 1.xhtml, … in this order."""
    names = [f"{n}.xhtml" for n in range(len(pages))]
    items = "".join(f"<item id='{name}' href='{name}'/>" for name in names)
    spine = "".join(f"<itemref idref='{name}'/>" for name in names)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "META-INF/container.xml", "<container><rootfile full-path='b.opf'/></container>"
        )
        archive.writestr(
            "b.opf", f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>"
        )
        for name, page in zip(names, pages, strict=True):
            archive.writestr(name, f"<html><body>{page}</body></html>".encode(encoding))
    return path
