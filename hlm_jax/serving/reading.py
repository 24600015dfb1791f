"""Routes for readers: what a text costs a model, two models on one text, and the page.

Those of the book are in hlm_jax/serving/book.py. Heavy work runs in the thread of jobs.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hlm_jax.analysis.columns import Columns
from hlm_jax.analysis.page.cells import cells_of
from hlm_jax.analysis.page.heatmap import reader_data
from hlm_jax.analysis.surprisal import Document, SurprisalTable, split_of, surprisal_table
from hlm_jax.analysis.surprisal.report import summary, warning
from hlm_jax.book.corpus import clean_text
from hlm_jax.run import SPLITS
from hlm_jax.serving import book
from hlm_jax.serving.answers import answered, as_json, while_wanted
from hlm_jax.serving.connection import while_connected
from hlm_jax.serving.http import Fields, Refusal, read_object
from hlm_jax.serving.models import TOP, Served, chosen
from hlm_jax.serving.page import page_response

CHARS = 60_000  # of one request, by token
EXACT_CHARS = 5_000  # of one request, by character: each costs about twenty times as much
KEPT = 8  # tables that stay in memory, so that a download after reading costs nothing
KEPT_ROWS = 60_000  # of them together; a row takes about 2 kB
FORMATS = ("json", "csv", "heat")


def routes() -> list[Route]:
    """The page and what it reads, for an app whose state has `models` and `jobs`."""
    return [
        Route("/", page_response, methods=["GET"]),
        Route("/surprisal", surprisal, methods=["POST"]),
        Route("/compare", compare, methods=["POST"]),
        *book.routes(),
    ]


# --- what is asked for ---


@dataclasses.dataclass(frozen=True)
class Asked:
    """A text or chapters to score, as a request names them.

    Attributes:
      text: as it was given; None where chapters are named.
      chapters: such as "3,5-7".
      clean: whether the text is cleaned and converted as the training text was.
    """

    text: str | None
    chapters: str
    clean: bool
    unit: str = "token"
    stride: int | None = None

    @classmethod
    def of(cls, fields: Fields, *, block: int) -> "Asked":
        text = fields.text("text", most=CHARS, default=None)
        chapters = book.chapter_words(fields)
        clean = fields.flag("clean", default=False)
        unit = fields.choice("unit", ("token", "char"), default="token")
        stride = fields.whole("stride", low=1, high=block, default=None)
        if (text is None) == (not chapters):
            raise Refusal(400, "give text or chapters, one of them", param="text")
        if unit == "char" and stride is not None:
            raise Refusal(400, "a stride is of tokens: leave it out with char", param="stride")
        if clean and text is None:
            raise Refusal(400, "chapters are clean already: leave out clean", param="clean")
        return cls(text, chapters, clean, unit, stride)

    def documents(self, served: Served) -> list[Document]:
        """The texts to score.

        Raises:
          Refusal: no text, too many characters, or chapters of a book that is not at hand.
          UserError: chapters that the book lacks.
        """
        if self.text is None:
            reference = book.reference_of(served)
            split = {c.number: name for name in SPLITS for c in reference.splits[name]}
            taken = book.selected(reference, self.chapters)
            name = book.name_of(served)
            found = [Document(name, c.number, c.text, split[c.number]) for c in taken]
        else:
            text = clean_text(self.text, served.run.convert) if self.clean else self.text
            found = [Document("this text", 1, text, _split(text, served), is_file=True)]
        chars = sum(len(document.text) for document in found)
        most = EXACT_CHARS if self.unit == "char" else CHARS
        if not chars:
            raise Refusal(400, "the text is empty", param="text")
        if chars > most:
            by = " by character" if self.unit == "char" else ""
            where = "text" if self.text is not None else "chapters"
            message = f"{chars:,} characters{by}: at most {most:,} in one request"
            raise Refusal(400, message, param=where)
        return found


def _split(text: str, served: Served) -> str:
    return split_of(text, served.reference) if served.reference and text else ""


class Tables:
    """Scores texts, in the thread of jobs; the last KEPT tables are kept."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[Any, SurprisalTable] = collections.OrderedDict()

    def table(
        self,
        served: Served,
        documents: Sequence[Document],
        asked: Asked,
        top: int,
        check: Callable[..., None],
    ) -> SurprisalTable:
        """The table of these texts with `top` alternatives; what `check` raises ends the work."""
        texts = "\0".join(f"{d.chapter}\0{d.text}" for d in documents)
        digest = hashlib.sha256(texts.encode()).digest()
        key = (served.name, asked.unit, asked.stride, asked.text is None, digest)
        if key not in self._kept:
            self._kept[key] = surprisal_table(
                served.run,
                documents,
                unit=asked.unit,
                stride=asked.stride,
                top=min(TOP, served.run.tokenizer.vocab_size),
                reference=served.reference,
                progress=check,
            )
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and (len(self._kept) > KEPT or self._rows() > KEPT_ROWS):
            self._kept.popitem(last=False)
        return _cut(self._kept[key], top)

    def _rows(self) -> int:
        return sum(map(len, self._kept.values()))


def _cut(table: SurprisalTable, top: int) -> SurprisalTable:
    """The table with its first `top` alternatives only."""
    left = [f"top_{k}" for k in range(top + 1, TOP + 1)]
    columns = {name: column for name, column in table.columns.items() if name not in left}
    return SurprisalTable(table.unit, columns, table.documents, table.characters, table.notes)


