"""The idea of LambdaG for Chinese: does an author's grammar predict a text better than others' do?

LambdaG (Nini et al., arXiv 2403.08462) keeps only what is grammar in a text, fits an n-gram model
of it for the author and for many random samples of a reference population of the same size, and
sums over the tokens the mean of log P_author - log P_reference.

What differs here: a character stands for a word, and the grammar is a list of function characters,
everything else becoming ▢ (no tagger is asked for parts of speech, and the command leaves the
punctuation out); n is 5, not 10; the samples are of whole texts, not of sentences; and where no
other authors are at hand, the reference is drawn from the training texts of both sides together.
Of two sides, lambda_a - lambda_b is then the ratio of the two grammar models, as the reference
cancels; each lambda alone judges one side alone.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from hlm_jax.analysis.authorship.masks import NAME

SAMPLES = 10  # reference models; the paper takes 100
FUNCTION = (
    "之其或亦方于即皆因仍故尚乃呀吗咧啊罢么呢了的着著一不把让向往是在别好可便就但越再更比很偏儿"
    "也都又才还只却倒竟连已曾将被给与和同跟及而且则若如虽既所以为从自到去来得地过起上下里中"
    "这那此彼他她它我你您们咱自谁何什怎哪几些个没有无非未莫岂吧哩哇哦嗳哎唉呵哉矣乎者焉"
)
_CONTENT = re.compile(rf"[^{FUNCTION}\W_]|[{NAME}]")


def grammar_of(text: str) -> str:
    """The text with every character that is no function character and no mark replaced by ▢."""
    return _CONTENT.sub(NAME, text)


def lambdas(
    bits_of: Callable[[Sequence[int]], np.ndarray],
    side_a: Sequence[int],
    side_b: Sequence[int],
    samples: Sequence[Sequence[int]],
) -> tuple[np.ndarray, np.ndarray]:
    """lambda of tested texts for both sides, in bits.

    Args:
      bits_of: the bits of every tested text under the model of some training texts, [tested].
      side_a, side_b: training texts of each side.
      samples: training texts of every reference model.

    Returns:
      (lambda_a, lambda_b), float64 [tested]: mean over the samples of log2 P_side - log2 P_sample.
    """
    reference = np.mean([bits_of(sample) for sample in samples], axis=0)
    return reference - bits_of(side_a), reference - bits_of(side_b)
