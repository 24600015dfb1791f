"""Page marks between the lines of a book: "-----Page2-----", "[Page 12]", "第12页", "12"."""

import collections
import itertools
import re
from collections.abc import Sequence

_RULE = r"[-–—=*~]{0,40}[ ]?"
_DIGITS = r"[ ]?[\d０-９]{1,5}[ ]?"
_PAGE_MARK = re.compile(
    r"(?P<blank>^[ \t\u3000]*\n)?^[ \t\u3000]*(?:"
    rf"{_RULE}[\[【(（]?[ ]?(?:[Pp]age|PAGE|[Pp]g\.?|[Pp]\.)\.?{_DIGITS}(?:(?:/|of){_DIGITS})?"
    rf"[\])）】]?{_RULE}"
    rf"|{_RULE}[\[【(（]?第{_DIGITS}[页頁](?:[ ]?[/／,，]?[ ]?共{_DIGITS}[页頁])?[\])）】]?{_RULE}"
    rf"|(?:[^\s。！？，]{{1,20}}[-_—─ \u3000]+)?分[节節][阅閱][读讀][_-]*{_DIGITS}"
    r")[ \t\u3000]*(?:\n|\Z)(?P<after>(?:[ \t\u3000]*\n)*)",
    re.MULTILINE,
)
_PAGE_INSIDE = re.compile(r" ?\[(?:[Pp]age|[Pp]g\.?) ?\d{1,5}\]( ?)")
NUMBER_LINE = re.compile(
    r"(?P<blank>^[ \t\u3000]*\n)?^[ \t\u3000]*(?:[-–—~－·•\[【(（{] ?)*(?P<n>[\d０-９]{1,4})"
    r"(?: ?[-–—~－·•\]】)）}])*[ \t]*(?:\n|\Z)(?P<after>(?:[ \t\u3000]*\n)*)",
    re.MULTILINE,
)
_CJK = re.compile("[\u3040-\u9fff，、；“‘「『《]")
_DOUBLE_ABOVE = re.compile(r"\n[ \t\u3000]*\n[^\n]+$")
_DOUBLE_BELOW = re.compile(r"[^\n]+\n[ \t\u3000]*\n")
_ENDED = "。！？…”’」』）.!?\"')：:*"


def _cut_mark(mark: re.Match) -> str:
    """What stays of a page mark: the blank lines as they are elsewhere, none inside a sentence."""
    text = mark.string
    above = text[max(0, mark.start() - 300) : mark.start()].rstrip()
    below = text[mark.end() : mark.end() + 300]
    goes_on = above[-1:] and above[-1] not in _ENDED
    if goes_on and (above[-1].islower() or above[-1] in ",;-") and below.lstrip()[:1].islower():
        return ""
    if goes_on and _CJK.match(above[-1]) and _CJK.match(below.lstrip()):
        double_spaced = _DOUBLE_ABOVE.search(above) and _DOUBLE_BELOW.match(below)
        indented = below[:1].isspace() and not above.rpartition("\n")[2][:1].isspace()
        if not double_spaced and not indented and len(above.rpartition("\n")[2]) > 15:
            return ""
    return mark["blank"] or mark["after"]


def page_marks(text: str) -> tuple[str, int]:
    """Lines such as "-----Page2-----", "[Page 12]", "第12页/共300页" and "分节阅读 1".

    Lines that hold only a number count where the numbers rise through the book and stand inside
    sentences; numbers of chapters and verses stay.
    """
    count = n = 0
    if re.search(r"[Pp]age|PAGE|[Pp]g|[Pp]\.|[页頁]|[阅閱][读讀]", text):
        text, count = _PAGE_MARK.subn(_cut_mark, text)
        if "[" in text:
            text, n = _PAGE_INSIDE.subn(lambda m: " " if m[1] and m[0][0] == " " else "", text)
    marks = list(NUMBER_LINE.finditer(text))
    if _are_pages(marks):
        n += len(marks)
        text, headers = _running_headers(text, marks)
        text = NUMBER_LINE.sub(_cut_mark, text)
        n += headers
    return text, count + n


def _running_headers(text: str, marks: Sequence[re.Match]) -> tuple[str, int]:
    """One short line that stands below or above most page numbers."""
    count = 0
    for above in (False, True):
        found = collections.Counter(
            mark.string[max(0, mark.start() - 80) : mark.start()]
            .rstrip()
            .rpartition("\n")[2]
            .strip()
            if above
            else mark.string[mark.end() : mark.end() + 80].strip().partition("\n")[0].strip()
            for mark in marks
        )
        line, times = found.most_common(1)[0]
        if times < 0.6 * len(marks) or not 1 < len(line) < 31:
            continue
        number = NUMBER_LINE.pattern.replace("(?P<blank>", "(?:").replace("(?P<after>", "(?:")
        here = rf"[ \t\u3000]*{re.escape(line)}[ \t]*(?:\n|\Z)"
        text, n = (
            re.subn(rf"(?m)^{here}(?P<mark>(?:[ \t\u3000]*\n)*{number})", r"\g<mark>", text)
            if above
            else re.subn(rf"(?m)(?P<mark>{number})(?:[ \t\u3000]*\n)*{here}", r"\g<mark>", text)
        )
        count += n
    return text, count


def _are_pages(marks: Sequence[re.Match]) -> bool:
    """Whether lines with only a number are page numbers: they rise by one and cut sentences."""
    numbers = [int(mark["n"]) for mark in marks]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    if len(numbers) < 5 or min(steps) < 1 or sum(step == 1 for step in steps) < 0.8 * len(steps):
        return False
    gaps = sorted(b.start() - a.end() for a, b in itertools.pairwise(marks))
    inside = 0
    for mark in marks:
        before = mark.string[max(0, mark.start() - 200) : mark.start()].rstrip()
        after = mark.string[mark.end() : mark.end() + 1]
        long = len(before.rpartition("\n")[2]) > 12  # a line of verse is shorter
        inside += long and before[-1] not in _ENDED and not after.isupper()
    return gaps[len(gaps) // 2] > 300 and inside >= 0.4 * len(marks)
