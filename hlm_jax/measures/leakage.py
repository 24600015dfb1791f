"""How much of the held-out chapters stands in training chapters or further texts, and what copies.

Found before training, in about 0.1 s for a book of 1 MB. The unit is the 24-gram: GRAM letters,
digits or Chinese characters in a row within one chapter. Everything else is left out first, so that
other punctuation, quotes or line ends do not hide a copy. Each chapter counts a 24-gram once.

24-grams are compared by their hashes. A hash has 53 bits in a book of 2,000 chapters: two of the
10⁶ 24-grams of such a book share one with a probability of about 10⁻⁴, which moves a fraction by
one 24-gram.
"""

import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hlm_jax.book.corpus import Chapter, Corpus
from hlm_jax.errors import UserError

GRAM = 24  # characters; longer than formulas such as 未知后事如何，且听下回分解
WARN, REFUSE = 0.03, 0.30  # fractions of the held-out chapters' 24-grams
COPY = 0.5  # fraction of a chapter's 24-grams in one other chapter that makes it a copy
NAMED = 3  # chapters or ranges that a message names; the others are counted
# Of the 24-grams of the shorter of a held-out chapter and a chapter of a further text. No held-out
# chapter of the default edition shares over 0.02 % with a training chapter. Another edition differs
# in every few lines, so that it may share only a few per cent of a chapter.
WARN_HELD, REFUSE_HELD = 0.003, 0.01
LEAST = 2 * GRAM  # 24-grams; fewer shared ones, such as those of a poem that both quote, are none
LISTED = 40  # chapters that a message names where they are to be left out
_SCRIPT = "tw2s"  # of the comparison alone, so that another script hides nothing; also 著 -> 着
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd; 2⁶⁴ divided by the golden ratio


@dataclasses.dataclass(frozen=True)
class Copy:
    """A chapter at least COPY of which stands in one other chapter.

    Attributes:
      chapter: the later of the two in the book; the earlier where only that one is mostly a copy.
      source: the other one.
      fraction: of the 24-grams of `chapter` that occur in `source` and, where several chapters
        hold them, in no chapter before both.
      splits: the split of `chapter` and that of `source`.
    """

    chapter: Chapter
    source: Chapter
    fraction: float
    splits: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Leakage:
    """What the held-out chapters share with the training chapters, and the copies in the book.

    Attributes:
      fraction: of the held-out chapters' 24-grams that occur in training chapters; 0.0 where no
        held-out chapter has a 24-gram.
      chapters: (chapter, its own fraction) of the held-out chapters that reach WARN, the highest
        first.
      copies: one for each chapter that is a copy, within a split too, the most alike first.
    """

    fraction: float
    chapters: tuple[tuple[Chapter, float], ...]
    copies: tuple[Copy, ...]


def find_leakage(splits: Mapping[str, Sequence[Chapter]]) -> Leakage:
    """Compares all chapters of a book, in O(n log n) for n characters.

    Args:
      splits: {"train", "val", "test"}: chapters, as corpus.split_chapters returns them.
    """
    book = [(chapter, split) for split, chapters in splits.items() for chapter in chapters]
    book.sort(key=lambda pair: pair[0].number)
    grams, holders = _grams([chapter.text for chapter, _ in book])
    held_out = np.array([split != "train" for _, split in book], bool)
    # A run is one 24-gram with all chapters that hold it, in the book's order.
    begins = _begins(grams)
    run = np.cumsum(begins) - 1
    trained = np.bincount(run[~held_out[holders]], minlength=len(grams)) > 0

    counts = np.bincount(holders, minlength=len(book))
    leaked = np.bincount(holders[trained[run]], minlength=len(book)) * held_out
    fractions = leaked / np.maximum(1, counts)
    worst = [k for k in np.argsort(-fractions, kind="stable") if fractions[k] >= WARN]
    return Leakage(
        fraction=float(leaked.sum() / max(1, counts[held_out].sum())),
        chapters=tuple((book[k][0], float(fractions[k])) for k in worst),
        copies=_copies(book, counts, holders, holders[begins][run]),
    )


