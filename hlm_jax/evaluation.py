"""Bits per character of runs on chapters or a text, in every way of scoring that was asked for."""

import math
from collections.abc import Sequence
from typing import Any

from hlm_jax import cli
from hlm_jax.analysis.surprisal import exact
from hlm_jax.analysis.tables import shown
from hlm_jax.errors import UserError
from hlm_jax.measures import mixture
from hlm_jax.measures.progress import progress_bar
from hlm_jax.measures.readings import with_other_tokenizer
from hlm_jax.measures.score import Score, total
from hlm_jax.run import Run


def evaluate(
    runs: Sequence[Run],
    *,
    split: str | None = None,
    text: str | None = None,
    adaptive_rate: float | None = None,
    learn_weights: bool = False,
    mix_ngram: bool = False,
    beam: int | None = None,
    per_chapter: bool = False,
) -> dict[str, Any]:
    """The figures that scripts/evaluate.py prints, JSON-able. Warnings are notes on stderr.

    Args:
      runs: one, or several whose probabilities are averaged. The first one's book is scored.
      split: "train", "val" or "test"; None for "val".
      text: a text file to score instead of chapters.
      adaptive_rate: learning rate of models that learn from what they have scored; None for none.
      learn_weights: whether to score a log-linear mixture of the runs as well.
      mix_ngram: whether to score a mixture with an n-gram model as well.
      beam: of scores by characters, summed over all segmentations; None for none. Without it the
        runs must share a tokenizer.
      per_chapter: whether to add a row of every chapter.

    Returns:
      The row of the first way as `mixture.figures` has it, with "workdir", "step" and "text"; "way"
      is its name where it has one. "also": the rows of the other ways by name, with "weights" and
      "cross_fitted" of a log-linear mixture; the row "exact" has the means of `exact.evaluate`.
      "chapters": a list of rows, with "exact_bits_per_char" where `beam` is given. "ensemble" and
      "ensemble_steps": of several runs. "init": what the first run started from. "trained_on" and
      "weights_trained_on": {workdir: chapter numbers} of runs that were trained on what is scored,
      or on what weights are fitted on.

    Raises:
      UserError: no such chapters or text; a book that cannot be read and is needed; tokenizers that
        differ without `beam`; validation chapters that weights need and that are missing; an
        impossible rate or beam; scores that are no numbers.
    """
    if adaptive_rate is not None and not 0 <= adaptive_rate < math.inf:
        raise UserError(f"the adaptive rate must be a number from 0 on, not {adaptive_rate}")
    if beam is not None and beam < 1:
        raise UserError(f"beam must be at least 1, not {beam}")
    run = runs[0]
    _note_repeated(runs)
    chapters = run.read_chapters(split=split, text=text)
    texts = [chapter.text for chapter in chapters]
    weighted = mix_ngram or learn_weights
    reference = run.reference if weighted or not text else cli.reference_or_note(run)
    reference = reference.with_readable_extra(cli.note) if reference else None
    out: dict[str, Any] = {
        "workdir": shown(run.workdir),
        "step": run.step,
        "text": shown(text or split or "val"),
    }
    if len(runs) > 1:
        out["ensemble"] = [shown(one.workdir) for one in runs]
        out["ensemble_steps"] = [one.step for one in runs]
    # What chapters the first run was trained on its split tells; a text may hold any of them.
    asked = runs if text else runs[1:]
    if trained_on := cli.note_trained_on(asked, chapters, text=bool(text)):
        out["trained_on"] = trained_on
    ngram = learn_on = None
    if weighted:
        of = {name: [c.text for c in found] for name, found in run.reference.splits.items()}
        # Without a validation chapter the mixtures themselves refuse.
        if of["val"] and not mixture.can_cross_fit(texts, of["val"]):
            cli.note(f"no weights are fitted: {mixture.NOT_CROSS_FITTED}")
        else:
            if text or split not in (None, "val"):
                validation = run.reference.splits["val"]
                if trained_on := cli.note_trained_on(runs[1:], validation, weights=True):
                    out["weights_trained_on"] = trained_on
            learn_on = of["val"] if learn_weights else None
            ngram = mixture.NgramMixture(of["train"], of["val"]) if mix_ngram else None
    ways: dict[str, mixture.Way] = {}
    about: dict[str, float] = {}
    options: dict[str, Any] = {
        "adaptive_rate": adaptive_rate,
        "ngram": ngram,
        "learn_on": learn_on,
    }
    if beam is None or not with_other_tokenizer(runs):
        with progress_bar("by tokens") as progress:
            ways = mixture.evaluate(runs, texts, progress=progress, **options)
    if beam is not None:
        with progress_bar("by characters") as progress:
            found, about = exact.evaluate(runs, texts, beam=beam, progress=progress, **options)
        ways |= found

    for name, way in ways.items():
        if not math.isfinite(total(way.scores).nats):
            raise UserError(
                f"{name or 'a model'}: the bits per character are no number: choose another step "
                "of the run, or with --adaptive a lower --adaptive_rate"
            )

    def row(way: str, scores: Sequence[Score], texts: Sequence[str]) -> dict[str, Any]:
        by = mixture.character_figures if "exact" in way else mixture.figures
        return by(total(scores), *(reference.baselines(texts) if reference else (None, None)))

    rows = {name: row(name, way.scores, texts) for name, way in ways.items()}
    for name, way in ways.items():
        if way.weights:
            rows[name] |= {"weights": way.weights, "cross_fitted": way.cross_fitted}
    if beam is not None:
        rows["exact"] |= about
    if "init" in run.meta:
        out["init"] = run.meta["init"]
    if first := next(iter(ways)):
        out["way"] = first
    out |= rows.pop(first)
    if rows:
        out["also"] = rows
    if per_chapter:
        out["chapters"] = []
        for i, chapter in enumerate(chapters):
            one: dict[str, Any] = {"number": chapter.number, "heading": shown(chapter.heading)}
            one |= row(first, [ways[first].scores[i]], [chapter.text])
            if beam is not None:
                one["exact_bits_per_char"] = ways["exact"].scores[i].bits_per_char
            out["chapters"].append(one)
    return out


def describe(found: dict[str, Any]) -> str:
    """What `evaluate` found, as lines for the terminal."""
    of = f"step {found['step']}"
    if runs := found.get("ensemble"):
        of = f"mean of {len(runs)} runs"
    if "way" in found:
        of += f", {found['way']}"
    lines = [f"{found['text']}, {of}: {mixture.describe(found)}"]
    for name, row in found.get("also", {}).items():
        name = mixture.label(name, row.get("weights", ()), row.get("cross_fitted", False))
        lines.append(f"  {name}: {mixture.describe(row)}")
    for row in found.get("chapters", []):
        words = mixture.describe(row)
        if "way" not in found and "exact_bits_per_char" in row:
            words += f", exact {row['exact_bits_per_char']:.4f}"
        lines.append(f"  {row['number']:4d}  {words}  {row['heading']}")
    return "\n".join(lines)


def _note_repeated(runs: Sequence[Run]) -> None:
    opened = [(run.workdir.resolve(), run.step) for run in runs]
    for workdir, step in dict.fromkeys(opened):
        if (times := opened.count((workdir, step))) > 1:
            cli.note(f"step {step} of {shown(workdir)} is given {times} times")
