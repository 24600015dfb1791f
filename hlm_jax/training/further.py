"""The further texts of a run: those that it trains on, and those that it has read before."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from hlm_jax.book.corpus import Chapter, Corpus
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.extra import extra_report, extra_rows, load_again, load_extra
from hlm_jax.book.windows import Stage, windows_before
from hlm_jax.errors import UserError
from hlm_jax.measures.leakage import find_held_out, held_out_problems, refuse_held_out
from hlm_jax.training.start import Start


@dataclasses.dataclass(frozen=True)
class Further:
    """Further texts.

    Attributes:
      texts: to train on.
      known: those and all that the run, or the model that it started from, has read before; without
        those that are gone.
      report: `extra` and `former_extra` of the corpus report; empty without further texts.
      warnings: for the corpus report.
    """

    texts: list[Corpus]
    known: list[Corpus]
    report: dict[str, Any]
    warnings: list[str]

    @property
    def chapters(self) -> list[Chapter]:
        """The chapters to train on."""
        return [chapter for text in self.texts for chapter in text.chapters]


def load_further(
    config: ConfigDict,
    start: Start,
    stages: Sequence[Stage],
    total_steps: int,
    splits: Mapping[str, Sequence[Chapter]],
) -> Further:
    """Reads the further texts that a config names, and those that were read before.

    A text that is gone is a warning where no window of it is still to come.

    Args:
      stages: of the run's batches.
      splits: of the run's book; a further text may hold none of its held-out chapters.

    Raises:
      UserError: a text cannot be read, is another one than recorded, holds held-out chapters, or is
        never trained on.
    """
    before = start.report.get("extra", ())
    rows = extra_rows(start.report) if start.step else (start.init or {}).get("extra", ())
    keys = {name: config.corpus[name] for name in ("convert", "drop_brackets", "parts")}
    of_all, of_past = (windows_before(stages, step)[1] for step in (total_steps, start.step))
    texts: list[Corpus] = []
    warnings = []
    if config.corpus.extra and not of_all:
        raise UserError(
            "corpus.extra is never trained on: its share of the windows ends before step "
            f"{start.step + 1}; raise --config.corpus.extra_end, or leave corpus.extra out"
        )
    if config.corpus.extra:
        try:
            texts = load_extra(config.corpus.extra, **keys)
        except CorpusError as error:
            if not start.step:
                raise
            if of_all > of_past:
                raise UserError(
                    f"{error}; without it the run goes on with the book alone: leave "
                    "--config.corpus.extra out"
                ) from error
            warnings.append(f"{error}; no window of it is still to come")
    held = find_held_out(texts, splits)
    refuse_held_out(held)
    found = extra_report(texts)
    _refuse_changed(before, found)
    warnings += held_out_problems(held)
    present = {row["sha256"] for row in found}
    former = [row for row in rows if row["sha256"] not in present]
    known = list(texts)
    for row in former:
        try:
            known += load_again([row], **keys)
        except UserError as error:
            if not any(str(row["path"]) in warning for warning in warnings):
                warnings.append(f"a further text of before is left out of comparisons: {error}")
    report: dict[str, Any] = {"extra": found} if found else {}
    report |= {"former_extra": former} if former else {}
    return Further(texts, known, report, warnings)


def _refuse_changed(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
    """Refuses a further text that is another one than was recorded under its path."""
    recorded = {os.path.realpath(row["path"]): row["sha256"] for row in before}
    for row in now:
        if recorded.get(os.path.realpath(row["path"]), row["sha256"]) != row["sha256"]:
            raise UserError(
                f"corpus.extra: {row['path']} is not the text that the run was trained on: put "
                "that text back, or give this one another name"
            )