@dataclasses.dataclass(frozen=True)
class Held:
    """A chapter of a further text that shares at least WARN_HELD with a held-out chapter.

    Attributes:
      path: of the further text.
      place: its chapter.
      chapter: the held-out one.
      fraction: of the 24-grams of the shorter of the two that occur in the other.
    """

    path: str
    place: Chapter
    chapter: Chapter
    fraction: float


def find_held_out(
    extra: Sequence[Corpus], splits: Mapping[str, Sequence[Chapter]]
) -> tuple[Held, ...]:
    """Which held-out chapters of a book stand in which chapters of further texts.

    In the order of the texts and their chapters. Script and variants of characters are ignored.

    Args:
      extra: as extra.load_extra returns them.
      splits: {"train", "val", "test"}: chapters; only validation and test chapters are looked for.
    """
    import opencc

    held = [*splits["val"], *splits["test"]]
    paths = [t.report["source"].get("path", t.name) for t in extra for _ in t.chapters]
    places = [chapter for text in extra for chapter in text.chapters]
    if not held or not places:
        return ()
    chapters = [*held, *places]
    convert = opencc.OpenCC(_SCRIPT).convert
    grams, holders = _grams([convert(chapter.text) for chapter in chapters])
    counts = np.bincount(holders, minlength=len(chapters))
    # Only the 24-grams that both a held-out chapter and a further text hold.
    run = np.cumsum(_begins(grams)) - 1
    ours, theirs = (
        np.bincount(run[of], minlength=len(grams)) > 0
        for of in (holders < len(held), holders >= len(held))
    )
    mixed = (ours & theirs)[run]
    run, holders = np.cumsum(_begins(run[mixed])) - 1, holders[mixed]
    found = []
    for i, chapter in enumerate(held):
        of_chapter = np.bincount(run[holders == i], minlength=len(run)) > 0
        shared = np.bincount(holders[of_chapter[run]], minlength=len(chapters))
        fractions = shared / np.maximum(1, np.minimum(counts, counts[i]))
        for j in np.flatnonzero((shared >= LEAST) & (fractions >= WARN_HELD)).tolist():
            k = j - len(held)
            if k >= 0:
                found.append((k, Held(paths[k], places[k], chapter, float(fractions[j]))))
    return tuple(one for _, one in sorted(found, key=lambda pair: pair[0]))


def held_out_problems(found: Sequence[Held]) -> list[str]:
    """Warnings, one line for each further text that shares less than `refuse_held_out` refuses."""
    lines = []
    for path, some in _by_path(one for one in found if one.fraction < REFUSE_HELD):
        parts = [
            f"its {_name(one.place, one.place)} and the held-out "
            f"{_name(one.chapter, one.chapter)} {one.fraction:.1%}"
            for one in sorted(some, key=lambda one: -one.fraction)
        ]
        lines.append(f"{path} shares passages with held-out chapters: {_listed(parts)}")
    return lines


def refuse_held_out(found: Sequence[Held]) -> None:
    """Refuses further texts that hold held-out chapters, such as another edition of the book.

    Raises:
      UserError: names the first such text, its chapters, and how to leave them out.
    """
    texts = _by_path(one for one in found if one.fraction >= REFUSE_HELD)
    if not texts:
        return
    path, some = texts[0]
    places = [one.place.number for one in some]
    chapters = [one.chapter.number for one in some]
    theirs = _few(chapters)
    if places == chapters:
        theirs = (
            "the chapters of these numbers" if len(places) > 1 else "the chapter of this number"
        )
    least, most = (f"{end(one.fraction for one in some):.0%}" for end in (min, max))
    share = least if least == most else f"{least} to {most}"
    verb = "holds" if len(set(places)) == 1 else "hold"
    more = f" (so does {texts[1][0]})" if len(texts) == 2 else ""
    more = f" (so do {len(texts) - 1} more texts)" if len(texts) > 2 else more
    how = (
        "give a copy of that folder without their files"
        if Path(path).is_dir()
        else f"python scripts/book.py {shlex.quote(path)} --write DIR writes one file per chapter; "
        "delete those files and give DIR"
    )
    raise UserError(
        f"{path} holds held-out chapters of the book{more}: its {_few(places)} {verb} {theirs}, "
        f"{share} of each word for word; leave them out of corpus.extra: {how}"
    )


