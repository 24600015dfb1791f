"""The command of scripts/authorship.py: reads, counts, trains GPT models where asked, and writes.

It stands outside of analysis because it trains; without --models gpt it imports no JAX.
"""

import argparse
import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax import __version__
from hlm_jax.analysis.authorship import Ratios, masks
from hlm_jax.analysis.authorship.conclusions import conclusions, largest, worthless
from hlm_jax.analysis.authorship.files import add_gpt, write_summary, write_table
from hlm_jax.analysis.authorship.questions import (
    CONTROLS,
    Question,
    Texts,
    deal,
    read_chapters,
    read_sides,
)
from hlm_jax.analysis.authorship.report import report, write_report
from hlm_jax.analysis.authorship.study import Study, study
from hlm_jax.analysis.authorship.unknown import verdicts
from hlm_jax.book.chapters import Chapter
from hlm_jax.book.corpus import Corpus, clean_file, write_chapters
from hlm_jax.cli import note
from hlm_jax.errors import UserError

# configs/tiny.py scaled down: enough for a model of one side.
GPT = ("train.steps=400", "train.eval_every_steps=400", "checkpoint.every_steps=400")


def authorship(args: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """Runs the command; the lines to print.

    Raises:
      UserError: of every stage, before any training where it can be known.
    """
    models = [word.strip() for word in args.models.split(",") if word.strip()]
    if "ngram" not in models or set(models) - {"ngram", "gpt"}:
        raise UserError(f"--models {args.models}: use ngram or ngram,gpt")
    unknown = [clean_file(path) for path in args.unknown]
    ours = [word for word in overrides if word.startswith("corpus.")]
    texts = read_sides(args.config, ours, args.text, args.a, args.b)
    if "gpt" in models:
        deal(texts.is_a, args.gpt_folds)  # too many are refused before the work
    kinds = [word.strip() for word in args.mask.split(",") if word.strip()]
    found = study(
        texts,
        folds=args.folds,
        masked=kinds,
        names=masks.names_of((), args.names) if args.names else None,
        control_words=CONTROLS if args.controls is None else args.controls,
        draws=args.random,
        unknown=unknown,
        allow_editions=args.allow_editions,
        say=note,
    )
    for english, _ in worthless(found.summary):
        note(english)
    found.summary["provenance"] = provenance(args, overrides, texts)
    summary, gpt = found.summary, None
    if "gpt" in models:
        gpt, controls = _gpt(args, overrides, found)
        summary = add_gpt(found, gpt, controls)
    placed = verdicts(found.main, args.unknown, found.unknown, texts.names, found.strings)
    if placed and worthless(summary):
        hint = "; but the sides' texts are too short or too few for more than a hint"
        placed = [dataclasses.replace(one, words=one.words + hint) for one in placed]
    if placed:
        summary = summary | {"unknown": [vars(verdict) for verdict in placed]}
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(args.out / "authorship.csv", found, gpt)
    write_summary(args.out / "summary.json", summary)
    write_report(args.out / "report.html", report(found, summary, gpt=gpt, verdicts=placed))
    lines = [english for english, _ in conclusions(summary)]
    for kind in ("ngram", "delta", "lambdag", "gpt", "both"):
        if kind in summary:
            lines.append(_line(kind, summary))
    lines += [f"{verdict.name}: {verdict.words}" for verdict in placed]
    return [*lines, f"wrote authorship.csv, summary.json and report.html in {args.out}"]


def provenance(args: argparse.Namespace, overrides: Sequence[str], texts: Texts) -> dict[str, Any]:
    """What a citation of the report needs: the files, the command's arguments, date, version."""
    return {
        "sources": list(texts.sources),
        "arguments": {key: _plain(value) for key, value in vars(args).items()},
        "config_overrides": list(overrides),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hlm_jax": __version__,
    }


def _plain(value: Any) -> Any:
    """A value that JSON has; of paths the name alone, since a report may be published."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()):
        return Path(value).name
    return value


def _line(kind: str, summary: dict) -> str:
    one, most = summary[kind], largest(summary, kind)
    drift = ""
    if most is not None:
        named = f"after {most.name} ({most.window} a side)" if most.window else most.name
        drift = f"; {named} has {most.share():.0%} of the effect"
    return (
        f"{kind}: {one['correct']} of {one['chapters']} right, AUC {one['auc']:.4f}, effect "
        f"{one['effect']:.4f}, d {one['cohens_d']:.2f}{drift}"
    )


def _gpt(
    args: argparse.Namespace, overrides: Sequence[str], found: Study
) -> tuple[Ratios, dict[str, Ratios]]:
    """GPT ratios of the question and of the first controls in a row; trains what is missing."""
    from hlm_jax.analysis.authorship.neural import score_pairs
    from hlm_jax.sides import train_sides

    folder = args.out / "-".join(("gpt", *found.masked))
    words = [*_book(args, overrides, found, folder / "texts")]
    given = {word.split("=")[0] for word in overrides}
    words += [word for word in GPT if word.split("=")[0] not in given]
    in_a_row = list(found.summary["blocks"])[1:]
    asked = {"question": found.main.question}
    asked |= {name: found.controls[name][0].question for name in in_a_row[: args.gpt_controls]}
    ratios = {}
    for name, one in asked.items():
        question = Question(one.name, one.rows, one.is_a, deal(one.is_a, args.gpt_folds))
        numbers = np.array([c.number for c in found.texts.chapters])[question.rows]
        pairs = train_sides(
            args.config,
            words,
            a=numbers[question.is_a].tolist(),
            b=numbers[~question.is_a].tolist(),
            folds=[numbers[question.fold == k].tolist() for k in range(question.folds)],
            workdir=folder / name.replace("/", "_against_"),
            say=note,
        )
        folders = [(pair.a, pair.b) for pair in pairs]
        ratios[name] = score_pairs(question, found.strings, folders, say=note)
    return ratios.pop("question"), ratios


def _book(
    args: argparse.Namespace, overrides: Sequence[str], found: Study, folder: Path
) -> list[str]:
    """Overrides that name the texts as they were judged: the book, or a folder written for it.

    Raises:
      UserError: masked texts that are not read back as they were written.
    """
    texts = found.texts
    if texts.own_numbers and not found.masked:
        return [*overrides, *([f"corpus.path={args.text}"] if args.text else [])]
    if not folder.exists():
        chapters = [
            Chapter(chapter.number, chapter.heading, text if text.endswith("\n") else text + "\n")
            for chapter, text in zip(texts.chapters, found.strings, strict=True)
        ]
        write_chapters(Corpus(texts.title, tuple(chapters), {}), folder)
    if [c.number for c in read_chapters(str(folder))] != [c.number for c in texts.chapters]:
        raise UserError(
            f"the masked chapters in {folder} do not read as chapters any more: add headings to "
            "--mask, or remove punctuation from it"
        )
    rest = [word for word in overrides if not word.startswith("corpus.")]
    return [*rest, f"corpus.path={folder}"]