def tables_of(request: Request) -> Tables:
    state = request.app.state
    if not hasattr(state, "reading_tables"):
        state.reading_tables = Tables()
    return state.reading_tables


# --- one model ---


async def surprisal(request: Request) -> Response:
    """POST /surprisal: a row for each token or character, their sums, and what to be told."""
    fields = Fields(await read_object(request))
    served = chosen(request.app.state.models, fields.text("model", most=500, default=None))
    asked = Asked.of(fields, block=served.run.model.cfg.block_size)
    top = fields.whole("top", low=0, high=TOP, default=0)
    kind = fields.choice("format", FORMATS, default="json")
    fields.done()
    jobs, tables = request.app.state.jobs, tables_of(request)
    job = while_wanted(jobs, _scored, tables, served, asked, top, kind)
    body = await while_connected(request.receive, job)
    name = "surprisal.csv" if kind == "csv" else None
    return answered(body, name)


def _scored(
    tables: Tables,
    served: Served,
    asked: Asked,
    top: int,
    kind: str,
    check: Callable[..., None],
) -> str:
    table = tables.table(served, asked.documents(served), asked, top, check)
    if kind == "csv":
        return table.csv_text()
    found = _told(served, table)
    if asked.clean:
        found["text"] = table.documents[0].text
    if kind == "heat":
        found["heat"] = reader_data({served.name: table})
    else:
        found["rows"] = list(table.known_rows())
    return as_json(found)


def _told(served: Served, table: SurprisalTable) -> dict[str, Any]:
    """The sums of a table and what a reader must be told."""
    found = summary(table)
    lines = [line for line in warning(found) if not line.startswith("note: ")]
    sums = ("rows", "chars", "bits", "bits_per_char", "ngram_bits_per_char", "ratio")
    return {
        "model": served.name,
        "unit": table.unit,
        "sums": {name: found[name] for name in sums},
        "documents": found["chapters"],
        "warnings": lines,
        "notes": found["notes"],
    }


# --- two models ---


async def compare(request: Request) -> Response:
    """POST /compare: two models on one text; their bits and the difference, stretch by stretch."""
    fields = Fields(await read_object(request))
    pair = _pair(fields, request.app.state.models)
    blocks = [served.run.model.cfg.block_size for served in pair]
    asked = Asked.of(fields, block=min(blocks))
    top = fields.whole("top", low=0, high=TOP, default=0)
    kind = fields.choice("format", FORMATS, default="json")
    fields.done()
    jobs, tables = request.app.state.jobs, tables_of(request)
    job = while_wanted(jobs, _compared, tables, pair, asked, top, kind)
    body = await while_connected(request.receive, job)
    return answered(body, "difference.csv" if kind == "csv" else None)


def _pair(fields: Fields, models: dict[str, Served]) -> list[Served]:
    names = fields.take("models", None)
    if len(models) < 2:
        raise Refusal(
            409,
            "one model is served: start the server with --workdir A --workdir B to compare two",
            param="models",
            code="one_model",
        )
    if names is None:
        names = list(models)[:2]
    two = isinstance(names, list) and len(names) == 2 and all(isinstance(n, str) for n in names)
    if not two:
        raise fields.wrong("models", "a list of two names of models", names)
    if names[0] == names[1]:
        raise Refusal(400, "models must be two different models", param="models")
    return [chosen(models, name) for name in names]


def _compared(
    tables: Tables,
    pair: Sequence[Served],
    asked: Asked,
    top: int,
    kind: str,
    check: Callable[..., None],
) -> str:
    first, second = pair
    documents = asked.documents(first)
    same = [
        dataclasses.replace(document, split=_split(document.text, second)) for document in documents
    ]
    named = {
        first.name: tables.table(first, documents, asked, top, check),
        second.name: tables.table(second, same, asked, top, check),
    }
    stretches = stretches_of(*named.values())
    if kind == "csv":
        return stretches.csv_text()
    told = [_told(served, table) for served, table in zip(pair, named.values(), strict=True)]
    a, b = (one["sums"]["bits_per_char"] for one in told)
    found: dict[str, Any] = {"models": told, "difference_bits_per_char": a - b}
    if kind == "heat":
        found["heat"] = reader_data(named)
    else:
        found["rows"] = list(stretches.known_rows())
    return as_json(found)


def stretches_of(a: SurprisalTable, b: SurprisalTable) -> Columns:
    """Two models' bits over the shortest stretches at whose ends both have a border.

    Args:
      a, b: tables of the same texts.

    Returns:
      The columns chapter, start, end, text, bits_a, bits_b and difference (A minus B).
    """
    names = ("chapter", "start", "end", "text", "bits_a", "bits_b")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for document, *both in zip(a.documents, cells_of(a), cells_of(b), strict=True):
        first, second = (np.append(0, cells.end) for cells in both)
        borders = np.intersect1d(first, second)
        starts, ends = borders[:-1], borders[1:]
        columns["chapter"] += [document.chapter] * len(starts)
        columns["start"] += starts.tolist()
        columns["end"] += ends.tolist()
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        columns["text"] += [document.text[i:j] for i, j in pairs]
        for name, cells in zip(("bits_a", "bits_b"), both, strict=True):
            sums = np.cumsum([0.0, *cells.numbers["b"]])
            at = np.searchsorted(cells.end, borders, side="right")
            columns[name] += np.diff(sums[at]).tolist()
    arrays: dict[str, Any] = {
        name: column if name == "text" else np.array(column) for name, column in columns.items()
    }
    return Columns(arrays | {"difference": arrays["bits_a"] - arrays["bits_b"]})
