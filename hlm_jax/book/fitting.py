"""Settings of a config that suit the length of a book: its vocabulary and the number of steps."""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from hlm_jax.book.tokenizer import Tokenizer, TokenizerError, train_tokenizer
from hlm_jax.keys import SMALLEST_VOCABULARY

CHARS_PER_TOKEN = 96  # training characters for every token of the vocabulary, as in configs/tiny.py
MERGES = 200  # tokens of several characters at least
ALPHABET = 500  # distinct characters: of fewer, every one gets a token of its own
EPOCHS = 8  # at most: from then on the validation score of a small model gets worse
FEWEST_STEPS = 60
EVALUATIONS = 6  # at least, so that the best step is chosen among several


def fitting_settings(
    texts: Sequence[str],
    *,
    vocab_size: int,
    character_coverage: float,
    block_size: int,
    batch_size: int,
    steps: int,
    eval_every_steps: int,
    fixed: Collection[str] = (),
) -> tuple[Tokenizer, dict[str, Any]]:
    """A tokenizer of the training texts, and the config keys that a book of this length needs.

    A vocabulary that is large for the text holds whole sentences, each of which occurs once.

    Args:
      vocab_size, character_coverage, block_size, batch_size, steps, eval_every_steps: the
        config's own.
      fixed: config keys that keep their value.

    Raises:
      TokenizerError: no vocabulary fits the text.
    """
    settings: dict[str, Any] = {}
    counts = Counter(char for text in texts for char in text)
    coverage_is_free = "tokenizer.character_coverage" not in fixed
    if coverage_is_free and len(counts) <= ALPHABET and character_coverage < 1:
        character_coverage = settings["tokenizer.character_coverage"] = 1.0
    enough = max(counts.total() // CHARS_PER_TOKEN, _needed(counts, character_coverage))
    if enough < vocab_size and "model.vocab_size" not in fixed:
        vocab_size = settings["model.vocab_size"] = math.ceil(enough / 100) * 100
    try:
        tokenizer = train_tokenizer(
            texts, vocab_size=vocab_size, character_coverage=character_coverage
        )
    except TokenizerError as error:
        if error.largest is None or "model.vocab_size" in fixed:
            raise
        vocab_size = settings["model.vocab_size"] = error.largest
        tokenizer = train_tokenizer(
            texts, vocab_size=vocab_size, character_coverage=character_coverage
        )
    tokens = sum(len(tokenizer.encode(text)) + 1 for text in texts)
    while "model.block_size" not in fixed and block_size > 16 and tokens < 2 * block_size + 1:
        block_size = settings["model.block_size"] = block_size // 2
    most = math.ceil(EPOCHS * tokens / (batch_size * block_size) / 10) * 10
    if steps > max(most, FEWEST_STEPS) and "train.steps" not in fixed:
        steps = settings["train.steps"] = max(most, FEWEST_STEPS)
    if 0 < steps < EVALUATIONS * eval_every_steps:  # 0: the config counts epochs
        interval = max(10, steps // (10 * EVALUATIONS) * 10)
        intervals = {"train.eval_every_steps": interval, "checkpoint.every_steps": interval}
        settings |= {key: value for key, value in intervals.items() if key not in fixed}
    return tokenizer, settings


def _needed(counts: Counter[str], character_coverage: float) -> int:
    """The smallest sensible vocabulary: bytes, the characters that get tokens, some merges."""
    covered = itertools.accumulate(count for _, count in counts.most_common())
    wanted = character_coverage * counts.total()
    characters = 1 + sum(1 for _ in itertools.takewhile(lambda so_far: so_far < wanted, covered))
    return SMALLEST_VOCABULARY + characters + MERGES
