"""Headers, licences and colophons that download sites put around a book: cut off whole.

Each function of `CUTS` returns the text without them and the parts that were cut off.
"""

import re

from hlm_jax.book.dropped import Dropped

_TITLE = re.compile(
    r"\W*(?:The |This |\*+)?(?:Project Gutenberg(?:'s|’s)? e-?(?:book|text)|e-?(?:book|text) of)",
    re.I,
)
MAX_LICENCE = 60_000  # characters; the longest is about 20,000
_GUTENBERG = re.compile(
    r"(?i:roject\s+gutenberg|gutenberg(?:™|-tm|\.org|\.net))"
    r"|START: FULL LICEN|\*END\*? ?THE SMALL PRINT"
)
_MARK = re.compile(
    r"(?im)^[ \t]*(?:(?P<start>\*{3}[ \t]*START OF (?:THE|THIS) PROJECT GUTENBERG"
    r"(?:[^*]{0,300}?\*{3})?[^\n]*\n?|\*END\*?[ \t]*THE SMALL PRINT![^\n]*\n?)"
    r"|(?P<end>\*{3}[ \t]*END OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*"
    r"|\**[ \t]*(?:this is )?(?:the )?end of (?:the |this )?project gutenberg[^\n]*))"
)
_CREDIT = re.compile(
    r"\s*(?:\[Transcriber[^\[\]]{0,3000}\][ \t]*\n?"
    r"|[\[_]?(?:Produced by|E-?text prepared by|Transcribed (?:from|by)|Scanned by|Prepared by"
    r"|HTML version by|(?:This|The) e-?(?:text|book) was (?:produced|prepared|created|scanned)"
    r"|Transcriber(?:'|’)?s?(?:'|’)? notes?\b)(?:[^\n]+\n?){1,12})(?=\n|\Z)",
    re.IGNORECASE,
)
_LICENCE_WORDS = re.compile(
    r"electronic works?|Foundation|trademark|[Dd]onat|e[Bb]ooks?|[Ee]-?texts?|copyright|refund|"
    r"[Ww]arrant|WARRANT|^Section \d|^\d\.[A-F]\b|\btax\b|volunteer|[Ll]icense|Hart\b|\bfees?\b|"
    r"liab|damages|royalt|compliance|[Ww]eb ?(?:site|pages?)|newsletter",
    re.MULTILINE,
)
_OWN_WORDS = re.compile(r"^\d\.[A-F]\b|Foundation|electronic works?|solicit|trademark|e[Bb]ooks?")
_METADATA = re.compile(
    r"(?:Title|Author|Translator|Editor|Illustrator|Release [Dd]ate|Posting Date|Language|Credits|"
    r"Character set encoding|Original publication|Most recently updated)\b.{0,40}:"
)


def is_gutenberg(text: str) -> bool:
    """Whether the text speaks of Project Gutenberg."""
    quick = "utenberg" in text or "UTENBERG" in text or "SMALL PRINT" in text
    return quick and _GUTENBERG.search(text) is not None


def cut_gutenberg(text: str) -> tuple[str, list[Dropped]]:
    """Project Gutenberg's header, and its licence with or without the line that marks it."""
    parts: list[Dropped] = []
    if not is_gutenberg(text):
        return text, parts
    kept: list[str] = []
    begin, licence = 0, -1  # where the kept text begins; where the licence began, -1 inside a book
    marks = list(_MARK.finditer(text))
    for i, mark in enumerate(marks):
        if mark["start"]:
            limit = MAX_LICENCE if begin == 0 or licence >= 0 else 3_000
            header = licence if licence >= 0 else begin
            if mark.end() - header <= limit:
                credit = _CREDIT.match(text, mark.end())
                begin = mark.end()
                while credit:
                    begin, credit = credit.end(), _CREDIT.match(text, credit.end())
                parts.append(Dropped.of("Project Gutenberg header", text[header:begin]))
                licence = -1
        elif licence < 0:
            following = next((m.end() for m in marks[i:] if m["start"]), None)
            if begin == 0 and following is not None and following < MAX_LICENCE // 2:
                continue  # the header speaks of the end
            if (following or len(text)) - mark.start() <= MAX_LICENCE:
                kept.append(text[begin : mark.start()])
                licence = mark.start()
    if licence >= 0:
        parts.append(Dropped.of("Project Gutenberg licence", text[licence:]))
    else:
        kept.append(text[begin:])
    text = "\n".join(kept)
    if not is_gutenberg(text):
        return text, parts
    end = _unmarked_licence(text)
    if end < len(text):
        parts.append(Dropped.of("Project Gutenberg licence", text[end:]))
    start = _unmarked_header(text[:end])
    if start:
        parts.append(Dropped.of("Project Gutenberg header", text[:start]))
    return text[start:end], parts


def _paragraphs(text: str) -> list[re.Match]:
    return list(re.finditer(r"(?m)^(?:[^\S\n]*\S[^\n]*(?:\n|\Z))+", text))


