"""What a run trains on: the book read once, its splits, tokenizer and windows, and the baseline."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hlm_jax import config as configs
from hlm_jax.book import corpus, report, windows
from hlm_jax.book.corpus import Chapter
from hlm_jax.book.extra import describe_extra
from hlm_jax.book.splits import chapters_named, opening, split_chapters
from hlm_jax.book.tokenizer import BaseTokenizer, TokenizerError, train_tokenizer
from hlm_jax.errors import UserError
from hlm_jax.measures.extraction import PREFIXES, TOKENS, spread_windows
from hlm_jax.measures.leakage import find_leakage, problems, refuse
from hlm_jax.measures.reference import Reference
from hlm_jax.measures.score import encode
from hlm_jax.numbers import written_numbers
from hlm_jax.pretrained import describe_base
from hlm_jax.training.base import refuse_knowing_teachers, with_seen
from hlm_jax.training.further import load_further
from hlm_jax.training.start import Start, share_of


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
    def holds_out(self) -> bool:
        """Whether there are chapters that are not trained on."""
        return bool(self.splits["val"] or self.splits["test"])

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
            lines += "\n" + describe_base(self.init, held_out=self.holds_out)
            characters = sum(len(chapter.text) for chapter in self.splits["train"])
            lines += (
                f"\nits vocabulary writes the training chapters in "
                f"{self.training_tokens / characters:.2f} tokens a character"
            )
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
    sha256 = book.report["sha256"]
    init = with_seen(start.init, splits, sha256) if start.init else None
    if init:
        teachers = refuse_knowing_teachers(config.train.teachers, splits, sha256)
        book.report["warnings"] += teachers
    texts = [chapter.text for chapter in splits["train"]]
    tokenizer = start.tokenizer or train_tokenizer(
        [chapter.text for chapter in _fitted_on(config, book.chapters, splits)],
        vocab_size=config.model.vocab_size,
        character_coverage=config.tokenizer.character_coverage,
    )
    block, train = config.model.block_size, config.train
    tokens = windows.token_stream(tokenizer, splits["train"])
    cut = windows.Windows(tokens, block_size=block, seed=config.seed)
    stages, totals = stages_of(start.history(), cut.windows_per_epoch)
    further = load_further(config, start, stages, totals[-1], splits)
    book.report.update(further.report)
    book.report["warnings"] += further.warnings
    extra_cut = None
    if further.texts:
        stream = windows.token_stream(tokenizer, further.chapters)
        extra_cut = windows.Windows(stream, block_size=block, seed=config.seed, what="corpus.extra")
    if tokenizer.format != "sentencepiece":
        _require_lossless(tokenizer, splits, config.sample.prompt)
    reference = Reference(splits, extra=further.known)
    val_texts = [chapter.text for chapter in splits["val"]]
    passages = [tokenizer.encode(text) for text in texts] if train.eval_extraction else []
    tokens_given = min(TOKENS, block // 2)
    mixed = further.known and val_texts
    return Material(
        report=book.report,
        reference=reference,
        tokenizer=tokenizer,
        windows=windows.Batches(cut, extra_cut, stages),
        stage_totals=totals,
        training_tokens=len(tokens),
        baseline=reference.baseline.bits_per_char(val_texts) if val_texts else None,
        mixed_baseline=reference.mixed_bits_per_char(val_texts) if mixed else None,
        init=init,
        val_texts=val_texts,
        val_sequences=encode(tokenizer, val_texts),
        extraction_windows=spread_windows(passages, tokens_given, PREFIXES),
    )


def _require_lossless(
    tokenizer: BaseTokenizer, splits: dict[str, list[Chapter]], prompt: str
) -> None:
    """Refuses a book of which the tokenizer of another model alters a chapter."""
    chapters = sorted((c for several in splits.values() for c in several), key=lambda c: c.number)
    named = [(f"chapter {chapter.number}", chapter.text) for chapter in chapters]
    for name, text in [*named, ("sample.prompt", prompt)]:
        try:
            tokenizer.encode(text)
        except TokenizerError as error:
            raise UserError(f"{name}: {error}") from error


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
        stages.append(windows.Stage(first, batch, share_of(values, steps)))
        totals.append(steps)
    return stages, totals
