"""Routes of the book that a run was trained on: its chapters, their curve, occurrences of words."""

import asyncio
import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hlm_jax.analysis.books import select
from hlm_jax.analysis.page.drawing import svg_file
from hlm_jax.analysis.page.heatmap import chapter_curve
from hlm_jax.analysis.stylometry import concordance
from hlm_jax.analysis.stylometry.concordance import Hit
from hlm_jax.analysis.tables import csv_text, shown
from hlm_jax.book.chapters import Chapter
from hlm_jax.measures.reference import Reference
from hlm_jax.measures.score import encode
from hlm_jax.run import SPLITS
from hlm_jax.serving.answers import answered, as_json, while_wanted
from hlm_jax.serving.connection import while_connected
from hlm_jax.serving.http import Fields, Refusal
from hlm_jax.serving.models import Served, chosen
from hlm_jax.serving.search import Regex, Search, plain_hits

WORDS = 200  # characters of what is looked for
WIDTH = 100  # characters of context on a side
PAGE = 1000  # hits of one answer in JSON
COLUMNS = ("number", "heading", "split", "chars", "bits_per_char", "ngram_bits_per_char")
PAUSE = 0.5  # seconds before a job that found no room is tried again


def routes() -> list[Route]:
    return [
        Route("/chapters", chapters, methods=["GET"]),
        Route("/chapters/{number:int}", chapter, methods=["GET"]),
        Route("/kwic", kwic, methods=["GET"]),
    ]


# --- the book ---


def reference_of(served: Served) -> Reference:
    """The book of a model.

    Raises:
      Refusal: 409 where it is not at hand.
    """
    if served.reference is None:
        raise Refusal(
            409,
            f"the book that {served.name} was trained on is not at hand: start the server with "
            "--corpus BOOK",
            code="no_book",
        )
    return served.reference


def name_of(served: Served) -> str:
    """The book's name, without folders."""
    return re.split(r"[/\\]", shown(served.run.meta["corpus"]["name"]))[-1]


def split_chapters(reference: Reference) -> list[tuple[Chapter, str]]:
    """Every chapter and its split, in the order of the book."""
    found = [(chapter, name) for name in SPLITS for chapter in reference.splits[name]]
    return sorted(found, key=lambda pair: pair[0].number)


def selected(reference: Reference, words: str) -> list[Chapter]:
    """The chapters that words such as "1-40,81" mean; all where there are none.

    Raises:
      UserError: no such numbers, or chapters that the book lacks.
    """
    every = [chapter for chapter, _ in split_chapters(reference)]
    return select(every, words, "chapters") if words else every


def chapter_words(fields: Fields) -> str:
    """The field `chapters` as words: a text such as "3,5-7", a number, or a list of numbers."""
    value = fields.take("chapters", None)
    numbers = value if isinstance(value, list) else [value]
    if value and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        value = ",".join(map(str, numbers))
    elif isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > WORDS * 10:
        raise fields.wrong("chapters", 'such as "3,5-7" or [3, 5]', value)
    return value


def _model(request: Request, fields: Fields) -> Served:
    return chosen(request.app.state.models, fields.text("model", most=500, default=None))


# --- chapters ---


async def chapter(request: Request) -> Response:
    """GET /chapters/{number}: the text of a chapter."""
    fields = Fields.of_query(request)
    served = _model(request, fields)
    fields.done()
    number = request.path_params["number"]
    for found, split in split_chapters(reference_of(served)):
        if found.number == number:
            of_it = {"number": number, "heading": found.heading, "split": split}
            whole = of_it | {"chars": len(found.text), "text": found.text, "model": served.name}
            return answered(as_json(whole))
    raise Refusal(404, f"the book has no chapter {number}", code="no_chapter")


async def chapters(request: Request) -> Response:
    """GET /chapters: bits per character of every chapter by the model, beside the 5-gram.

    They are computed once for every model, chapter by chapter, so that other requests pass in
    between; until then they are null, and `pending` tells how many are to come.
    """
    fields = Fields.of_query(request)
    served = _model(request, fields)
    kind = fields.choice("format", ("json", "csv", "svg"), default="json")
    chart = fields.flag("chart", default=False)
    lang = fields.choice("lang", ("en", "zh"), default="en")
    scores = fields.flag("scores", default=True)
    fields.done()
    curve = _curve_of(request, served)
    if scores:
        curve.go_on(request.app.state.jobs)
    if kind == "csv":
        rows = [[row[name] for name in COLUMNS] for row in curve.rows]
        return answered(csv_text(COLUMNS, rows), "chapters.csv")
    if kind == "svg":
        return answered(svg_file(curve.figure(), lang=lang), "chapters.svg")
    found = {"model": served.name, "book": name_of(served), "pending": curve.pending}
    found["chapters"] = curve.rows
    if chart:  # the page's policy refuses attributes of style; its sheet has the width
        found["chart"] = re.sub(r' style="[^"]*"', "", curve.figure())
    return answered(as_json(found))