def _unmarked_licence(text: str) -> int:
    """Where a licence without a mark begins: from there to the end all paragraphs speak of it."""
    offset = max(0, len(text) - MAX_LICENCE)
    first, strong, gap = len(text), 0, 0
    words = 0
    for paragraph in reversed(_paragraphs(text[offset:])):
        weak = len(_LICENCE_WORDS.findall(paragraph[0]))
        if _GUTENBERG.search(paragraph[0]):
            first, gap, strong = offset + paragraph.start(), 0, strong + 1
            words += weak
        elif weak:
            # The licence may begin in the middle of a sentence, or with what only it speaks of.
            sure = paragraph[0][0].islower() or _OWN_WORDS.search(paragraph[0])
            if weak > 1 and strong and sure:
                first = offset + paragraph.start()
        else:
            gap += 1
            if gap > (2 if strong else 0):
                break
    return first if strong > 1 or (strong and words > 2) else len(text)


def _unmarked_header(text: str) -> int:
    """Where the text begins after a header without a mark; 0 without one."""
    end = strong = 0
    sure = _TITLE.match(text) is not None
    for paragraph in _paragraphs(text[:20_000])[:40]:
        if _GUTENBERG.search(paragraph[0]):
            strong += 1
        elif strong and _METADATA.match(paragraph[0].lstrip()):
            sure = True
        elif not strong or len(_LICENCE_WORDS.findall(paragraph[0])) < 2:
            break
        end = paragraph.end()
    return end if sure or strong > 1 else 0


_AOZORA_LEGEND = re.compile(
    r"(?m)^[-－ー―]{10,}[ \t]*\n(?:(?![-－]{10})[^\n]*\n){0,6}?"
    r"[^\n]*【テキスト中に現れる記号について】[^\n]*\n"
    r"(?:(?![-－]{10})[^\n]*\n){0,40}?[-－ー―]{10,}[ \t]*(?:\n|\Z)"
)
_AOZORA_TAIL = re.compile(r"(?m)^[ \u3000]*底本[：:]")
_NOTICE = re.compile(
    r"(?m)^[ \t\u3000]*(?:本作品在[^\n]{0,60}[属屬][于於]公有[领領]域[^\n]*"
    r"|(?:Public domain){1,3}(?:false)*"
    r"|This (?:work|text|file) is (?:in the public domain|(?:released|licensed) under)[^\n]*"
    r"|(?:本|除|此|文字|内容|Text|All|Content|Unless|Except|This|Licensed)[^\n]{0,40}"
    r"(?:知识共享|知識共享|创用CC|創用CC|Creative Commons)[^\n]{0,40}"
    r"(?:协议|協議|条款|條款|授权|授權|[Ll]icen[cs]e)[^\n]*)[ \t]*(?:\n|\Z)"
)
_NOTICE_HINT = re.compile(
    "公有[领領]域|[Pp]ublic domain|This (?:work|text|file)|[知创創][识識用]|Creative Commons"
    "|[这這][个個][数數]|About this"
)
_WIKISOURCE_TAIL = re.compile(
    r"(?m)^[ \t]*(?:关于这个数字版本|關於這個數位版本|About this digital edition)[ \t]*$"
)


def cut_aozora(text: str) -> tuple[str, list[Dropped]]:
    """青空文庫: the legend of signs between dashed lines, and the colophon from 底本： on."""
    parts: list[Dropped] = []
    if "現れる記号" in text:
        for match in _AOZORA_LEGEND.finditer(text):
            parts.append(Dropped.of("Aozora legend", match[0]))
        text = _AOZORA_LEGEND.sub("", text)
    for match in reversed(list(_AOZORA_TAIL.finditer(text)) if "底本" in text else []):
        rest = text[match.start() :]
        whole = re.match(r"(?s).{0,4000}?ボランティアの皆さんです。[ \t]*\n?", rest)
        if whole is None and (
            len(rest) > 4_000 or not re.search("青空文庫|入力[：:]|校正[：:]", rest)
        ):
            continue
        colophon = whole[0] if whole else rest
        parts.append(Dropped.of("Aozora colophon", colophon))
        text = text[: match.start()] + rest[len(colophon) :]
    return text, parts


def cut_notices(text: str) -> tuple[str, list[Dropped]]:
    """Lines that state the public domain or a free licence, and Wikisource's closing section."""
    parts: list[Dropped] = []
    if not _NOTICE_HINT.search(text):
        return text, parts
    tail = _WIKISOURCE_TAIL.search(text, max(0, len(text) - 6_000))
    if tail and re.search("Wikisource|[维維]基文[库庫]", text[tail.start() :]):
        parts.append(Dropped.of("Wikisource notice", text[tail.start() :]))
        text = text[: tail.start()]
    parts += [Dropped.of("public-domain or licence notice", m[0]) for m in _NOTICE.finditer(text)]
    return _NOTICE.sub("", text) if parts else text, parts


_FRONT_MATTER = re.compile(
    r"\A\s*---[ \t]*\n(?:(?:[\w-]+:|[ \t]+\S|- )[^\n]*\n){1,40}---[ \t]*(?:\n|\Z)"
)


def cut_front_matter(text: str) -> tuple[str, list[Dropped]]:
    """The keys between two lines --- at the beginning of a page of a site generator."""
    found = _FRONT_MATTER.match(text)
    return (text[found.end() :], [Dropped.of("front matter", found[0])]) if found else (text, [])


CUTS = (cut_front_matter, cut_gutenberg, cut_aozora, cut_notices)
