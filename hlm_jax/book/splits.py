"""Which chapters of a book are trained on, validate and test: by a rule, or by their numbers."""

import re
from collections.abc import Mapping, Sequence

from hlm_jax.book.advice import numbers_of
from hlm_jax.book.chapters import FEW, Chapter
from hlm_jax.book.errors import CorpusError
from hlm_jax.numbers import chapter_numbers, written_numbers


def split_chapters(
    chapters: Sequence[Chapter],
    *,
    held_out: bool,
    train_every: int = 1,
    train: str = "",
    test: str = "",
) -> dict[str, list[Chapter]]:
    """Training, validation and test chapters: {"train", "val", "test"}.

    With `train` or `test` these are the chapters of those numbers, and none is for validation.
    Otherwise `held_out` decides.

    Of ten chapters or more the 5th, 15th, … are for the test, the 10th, 20th, … for validation. Of
    fewer, one whole chapter is for validation, that nearest to a tenth of the text, and a second
    one for the test where both together are at most 30 % of the text. Chapter 0, a prologue, is
    always trained on.

    Args:
      held_out: False trains on all.
      train_every: N keeps every Nth of the training chapters, for experiments on the amount of
        text.
      train: the numbers of the training chapters, such as "1-5,8"; empty for all but `test`.
      test: the numbers of the test chapters.

    Raises:
      CorpusError: a number that the book does not have, or no chapter left to train on.
    """
    if train.strip() or test.strip():
        tested = chapters_named(chapters, test, "split.test")
        trained = chapters_named(chapters, train, "split.train")
        trained = trained or [chapter for chapter in chapters if chapter not in tested]
        if not trained:
            raise CorpusError(f"split.test={test} names every chapter: none is left to train on")
        return {"train": trained, "val": [], "test": tested}
    numbered = [chapter for chapter in chapters if chapter.number > 0]
    split_of: dict[int, str] = {}
    if held_out and len(numbered) >= FEW:
        by_place = {5: "test", 0: "val"}
        split_of = {i: by_place.get((i + 1) % 10, "train") for i in range(len(numbered))}
    elif held_out and len(numbered) > 1:
        total = sum(len(chapter.text) for chapter in numbered)
        nearest = sorted(
            range(len(numbered)), key=lambda i: abs(len(numbered[i].text) - total / 10)
        )
        first, second = nearest[:2]
        split_of[first] = "val"
        if len(numbered[first].text) + len(numbered[second].text) <= 0.3 * total:
            split_of[second] = "test"
    splits: dict[str, list[Chapter]] = {"train": [], "val": [], "test": []}
    place = 0
    for chapter in chapters:
        splits[split_of.get(place, "train") if chapter.number > 0 else "train"].append(chapter)
        place += chapter.number > 0
    return splits | {"train": splits["train"][::train_every]}


def chapters_named(chapters: Sequence[Chapter], words: str, key: str) -> list[Chapter]:
    """The chapters of a book that numbers such as "1-5,8" name, in the book's order.

    A book has every number once: where its own do not rise, chapters are counted from 1.

    Args:
      key: the config key, for the error.

    Raises:
      CorpusError: the book has no such chapter.
    """
    there = {chapter.number: chapter for chapter in chapters}
    numbers = chapter_numbers(words)
    if unknown := [number for number in numbers if number not in there]:
        raise CorpusError(
            f"{key}={words}: the book has no chapter {written_numbers(unknown)}; "
            f"it has {written_numbers(there)}"
        )
    return [there[number] for number in numbers]


def opening(splits: Mapping[str, Sequence[Chapter]]) -> str:
    """How a chapter of the book begins: its heading and the first clause of its text.

    A short line below the heading that ends without punctuation is a title and belongs to it. The
    chapter is the first validation chapter where there is one, else the first training chapter.
    """
    chapter = [*splits["val"], *splits["train"]][0]
    head = chapter.text[: len(chapter.text) - len(chapter.body)]
    title = re.match(r"[^\n]{0,59}[^\n，。,.;；：:！？!?…”」』\"']\n(?=.)", chapter.body)
    head += title[0] if head and title else ""
    clause = re.match(r"[^\n]{0,40}?[，。,.;；：:！？!?]|[^\n]{0,40}", chapter.text[len(head) :])
    return head + (clause[0] if clause else "")


def describe_split(splits: Mapping[str, Sequence[Chapter]], chapters: int) -> str:
    """One line: which chapters are held out, by which rule, and whether not all others train.

    Args:
      chapters: of the whole book, a prologue included.
    """
    held = [*splits["val"], *splits["test"]]
    trained = len(splits["train"])
    fewer = f"; {trained} of {chapters} chapters are trained on"
    fewer = fewer if trained + len(held) < chapters else ""
    if not held:
        return f"held out: nothing{fewer or '; every chapter is trained on'}"
    everything = [chapter for several in splits.values() for chapter in several]
    share = sum(len(c.text) for c in held) / sum(len(c.text) for c in everything)
    few = chapters - any(chapter.number == 0 for chapter in everything) < FEW
    rule = "the nearest to a tenth of a short book" if few else "every tenth"
    if not splits["val"]:
        rule = "as split.test names them"
    words = [
        f"{numbers_of(splits[name])} for {purpose}"
        for name, purpose in (("val", "validation"), ("test", "the test"))
        if splits[name]
    ]
    of = "the text" if not fewer else "the text in use"
    return f"held out: {', '.join(words)} ({rule}; {share:.0%} of {of}){fewer}"


# --- two sides ---


def evened(
    a: Sequence[int], b: Sequence[int], lengths: Mapping[int, int]
) -> tuple[list[int], list[int]]:
    """Two lists of chapters with about as many characters: the larger side loses whole chapters.

    Those that stay are spread evenly over their side. Then chapters are exchanged for their
    neighbours as long as that brings the sums nearer.

    Args:
      lengths: characters of every chapter.
    """
    sums = [sum(lengths[n] for n in side) for side in (a, b)]
    small, large = (0, 1) if sums[0] <= sums[1] else (1, 0)
    sides = [list(a), list(b)]
    sides[large] = _thinned(sides[large], lengths, sums[small])
    return sides[0], sides[1]


def _thinned(chapters: list[int], lengths: Mapping[int, int], target: int) -> list[int]:
    """Of these chapters some, spread evenly, with about `target` characters."""
    n, total = len(chapters), sum(lengths[c] for c in chapters)
    m = max(1, round(n * target / total))
    kept = [(2 * i + 1) * n // (2 * m) for i in range(m)]
    over = sum(lengths[chapters[i]] for i in kept) - target
    while True:
        moves = [
            (abs(over + lengths[chapters[j]] - lengths[chapters[i]]), place, j)
            for place, i in enumerate(kept)
            for j in (i - 1, i + 1)
            if 0 <= j < n and j not in kept
        ]
        best = min(moves, default=(abs(over), 0, 0))
        if best[0] >= abs(over):
            return [chapters[i] for i in kept]
        _, place, j = best
        over += lengths[chapters[j]] - lengths[chapters[kept[place]]]
        kept[place] = j
