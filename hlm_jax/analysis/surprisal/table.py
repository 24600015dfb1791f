"""A table of surprisal: one row for each token or character of some texts. Holds columns, no model.

docs/surprisal.md describes every column.
"""

import collections
import dataclasses
import functools
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hlm_jax.analysis.columns import NONE, Columns, plain
from hlm_jax.measures.overlap import SPAN

COLUMNS = (
    *("doc", "chapter", "paragraph", "index", "start", "end", "text", "token_id", "bits", "rank"),
    *("entropy_bits", "context_tokens", "unigram_bits", "ngram_bits", "split", "copied_len"),
    "is_speech",
)
KNOWN = 0.02  # of a text in copied spans: more than held-out chapters of one book share
MOST_SHOWN = 20_000  # rows that a notebook shows as a page; above that, a row for each chapter


@dataclasses.dataclass(frozen=True)
class Document:
    """A text to score from its beginning, exactly as it is.

    Attributes:
      name: of its book or file.
      chapter: its number.
      split: "train", "val" or "test" of the model's book, "outside" of it, "" where it is not
        known.
      is_file: it is a file of its own and no chapter of a book; `chapter` only numbers it.
    """

    name: str
    chapter: int
    text: str
    split: str = ""
    is_file: bool = False


class SurprisalTable(Columns, Sequence[Any]):
    """Columns of one length. Its rows are named tuples: `for row in table: row.text, row.bits`.

    Attributes:
      unit: "token" or "char".
      columns: {name: array or list [rows]}, those of COLUMNS and then top_1, top_2, …
      documents: the texts, in the order of the rows.
      characters: {name: array [characters of all documents]}: unigram_bits, ngram_bits, copied_len
        and is_speech of every character.
      notes: what a reader must be told, such as why a column is empty.
    """

    def __init__(
        self,
        unit: str,
        columns: Mapping[str, Sequence[Any] | np.ndarray],
        documents: Sequence[Document],
        characters: Mapping[str, np.ndarray],
        notes: Sequence[str] = (),
    ):
        super().__init__(columns, notes)
        self.unit, self.documents, self.characters = unit, list(documents), dict(characters)

    def __repr__(self) -> str:
        bits, chars = float(np.sum(self.columns["bits"])), len(self.characters["is_speech"])
        return (
            f"<SurprisalTable: {len(self):,} rows, one a {self.unit}; {bits:,.1f} bits over "
            f"{chars:,} characters>"
        )

    @functools.cached_property
    def _row(self) -> type:
        return collections.namedtuple("Row", self.columns)  # type: ignore[misc]

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return self._row(*[plain(column[at]) for column in self.columns.values()])

    def __iter__(self) -> Iterator[Any]:
        return map(self._row._make, self.tuples())  # type: ignore[attr-defined]

    def by_chapter(self) -> list[dict[str, Any]]:
        """Sums of every document.

        Returns:
          Dicts of doc, chapter, split, chars, rows, bits, bits_per_char, ngram_bits_per_char,
          ratio (of both), entropy_bits (mean of a row), rank_1 (share of the rows), copied (share
          of the characters in copies of 15 or more). A figure that is not known is None.
        """
        return [_sums(table) for table in self.by_document()]

    @functools.cached_property
    def rows_of_documents(self) -> np.ndarray:
        """How many rows each document has."""
        index = np.asarray(self.columns["index"])
        return np.diff(np.append(np.flatnonzero(index == 0), len(index)))

    def by_document(self) -> list["SurprisalTable"]:
        """A table of every document."""
        found, row, char = [], 0, 0
        for document, rows in zip(self.documents, self.rows_of_documents.tolist(), strict=True):
            own, inside = slice(row, row + rows), slice(char, char + len(document.text))
            row, char = own.stop, inside.stop
            columns = {name: column[own] for name, column in self.columns.items()}
            characters = {name: column[inside] for name, column in self.characters.items()}
            found.append(SurprisalTable(self.unit, columns, [document], characters, self.notes))
        return found

    def by_character(self) -> "SurprisalTable":
        """The table with a row for each character: the bits of a token stand at its first one.

        The other characters of a token have 0 bits and no rank, entropy or alternatives. Sums over
        the text stay what they are. The bits of a character that is several tokens are added up;
        its rank, entropy and alternatives are those of its first byte. For the probability of each
        character, make the table with unit="char" instead.
        """
        if self.unit == "char":
            return self
        lengths = [len(document.text) for document in self.documents]
        offsets = np.repeat(np.cumsum([0, *lengths[:-1]]), self.rows_of_documents)
        place = np.asarray(self.columns["start"]) + offsets
        total = sum(lengths)
        first = np.append(True, place[1:] != place[:-1])[: len(place)]
        bits = np.zeros(total)
        np.add.at(bits, place, np.asarray(self.columns["bits"]))

        def spread(name: str, missing: Any) -> Any:
            column = self.columns[name]
            if not isinstance(column, np.ndarray):
                values = [missing] * total
                for at, value, own in zip(place.tolist(), column, first.tolist(), strict=True):
                    if own:
                        values[at] = value
                return values
            spread_out = np.full(total, missing, column.dtype)
            spread_out[place[first]] = column[first]
            return spread_out

        columns: dict[str, Any] = character_places(self.documents)
        columns |= {"token_id": spread("token_id", NONE), "bits": bits}
        columns |= {"rank": spread("rank", NONE), "entropy_bits": spread("entropy_bits", np.nan)}
        columns |= {"context_tokens": spread("context_tokens", NONE)}
        columns |= self.characters
        columns |= {name: spread(name, "") for name in self.columns if name.startswith("top_")}
        order = [*COLUMNS, *(name for name in columns if name not in COLUMNS)]
        columns = {name: columns[name] for name in order}
        return SurprisalTable("char", columns, self.documents, self.characters, self.notes)

    def _repr_html_(self) -> str:
        """The heat map in a frame of its own; for a long text a row for each chapter."""
        if len(self) > MOST_SHOWN:
            keys = list(self.by_chapter()[0])
            cells = [[row[key] for key in keys] for row in self.by_chapter()]
            head = "".join(f"<th>{key}</th>" for key in keys)
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(_short(cell))}</td>" for cell in row) + "</tr>"
                for row in cells
            )
            return f"<table><tr>{head}</tr>{body}</table>"
        from hlm_jax.analysis.page.heatmap import heatmap

        page = html.escape(heatmap(self, title="Surprisal"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:32em;border:0"></iframe>'


def _sums(table: SurprisalTable) -> dict[str, Any]:
    """The row of by_chapter of a table of one document."""
    (document,) = table.documents
    chars, bits = len(document.text), float(np.sum(table.columns["bits"]))
    ngram = float(np.sum(table.characters["ngram_bits"]))
    values = {
        "bits_per_char": bits / chars,
        "ngram_bits_per_char": ngram / chars,
        "ratio": bits / ngram if ngram else float("nan"),
        "entropy_bits": float(np.mean(table.columns["entropy_bits"])),
        "rank_1": float(np.mean(np.asarray(table.columns["rank"]) == 1)),
        "copied": copied_share(table.characters["copied_len"]),
    }
    named = {"doc": document.name, "chapter": document.chapter, "split": document.split}
    named |= {"chars": chars, "rows": len(table), "bits": bits}
    return named | {k: None if np.isnan(v) else v for k, v in values.items()}


def copied_share(copied_len: np.ndarray) -> float:
    """The share of a text's characters in copies of SPAN characters or more; nan if not known."""
    place = np.arange(len(copied_len))
    if (copied_len == NONE).any() or not len(place):
        return float("nan")
    reach = np.maximum.accumulate(place + np.where(copied_len >= SPAN, copied_len, 0))
    return float((reach > place).mean())


def partly_trained(table: SurprisalTable) -> list[str]:
    """A loud line for each text that was not trained on, but is copied in part from what was."""
    lines = []
    for document, row in zip(table.documents, table.by_chapter(), strict=True):
        if document.split != "train" and (row["copied"] or 0) > KNOWN:
            chapter = "" if document.is_file else f", chapter {document.chapter},"
            lines.append(
                f"PARTLY TRAINED ON: {row['copied']:.0%} of {document.name}{chapter} stands word "
                f"for word in the training chapters, in spans of {SPAN} characters or more"
            )
    return lines


def character_places(documents: Sequence[Document]) -> dict[str, Any]:
    """The columns that say where each character stands, and the split; index is that of `start`."""
    lengths = [len(document.text) for document in documents]
    text = "".join(document.text for document in documents)
    start = np.concatenate([np.arange(n) for n in lengths]) if lengths else np.zeros(0, np.int64)
    return {
        "doc": repeated([document.name for document in documents], lengths),
        "chapter": np.repeat([document.chapter for document in documents], lengths),
        "paragraph": np.concatenate([paragraphs(d.text) for d in documents] or [start]),
        "index": start,
        "start": start,
        "end": start + 1,
        "text": list(text),
        "split": repeated([document.split for document in documents], lengths),
    }


def paragraphs(text: str) -> np.ndarray:
    """The number of each character's line from 1 on, int64 [chars]; a newline ends its own line."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    ends = codes == ord("\n")
    return 1 + np.cumsum(ends) - ends


def repeated(values: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """Each value as often as its count says."""
    return [value for value, n in zip(values, counts, strict=True) for value in [value] * n]


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
