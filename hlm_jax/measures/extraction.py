"""How much of the book greedy decoding repeats when it is given the tokens before.

The extraction test of Carlini et al., arXiv 2202.07646. It measures what a model can be made to
recite; overlap.py measures what it recites on its own.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from hlm_jax.book.corpus import Chapter
from hlm_jax.book.tokenizer import BaseTokenizer
from hlm_jax.model.generate import SamplingParams, generate
from hlm_jax.model.gpt import GPT
from hlm_jax.model.shape import Params

PREFIXES, TOKENS = 64, 50  # passages, and tokens given and continued, unless asked for others


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Result of the test on `prefixes` passages, each continued for `tokens` tokens.

    Attributes:
      prefixes: passages tested; 0 where no chapter is long enough.
      exact: fraction of the continuations that equal the book's in all `tokens` tokens.
      mean_tokens: tokens until the first difference from the book, on average.
      tokens: tokens given, and tokens to continue.
    """

    prefixes: int
    exact: float
    mean_tokens: float
    tokens: int


def spread_windows(sequences: Iterable[Sequence[int]], tokens: int, number: int) -> np.ndarray:
    """At most `number` windows of 2 x `tokens` ids, spread evenly over token sequences.

    Returns:
      int32 [n, 2 x tokens]; n may be 0.
    """
    windows = [
        ids[at : at + 2 * tokens]
        for ids in sequences
        for at in range(0, len(ids) - 2 * tokens + 1, tokens)
    ]
    chosen = np.linspace(0, len(windows) - 1, min(number, len(windows))).astype(int)
    return np.array([windows[i] for i in chosen], np.int32).reshape(-1, 2 * tokens)


def extracted_tokens(model: GPT, params: Params, windows: np.ndarray) -> np.ndarray:
    """Tokens of every window's second half that greedy decoding repeats before it errs.

    Args:
      windows: int32 [n, 2 x tokens]; the first half is given.

    Returns:
      int [n], each 0 to `tokens`.
    """
    half = windows.shape[1] // 2
    sampling = [SamplingParams(temperature=0.0)] * len(windows)
    prompts = windows[:, :half].tolist()
    made = generate(model, params, prompts, sampling, max_new_tokens=half)
    same = made == windows[:, half:]
    return np.where(same.all(axis=1), half, same.argmin(axis=1))


def extraction(
    model: GPT,
    params: Params,
    tokenizer: BaseTokenizer,
    chapters: Iterable[Chapter],
    *,
    prefixes: int = PREFIXES,
    tokens: int = TOKENS,
) -> Extraction:
    """The test on at most `prefixes` passages spread evenly over `chapters`.

    Chapters shorter than 2 x `tokens` tokens have no passage. `tokens` is at most half a block.
    """
    tokens = min(tokens, model.cfg.block_size // 2)
    sequences = [tokenizer.encode(chapter.text) for chapter in chapters]
    windows = spread_windows(sequences, tokens, prefixes)
    if not len(windows):
        return Extraction(0, math.nan, math.nan, tokens)
    lengths = extracted_tokens(model, params, windows)
    exact = float((lengths == tokens).mean())
    return Extraction(len(windows), exact, float(lengths.mean()), tokens)


def describe(split: str, extraction: Extraction) -> str:
    """One line for the terminal."""
    if not extraction.prefixes:
        return f"extraction, {split} chapters: none has {2 * extraction.tokens} tokens"
    return (
        f"extraction, {split} chapters: {extraction.exact:.1%} of {extraction.prefixes} greedy "
        f"continuations repeat the book for all {extraction.tokens} tokens, "
        f"{extraction.mean_tokens:.1f} tokens on average"
    )