def _by_path(found: Iterable[Held]) -> list[tuple[str, list[Held]]]:
    """Those of each further text, in the order of the texts."""
    texts: dict[str, list[Held]] = {}
    for one in found:
        texts.setdefault(one.path, []).append(one)
    return list(texts.items())


def _few(numbers: Iterable[int]) -> str:
    """As `_ranges`, of at most LISTED numbers; the others are counted."""
    rising = sorted(set(numbers))
    more = f" and {len(rising) - LISTED} more" if len(rising) > LISTED else ""
    return _ranges(rising[:LISTED]) + more


def _copies(
    book: Sequence[tuple[Chapter, str]], counts: np.ndarray, holders: np.ndarray, firsts: np.ndarray
) -> tuple[Copy, ...]:
    """The copies of a book. Every 24-gram is looked for only in the first chapter that holds it.

    Args:
      book: (chapter, split) in the book's order; the other arguments hold indices into it.
      counts: 24-grams of each chapter, int [len(book)].
      holders, firsts: for each 24-gram of each chapter, that chapter and the first one that holds
        the 24-gram, int [sum of counts].
    """
    again = holders != firsts
    pairs, shared = np.unique(holders[again] * len(book) + firsts[again], return_counts=True)
    later, earlier = np.divmod(pairs, max(1, len(book)))
    alike = shared >= COPY * np.minimum(counts[later], counts[earlier])
    copies: dict[int, Copy] = {}
    for i, j, n in zip(later[alike], earlier[alike], shared[alike], strict=True):
        copy, source = (int(i), int(j)) if n >= COPY * counts[i] else (int(j), int(i))
        fraction = float(n / counts[copy])
        if copy not in copies or fraction > copies[copy].fraction:
            names = (book[copy][1], book[source][1])
            copies[copy] = Copy(book[copy][0], book[source][0], fraction, names)
    return tuple(sorted(copies.values(), key=lambda copy: (-copy.fraction, copy.chapter.number)))


