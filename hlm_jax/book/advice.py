"""What looks wrong about a book's chapters: their lengths and their script."""

import re
import statistics
from collections.abc import Sequence

from hlm_jax.book.chapters import Chapter

LIKE = 5  # chapters of like length, against which the last one is held
# Pairs of frequent characters that differ in the two scripts.
_TRADITIONAL = "個們國說時會對過這為來還沒見麼兩頭長門問聽話點樣將經"
_SIMPLIFIED = "个们国说时会对过这为来还没见么两头长门问听话点样将经"


def advice(chapters: Sequence[Chapter], convert: str) -> list[str]:
    """Warnings about the chapters' lengths and their script."""
    notes = []
    lengths = [len(chapter.text) for chapter in chapters if chapter.number]
    median = statistics.median(lengths) if lengths else 0
    long = [c for c in chapters if c.number and len(c.text) > max(8 * median, 2000)]
    short = [c for c in chapters if c.number and len(c.text) < min(0.05 * median, 200)]
    for which, words in ((long, "over eight times as long as"), (short, "under 5 % of")):
        if which:
            notes.append(
                f"{numbers_of(which)}: {words} the median chapter; look whether a heading is "
                f"{'missed' if which is long else 'taken for one wrongly'} ({which[0].heading!r})"
            )
    last = chapters[-1] if lengths else None
    if last and last not in long and _swallows(lengths[-1], lengths[:-1], median):
        notes.append(
            f"chapter {last.number}, the last one, is more than twice as long as every other: look "
            f"whether it holds a part without a number ({last.heading!r})"
        )
    text = "".join(chapter.text for chapter in chapters)
    han = len(re.findall("[\u4e00-\u9fff]", text))
    if han < 200 or han < 0.3 * len(text) or re.search("[\u3040-\u30ff]{2}", text):
        return notes
    traditional = sum(map(text.count, _TRADITIONAL))
    simplified = sum(map(text.count, _SIMPLIFIED))
    if traditional > simplified and traditional > 0.01 * han and not convert:
        notes.append(
            "note: traditional characters; only if you want simplified ones: "
            "--config.corpus.convert=t2s"
        )
    elif min(traditional, simplified) > 0.1 * max(traditional, simplified, 20):
        notes.append(
            f"traditional and simplified characters are mixed (about {traditional:,} and "
            f"{simplified:,}): --config.corpus.convert=t2s makes all simplified"
        )
    return notes


def _swallows(last: int, others: Sequence[int], median: float) -> bool:
    """Whether the last chapter is twice as long as any of the others, most of like length."""
    like = sum(median / 2 <= length <= 2 * median for length in others)
    return like >= LIKE and last > 2 * max(others)


def numbers_of(chapters: Sequence[Chapter]) -> str:
    """The chapters' numbers in words, the first and the last of many."""
    numbers = [chapter.number for chapter in chapters]
    if len(numbers) > 4:
        return f"chapters {numbers[0]}, {numbers[1]}, …, {numbers[-1]}"
    return ("chapters " if len(numbers) > 1 else "chapter ") + ", ".join(map(str, numbers))