class Curve:
    """Bits per character of every chapter of a model's book, computed one by one.

    Attributes:
      rows: dicts of COLUMNS; a figure that is still to come is None.
    """

    def __init__(self, served: Served):
        self._served, self._book = served, split_chapters(reference_of(served))
        self._task: asyncio.Task[None] | None = None
        self.rows: list[dict[str, Any]] = [
            dict.fromkeys(COLUMNS)
            | {"number": c.number, "heading": c.heading, "split": split, "chars": len(c.text)}
            for c, split in self._book
        ]

    @property
    def pending(self) -> int:
        """How many chapters are to come."""
        return sum(row["bits_per_char"] is None for row in self.rows)

    def go_on(self, jobs: Any) -> None:
        """Begins the computation, or begins again where it was broken off.

        Raises:
          Exception: what ended it.
        """
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            if not task.cancelled():
                task.result()
        if self._task is None and self.pending:
            self._task = asyncio.get_running_loop().create_task(self._fill(jobs))

    async def _fill(self, jobs: Any) -> None:
        for row, (chapter, _) in zip(self.rows, self._book, strict=True):
            while row["bits_per_char"] is None:
                try:
                    row.update(await while_wanted(jobs, self._score, chapter))
                except Refusal as refusal:
                    if refusal.status != 429:
                        return  # the server ends
                    await asyncio.sleep(PAUSE)

    def _score(self, chapter: Chapter, check: Callable[..., None]) -> dict[str, float | None]:
        sequences = encode(self._served.run.tokenizer, [chapter.text])
        (scored,) = self._served.scores(sequences, check)
        bits = float(scored.nats.sum(dtype=float)) / math.log(2)
        ngram = reference_of(self._served).baseline_bits_per_char(chapter.text)
        of_ngram = ngram if math.isfinite(ngram) else None
        return {"bits_per_char": bits / len(chapter.text), "ngram_bits_per_char": of_ngram}

    def figure(self) -> str:
        """The chart of what is known, as HTML."""

        def known(name: str) -> list[float]:
            return [math.nan if row[name] is None else row[name] for row in self.rows]

        return chapter_curve(
            [float(row["number"]) for row in self.rows],
            {self._served.name: known("bits_per_char")},
            known("ngram_bits_per_char"),
            splits=[[row["split"]] for row in self.rows],
            names=[f"{row['number']} · {row['heading']}" for row in self.rows],
            links=[f"#panel=read&ch={row['number']}" for row in self.rows],
        )


def _curve_of(request: Request, served: Served) -> Curve:
    state = request.app.state
    if not hasattr(state, "reading_curves"):
        state.reading_curves = {}
    if served.name not in state.reading_curves:
        state.reading_curves[served.name] = Curve(served)
    return state.reading_curves[served.name]


# --- occurrences ---


async def kwic(request: Request) -> Response:
    """GET /kwic: occurrences of words with their context, and how they are spread."""
    fields = Fields.of_query(request)
    served = _model(request, fields)
    said = fields.text("words", most=WORDS)
    width = fields.whole("width", low=0, high=WIDTH, default=15)
    sort = fields.choice("sort", concordance.SORTS, default="place")
    regex = fields.flag("regex", default=False)
    among = fields.text("chapters", most=WORDS * 10, default="")
    limit = fields.whole("limit", low=0, high=PAGE, default=100)
    offset = fields.whole("offset", low=0, high=10**9, default=0)
    kind = fields.choice("format", ("json", "csv"), default="json")
    fields.done()
    words = (said,) if regex else tuple(dict.fromkeys(said.split()))
    if not said.strip():
        raise Refusal(400, "give a word to look for", param="words")
    jobs, finder = request.app.state.jobs, _regex_of(request)
    book = selected(reference_of(served), among)
    search = Search(words, width, sort, regex)

    async def answer() -> str:
        hits = await (finder.hits(book, search) if regex else jobs.run(plain_hits, book, search))
        if kind == "csv":
            return await jobs.run(_hits_csv, hits)
        told: dict[str, Any] = {"model": served.name, "book": name_of(served), "total": len(hits)}
        told |= {"limit": limit, "offset": offset, "width": width, "sort": sort, "regex": regex}
        return await jobs.run(_hits_json, told, book, search, hits)

    body = await while_connected(request.receive, answer())
    return answered(body, "kwic.csv" if kind == "csv" else None)


def _hits_csv(hits: Sequence[Hit]) -> str:
    head = [field.name for field in dataclasses.fields(Hit)]
    return csv_text(head, map(dataclasses.astuple, hits))


def _hits_json(
    told: dict[str, Any], book: Sequence[Chapter], search: Search, hits: list[Hit]
) -> str:
    """The page of hits that is asked for, and how the words are spread."""
    edges = concordance.borders(book)
    starts = [
        {"number": one.number, "start": start}
        for one, start in zip(book, edges, strict=False)  # the end is no start
    ]
    page = hits[told["offset"] : told["offset"] + told["limit"]]
    found = {"hits": list(map(dataclasses.asdict, page)), "words": _spread(book, search, hits)}
    return as_json(told | found | {"chars": edges[-1], "chapters": starts})


def _spread(book: Sequence[Chapter], search: Search, hits: list[Hit]) -> list[dict[str, Any]]:
    """Of every word: how often, where, how evenly; the other script's where it is not found."""
    rows = []
    for word in search.words:
        alone = len(search.words) == 1
        own = hits if alone else plain_hits(book, Search((word,), 0))
        of_it = concordance.dispersion_of(book, own)
        row: dict[str, Any] = {"word": word, "total": of_it.total, "per_10000": of_it.rate}
        row |= {"in_chapters": int((of_it.counts > 0).sum()), "counts": of_it.counts.tolist()}
        row |= {"dp": of_it.dp, "dp_norm": of_it.dp_norm, "d": of_it.d}
        row["places"] = concordance.places(book, own)
        nothing = not own and not search.regex
        row["variants"] = concordance.variants(book, word) if nothing else {}
        rows.append(row)
    return rows


def _regex_of(request: Request) -> Regex:
    state = request.app.state
    if not hasattr(state, "reading_regex"):
        state.reading_regex = Regex()
    return state.reading_regex
