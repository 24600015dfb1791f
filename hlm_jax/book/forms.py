"""Headings without a unit such as 回 or Chapter: numbered lines of one form.

Tried where a book has no headings of headings.py, or only those of volumes. Lines that begin like
lists are frequent, so outline.py takes one form only where its numbers go 1, 2, 3 through the book.
"""

import re
from collections import defaultdict

from hlm_jax.book.headings import Candidate
from hlm_jax.book.numerals import HAN, WORDS, parse_numeral

UNIT = "number"  # of a candidate of a form; its rank is that of a chapter
_MOST = 60  # characters of a heading
_SIGNS = r"#*＊=＝~—_\-☆★●◎■◆◇·•【《〈「\[（(〔§第章\s"
_WORD = "|".join(sorted(WORDS, key=len, reverse=True))
_FORM = re.compile(
    rf"(?m)^(?P<prefix>[{_SIGNS}]{{0,8}}(?:[^\W\d_{HAN}]{{1,14}}\.? ?(?:[Nn]o\. ?)?)??)"
    rf"(?:(?P<digits>[0-9０-９]{{1,4}})|(?P<han>[{HAN}]{{1,7}})|\b(?P<roman>[IVXLC]{{1,8}}\b)"
    rf"|\b(?P<word>(?i:the )?(?i:{_WORD})(?:[- ](?i:{_WORD}))?\b))"
    r"(?P<suffix>(?:[回章节節夜日天话話]|[\u4e00-\u9fff]{1,2}(?=[\s:：、]|$))?[^\w\n]{0,4}"
    r"|(?i: (?:chapter|tale|story|part|book|night|day)\b)[^\w\n]{0,3})"
    r"(?P<title>[^\n]*)$"
)
# What is numbered through a book and is no chapter.
_NO_CHAPTER = re.compile(r"\W*(?:[图圖表例注註页頁]|fig(?:ure)?|table|plate|page|p|note)\W*", re.I)
_SENTENCE = re.compile(r"[。；;：:，,”]$|[。；;]|[a-z]{4}[.] +[A-Z]|[0-9]$")


def numbered_forms(text: str) -> list[list[Candidate]]:
    """Lines that begin with a number, grouped by the form that they have."""
    forms: dict[tuple, list[Candidate]] = defaultdict(list)
    for match in _FORM.finditer(text):
        title = match["title"].strip()
        kind = next(kind for kind in ("digits", "han", "roman", "word") if match[kind])
        if len(match[0]) > _MOST or (title and _SENTENCE.search(title)):
            continue
        if title and not match["suffix"] and (kind != "digits" or title[0].isascii()):
            continue
        number = parse_numeral(match[kind])
        if number is None or _NO_CHAPTER.fullmatch(match["prefix"]):
            continue
        key = (match["prefix"].strip().lower(), kind, match["suffix"].strip(), bool(title))
        one = Candidate(match.start(), match.end(), match[0].strip(), UNIT, number, number, (), 1.0)
        forms[key].append(one)
    return [form for form in forms.values() if len(form) >= 3]
