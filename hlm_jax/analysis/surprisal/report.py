"""What a table of surprisal says in a few lines, for the terminal and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hlm_jax.analysis.columns import NONE, Columns
from hlm_jax.analysis.surprisal.stimuli import RegionTable
from hlm_jax.analysis.surprisal.table import SurprisalTable, partly_trained
from hlm_jax.analysis.tables import cell_text
from hlm_jax.numbers import written_numbers

UNITS = {"token": "tokens", "char": "characters"}
SURPRISING = 10  # units that a summary shows
_AROUND = 8  # characters of the text on either side of one


def summary(
    table: SurprisalTable, chapters: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """The sums of a table, its chapters and its most surprising units, JSON-able.

    Args:
      chapters: rows of CrossFitted, where the table is one of folds.
    """
    rows = [dict(row) for row in (table.by_chapter() if chapters is None else chapters)]
    chars = sum(row["chars"] for row in rows)
    bits = float(np.sum(table.columns["bits"]))
    ngram = float(np.sum(table.characters["ngram_bits"]))
    counted = not np.isnan(ngram)
    found: dict[str, Any] = {"unit": table.unit, "rows": len(table), "chars": chars, "bits": bits}
    found["bits_per_char"] = bits / chars
    found["ngram_bits_per_char"] = ngram / chars if counted else None
    found["ratio"] = bits / ngram if counted and ngram else None
    found["trained_on"] = [row["chapter"] for row in rows if row["split"] == "train"]
    found["partly_trained_on"] = partly_trained(table)
    found["files"] = any(document.is_file for document in table.documents)
    found["notes"] = table.notes
    found["chapters"] = rows
    found["surprising"] = [_unit(table, at) for at in _highest(table)]
    return found


def _highest(table: SurprisalTable) -> list[int]:
    bits = np.asarray(table.columns["bits"])
    return np.argsort(-bits, kind="stable")[:SURPRISING].tolist()


def _unit(table: SurprisalTable, at: int) -> dict[str, Any]:
    row = table[at]
    number = int(np.searchsorted(np.cumsum(table.rows_of_documents), at, side="right"))
    text = table.documents[number].text
    return {
        "doc": row.doc,
        "chapter": row.chapter,
        "start": row.start,
        "text": row.text,
        "before": text[max(0, row.start - _AROUND) : row.start],
        "after": text[row.end : row.end + _AROUND],
        "bits": row.bits,
        "rank": row.rank if row.rank != NONE else None,
    }


def describe(found: Mapping[str, Any], *, short: bool = False) -> str:
    """The lines of a summary.

    Args:
      short: only what was trained on, the notes and the sums.
    """
    lines = warning(found)
    rows = found["chapters"]
    lines.append(f"{found['rows']:,} {UNITS[found['unit']]}: {_figures(found)}")
    if short:
        return "\n".join(lines)
    for row in rows:
        split = row["split"] or "split not known"
        lines.append(f"  {_place(found, row)} ({split}): {_figures(row)}")
    lines.append(f"most surprising {UNITS[found['unit']]}:")
    for unit in found["surprising"]:
        place = f"{_place(found, unit)}, character {unit['start']}"
        text = "".join([unit["before"], "[", unit["text"], "]", unit["after"]])
        lines.append(f"  {unit['bits']:5.1f} bits  {place}: {cell_text(text)}")
    return "\n".join(lines)


def _place(found: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The name of a file, with its number where several have one name; or the chapter's number."""
    if not found["files"]:
        return f"chapter {row['chapter']}"
    alike = sum(other["doc"] == row["doc"] for other in found["chapters"])
    return row["doc"] + (f" (file {row['chapter']})" if alike > 1 else "")


def warning(found: Mapping[str, Any]) -> list[str]:
    """Loud lines: what was trained on, and what the table lacks."""
    lines = []
    if trained := found["trained_on"]:
        which = f"chapter{'s' * (len(trained) > 1)} {written_numbers(trained)}"
        if found["files"]:
            rows = [row for row in found["chapters"] if row["split"] == "train"]
            which = ", ".join(_place(found, row) for row in rows)
        elif len(trained) == len(found["chapters"]) == 1:
            which = "this text"
        lines.append(
            f"TRAINED ON: the model and its 5-gram learned from {which}; their bits there are "
            "those of a text that they may remember, and no measure of surprise"
        )
    lines += found["partly_trained_on"]
    return lines + [f"note: {note}" for note in found["notes"]]


def _figures(row: Mapping[str, Any]) -> str:
    line = f"{row['bits_per_char']:.4f} bits/char"
    if row["ratio"] is not None:
        line += f" (5-gram {row['ngram_bits_per_char']:.4f}, ratio {row['ratio']:.4f})"
    if row.get("memorised") is not None:
        line += f", {row['bits_per_char_in']:.4f} when trained on: memorised {row['memorised']:.4f}"
    return f"{line}, {row['chars']:,} characters"


def describe_regions(table: RegionTable) -> str:
    """A line for each region, below the notes."""
    lines = [f"note: {note}" for note in table.notes]
    for row in table.rows:
        ngram = "" if np.isnan(row["ngram_bits"]) else f" (5-gram {row['ngram_bits']:.2f})"
        cut = f", {_counted(row['straddles'], 'border')} inside a token"
        tokens = f" in {_counted(row['tokens'], 'token')}" if row["tokens"] != NONE else ""
        lines.append(
            f"{row['item']} {row['condition']}: {row['bits']:.2f} bits{ngram} for "
            f"{_counted(row['chars'], 'character')}{tokens}{cut * bool(row['straddles'])}: "
            f"{cell_text(row['region'])}"
        )
    return "\n".join(lines)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def chapter_table(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """The rows of by_chapter or CrossFitted as a table that can be written."""
    columns: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if not isinstance(values[0], str):
            values = np.array([np.nan if value is None else value for value in values])  # type: ignore[assignment]
        columns[name] = values
    return Columns(columns)
