"""Lines that look like chapter headings, and the numbers in them.

Which of them begin chapters is decided in outline.py.
"""

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from hlm_jax.book.numerals import HAN, WORDS, parse_numeral

_S = r"[ \t\u3000]*"
_NUMBER = rf"(?:[0-9０-９]{{1,5}}|[{HAN}](?:{_S}[{HAN}]){{0,9}})"
# One sign for the variants of a unit, and its rank: a book is cut at the lower of two ranks.
_SAME = {"囘": "回", "迴": "回", "節": "节", "則": "则", "話": "话", "齣": "出", "冊": "册"}
_SAME |= {"輯": "辑", "編": "编", "場": "场"}
RANKS = {"部": 7, "集": 6, "册": 6, "辑": 6, "卷": 5, "编": 4, "篇": 4, "幕": 4}
RANKS |= {"章": 3, "回": 3, "话": 3, "折": 3, "出": 3, "场": 3, "节": 2, "则": 1, "第": 3}
RANKS |= {"part": 6, "book": 6, "volume": 7, "act": 5, "chapter": 3, "canto": 3, "letter": 3}
RANKS |= {"stave": 3, "scene": 3, "section": 2, "number": 3}
_UNIT = "[回章卷节则折篇部集囘迴節則话話出齣册冊辑輯编編幕场場]"
_CHINESE = (
    rf"第{_S}(?P<n>{_NUMBER})(?:{_S}[回章]?{_S}[至到—\-~～、]{_S}第?{_S}(?P<to>{_NUMBER}))?"
    rf"{_S}(?P<unit>{_UNIT})"
)
_VOLUME = rf"(?P<juan>卷){_S}[之第]?{_S}(?P<jn>[{HAN}]{{1,9}}+|[0-9０-９]{{1,5}}+)(?!{_S}{_UNIT})"
_WORD = "|".join(sorted(WORDS, key=len, reverse=True))
_ENGLISH = (
    r"(?i:(?P<en>chapter|chap\.|part|book|volume|vol\.|act|canto|letter|stave|scene|section)"
    rf"[ \t]+(?:the[ \t]+)?(?P<ev>[0-9]{{1,4}}|[ivxlcdm]+|(?:{_WORD})(?:[- ](?:{_WORD}))?))"
    r"(?![A-Za-z0-9])"
)
_CORE = re.compile(f"{_CHINESE}|{_VOLUME}|{_ENGLISH}")
_CANDIDATE = re.compile(rf"(?m)^(?P<prefix>[^\n。！？；，“”]{{0,30}}?)(?:{_CORE.pattern})")
# 学而第一: the number at the end of a short line.
_TRAILING = re.compile(rf"(?m)^[^\s第，。！？]{{1,10}}{_S}第{_S}(?P<n>{_NUMBER}){_S}$")
_DECORATION = r"[\s#＃*＊=＝~～─—_\-☆★●◎■□◆◇·•>【《〈「『\[（(〔|]*"
_PREFIX = re.compile(
    rf"{_DECORATION}(?:正文|[上中下前后後]卷|[上中下]部|[上中下]篇)?{_DECORATION}"
    r"|[【《〈\[（(][^】》〉\])）]{1,24}[】》〉\])）]\s*(?:正文)?\s*"
)
_CLOSING = re.compile(
    r"[\s—\-=~（(【]*全?文?(?:完结|完|终|終|毕|畢|结束|結束|the end\b)[\s—\-=~）)】」.。!！]*$",
    re.I,
)
_SEPARATED = re.compile(r"$|[\s:：.．、·—\-|】》〉\])）」』]")
_GOES_ON = re.compile(r",| +[a-z]")  # Chapter 5 of this book
_PROSE = re.compile(r"[中里裡内內的已既之末才书書说說讲講也就合是有曰，,]")
_CLOSED = 200  # characters below 第三回终 that make it a heading after all
SENTENCE_END = "。！？!?”」』…；;"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A line that may be a heading.

    Attributes:
      start, end: the line's place in the text.
      line: without white space around it.
      unit: of its lowest level, such as 回.
      first, last: its number; they differ in 第十七至十八回.
      upper: numbers of higher levels in the same line (第一卷 第三回).
      strength: how much the line looks like a heading, 0 to 1.
      style: what stands before its number, and after it: nothing, a gap (" ") or a word ("x").
    """

    start: int
    end: int
    line: str
    unit: str
    first: int
    last: int
    upper: tuple[int, ...]
    strength: float
    style: str = ""

    @property
    def rank(self) -> int:
        return RANKS[self.unit]

    @property
    def label(self) -> str:
        """The line for people, shortened."""
        return label(self.line)


def label(line: str, chars: int = 40) -> str:
    """The beginning of a line for a list or a message."""
    line = re.sub(r"\s+", " ", line[: 2 * chars].strip())
    return line if len(line) <= chars else line[: chars - 1] + "…"


def numbers_in(line: str) -> tuple[int, ...]:
    """All numbers of heading units in a line, in order: (1, 3) of 第一卷 第三回."""
    cores = (_core_number(match) for match in _CORE.finditer(line))
    return tuple(core[1] for core in cores if core)


def number_in(line: str) -> int | None:
    """The chapter number of a heading line or of a file's name without suffix; None without.

    第一百回 …, Chapter XII, 卷之三, 012, chapter-10, 3. Title, 十二、…; 12 of 012 第一回.
    """
    text = unicodedata.normalize("NFKC", line.strip())
    if leading := re.match(r"[0-9]{1,5}(?=[\s_.、\-])", text):
        return int(leading[0])
    if numbers := numbers_in(line):
        return numbers[-1]
    if trailing := _TRAILING.fullmatch(text):
        return parse_numeral(trailing["n"])
    if han := re.match(rf"(?:[{HAN}]+|[IVXLC]+)(?=$|[、.．:：_\-]|(?<![A-Z])\s)", text):
        return parse_numeral(han[0])
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    digits = re.findall(r"[0-9]+", text)
    if len(digits) == 1 or (digits and text.startswith(digits[0])):
        return int(digits[0])
    return None


def _core_number(match: re.Match) -> tuple[str, int, int] | None:
    """(unit, first, last) of a match of _CORE, or None where its numeral is none."""
    if match["en"]:
        unit = {"chap.": "chapter", "vol.": "volume"}.get(match["en"].lower(), match["en"].lower())
        first = last = parse_numeral(match["ev"])
    elif match["juan"]:
        unit, first = "卷", parse_numeral(match["jn"])
        last = first
    else:
        unit = _SAME.get(match["unit"], match["unit"])
        first = parse_numeral(match["n"])
        last = parse_numeral(match["to"]) if match["to"] else first
    if first is None or last is None:
        return None
    return (unit, first, last) if last >= first else (unit, first, first)


def candidates(text: str) -> list[Candidate]:
    """Every line that looks like a heading, in order."""
    lines = []
    for match in _CANDIDATE.finditer(text):
        cores = [(core, at) for core, at in _cores(text, match) if core]
        # A unit three times: a table of contents in one line.
        if cores and max(Counter(core[0] for core, _ in cores).values()) < 3:
            lines.append((match, cores))
    common = Counter(unit for _, cores in lines for unit in {core[0] for core, _ in cores})
    found: list[tuple[str, Candidate]] = []
    for i, (match, cores) in enumerate(lines):
        # The lowest of the units that are usual in this book: a title may hold another one.
        most = max(common[core[0]] for core, _ in cores)
        usual = [core for core in cores if common[core[0][0]] >= 0.5 * most]
        level = cores.index(min(usual, key=lambda core: RANKS[core[0][0]]))
        (unit, first, last), rest_at = cores[level]
        if (unit, last + 1) in (core[:2] for core, _ in cores[level + 1 :]):
            last += 1  # 第十七回 第十八回
        end = text.find("\n", match.end())
        end = len(text) if end < 0 else end
        line, rest, prefix = text[match.start() : end].strip(), text[rest_at:end], match["prefix"]
        after = lines[i + 1][0].start() if i + 1 < len(lines) else len(text)
        closing = _CLOSING.match(rest)
        if closing and after - end < _CLOSED:
            continue
        apart = _SEPARATED.match(rest) and not (unit.isascii() and _GOES_ON.match(rest))
        style = "" if not rest.strip() else " " if apart else "x"
        strength = 0.5 if closing else _strength(line, rest, style)
        upper = tuple(core[1] for core, _ in cores[:level])
        style = prefix.strip() + style
        one = Candidate(match.start(), end, line, unit, first, last, upper, strength, style)
        found.append((prefix.strip(), one))
    for match in _TRAILING.finditer(text):
        number = parse_numeral(match["n"])
        if number is not None and not _CORE.search(match[0]):
            line = match[0].strip()
            one = Candidate(match.start(), match.end(), line, "第", number, number, (), 0.8)
            found.append(("", one))
    # 红楼梦第一回: a prefix that is no known one must stand before three headings or more.
    prefixes = Counter(prefix for prefix, _ in found)
    kept = [
        one
        for prefix, one in found
        if prefixes[prefix] >= 3 or not prefix or _PREFIX.fullmatch(prefix + " ")
    ]
    return sorted(kept, key=lambda one: one.start)


_MISSPELT = re.compile(
    rf"(?m)^[^\w\n]{{0,6}}(?:第{_S}(?P<n>{_NUMBER}){_S}[^\n]?(?=[^\w\n]|$)|(?P<m>{_NUMBER}){_S}{_UNIT})"
    r"[^\n。！？；]{0,40}$"
)


def misspelt(text: str, start: int, end: int, wanted: range, unit: str) -> list[Candidate]:
    """Headings with a slip (第十二张, 十二章) for the wanted numbers; none unless all are found."""
    found = []
    for match in _MISSPELT.finditer(text, start, end):
        number = parse_numeral(match["n"] or match["m"])
        if number is not None and number in wanted:
            place, line = match.span(), match[0].strip()
            found.append(Candidate(*place, line, unit, number, number, (), 0.6))
    return found if [one.first for one in found] == list(wanted) else []


def _cores(text: str, match: re.Match) -> Iterator[tuple[tuple[str, int, int] | None, int]]:
    """The numbered units at the beginning of a line: ((unit, first, last), end) of each.

    A second one belongs to the heading where it is of no higher rank and close by.
    """
    end = text.find("\n", match.end())
    end = len(text) if end < 0 else end
    core = _CORE.match(text, match.start() + len(match["prefix"]), end)
    previous = None
    while core:
        number = _core_number(core)
        yield number, core.end()
        previous = number or previous
        after = _CORE.search(text, core.end(), min(end, core.end() + 40))
        if after and previous and not re.search("[。！？；，]", text[core.end() : after.start()]):
            then = _core_number(after)
            if then and RANKS[then[0]] <= RANKS[previous[0]]:
                core = after
                continue
        core = None


def _strength(line: str, rest: str, style: str) -> float:
    """How much a line with this text after its number looks like a heading, 0 to 1."""
    prose = line[-1] in SENTENCE_END or len(line) > 80
    if style != "x":
        return 0.6 if prose else 1.0
    if len(line) <= 45 and not prose and not re.search("[。！？；，.,]", rest):
        return 0.3 if _PROSE.match(rest) else 0.8
    return 0.2


def heading_of(line: str) -> str:
    """The heading of a line that may hold text after it."""
    line = line.strip()
    if len(line) <= 80 or (len(line) <= 160 and not re.search("[。！？；]", line)):
        return line
    return re.split("[。！？；]", line)[0][:60].strip()
