"""What a run trains on: the book read once, its splits, tokenizer and windows, and the baseline."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hlm_jax import config as configs
from hlm_jax.book import corpus, report, windows
from hlm_jax.book.corpus import Chapter
from hlm_jax.book.extra import describe_extra, extra_report, load_extra
from hlm_jax.book.splits import chapters_named, opening, split_chapters
from hlm_jax.book.tokenizer import BaseTokenizer, train_tokenizer
from hlm_jax.errors import UserError
from hlm_jax.measures.extraction import PREFIXES, TOKENS, spread_windows
from hlm_jax.measures.leakage import (
    find_held_out,
    find_leakage,
    held_out_problems,
    problems,
    refuse,
    refuse_held_out,
)
from hlm_jax.measures.reference import Reference
from hlm_jax.measures.score import encode
from hlm_jax.numbers import written_numbers
from hlm_jax.training.base import describe_base, with_seen
from hlm_jax.training.start import Start


@dataclasses.dataclass(frozen=True)
class Material:
    """Everything of a run that comes from the book and the config alone. Holds no device array.

    Attributes:
      report: what reading and cleaning the book did, JSON-able.
      reference: the chapters by split, the n-gram baseline, the index of copied text.
      windows: training batches, a function of seed and step.
      stage_totals: how many steps the run had in every stage of its history; the last is valid.
      training_tokens: tokens of one epoch.
      baseline: bits per character of the n-gram model on the validation chapters; None without.
      mixed_baseline: the same with the further texts mixed in; None without them.
      init: what is known of the model that the run starts from (base.with_seen), or None.
      val_texts, val_sequences: the validation chapters as text and as token ids.
      extraction_windows: int32 [n, 2 x tokens], training passages to be continued; n may be 0.
    """

    report: dict[str, Any]
    reference: Reference
    tokenizer: BaseTokenizer
    windows: windows.Batches
    stage_totals: list[int]
    training_tokens: int
    baseline: float | None
    mixed_baseline: float | None
    init: dict[str, Any] | None
    val_texts: list[str]
    val_sequences: list[list[int]]
    extraction_windows: np.ndarray

    @property
    def total_steps(self) -> int:
        """How many steps the run has."""
        return self.stage_totals[-1]

    @property
    def splits(self) -> dict[str, list[Chapter]]:
        """The chapters by split: train, val, test."""
        return self.reference.splits

    @property
    def baselines(self) -> dict[str, float]:
        """{name: bits per character on the validation chapters} of the n-gram models."""
        both = {"Kneser-Ney 5-gram": self.baseline, "with the further texts": self.mixed_baseline}
        return {name: bits for name, bits in both.items() if bits is not None}

    def describe(self) -> str:
        """The report as a few lines for the terminal."""
        lines = report.summary(self.report, self.splits)
        if extra := self.report.get("extra"):
            lines += "\n" + describe_extra(extra)
        if self.init:
            lines += "\n" + describe_base(self.init, self.splits)
        return lines


def _fitted_on(
    config: ConfigDict, chapters: Sequence[Chapter], splits: dict[str, list[Chapter]]
) -> list[Chapter]:
    """The chapters that the vocabulary is fitted on; refuses held-out ones."""
    words = config.tokenizer.chapters
    named = chapters_named(chapters, words, "tokenizer.chapters")
    held = written_numbers(c.number for c in named if c in [*splits["val"], *splits["test"]])
    if held:
        raise UserError(f"tokenizer.chapters={words} names {held}, held out from training")
    return named or splits["train"]


def load_material(config: ConfigDict, start: Start | None = None) -> Material:
    """Reads and cleans the book, splits it, trains the tokenizer and fits the baseline.

    Args:
      start: what the run goes on from, whose tokenizer is taken as it is; None for a new run.

    Raises:
      UserError: the book cannot be read, or is too short for the config.
    """
    start = start or Start(config)
    book = corpus.load_corpus(**configs.book_arguments(config))
    splits = split_chapters(book.chapters, **config.split)
    leakage = find_leakage(splits)
    refuse(leakage)
    book.report["warnings"] += problems(leakage)
    book.report["opening"] = opening(splits)
    extra = _extra(config, book.report, splits)
    texts = [chapter.text for chapter in splits["train"]]
    tokenizer = start.tokenizer or train_tokenizer(
        [chapter.text for chapter in _fitted_on(config, book.chapters, splits)],
        vocab_size=config.model.vocab_size,
        character_coverage=config.tokenizer.character_coverage,
    )
    block, train = config.model.block_size, config.train
    tokens = windows.token_stream(tokenizer, splits["train"])
    cut = windows.Windows(tokens, block_size=block, seed=config.seed)
    extra_cut = None
    if extra:
        chapters = [chapter for text in extra for chapter in text.chapters]
        stream = windows.token_stream(tokenizer, chapters)
        extra_cut = windows.Windows(stream, block_size=block, seed=config.seed, what="corpus.extra")
    stages, totals = stages_of(start.history(), cut.windows_per_epoch)
    reference = Reference(splits, extra=extra)
    val_texts = [chapter.text for chapter in splits["val"]]
    passages = [tokenizer.encode(text) for text in texts] if train.eval_extraction else []
    tokens_given = min(TOKENS, block // 2)
    mixed = extra and val_texts
    return Material(
        report=book.report,
        reference=reference,
        tokenizer=tokenizer,
        windows=windows.Batches(cut, extra_cut, stages),
        stage_totals=totals,
        training_tokens=len(tokens),
        baseline=reference.baseline.bits_per_char(val_texts) if val_texts else None,
        mixed_baseline=reference.mixed_bits_per_char(val_texts) if mixed else None,
        init=with_seen(start.init, splits) if start.init else None,
        val_texts=val_texts,
        val_sequences=encode(tokenizer, val_texts),
        extraction_windows=spread_windows(passages, tokens_given, PREFIXES),
    )


def _extra(
    config: ConfigDict, report: dict[str, Any], splits: dict[str, list[Chapter]]
) -> list[corpus.Corpus]:
    """The further texts, none of which holds a held-out chapter; adds them to the report."""
    if not config.corpus.extra:
        return []
    keys = config.corpus
    extra = load_extra(
        keys.extra, convert=keys.convert, drop_brackets=keys.drop_brackets, parts=keys.parts
    )
    held = find_held_out(extra, splits)
    refuse_held_out(held)
    report["warnings"] += held_out_problems(held)
    report["extra"] = extra_report(extra)
    return extra


def stages_of(
    history: Sequence[tuple[int, Mapping[str, Any]]], windows_per_epoch: int
) -> tuple[list[windows.Stage], list[int]]:
    """The stages of a run's batches, and how many steps the run had in each.

    Args:
      history: (first step, config values by key) of every stage, as Start.history gives it.
      windows_per_epoch: of the book.
    """
    stages: list[windows.Stage] = []
    totals = []
    for first, values in history:
        batch, steps = values["train.batch_size"], values["train.steps"]
        if not steps:
            left = values["train.epochs"] * windows_per_epoch
            left -= sum(windows.windows_before(stages, first))
            steps = first + max(0, -(-left // batch))
        share = None
        if values["corpus.extra"]:
            share = windows.Share(
                values["corpus.extra_fraction"],
                hold=values["corpus.extra_hold"] * steps,
                end=values["corpus.extra_end"] * steps,
            )
        stages.append(windows.Stage(first, batch, share))
        totals.append(steps)
    return stages, totals
