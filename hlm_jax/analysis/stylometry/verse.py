"""Which characters of a text stand in regular verse. Needs no model."""

import re
from collections.abc import Iterable

import numpy as np

LENGTHS = (5, 7)  # syllables of a line
_HAN = "[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
_CLAUSE = re.compile(f"({_HAN}+)(?:[，。！？；、]|$)")
_CLAUSES = re.compile(f"{_HAN}+(?:[，。！？；、]+{_HAN}+)*[，。！？；、]*")
_COUPLETS = re.compile(
    f"(?<!{_HAN})(?:"
    + "|".join(f"(?:{_HAN}{{{n}}}[，；、？！]{_HAN}{{{n}}}[。！？；]){{2,}}" for n in LENGTHS)
    + ")"
)


def verse_mask(text: str) -> np.ndarray:
    """Which characters stand in regular verse of five or seven syllables, bool [chars].

    A clause is a run of Han characters up to one of ，。！？；、 or the end of its paragraph. Verse
    is a row of clauses of one length, 5 or 7:

    - whole paragraphs that consist of such clauses, at least two over neighbouring paragraphs;
    - inside a paragraph of prose at least two couplets in a row: a clause before one of ，；、？！,
      then one before 。！？；.

    Marks between the clauses belong to the verse. Songs of unequal lines, rhapsodies (赋, 诔),
    lines of four or six and single quoted lines are not found. Prose that happens to have such
    couplets is found wrongly.
    """
    mask = np.zeros(len(text), bool)
    row: list[tuple[int, int]] = []  # neighbouring paragraphs of clauses of one length
    clauses = length = 0
    for paragraph in re.finditer(r"[^\n]+", text):
        found = [len(m[1]) for m in _CLAUSE.finditer(paragraph[0])]
        pure = bool(_CLAUSES.fullmatch(paragraph[0])) and len(set(found)) == 1
        pure = pure and found[0] in LENGTHS
        if not (pure and found[0] == length):
            _fill(mask, row if clauses >= 2 else [])
            row, clauses, length = [], 0, found[0] if pure else 0
        if pure:
            row.append(paragraph.span())
            clauses += len(found)
        else:
            at = paragraph.start()
            several = [match.span() for match in _COUPLETS.finditer(paragraph[0])]
            _fill(mask, [(at + start, at + end) for start, end in several])
    _fill(mask, row if clauses >= 2 else [])
    return mask


def _fill(mask: np.ndarray, spans: Iterable[tuple[int, int]]) -> None:
    for start, end in spans:
        mask[start:end] = True
