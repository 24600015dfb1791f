"""The text before the first chapter: a prologue, a preface, a chapter without its heading."""

import itertools
import re
import statistics

from hlm_jax.book.dropped import Dropped
from hlm_jax.book.headings import label
from hlm_jax.book.outline import Start

PROLOGUE_CHARS = 200  # a prologue of fewer characters is no chapter
LONG_FRONT = 1000  # characters before the first chapter that are worth a warning

_PROLOGUE = re.compile(
    r"[\s【《〈「#*]*(?:楔\s*子|引\s*首|引\s*子|引\s*言|序\s*[章幕曲]|自\s*[序敘叙]|缘\s*起|緣\s*起|入\s*[话話]|前\s*[传傳]"
    r"|开\s*篇|開\s*篇|prologue|prelude|induction)(?:[\s\u3000】》〉」:：.].*)?$",
    re.I,
)
_PREFACE = re.compile(
    r"[\s【《〈「#*]*(?:.{0,12}序|序言|前\s*言|题\s*[辞词]|題\s*[辭詞]|弁\s*言|小\s*引|凡\s*例|出版说明|出版說明"
    r"|内容简介|內容簡介|preface|foreword|introduction|dedication)[\s\u3000】》〉」:：.]*$",
    re.I,
)


def front_of(
    front: str, spans: list[tuple[Start, str]], warnings: list[str]
) -> tuple[list[tuple[Start, str]], list[Dropped]]:
    """(chapter 0 if there is one, what is dropped) of the text before the first chapter."""
    if not front.strip():
        return [], []
    lines = front.splitlines(keepends=True)
    offsets = list(itertools.accumulate(map(len, lines), initial=0))
    at = next((o for o, line in zip(offsets, lines, strict=False) if _PROLOGUE.match(line)), None)
    if at is not None and len(front) - at >= PROLOGUE_CHARS:
        title = front[at:].split("\n", 1)[0].strip()
        stop = next(
            (
                o
                for o, line in zip(offsets, lines, strict=False)
                if o > at + PROLOGUE_CHARS and _PREFACE.match(line)
            ),
            len(front),
        )
        lost = [part for part in (front[:at], front[stop:]) if part.strip()]
        dropped = [Dropped.of("before the first chapter", part) for part in lost]
        for part in lost:
            _warn_of_length(part, warnings)
        warnings.append(
            f"note: {label(title)!r} is trained on as chapter 0 ({stop - at:,} characters)"
        )
        return [(Start(0, title, 0), front[at:stop])], dropped
    median = statistics.median(len(body) for _, body in spans)
    if spans[0][0].number == 2 and len(front) >= 0.5 * median:
        warnings.append(
            f"the text before chapter 2 is taken for chapter 1, whose heading is missing "
            f"({label(front, 20)!r})"
        )
        return [(Start(0, "", 1), front)], []
    preface = any(_PREFACE.match(line) for line in lines)
    _warn_of_length(front, warnings)
    what = "preface" if preface else "before the first chapter"
    return [], [Dropped.of(what, front)]


def _warn_of_length(lost: str, warnings: list[str]) -> None:
    """Warns of a long text before the first chapter or the prologue that is left out."""
    if len(lost) > LONG_FRONT:
        warnings.append(
            f"{len(lost):,} characters before the first chapter are left out "
            f"({label(lost.strip(), 20)!r}); if they are part of the book, put a line 楔子 "
            "above them"
        )
