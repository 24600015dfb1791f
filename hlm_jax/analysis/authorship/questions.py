"""Two sets of texts whose authorship is in question: what they are, their folds, their controls.

Everything is a row of one list of texts: side A and side B are rows, a fold is a number for each
row, and a control is another division of the same rows.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax.analysis.books import read_book, select
from hlm_jax.book.chapters import Chapter
from hlm_jax.book.corpus import EDITION, Corpus, load_corpus
from hlm_jax.errors import UserError

_GOLDEN = (5**0.5 - 1) / 2  # multiples of it modulo 1 are spread evenly, however many are taken
CONTROLS = ("halves", "odd/even", "random")
FEWEST = 2  # texts of a side; with one, no model can be without it
# Chapters that early manuscripts of the novel lack, and that were supplied from other editions.
SUPPLIED = (64, 67)
_SIGN = "五美吟"  # stands in chapter 64 of every text of the novel


@dataclasses.dataclass(frozen=True)
class Question:
    """Which of some rows belong to which side, and what is held out together.

    Attributes:
      name: such as "1-80/81-120".
      rows: of the list of texts, int [N].
      is_a: whether a row belongs to side A, bool [N].
      fold: of every row, 0 to the number of folds - 1, int [N].
    """

    name: str
    rows: np.ndarray
    is_a: np.ndarray
    fold: np.ndarray

    @property
    def folds(self) -> int:
        return int(self.fold.max()) + 1


@dataclasses.dataclass(frozen=True)
class Texts:
    """The texts of both sides in the order of their book.

    Attributes:
      chapters: A number tells each from all others.
      is_a: bool [N].
      in_order: whether they are chapters of one book, so that a boundary has a meaning.
      supplied: numbers whose text is known to come from another edition.
      own_numbers: whether the chapters have the numbers that the book gives them.
      sources: of each file: its name, the sha256 of its clean text, its characters and chapters.
    """

    chapters: tuple[Chapter, ...]
    is_a: np.ndarray
    names: tuple[str, str]
    title: str
    in_order: bool
    supplied: tuple[int, ...] = ()
    own_numbers: bool = True
    sources: tuple[dict[str, Any], ...] = ()

    @property
    def strings(self) -> list[str]:
        return [chapter.text for chapter in self.chapters]


def read_sides(config: str, overrides: Sequence[str], text: str | None, a: str, b: str) -> Texts:
    """The texts of a command line.

    Args:
      config, overrides: as analysis.books.read_book.
      text: the book; None and two folders in `a` and `b`, or None for the config's book.
      a, b: chapters such as 1-80, or a file or folder each.

    Raises:
      UserError: chapters that the book lacks or that stand on both sides, or too few of them.
    """
    if text is None and all(os.path.exists(os.path.expanduser(side)) for side in (a, b)):
        return _two_folders(a, b)
    for side, words in (("--a", a), ("--b", b)):
        if not re.fullmatch(r"[0-9,\s–-]+", words):
            raise UserError(
                f"{side} {words}: no such file or folder; of a book (--text), give chapters: 1-80"
            )
    book = read_book(config, overrides, text)
    numbers = [chapter.number for chapter in book.chapters]
    own_numbers = len(set(numbers)) == len(numbers)
    if not own_numbers:  # several books in one
        chapters = [dataclasses.replace(c, number=i) for i, c in enumerate(book.chapters, 1)]
    else:
        chapters = list(book.chapters)
    try:
        side_a, side_b = select(chapters, a, "--a"), select(chapters, b, "--b")
    except UserError as error:
        if text is not None or book.name != EDITION:
            raise
        last = chapters[-1].number
        raise UserError(
            f"{error}; no --text was given, and the default edition ends with chapter {last}"
        ) from None
    if shared := {c.number for c in side_a} & {c.number for c in side_b}:
        raise UserError(f"chapter {min(shared)} stands in --a and in --b: give it to one side")
    of_a = {chapter.number for chapter in side_a}
    both = sorted([*side_a, *side_b], key=lambda chapter: chapter.number)
    supplied = SUPPLIED if own_numbers and _is_the_novel(book) else ()
    sources = (_source(book, text),)
    is_a = np.array([chapter.number in of_a for chapter in both], bool)
    return checked(
        Texts(tuple(both), is_a, (a, b), book.name, True, supplied, own_numbers, sources)
    )


def _is_the_novel(book: Corpus) -> bool:
    """Whether a book is a text of the novel with chapters 64 and 67."""
    if book.name == EDITION:
        return True
    found = [c.text for c in book.chapters if c.number == SUPPLIED[0]]
    return len(book.chapters) >= 80 and any(_SIGN in text for text in found)


def _source(book: Corpus, path: str | None) -> dict[str, Any]:
    return {
        "file": Path(path).name if path else book.name,
        "sha256": book.report["sha256"],
        "chars": sum(len(chapter.text) for chapter in book.chapters),
        "chapters": len(book.chapters),
    }


def _two_folders(a: str, b: str) -> Texts:
    """The texts of two folders or files, numbered through; a file is cut into its chapters."""
    books = [_read(path) for path in (a, b)]
    sides = [book.chapters for book in books]
    sources = tuple(_source(book, path) for book, path in zip(books, (a, b), strict=True))
    chapters = [
        Chapter(n, chapter.heading or str(chapter.number), chapter.text)
        for n, chapter in enumerate([*sides[0], *sides[1]], start=1)
    ]
    is_a = np.arange(len(chapters)) < len(sides[0])
    names = (Path(a).name or a, Path(b).name or b)
    return checked(
        Texts(tuple(chapters), is_a, names, " / ".join(names), False, (), False, sources)
    )


def read_chapters(path: str) -> tuple[Chapter, ...]:
    """The chapters of a file or folder, however short.

    Raises:
      UserError: it cannot be read.
    """
    return _read(path).chapters


def _read(path: str) -> Corpus:
    return load_corpus(
        path=path, edition="", cache_dir="", convert="", parts=20, write_cache=False, strict=False
    )


def checked(texts: Texts) -> Texts:
    """The texts, if both sides can be judged.

    Raises:
      UserError: a side has one text.
    """
    for name, side in zip(("a", "b"), (texts.is_a, ~texts.is_a), strict=True):
        if side.sum() < FEWEST:
            raise UserError(
                f"side {name} has {int(side.sum())} text: a text is judged by models that never "
                f"saw it, so give each side at least {FEWEST}"
            )
    return texts


def deal(is_a: np.ndarray, folds: int, *, blocks: bool = False) -> np.ndarray:
    """The fold of every text: each side is dealt in turn, so that each fold has texts of both.

    Args:
      blocks: neighbours are held out together, so that no model has read the chapter next to a
        tested one, except at the ends of a block.

    Raises:
      UserError: more folds than texts of a side.
    """
    fold = np.zeros(len(is_a), int)
    for name, side in zip(("a", "b"), (is_a, ~is_a), strict=True):
        n = int(side.sum())
        if not 2 <= folds <= n:
            raise UserError(
                f"--folds {folds}: side {name} has {n} texts, so give 2 to {n}: each fold holds "
                "out one of each side or more"
            )
        place = np.arange(n)
        fold[side] = place * folds // n if blocks else place % folds
    return fold


def divide(name: str, rows: np.ndarray, is_a: np.ndarray, folds: int, **how: bool) -> Question:
    """A division of rows into sides, with at most as many folds as the smaller side has texts."""
    folds = min(folds, int(is_a.sum()), int((~is_a).sum()))
    return Question(name, rows, is_a, deal(is_a, folds, **how))


def controls_of(
    texts: Texts, words: Sequence[str], folds: int, *, draws: int
) -> dict[str, list[Question]]:
    """The controls by their names; each is one question, or `draws` for random halves.

    Args:
      words: of CONTROLS, or chapters against chapters, "1-40/41-80". Names of files are passed
        over: see book_controls.

    Raises:
      UserError: no such control, or one with a side of one text.
    """
    found: dict[str, list[Question]] = {}
    everything = np.arange(len(texts.chapters))
    for word in words:
        if word == "halves":
            for side in (texts.is_a, ~texts.is_a):
                rows = everything[side]
                if len(rows) >= 2 * FEWEST:
                    first = np.arange(len(rows)) < len(rows) // 2
                    name = f"{_named(texts, rows[first])}/{_named(texts, rows[~first])}"
                    found[name] = [divide(name, rows, first, folds)]
        elif word == "odd/even":
            found[word] = [divide(word, everything, everything % 2 == 0, folds)]
        elif word == "random":
            rng = np.random.default_rng(0)
            halves = [rng.permutation(everything) < len(everything) // 2 for _ in range(draws)]
            found[word] = [divide(word, everything, half, folds) for half in halves]
        elif Path(os.path.expanduser(word)).exists():
            continue
        elif "/" in word:
            sides = [
                {chapter.number for chapter in select(texts.chapters, part, "--controls")}
                for part in word.split("/", 1)
            ]
            if sides[0] & sides[1] or min(map(len, sides)) < FEWEST:
                raise UserError(
                    f"--controls {word}: give two sets of {FEWEST} chapters or more that share none"
                )
            numbers = np.array([chapter.number for chapter in texts.chapters])
            rows = everything[np.isin(numbers, sorted(sides[0] | sides[1]))]
            found[word] = [divide(word, rows, np.isin(numbers[rows], sorted(sides[0])), folds)]
        else:
            raise UserError(
                f"--controls {word}: use {', '.join(CONTROLS)}, chapters such as 1-40/41-80, or "
                "the file of another book"
            )
    return found


def book_controls(words: Sequence[str], folds: int) -> dict[str, tuple[list[str], Question]]:
    """The halves of other books, each believed to be of one author: {name: (texts, question)}.

    Args:
      words: those that name a file or folder count.

    Raises:
      UserError: a book that cannot be read or has fewer than four chapters.
    """
    found = {}
    for word in words:
        path = Path(os.path.expanduser(word))
        if word in CONTROLS or not path.exists():
            continue
        strings = [chapter.text for chapter in read_chapters(str(path))]
        n = len(strings)
        if n < 2 * FEWEST:
            raise UserError(f"--controls {word}: it has {n} chapters, and each half needs {FEWEST}")
        name = f"{path.stem} 1-{n // 2}/{n // 2 + 1}-{n}"
        found[name] = (strings, divide(name, np.arange(n), np.arange(n) < n // 2, folds))
    return found


def boundaries(
    texts: Texts, folds: int, *, window: int | None = None
) -> list[tuple[int, Question]]:
    """(number of the last chapter before it, question) for every tenth boundary of a book.

    That of the question itself is among them.

    A book of fewer than forty texts has about a dozen boundaries.

    Args:
      window: texts on each side; None for all.
    """
    n = len(texts.chapters)
    step = 10 if n >= 40 else max(1, n // 12)
    rows, found = np.arange(n), []
    places = {*range(step, n - FEWEST + 1, step)} | (
        {border} if (border := own_border(texts)) else set()
    )
    for k in sorted(places):
        low, high = (0, n) if window is None else (k - window, k + window)
        if k < FEWEST or low < 0 or high > n:
            continue
        part = rows[low:high]
        found.append((texts.chapters[k - 1].number, divide(f"boundary {k}", part, part < k, folds)))
    return found


def own_border(texts: Texts) -> int:
    """The texts before the boundary between the sides; 0 where the sides are no two stretches."""
    changes = np.flatnonzero(np.diff(texts.is_a.astype(int)) != 0)
    return int(changes[0]) + 1 if len(changes) == 1 else 0


def training_parts(rows: np.ndarray, lengths: np.ndarray, budget: int, fold: int) -> dict[int, int]:
    """{row: characters of its beginning} with `budget` characters together, spread over the rows.

    Both sides of a fold get the same budget; every fold takes other rows of the longer side.
    """
    order = np.argsort((np.arange(len(rows)) * _GOLDEN + fold * (1 - _GOLDEN)) % 1, kind="stable")
    parts: dict[int, int] = {}
    for row in rows[order]:
        if budget <= 0:
            break
        parts[int(row)] = int(min(budget, lengths[row]))
        budget -= parts[int(row)]
    return parts


def budget_of(question: Question, lengths: np.ndarray) -> int:
    """Characters that every model of a question is trained on: the least of any side and fold."""
    return min(
        int(lengths[question.rows[(question.is_a == side) & (question.fold != fold)]].sum())
        for side in (True, False)
        for fold in range(question.folds)
    )


def _named(texts: Texts, rows: np.ndarray) -> str:
    """The numbers of some rows, such as 1-40."""
    numbers = [texts.chapters[row].number for row in rows]
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return f"{numbers[0]}…{numbers[-1]}"
