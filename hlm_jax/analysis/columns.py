"""Columns of one length as rows and as files: CSV, JSON and Parquet."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from hlm_jax.analysis.tables import cell_text, check_place, replacing
from hlm_jax.errors import UserError

NONE = -1  # of a whole number that a row lacks; a real number is nan then
_DIGITS = 6  # of a number after the point, in files
_ROWS = 50_000  # that are written at once


class Columns:
    """A table by its columns.

    Attributes:
      columns: {name: array, or list of texts [rows]}.
      notes: what a reader must be told, such as why a column is empty.

    Raises:
      ValueError: columns of different lengths.
    """

    def __init__(
        self, columns: Mapping[str, Sequence[Any] | np.ndarray], notes: Sequence[str] = ()
    ):
        self.columns, self.notes = dict(columns), list(notes)
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row as {column: value}."""
        return [dict(zip(self.columns, values, strict=True)) for values in self.tuples()]

    def tuples(self, start: int = 0, end: int | None = None) -> Iterator[tuple[Any, ...]]:
        """Rows of plain Python values."""
        return zip(*[_list(column[start:end]) for column in self.columns.values()], strict=True)

    def known_rows(self, start: int = 0, end: int | None = None) -> Iterator[dict[str, Any]]:
        """Rows as {column: value} for JSON: None for what is missing, rounded to six digits."""
        part = [_known(column[start:end]) for column in self.columns.values()]
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*part, strict=True))

    def to_csv(self, path: str | Path, *, bom: bool = False) -> None:
        """Writes UTF-8 CSV (RFC 4180 with line ends of LF); a value that is not there is empty.

        In the columns of text a newline is written as \\n and a backslash as \\\\.

        Args:
          bom: begins the file with a byte order mark, by which Excel knows UTF-8.

        Raises:
          UserError: the file cannot be written.
        """
        encoding = "utf-8-sig" if bom else "utf-8"
        with replacing(path) as new, new.open("w", encoding=encoding, newline="") as file:
            self._write_csv(file)

    def csv_text(self) -> str:
        """The CSV of to_csv as text."""
        lines = io.StringIO()
        self._write_csv(lines)
        return lines.getvalue()

    def _write_csv(self, file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        for start in range(0, len(self), _ROWS):
            end = start + _ROWS
            columns = [_cells(column[start:end]) for column in self.columns.values()]
            writer.writerows(zip(*columns, strict=True))

    def to_json(self, path: str | Path) -> None:
        """Writes {"notes", "rows": [{column: value}]}; the text is exact, missing is null.

        Raises:
          UserError: the file cannot be written.
        """
        head = json.dumps({"notes": self.notes}, ensure_ascii=False)
        encode = json.JSONEncoder(ensure_ascii=False).encode
        with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
            file.write(head[:-1] + ', "rows": [')
            for start in range(0, len(self), _ROWS):
                lines = map(encode, self.known_rows(start, start + _ROWS))
                file.write(",\n" * bool(start) + ",\n".join(lines))
            file.write("]}\n")

    def to_parquet(self, path: str | Path) -> None:
        """Writes Parquet; the text is exact, missing is null. Needs the extra [parquet].

        Raises:
          UserError: pyarrow is not installed, or the file cannot be written.
        """
        pyarrow = _pyarrow()
        table = pyarrow.table({name: _known(column) for name, column in self.columns.items()})
        with replacing(path) as new:
            pyarrow.parquet.write_table(table, new)

    def write(self, path: str | Path, *, bom: bool = False) -> None:
        """Writes .csv, .json or .parquet, as the name ends.

        Raises:
          UserError: another ending, or the file cannot be written.
        """
        suffix = _suffix(path)
        if suffix == ".csv":
            self.to_csv(path, bom=bom)
        elif suffix == ".json":
            self.to_json(path)
        else:
            self.to_parquet(path)


def check_output(path: str | Path) -> None:
    """Refuses before any work what Columns.write would refuse after it.

    Raises:
      UserError: as Columns.write.
    """
    if _suffix(path) == ".parquet":
        _pyarrow()
    check_place(path)


def _suffix(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".json", ".parquet"):
        raise UserError(f"{path}: give a name that ends in .csv, .json or .parquet")
    return suffix


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "Parquet needs pyarrow: pip install -e '.[parquet]', or write .csv or .json"
        ) from None
    return pyarrow


def plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _list(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _missing(column: np.ndarray) -> np.ndarray:
    if column.dtype.kind == "f":
        return np.isnan(column)
    return column == NONE if column.dtype.kind in "iu" else np.zeros(len(column), bool)


def _known(column: Any) -> list[Any]:
    """Plain values, None for what is missing."""
    if not isinstance(column, np.ndarray):
        return list(column)
    values = column.round(_DIGITS) if column.dtype.kind == "f" else column
    values = values.tolist()
    for at in np.flatnonzero(_missing(column)).tolist():
        values[at] = None
    return values


def _cells(column: Any) -> list[Any]:
    """The cells of a CSV column."""
    if isinstance(column, np.ndarray):
        cells = column.astype(np.int8) if column.dtype.kind == "b" else column
        return ["" if value is None else value for value in _known(cells)]
    together = "\0".join(column)  # one replacement for all: a book has 10⁶ cells
    if together.count("\0") != len(column) - 1:
        return [cell_text(value) for value in column]
    return cell_text(together).split("\0")
