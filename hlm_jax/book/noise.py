"""A book as it was downloaded -> the book's text: noise is counted and, where certain, removed.

Each rule is a function of a text that returns the new text and how often it applied; `RULES` names
them for the report. A rule that is not certain leaves the text and says so in a note. Licences and
headers that are cut off whole are listed. Knows no chapters. See wraps.py for broken lines.
"""

import collections
import dataclasses
import html.entities
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from hlm_jax.book.dropped import Dropped
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.licences import CUTS, is_gutenberg
from hlm_jax.book.pages import NUMBER_LINE, page_marks
from hlm_jax.book.site_lines import LOOKS, URL, chapter_end_marks, site_lines
from hlm_jax.book.wraps import CJK, join_wrapped

PASSES = 8  # a rule may uncover what another one removes; a text without noise takes one pass


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """A book without its noise.

    Attributes:
      texts: one per input text, LF line ends.
      counts: how often each rule applied, by the rule's name; only rules that applied.
      dropped: the parts that were cut off whole.
      notes: one line each: what looks like noise and was left in, what was joined and why.
    """

    texts: tuple[str, ...]
    counts: dict[str, int]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]


def remove_noise(texts: Sequence[str], *, brackets: str = "") -> Cleaned:
    """Removes what is certainly not the book's text.

    Removing the noise of the result changes nothing more.

    Args:
      texts: the book's files in order, decoded, with their indentation and blank lines.
      brackets: pairs such as "【】（）" whose content is commentary and is removed with them.

    Raises:
      CorpusError: `brackets` is not made of pairs.
    """
    if len(brackets) % 2 or len(set(brackets)) < len(brackets):
        raise CorpusError(f"brackets {brackets!r}: write pairs such as 【】 or （）【】")
    counts: collections.Counter[str] = collections.Counter()
    dropped: list[Dropped] = []
    done = list(texts)
    gutenberg = any(map(is_gutenberg, done))
    kept: list[str] = []
    for _ in range(PASSES):
        before = list(done)
        for i, text in enumerate(done):
            for cut in CUTS:
                text, parts = cut(text)
                dropped += parts
            for name, rule in RULES:
                text, n = rule(text)
                counts[name] += n
            done[i] = text
        done, n, joined_notes = join_wrapped(done)
        counts["hard_wraps"] += n
        kept += [note for note in joined_notes if note not in kept]
        for i, text in enumerate(done):
            if gutenberg:
                for name, rule in GUTENBERG_RULES:
                    text, n = rule(text)
                    counts[name] += n
            if brackets:
                text, n = _brackets(text, brackets)
                counts["brackets"] += n
            done[i] = text
        if done == before:
            break
    notes = kept + list(_left_in(done, brackets, gutenberg))
    applied = {name: n for name, n in counts.items() if n}
    return Cleaned(tuple(done), applied, tuple(dropped), tuple(dict.fromkeys(notes)))


# --- Rules. Each takes a text and returns (text, how often it applied). ---

_TAG = re.compile(
    r"<(?P<end>/?)(?P<name>br|p|div|span|font|img|hr|a|b|i|u|em|strong|big|small|sup|sub|center|h[1-6]"
    r"|ul|ol|li|table|tbody|tr|td|th|blockquote|pre|html|head|body|title|meta|link|ruby|rt|rp|rb)"
    r"(?:\s+[a-z:-]+(?:\s*=\s*(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s<>\"']+))?)*\s*/?>",
    re.I,
)
_HIDDEN = re.compile(
    r"<!--(?:(?!-->).){0,2000}-->|<(script|style)\b[^<>]*>(?:(?!</\1).){0,20000}</\1\s*>",
    re.IGNORECASE | re.DOTALL,
)
_BLOCKS = frozenset(
    {"br", "p", "div", "hr", "li", "tr", "ul", "ol", "table", "blockquote", "center"}
)
_BLOCKS |= {f"h{level}" for level in range(1, 7)}
_ALONE = _BLOCKS | {"img", "meta", "link"}  # others are tags only where they open and close
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8}\d{0,2});")


