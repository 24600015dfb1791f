"""The units of a table of surprisal as they are drawn: each with its stretch of the text.

A unit is a token or a character; the bytes of one character, several rows of a table, are one unit.
"""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from hlm_jax.errors import UserError

# The numbers of a unit: (short name, column of the table).
NUMBERS = {
    "b": "bits",
    "r": "rank",
    "e": "entropy_bits",
    "g": "ngram_bits",
    "u": "unigram_bits",
    "x": "context_tokens",
    "c": "copied_len",
    "s": "is_speech",
}
_ADDED, _OF_THE_FIRST = "bgu", "ex"  # of several rows; of the others the largest


class Table(Protocol):
    """What is read of a table of surprisal (hlm_jax.analysis.surprisal.table.SurprisalTable)."""

    @property
    def unit(self) -> str: ...
    @property
    def columns(self) -> Mapping[str, Any]: ...
    @property
    def documents(self) -> Sequence[Any]: ...  # name, chapter, text, split


class Cells(NamedTuple):
    """The units of one document for one model.

    Attributes:
      start, end: int [units], in characters.
      numbers: {short name of NUMBERS: float [units]}, nan where a row has no value. A number that
        no unit has is left out. "c" is the longest copy that reaches over a unit.
      several: {unit: number of its rows}, where it is more than one.
      choices: of every unit the likeliest texts and their probabilities.
    """

    start: np.ndarray
    end: np.ndarray
    numbers: dict[str, np.ndarray]
    several: dict[int, int]
    choices: list[list[tuple[str, float]]]


def cells_of(table: Table) -> list[Cells]:
    """The units of every document that has a text."""
    index = np.asarray(table.columns["index"])
    starts = np.flatnonzero(index == 0).tolist()
    if len(starts) != len(documents_of(table)):
        raise ValueError(f"{len(documents_of(table))} documents, but rows of {len(starts)}")
    ends = [*starts[1:], len(index)]
    return [_cells(table, slice(a, b)) for a, b in zip(starts, ends, strict=True)]


def documents_of(table: Table) -> list[Any]:
    """The documents that have a text; an empty one has no row."""
    return [document for document in table.documents if document.text]


def common_documents(named: Mapping[str, Table]) -> list[Any]:
    """The documents of all tables, which must have the same texts.

    Raises:
      UserError: no text, or different ones.
    """
    lists = {name: documents_of(table) for name, table in named.items()}
    first = next(iter(lists), "")
    if not lists.get(first):
        raise UserError("there is no text to show: give a table of at least one text")
    for name, documents in lists.items():
        ours, theirs = ([(d.chapter, d.text) for d in of] for of in (lists[first], documents))
        if ours != theirs:
            raise UserError(
                f"{first} and {name} have different texts: score the same chapters with both models"
            )
    return lists[first]


def _cells(table: Table, rows: slice) -> Cells:
    columns = {name: column[rows] for name, column in table.columns.items()}
    start, end = (np.asarray(columns[name], dtype=np.int64) for name in ("start", "end"))
    reached = np.maximum.accumulate(end)
    begins = np.append(True, (start[1:] >= reached[:-1]) & (end[1:] > start[1:]))
    heads = np.flatnonzero(begins)
    counts = np.diff(np.append(heads, len(start)))
    several = {int(i): int(counts[i]) for i in np.flatnonzero(counts > 1)}
    numbers = {
        short: _merged(short, columns[name], heads)
        for short, name in NUMBERS.items()
        if name in columns
    }
    numbers = {short: values for short, values in numbers.items() if np.isfinite(values).any()}
    if "c" in numbers:
        numbers["c"] = _reaching(start[heads], numbers["c"])
    tops = sorted((n for n in columns if n.startswith("top_")), key=lambda n: int(n[4:]))
    choices = [[_choice(columns[n][head]) for n in tops if columns[n][head]] for head in heads]
    return Cells(start[heads], reached[heads + counts - 1], numbers, several, choices)


def _merged(short: str, column: Any, heads: np.ndarray) -> np.ndarray:
    """A column by units; a negative rank, length or context is the table's sign of no value."""
    values = np.array(column, dtype=float)  # None is nan
    if short in _ADDED:
        known = np.minimum.reduceat(np.isfinite(values).astype(int), heads) > 0
        return np.where(known, np.add.reduceat(np.nan_to_num(values), heads), np.nan)
    values[values < 0] = np.nan
    return values[heads] if short in _OF_THE_FIRST else np.fmax.reduceat(values, heads)


def _reaching(start: np.ndarray, copied: np.ndarray) -> np.ndarray:
    """From the longest copy that begins at each unit: the longest one that reaches over it."""
    longest = np.array(copied)
    reaching: list[tuple[float, float]] = []  # (-length, end): the longest on top
    for i, (place, length) in enumerate(zip(start.tolist(), copied.tolist(), strict=True)):
        if length > 0:
            heapq.heappush(reaching, (-length, place + length))
        while reaching and reaching[0][1] <= place:
            heapq.heappop(reaching)
        if reaching:
            longest[i] = -reaching[0][0]
    return longest


def _choice(pair: str) -> tuple[str, float]:
    """(text, p) of a cell "text:p"; the text may hold colons."""
    word, _, p = pair.rpartition(":")
    return word, float(p)
