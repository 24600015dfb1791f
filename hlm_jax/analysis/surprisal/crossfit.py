"""A whole book scored by models that never saw the chapter they score, and what seeing it changes.

Takes the runs of some folds (hlm_jax/folds.py): every chapter is held out by one of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hlm_jax.analysis.books import select
from hlm_jax.analysis.surprisal import (
    Document,
    SurprisalTable,
    joined,
    surprisal_table,
)
from hlm_jax.analysis.tables import shown
from hlm_jax.book.corpus import Chapter
from hlm_jax.errors import UserError
from hlm_jax.measures.progress import Progress, stages
from hlm_jax.run import Run

TOLD = 1000  # parts of each stage of the bar


@dataclasses.dataclass(frozen=True)
class CrossFitted:
    """The table of a book, and a row for each chapter.

    Attributes:
      chapters: dicts of SurprisalTable.by_chapter and bits_per_char_out (by the model that did not
        see the chapter), bits_per_char_in (mean of the models that did) and memorised, their
        difference; None where no model was trained on the chapter.
    """

    table: SurprisalTable
    chapters: list[dict[str, Any]]


def cross_fitted(
    runs: Sequence[Run],
    *,
    chapters: str = "",
    unit: str = "token",
    top: int = 0,
    stride: int | None = None,
    progress: Progress | None = None,
) -> CrossFitted:
    """Every chapter by the run that holds it out for its test, in the book's order.

    `memorised` is counterfactual memorisation (Zhang et al., arXiv 2112.12938) of a chapter, with
    bits per character as the measure of a model: what training on this chapter saves on it. Each
    run's own training chapters give its counts, copies and 5-gram.

    Args:
      chapters: the numbers of those to score, such as "3,5-7"; all by default.
      unit, top, stride: as surprisal_table.
      progress: told how far the work is, of all of it.

    Raises:
      UserError: no such chapter, a chapter that two runs hold out, or as surprisal_table.
    """
    held_out: dict[int, tuple[Run, Chapter]] = {}
    for run in runs:
        for chapter in run.reference.splits["test"]:
            if chapter.number in held_out:
                raise UserError(
                    f"{run.workdir} and {held_out[chapter.number][0].workdir} both hold out "
                    f"chapter {chapter.number}: these are no folds of one book"
                )
            held_out[chapter.number] = run, chapter
    book = [held_out[number][1] for number in sorted(held_out)]
    wanted = [chapter.number for chapter in (select(book, chapters) if chapters else book)]
    stage = list(stages(progress, 2 * len(runs) * [TOLD]))
    tables: dict[int, SurprisalTable] = {}
    for k, run in enumerate(runs):
        own = [held_out[number][1] for number in wanted if held_out[number][0] is run]
        if not own:
            continue
        name = shown(run.meta["corpus"]["name"])
        part = surprisal_table(
            run,
            [Document(name, chapter.number, chapter.text, "test") for chapter in own],
            unit=unit,
            top=top,
            stride=stride,
            reference=run.reference,
            progress=stage[k],
        )
        tables |= {d.documents[0].chapter: d for d in part.by_document()}
    table = joined([tables[number] for number in wanted])
    rows = table.by_chapter()
    # With other units or windows the bits of the table are not those of the other models.
    plain = unit == "token" and stride is None
    known = {row["chapter"]: row["bits_per_char"] for row in rows} if plain else {}
    costs = _costs(runs, [held_out[number][1] for number in wanted], known, stage[len(runs) :])
    return CrossFitted(table, [row | costs[row["chapter"]] for row in rows])


def _costs(
    runs: Sequence[Run],
    chapters: Sequence[Chapter],
    outside: dict[int, float],
    stage: Sequence[Progress],
) -> dict[int, dict[str, float | None]]:
    """{number: bits_per_char_out, bits_per_char_in, memorised} of each chapter, by its tokens.

    Args:
      outside: bits_per_char_out where it is known; the others are added.
    """
    inside: dict[int, list[float]] = {chapter.number: [] for chapter in chapters}
    for k, run in enumerate(runs):
        trained = {chapter.number for chapter in run.reference.splits["train"]}
        asked = [c for c in chapters if c.number in trained or c.number not in outside]
        texts = [chapter.text for chapter in asked]
        scores = run.evaluator.score(run.device_params, run.tokenizer, texts)
        for chapter, score in zip(asked, scores, strict=True):
            if chapter.number in trained:
                inside[chapter.number].append(score.bits_per_char)
            else:
                outside[chapter.number] = score.bits_per_char
        stage[k](1, 1)
    found: dict[int, dict[str, float | None]] = {}
    for number, bits in inside.items():
        mean = sum(bits) / len(bits) if bits else None
        found[number] = {
            "bits_per_char_out": outside[number],
            "bits_per_char_in": mean,
            "memorised": None if mean is None else outside[number] - mean,
        }
    return found
