"""A text that neither side is known to have written: its probability, and what may be said."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hlm_jax.analysis.authorship import Scores
from hlm_jax.analysis.authorship.decisions import BAND, Logistic

_EXCERPTS = 5  # of each text, as long as the unknown one
_SHORT = 1000  # characters; a shorter text says little
_STRANGE = 0.05  # of the known texts: fewer cost as much
_RUN = 24  # characters in a row that two texts do not share by chance


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the n-gram models say of one text.

    Attributes:
      ratio: bits per character for A.
      delta: delta_b - delta_a.
      probability: of A, if one of the two sides wrote it: by a Logistic that was fitted on excerpts
        of the known texts, as long as this one, under models that had not seen them.
      strangeness: the share of the known texts that cost more bits per character under the better
        of the two models; near 0 for a text unlike both sides.
      words: what may be said.
    """

    name: str
    chars: int
    ratio: float
    delta: float
    probability: float
    strangeness: float
    words: str


def verdicts(
    scores: Scores,
    names: Sequence[str],
    texts: Sequence[str],
    sides: tuple[str, str],
    known: Sequence[str],
) -> list[Verdict]:
    """A Verdict for every unknown text.

    Args:
      scores: with detail, of a question that had these texts as its unknown ones.
      known: the texts of both sides; an unknown one that stands in them is not unknown.
      sides: the names of A and B.
    """
    is_a = scores.question.is_a
    known_cost = np.minimum(scores.bits_a, scores.bits_b) / scores.chars
    whole = "".join(known)
    found = []
    for k, (name, text) in enumerate(zip(names, texts, strict=True)):
        chars = max(1, len(text))
        ratio = float((scores.unknown_b[k] - scores.unknown_a[k]) / chars)
        samples, labels = _excerpts(scores.detail, is_a, chars)
        p = float(Logistic.fit(samples, labels)(np.array([ratio]))[0])
        cost = min(scores.unknown_a[k], scores.unknown_b[k]) / chars
        strangeness = float((known_cost > cost).mean())
        words = _words(p, strangeness, chars, sides)
        if (share := _shared(text, whole)) > 0.1:
            words = f"{share:.0%} of it occurs in the texts of the sides, so it cannot be placed"
        delta = float(scores.unknown_delta[k])
        found.append(Verdict(name, len(text), ratio, delta, p, strangeness, words))
    return found


def _excerpts(
    detail: Sequence[np.ndarray], is_a: np.ndarray, chars: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of excerpts of `chars` characters of the known texts, or of whole shorter texts."""
    ratios, labels = [], []
    for costs, of_a in zip(detail, is_a, strict=True):
        size = min(chars, len(costs))
        count = min(_EXCERPTS, len(costs) // size)
        for start in np.linspace(0, len(costs) - size, count).astype(int):
            ratios.append(costs[start : start + size].mean())
            labels.append(of_a)
    return np.array(ratios), np.array(labels, bool)


def _shared(text: str, whole: str) -> float:
    """The share of a text's runs of _RUN characters that stand in `whole`."""
    runs = [text[start : start + _RUN] for start in range(0, len(text) - _RUN + 1, _RUN)]
    return sum(run in whole for run in runs) / max(1, len(runs))


def _words(p: float, strangeness: float, chars: int, sides: tuple[str, str]) -> str:
    likelier, sure = (sides[0], p) if p >= 0.5 else (sides[1], 1 - p)
    if abs(p - 0.5) < BAND:
        words = "no answer: it lies between the two sides"
    else:
        words = f"more like {likelier}: {sure:.0%}, if one of the two wrote it"
    if strangeness < _STRANGE:
        words += (
            "; it is unlike the texts of both sides, so a third hand or another genre is likely"
        )
    if chars < _SHORT:
        words += f"; {chars} characters are too few for more than a hint"
    return words