def html_tags(text: str) -> tuple[str, int]:
    """<br>, <p>, </font>, …: <br>, <p> and <div> end a line, others leave nothing.

    Only names of HTML count, so that "a < b > c" and <unk> stay; <i> only where </i> is too.
    """
    if "<" not in text:
        return text, 0
    text, hidden = _HIDDEN.subn("", text)
    found = collections.Counter((m["name"].lower(), bool(m["end"])) for m in _TAG.finditer(text))
    real = {
        name for name, _ in found if name in _ALONE or min(found[name, True], found[name, False])
    }
    count = 0

    def replace(tag: re.Match) -> str:
        nonlocal count
        name = tag["name"].lower()
        if name not in real:
            return tag[0]
        count += 1
        at_edge = text[tag.end() : tag.end() + 1] in ("", "\n") or (
            text[tag.start() - 1 : tag.start()] in ("", "\n") and name != "br"
        )
        return "\n" if name in _BLOCKS and not at_edge else ""

    return _TAG.sub(replace, text), count + hidden


def html_entities(text: str) -> tuple[str, int]:
    """&nbsp;, &ldquo;, &#8220;, &amp;, …: the characters they stand for."""
    if "&" not in text:
        return text, 0
    count = 0

    def replace(entity: re.Match) -> str:
        nonlocal count
        name = entity[0][1:]
        if name[0] != "#" and name not in html.entities.html5:
            return entity[0]
        count += 1
        char = html.unescape(entity[0])
        return {"\xa0": " ", "\r": "", "\ufffd": ""}.get(char, char)

    return _ENTITY.sub(replace, text), count


_ZERO_WIDTH = re.compile("[\xad\u200b-\u200f\u2060\ufeff]")


def zero_width(text: str) -> tuple[str, int]:
    """Soft hyphens and characters without width; joiners stay where a script needs them."""
    if not _ZERO_WIDTH.search(text):
        return text, 0
    moved = 0
    if "\xad\n" in text:  # the first half of a word moves down, so that the lines keep their width
        text, moved = re.subn(r"(\b\w{1,30})\xad+\n([ \t]*)(?=\w)", r"\n\2\1", text)
    text, n = re.subn(
        r"[\xad\u200b\u2060\ufeff]|(?<![\u0590-\u109f\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])"
        r"[\u200c-\u200f]",
        "",
        text,
    )
    return text, moved + n


_READING = "ぁ-ゖァ-ヺー・…ゝゞヽヾ゛／＼″　 "
_RUBY = re.compile(
    rf"[｜|]([^《》｜|\n]{{1,30}})《[^《》\n]{{1,40}}》|(?<=[\u3400-\u9fff々〆ヶ仝ァ-ヺA-Za-zＡ-Ｚａ-ｚ])《[{_READING}]{{1,40}}》"
)


