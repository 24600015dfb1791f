"""Each chapter's own figures: length, sentences, speech, verse, names, vocabulary. Needs no model.

Length and rates are of the whole chapter, as in a concordance; everything else is counted below the
heading.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hlm_jax.analysis.speech import PAIRS, speech_mask
from hlm_jax.analysis.stylometry.verse import verse_mask
from hlm_jax.analysis.tables import write_csv
from hlm_jax.book.chapters import Chapter
from hlm_jax.measures.style import NAMES

PER = 10_000  # characters
WORDS = ("笑道", "道")  # whose rates are given where they occur
SAMPLE = 2000  # letters in which distinct ones are counted, whatever the chapter's length
OF_THE_NOVEL = 0.8  # part of the list of names that a text of the novel has
_SENTENCE = re.compile(r"(?:[^。！？…!?.\n]|\.(?![\s”’\"')]|$))+(?:[。！？…!?]+|\.+)?", re.M)
_MARKS = "“”‘’「」『』\"' \t\u3000"


def chapter_statistics(
    chapter: Chapter, *, names: Sequence[str] = (), words: Sequence[str] = ()
) -> dict[str, float | None]:
    """The figures of one chapter.

    Args:
      names: personal names whose occurrences are counted together.
      words: each gets a column "<word>_per_10000".

    Returns:
      number;
      chars: of the whole chapter, heading and line ends included;
      paragraphs, sentences: those with a letter or digit in them;
      sentence_length: mean characters of a sentence, its quotation marks and spaces left out;
      dialogue_share: part of the characters in speech.speech_mask; None where only straight quotes
        stand;
      verse_share: part of the characters in verse.verse_mask;
      names_per_10000: None without `names`;
      distinct: different letters and Han characters; hapaxes: those that stand once;
      distinct_in_2000: mean number of different ones in stretches of 2,000 of them; None for a
        shorter chapter. It does not grow with the chapter, as `distinct` does.
    """
    text = chapter.body
    sentences = [s.strip(_MARKS) for s in _SENTENCE.findall(text)]
    lengths = [len(s) for s in sentences if any(map(str.isalnum, s))]
    letters = [c for c in text if c.isalpha()]
    counts = Counter(letters)
    straight = '"' in text and not any(mark in text for mark in PAIRS)
    size, whole = max(1, len(text)), max(1, len(chapter.text))
    figures: dict[str, float | None] = {
        "number": chapter.number,
        "chars": len(chapter.text),
        "paragraphs": sum(any(map(str.isalnum, line)) for line in text.split("\n")),
        "sentences": len(lengths),
        "sentence_length": float(np.mean(lengths)) if lengths else 0.0,
        "dialogue_share": None if straight else float(speech_mask(text).sum()) / size,
        "verse_share": float(verse_mask(text).sum()) / size,
        "names_per_10000": PER * sum(map(chapter.text.count, names)) / whole if names else None,
        "distinct": len(counts),
        "hapaxes": sum(count == 1 for count in counts.values()),
        f"distinct_in_{SAMPLE}": _distinct_in(letters, SAMPLE),
    }
    return figures | {f"{w}_per_10000": PER * chapter.text.count(w) / whole for w in words}


def statistics_table(
    chapters: Iterable[Chapter],
) -> tuple[list[str], list[list[float | str | None]]]:
    """(column names, one row a chapter) of a book: chapter_statistics with the heading.

    The names are those of measures.style.NAMES, where the book has four fifths of them: 红楼梦 in
    simplified characters. The rates of 笑道 and 道 are left out of a book that has neither.
    """
    chapters = list(chapters)
    text = "".join(chapter.body for chapter in chapters)
    novel = sum(name in text for name in NAMES) >= OF_THE_NOVEL * len(NAMES)
    words = [word for word in WORDS if word in text]
    rows = []
    head: list[str] = []
    for chapter in chapters:
        figures = chapter_statistics(chapter, names=NAMES if novel else (), words=words)
        head = ["number", "heading", *list(figures)[1:]]
        rows.append([figures[name] if name != "heading" else chapter.heading for name in head])
    return head, rows


def write_statistics(path: str | Path, chapters: Iterable[Chapter]) -> Path:
    """Writes statistics_table as CSV.

    Raises:
      UserError: the file cannot be written.
    """
    return write_csv(path, *statistics_table(chapters))


def _distinct_in(letters: Sequence[str], size: int) -> float | None:
    whole = range(0, len(letters) - size + 1, size)
    return float(np.mean([len(set(letters[i : i + size])) for i in whole])) if whole else None