def _grams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of the 24-grams of every text, each text's without repetition.

    Returns:
      (hashes, texts): the hashes in their order, uint64, and the index of the text that each comes
      from, int64; indices ascend where several texts hold one 24-gram.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    sources = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    kept = np.zeros(0x110000, bool)
    kept[codes] = True
    kept[[code for code in np.flatnonzero(kept) if not chr(code).isalnum()]] = False
    sources, codes = sources[kept[codes]], codes[kept[codes]].astype(np.uint64)

    n = max(0, len(codes) - GRAM + 1)
    hashes = np.zeros(n, np.uint64)  # polynomials in _MULTIPLIER modulo 2⁶⁴
    for k in range(GRAM):
        hashes *= _MULTIPLIER
        hashes += codes[k : k + n]
    inside = sources[:n] == sources[GRAM - 1 :]
    # One sort for both: the lowest bits of a hash make room for the index of its text.
    bits = np.uint64(len(texts).bit_length())
    hashes = (hashes >> bits << bits) | sources[:n].astype(np.uint64)
    hashes = np.sort(hashes[inside])
    hashes = hashes[_begins(hashes)]  # np.unique takes 50 times as long
    return hashes >> bits, (hashes & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def _begins(values: np.ndarray) -> np.ndarray:
    """Whether each of the sorted values differs from the one before, bool [len(values)]."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def problems(leakage: Leakage) -> list[str]:
    """Warnings, one line each: the held-out chapters that leak, then the copies, as ranges.

    Empty for a sound book. Where `refuse` raises, its error names the share; only the copies here.
    """
    runs, lines = _runs(leakage.copies), []
    if WARN <= leakage.fraction <= REFUSE:
        leaks = _listed([f"{_name(leak, leak)} {share:.0%}" for leak, share in leakage.chapters])
        lines.append(f"{_share(leakage)}: {leaks}")
    lines += map(_repeat, runs[:NAMED])
    if len(runs) > NAMED:
        lines.append(f"{sum(map(len, runs[NAMED:]))} more chapters repeat others")
    return lines


def refuse(leakage: Leakage) -> None:
    """Refuses a book whose held-out chapters are known from training.

    Raises:
      UserError: the fraction is over REFUSE; names the chapters to remove.
    """
    if leakage.fraction <= REFUSE:
        return
    reasons = [_repeat(run) for run in _runs(leakage.copies)]
    remove = {copy.chapter.number for copy in leakage.copies}
    # Where no copy explains a leak, the held-out chapter itself has to go.
    explained = remove | {copy.source.number for copy in leakage.copies}
    for leak, share in leakage.chapters:
        if share > REFUSE and leak.number not in explained:
            reasons.append(f"{_name(leak, leak)} {share:.0%}")
            remove.add(leak.number)
    raise UserError(f"{_share(leakage)}: {_listed(reasons)}; remove {_ranges(remove)}")


def _share(leakage: Leakage) -> str:
    return f"{leakage.fraction:.1%} of the held-out text stands in training chapters too"


def _runs(copies: Iterable[Copy]) -> list[list[Copy]]:
    """Copies in the book's order, joined where successive chapters repeat successive chapters."""
    runs: list[list[Copy]] = []
    after = (-1, -1)  # the chapter and the source that would prolong the last run
    for copy in sorted(copies, key=lambda copy: copy.chapter.number):
        if (copy.chapter.number, copy.source.number) != after:
            runs.append([])
        runs[-1].append(copy)
        after = (copy.chapter.number + 1, copy.source.number + 1)
    return runs


def _repeat(run: Sequence[Copy]) -> str:
    """Which chapters a run repeats, and how much of each."""
    first, last = run[0], run[-1]
    names = _name(first.chapter, last.chapter), _name(first.source, last.source)
    fractions = [copy.fraction for copy in run]
    least, most = f"{min(fractions):.0%}", f"{max(fractions):.0%}"
    share = least if least == most else f"{least} to {most}"
    if first is last:
        return f"{names[0]} repeats {names[1]}, {share} of it"
    return f"{names[0]} repeat {names[1]}, {share} of each"


def _name(first: Chapter, last: Chapter) -> str:
    """The numbers of one chapter or a range, and the beginnings of the headings."""
    ends = [first] if first is last else [first, last]
    headings = [" ".join(chapter.heading.split()) for chapter in ends]
    headings = [heading if len(heading) <= 16 else heading[:15] + "…" for heading in headings]
    numbers = _ranges(range(first.number, last.number + 1))
    return f"{numbers} ({' to '.join(headings)})" if all(headings) else numbers


def _listed(parts: Sequence[str]) -> str:
    """The first parts, at most NAMED and about 110 characters, and how many more there are."""
    shown = list(parts[:1])
    for part in parts[1:NAMED]:
        if sum(map(len, shown)) + len(part) <= 110:
            shown.append(part)
    rest = [f"{len(parts) - len(shown)} more"] if len(parts) > len(shown) else []
    return ", ".join([*shown, *rest])


def _ranges(numbers: Iterable[int]) -> str:
    """Chapter numbers for people, such as "chapters 3, 13 to 24"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    parts = [f"{a} to {b}" if b > a else f"{a}" for a, b in ranges]
    one = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return ("chapter " if one else "chapters ") + ", ".join(parts)
