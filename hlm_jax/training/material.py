"""What a run trains on: the book read once, its splits, tokenizer and windows, and the baseline."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hlm_jax.book import corpus, report, windows
from hlm_jax.book.corpus import Chapter
from hlm_jax.book.splits import chapters_named, opening, split_chapters
from hlm_jax.book.tokenizer import Tokenizer, train_tokenizer
from hlm_jax.errors import UserError
from hlm_jax.measures.extraction import PREFIXES, TOKENS, spread_windows
from hlm_jax.measures.leakage import find_leakage, problems, refuse
from hlm_jax.measures.reference import Reference
from hlm_jax.measures.score import encode
from hlm_jax.numbers import written_numbers


@dataclasses.dataclass(frozen=True)
class Material:
    """Everything of a run that comes from the book and the config alone. Holds no device array.

    Attributes:
      report: what reading and cleaning the book did, JSON-able.
      reference: the chapters by split, the n-gram baseline, the index of copied text.
      windows: training batches, a function of seed and step.
      total_steps: how many steps the run has.
      training_tokens: tokens of one epoch.
      baseline: bits per character of the n-gram model on the validation chapters; None without.
      val_texts, val_sequences: the validation chapters as text and as token ids.
      extraction_windows: int32 [n, 2 x tokens], training passages to be continued; n may be 0.
    """

    report: dict[str, Any]
    reference: Reference
    tokenizer: Tokenizer
    windows: windows.Windows
    total_steps: int
    training_tokens: int
    baseline: float | None
    val_texts: list[str]
    val_sequences: list[list[int]]
    extraction_windows: np.ndarray

    @property
    def splits(self) -> dict[str, list[Chapter]]:
        """The chapters by split: train, val, test."""
        return self.reference.splits

    def describe(self) -> str:
        """The report as a few lines for the terminal."""
        return report.summary(self.report, self.splits)


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


def load_material(config: ConfigDict) -> Material:
    """Reads and cleans the book, splits it, trains the tokenizer and fits the baseline.

    Raises:
      UserError: the book cannot be read, or is too short for the config.
    """
    book = corpus.load_corpus(**config.corpus)
    splits = split_chapters(book.chapters, **config.split)
    leakage = find_leakage(splits)
    refuse(leakage)
    book.report["warnings"] += problems(leakage)
    book.report["opening"] = opening(splits)
    texts = [chapter.text for chapter in splits["train"]]
    tokenizer = train_tokenizer(
        [chapter.text for chapter in _fitted_on(config, book.chapters, splits)],
        vocab_size=config.model.vocab_size,
        character_coverage=config.tokenizer.character_coverage,
    )
    tokens = windows.token_stream(tokenizer, splits["train"])
    block, train = config.model.block_size, config.train
    cut = windows.Windows(tokens, block_size=block, batch_size=train.batch_size, seed=config.seed)
    reference = Reference(splits)
    val_texts = [chapter.text for chapter in splits["val"]]
    passages = [tokenizer.encode(text) for text in texts] if train.eval_extraction else []
    tokens_given = min(TOKENS, block // 2)
    return Material(
        report=book.report,
        reference=reference,
        tokenizer=tokenizer,
        windows=cut,
        total_steps=train.steps or math.ceil(train.epochs * cut.steps_per_epoch),
        training_tokens=len(tokens),
        baseline=reference.baseline.bits_per_char(val_texts) if val_texts else None,
        val_texts=val_texts,
        val_sequences=encode(tokenizer, val_texts),
        extraction_windows=spread_windows(passages, tokens_given, PREFIXES),
    )