def ruby(text: str) -> tuple[str, int]:
    """Readings in Japanese: ｜base《reading》 and 漢字《かんじ》; elsewhere 《》 is a title."""
    if "《" not in text:
        return text, 0
    sample = text[:: max(1, len(text) // 20_000)]
    if len(re.findall("[\u3041-\u3096]", sample)) < 0.2 * max(1, len(CJK.findall(sample))):
        return text, 0
    return _RUBY.subn(lambda m: m[1] or "", text)


def aozora_notes(text: str) -> tuple[str, int]:
    """［＃…］, nested or not. A sign ※ that stood for a character stays."""
    count = n = 0
    while "［＃" in text:
        text, n = re.subn(r"［＃[^［］\n]{0,300}］", "", text)
        count += n
        if not n:
            break
    return text, count


RULES: tuple[tuple[str, Callable[[str], tuple[str, int]]], ...] = (
    ("html_tags", html_tags),
    ("html_entities", html_entities),
    ("zero_width", zero_width),
    ("page_marks", page_marks),
    ("site_lines", site_lines),
    ("chapter_end_marks", chapter_end_marks),
    ("ruby", ruby),
    ("aozora_notes", aozora_notes),
)


# --- After the lines were joined. ---


def emphasis(text: str) -> tuple[str, int]:
    """_You_ -> You, in a text of Project Gutenberg."""
    if "_" not in text:
        return text, 0
    return re.subn(
        r"(?<![\w_])_(?![\s_])((?:[^_\n]|\n(?!\s*\n)){1,5000})(?<!\s)_(?![\w_])", r"\1", text
    )


_BRACED = re.compile(r" ?\{(\d{1,4})\}( ?)")


def illustrations(text: str) -> tuple[str, int]:
    """Lines [Illustration] without a caption, and page numbers {12} that rise through the book."""
    text, count = re.subn(r"(?m)^[ \t]*\[Illustration:?\][ \t]*(?:\n|\Z)", "", text)
    numbers = [int(m[1]) for m in _BRACED.finditer(text)]
    if len(numbers) > 4 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        text, n = _BRACED.subn(lambda m: " " if m[2] and m[0][0] == " " else "", text)
        count += n
    return text, count


GUTENBERG_RULES = (("emphasis", emphasis), ("illustrations", illustrations))


def _pairs(text: str, opening: str, closing: str) -> tuple[list[tuple[int, int]], list[int]]:
    """Outermost spans of brackets that may be removed, and the places of the others."""
    spans: list[tuple[int, int]] = []
    stack: list[int] = []
    odd: list[int] = []
    for match in re.finditer(f"[{re.escape(opening + closing)}]", text):
        if match[0] == opening:
            stack.append(match.start())
        elif not stack:
            odd.append(match.start())
        else:
            begin, end = stack.pop(), match.end()
            if end - begin <= 2_000 or "\n" not in text[begin:end]:
                while spans and spans[-1][0] > begin:
                    spans.pop()
                spans.append((begin, end))
            else:
                odd.append(begin)
    return spans, odd + stack


def _brackets(text: str, brackets: str) -> tuple[str, int]:
    """Commentary in the brackets asked for, nested or not; what is not balanced stays."""
    count = 0
    for opening, closing in zip(brackets[::2], brackets[1::2], strict=True):
        out, done = [], 0
        for begin, end in _pairs(text, opening, closing)[0]:
            out.append(text[done:begin])
            done = end
            count += 1
        text = "".join([*out, text[done:]])
    return text, count


_GLYPHLESS = re.compile(  # ※ alone stood for a character; a row of them parts scenes
    r"[\ue000-\uf8ff\U000f0000-\U0010fffd□■〓]|(?<=[\u3040-\u9fff])※(?=[\u3040-\u9fff])"
)


def _left_in(texts: Sequence[str], brackets: str, gutenberg: bool) -> Iterator[str]:
    """One line for each kind of thing that looks like noise and was left in."""
    text = "\n".join(texts)
    if urls := URL.findall(text) if re.search(r"https?:|www", text) else []:
        yield f"left in: {len(urls):,} × web address inside a sentence ({urls[0][:40]})"
    if words := LOOKS.findall(text):
        yield f"left in: {len(words):,} × word of download sites ({words[0]})"
    if glyphs := collections.Counter(_GLYPHLESS.findall(text)):
        at, first = next((i, m.start()) for i, t in enumerate(texts) if (m := _GLYPHLESS.search(t)))
        shown = " ".join(
            f"U+{ord(char):04X}" if unicodedata.category(char) == "Co" else char
            for char in list(glyphs)[:5]
        )
        yield (
            f"left in: {glyphs.total():,} × character without a glyph ({shown}), "
            f"first in {_near(texts, at, first)}"
        )
    if len(numbers := [m["n"] for m in NUMBER_LINE.finditer(text)]) > 4:
        yield f"left in: {len(numbers):,} × line with only a number ({numbers[0]}…{numbers[-1]})"
    if names := re.findall(r"</?[A-Za-z][A-Za-z0-9]{0,15}>", text):
        yield f"left in: {len(names):,} × word in angle brackets ({names[0]})"
    if gutenberg and (n := text.count("[Illustration")):
        yield f"left in: {n:,} × caption [Illustration: …]"
    if gutenberg and (n := text.count("_")):
        yield f"left in: {n:,} × underscore without its other half"
    for opening, closing in zip(brackets[::2], brackets[1::2], strict=True):
        odd = [
            (i, place)
            for i, text in enumerate(texts)
            for place in sorted(_pairs(text, opening, closing)[1])
        ]
        for i, place in odd[:10]:
            here = _near(texts, i, place)
            yield f"left in: {texts[i][place]} without its other half, {here}"
        if len(odd) > 10:
            yield f"left in: {len(odd) - 10:,} × more of {opening}{closing}"


def _near(texts: Sequence[str], i: int, place: int) -> str:
    """A place of the i-th text for people: its line and the characters around it."""
    text = texts[i]
    where = f"text {i + 1}, " if len(texts) > 1 else ""
    line = text.count("\n", 0, place) + 1
    near = text[max(0, place - 8) : place + 12].replace("\n", " ")
    return f"{where}line {line:,}: …{near}…"
