"""What is taken out of a text before its authorship is judged.

Personal names tell the plot, punctuation is the editor's, verse and headings have rules of their
own. A name becomes one ▢, everything else is left out.
"""

import collections
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hlm_jax.analysis.stylometry.verse import verse_mask
from hlm_jax.book.headings import heading_of
from hlm_jax.errors import UserError
from hlm_jax.measures.style import NAMES

KINDS = ("names", "punctuation", "verse", "headings")
NAME = "▢"  # stands for a masked name
_LEAST = 8  # speeches of a character that make it a name
_SAYS = "(?:又|便|忙|因|也|都|只|才|听了|冷|含|陪|微微)*(?:笑|叹|哭|骂|回|说|问|喝|啐)?[道曰]"
_SPEAKER = re.compile(
    rf"(?:(?<=[，。！？；：」”』\n])|^)([\u4e00-\u9fff]{{2,3}}?){_SAYS}[：，:]", re.M
)
# Characters that begin or end what stands before 道 and is no name.
_NO_NAME = set(
    "他她我你这那一不便只又因都也众说听正忙来去着著了的就是在见笑叹哭问回答话心里上下声想方才"
    "两二三几有大小连向对把被将于此却还再口自人随即点头手拍急忽等所乃其之"
)


def mask(text: str, kinds: Iterable[str], *, names: Sequence[str] = ()) -> str:
    """The text without what `kinds` name.

    Args:
      kinds: of KINDS.
      names: personal names, for "names".
    """
    kinds = set(kinds)
    left_out, replaced = masked_positions(text, kinds, names=names)
    space = "" if _is_han(text) else " "
    parts, previous = [], 0
    for start, end in replaced:
        parts.append(_kept(text, left_out, previous, start, space))
        if not left_out[start:end].any():
            parts.append(NAME)
        previous = end
    parts.append(_kept(text, left_out, previous, len(text), space))
    return "".join(parts)


def masked_positions(
    text: str, kinds: Iterable[str], *, names: Sequence[str] = ()
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """What a mask leaves out or replaces.

    Returns:
      (left_out, replaced): bool [chars], and the spans (start, end) of names.

    Raises:
      UserError: there is no such kind.
    """
    kinds = checked(kinds)
    left_out = np.zeros(len(text), bool)
    if "headings" in kinds:
        line, newline, _ = text.partition("\n")
        heading = heading_of(line)
        whole = (
            len(line) + len(newline)
            if heading == line.strip()
            else line.find(heading) + len(heading)
        )
        left_out[: whole if heading else 0] = True
    if "verse" in kinds:
        left_out |= verse_mask(text)
    if "punctuation" in kinds:
        left_out |= np.array([_is_mark(character) for character in text], bool)
    replaced = []
    if "names" in kinds and names:
        replaced = [m.span() for m in _alternatives(names).finditer(text)]
    return left_out, replaced


def checked(kinds: Iterable[str]) -> set[str]:
    """The kinds, if there are such.

    Raises:
      UserError: there is no such kind.
    """
    if unknown := set(kinds) - set(KINDS):
        raise UserError(f"there is no mask {min(unknown)!r}: use {', '.join(KINDS)}")
    return set(kinds)


def names_of(texts: Sequence[str], path: str | Path | None = None) -> list[str]:
    """The personal names of a book, the longest first.

    Those in a file, one a line, where `path` is given. Else who speaks in the book (…道：), found
    by counting, and for 《红楼梦》 the list of measures/style.py as well.

    Raises:
      UserError: the file cannot be read or names nobody.
    """
    if path is not None:
        from hlm_jax.book.files import read_text

        names = set(read_text(path).split())
        if not names:
            raise UserError(f"{path}: no name in it: write one a line")
    else:
        whole = "".join(texts)
        found = collections.Counter(m[1] for text in texts for m in _SPEAKER.finditer(text))
        names = {
            name
            for name, spoken in found.items()
            if spoken >= _LEAST and not _NO_NAME & {name[0], name[-1]}
        }
        if sum(name in whole for name in NAMES) > 0.8 * len(NAMES):
            names |= set(NAMES)
    return sorted(names, key=lambda name: (-len(name), name))


def _kept(text: str, left_out: np.ndarray, start: int, end: int, space: str) -> str:
    """What stays of text[start:end]; a run that is left out between words becomes `space`."""
    kept: list[str] = []
    gap = False
    for place in range(start, end):
        if left_out[place]:
            gap = True
            continue
        if gap and space and kept and not text[place].isspace():
            kept.append(space)
        kept.append(text[place])
        gap = False
    if gap and space:
        kept.append(space)
    return "".join(kept)


def _alternatives(names: Sequence[str]) -> re.Pattern:
    return re.compile("|".join(map(re.escape, sorted(names, key=lambda name: -len(name)))))


def _is_mark(character: str) -> bool:
    """Whether it is punctuation, a symbol or white space."""
    return unicodedata.category(character)[0] in "PSZC"


def _is_han(text: str) -> bool:
    """Whether a text is written without spaces between words: mostly Han characters and kana."""
    letters = [ord(character) for character in text if character.isalpha()]
    return 2 * sum(0x2E80 <= code < 0xA000 or code >= 0x20000 for code in letters) >= len(letters)
