"""Surprisal of regions of short texts that are given in a CSV file: the items of an experiment."""

import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax.analysis.columns import NONE, Columns
from hlm_jax.analysis.surprisal import Document, SurprisalTable, split_of, surprisal_table
from hlm_jax.analysis.tables import text_of_cell
from hlm_jax.book.files import read_text
from hlm_jax.errors import UserError
from hlm_jax.language_model import LanguageModel
from hlm_jax.measures.progress import Progress
from hlm_jax.measures.reference import Reference

GIVEN = ("item", "condition", "text", "region_start", "region_end")
COLUMNS = (
    *("item", "condition", "region_start", "region_end", "region", "bits", "chars", "tokens"),
    *("straddles", "bits_per_char", "context_tokens", "unigram_bits", "ngram_bits"),
    "split",
)


@dataclasses.dataclass(frozen=True)
class Region:
    """text[start:end] of one item in one condition; `line` is its line in the file."""

    item: str
    condition: str
    text: str
    start: int
    end: int
    line: int


def read_stimuli(path: str | Path) -> list[Region]:
    """The rows of a CSV file with the columns GIVEN, in any order; others are left alone.

    Characters count from 0, and the end is the place after the last. A byte order mark is no part
    of the first name. In a text \\n is a line end and \\\\ a backslash, as Columns.to_csv
    writes them. A line end inside quotes, LF or CRLF, is one line end too: one character.

    Raises:
      UserError: names the line: a column or value is missing, or a region does not fit its text.
    """
    # read_text gives the text of any encoding, its line ends as \n.
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    regions: list[Region] = []
    names: list[str] | None = None
    first = 1  # line of the row; one row may have several
    try:
        for row in reader:
            line, first = first, reader.line_num + 1
            if not row:  # a blank line
                continue
            if names is None:
                names = [name.strip() for name in row]
                if missing := [name for name in GIVEN if name not in names]:
                    raise UserError(
                        f"{path}, line {line}: no column {', '.join(missing)}; "
                        f"give a first line with {','.join(GIVEN)}"
                    )
                continue
            if len(row) != len(names):
                raise UserError(
                    f"{path}, line {line}: not as many values as there are names; put a text with "
                    "commas in quotes"
                )
            regions.append(_region(path, dict(zip(names, row, strict=True)), line))
    except csv.Error as error:
        raise UserError(f"{path}, line {first}: not CSV ({error})") from None
    if not regions:
        raise UserError(f"{path}: no rows below the line of names")
    return regions


def _region(path: str | Path, row: dict[str, str], line: int) -> Region:
    where = f"{path}, line {line}"
    text = text_of_cell(row["text"])
    if not text:
        raise UserError(f"{where}: the text is empty")
    try:
        start, end = int(row["region_start"]), int(row["region_end"])
    except ValueError:
        raise UserError(
            f"{where}: region_start and region_end must be whole numbers, not "
            f"{row['region_start']!r} and {row['region_end']!r}"
        ) from None
    if not 0 <= start < end <= len(text):
        raise UserError(
            f"{where}: no region {start} to {end} in a text of {len(text)} characters; "
            "the first character is 0 and the end is the place after the last"
        )
    return Region(row["item"], row["condition"], text, start, end, line)


class RegionTable(Columns):
    """One row for each region: the columns COLUMNS.

    Attributes:
      texts: the surprisal of every different text, a document each.
    """

    def __init__(self, columns: Mapping[str, Any], notes: Sequence[str], texts: SurprisalTable):
        super().__init__(columns, notes)
        self.texts = texts


def regions(
    model: LanguageModel,
    stimuli: Sequence[Region],
    *,
    unit: str = "token",
    stride: int | None = None,
    reference: Reference | None = None,
    progress: Progress | None = None,
) -> RegionTable:
    """Scores each text on its own, exactly as it is given, and sums over its regions.

    A region has the units that begin in it, so regions that share out a text share out its cost.
    `straddles` counts the borders of a region, 0 to 2, that lie inside a token: its bits then
    belong in part to the neighbour, or the neighbour's to it. unit="char" has no such borders.

    Args:
      unit, stride, reference, progress: as surprisal_table.

    Raises:
      UserError: as surprisal_table.
    """
    texts = {text: number for number, text in enumerate(dict.fromkeys(s.text for s in stimuli))}
    documents = [
        Document("stimuli", number + 1, text, split_of(text, reference) if reference else "")
        for text, number in texts.items()
    ]
    table = surprisal_table(
        model, documents, unit=unit, stride=stride, reference=reference, progress=progress
    )
    parts = list(_parts(table))
    rows = [_sums(region, table, parts[texts[region.text]]) for region in stimuli]
    notes = list(table.notes)
    if known := [s for s in stimuli if documents[texts[s.text]].split == "train"]:
        notes.append(
            f"TRAINED ON: {len(known)} of {len(stimuli)} rows have a text that stands in the "
            f"training chapters, the first in line {known[0].line}"
        )
    counts = [row[COLUMNS.index("tokens")] for row in rows]
    if empty := [s for s, n in zip(stimuli, counts, strict=True) if n == 0]:
        notes.append(
            f"{len(empty)} of {len(stimuli)} rows have a region in which no token begins, the "
            f"first in line {empty[0].line}: 0 bits there is no cost, the token that reaches over "
            "the region is counted where it begins; --unit char has no such regions"
        )
    columns = zip(*rows, strict=True)
    return RegionTable(dict(zip(COLUMNS, map(_column, columns), strict=True)), notes, table)


def _parts(table: SurprisalTable) -> Iterator[slice]:
    begin = 0
    for rows in table.rows_of_documents.tolist():
        yield slice(begin, begin + rows)
        begin += rows


def _column(values: Sequence[Any]) -> Any:
    return list(values) if isinstance(values[0], str) else np.array(values)


def _sums(region: Region, table: SurprisalTable, part: slice) -> tuple[Any, ...]:
    """The values of COLUMNS of one region; `part` are the rows of its text."""
    start, end = (np.asarray(table.columns[name][part]) for name in ("start", "end"))
    first, last = np.searchsorted(start, [region.start, region.end])
    chosen = slice(part.start + first, part.start + last)

    def total(name: str) -> float:
        if np.isnan(table.columns[name][part]).any():  # not known; the sum of no units would be 0
            return float("nan")
        return float(np.sum(table.columns[name][chosen]))

    borders = (region.start, region.end)
    straddles = sum(bool(((start < border) & (end > border)).any()) for border in borders)
    chars, bits = region.end - region.start, total("bits")
    tokens = int(last - first) if table.unit == "token" else NONE
    context = int(table.columns["context_tokens"][chosen.start]) if last > first else NONE
    return (
        *(region.item, region.condition, region.start, region.end),
        *(region.text[region.start : region.end], bits, chars, tokens, straddles, bits / chars),
        *(context, total("unigram_bits"), total("ngram_bits"), table.columns["split"][part.start]),
    )
