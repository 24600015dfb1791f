"""Who wrote it: two sets of texts told apart by models that never saw the text they judge.

For every fold, a model of side A and one of side B are fitted on the other folds' texts, on as many
characters. A tested text speaks for A by its ratio, in bits per character:

    ratio = (bits under B's model - bits under A's model) / characters

Controls are sides that one author is believed to have written, judged in the same way: what they
reach is drift of plot and topic. Figures mean nothing without them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hlm_jax.analysis.authorship import masks
from hlm_jax.analysis.authorship.decisions import calibrated, figures
from hlm_jax.analysis.authorship.delta import CharacterCounts, delta_to_sides
from hlm_jax.analysis.authorship.grammar import SAMPLES, lambdas
from hlm_jax.analysis.authorship.questions import Question, budget_of, training_parts
from hlm_jax.analysis.authorship.refits import Collection

ORDER = 5


class Material:
    """Some texts, counted once for every question about them.

    Args:
      texts: the tested texts, then texts of unknown authors; what a mask emptied becomes one ▢.
    """

    def __init__(self, texts: Sequence[str], *, order: int = ORDER):
        texts = [text or masks.NAME for text in texts]
        self.collection = Collection(texts, order)
        self.counts = CharacterCounts(texts, skip="\n" + masks.NAME)
        self.chars = np.array([len(text) for text in texts])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratios:
    """Costs of every text of a question under the models of both sides, none of which saw it.

    Attributes:
      bits_a, bits_b: total bits, [N].
      chars: what they are counted over, [N].
      detail: of every text, bits under B less bits under A of each character; () unless asked for.
      unknown_a, unknown_b: bits of the unknown texts, the mean over the folds, [U].
    """

    question: Question
    bits_a: np.ndarray
    bits_b: np.ndarray
    chars: np.ndarray
    detail: tuple[np.ndarray, ...]
    unknown_a: np.ndarray
    unknown_b: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """Bits per character for A, [N]."""
        return (self.bits_b - self.bits_a) / self.chars


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores(Ratios):
    """The ratios of n-gram models, with Burrows' Delta fitted on the same texts.

    Attributes:
      delta_a, delta_b: Delta from each side, [N].
      unknown_delta: delta_b - delta_a of the unknown texts, the mean over the folds, [U].
      training_chars: what each model was fitted on.
    """

    delta_a: np.ndarray
    delta_b: np.ndarray
    unknown_delta: np.ndarray
    training_chars: int

    @property
    def delta(self) -> np.ndarray:
        """How much nearer to A than to B, [N]."""
        return self.delta_b - self.delta_a

    def figures(self) -> dict[str, dict[str, Any]]:
        """{"ngram", "delta"}: the measures of decisions.figures."""
        return {
            "ngram": measured(self.ratio, self.question),
            "delta": measured(self.delta, self.question),
        }


def measured(scores: np.ndarray, question: Question) -> dict[str, Any]:
    """The measures of one score of a question's texts."""
    is_a = question.is_a
    return figures(scores, is_a, calibrated(scores, is_a, question.fold))


def cross_fit(
    material: Material, question: Question, *, unknown: int = 0, detail: bool = False
) -> Scores:
    """Scores every text of a question by models of the other folds.

    Args:
      unknown: texts at the end of the material that belong to no side.
    """
    rows, is_a, chars = question.rows, question.is_a, material.chars
    budget = budget_of(question, chars)
    others = np.arange(len(chars) - unknown, len(chars))
    bits, delta = np.zeros((2, len(rows))), np.zeros((2, len(rows)))
    unknown_bits, unknown_delta = np.zeros((2, unknown)), np.zeros((2, unknown))
    details: dict[int, np.ndarray] = {}
    for fold in range(question.folds):
        held_out = np.flatnonzero(question.fold == fold)
        trained, per_char = [], []
        for side, of_side in enumerate((is_a, ~is_a)):
            parts = training_parts(rows[of_side & (question.fold != fold)], chars, budget, fold)
            model = material.collection.fit(parts)
            trained.append(np.array(sorted(parts)))
            per_char.append([model.bits(int(rows[place])) for place in held_out])
            bits[side, held_out] = [costs.sum() for costs in per_char[side]]
            unknown_bits[side] += [model.bits(int(row)).sum() for row in others]
        tested = np.concatenate([rows[held_out], others])
        away = np.stack(delta_to_sides(material.counts, trained[0], trained[1], tested))
        delta[:, held_out] = away[:, : len(held_out)]
        unknown_delta += away[:, len(held_out) :]
        if detail:
            pairs = zip(held_out, *per_char, strict=True)
            details |= {int(place): under_b - under_a for place, under_a, under_b in pairs}
    return Scores(
        question=question,
        bits_a=bits[0],
        bits_b=bits[1],
        chars=chars[rows],
        detail=tuple(details[place] for place in sorted(details)),
        unknown_a=unknown_bits[0] / question.folds,
        unknown_b=unknown_bits[1] / question.folds,
        delta_a=delta[0],
        delta_b=delta[1],
        unknown_delta=(unknown_delta[1] - unknown_delta[0]) / question.folds,
        training_chars=budget,
    )


def cross_fit_grammar(
    material: Material, question: Question, *, samples: int = SAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """lambda of every text for each side, in bits per character: see grammar.py.

    Args:
      material: of texts that grammar_of has gone over.
      samples: reference models of each fold, each of as many characters as a side's.
    """
    rows, is_a, chars = question.rows, question.is_a, material.chars
    budget = budget_of(question, chars)
    result = np.zeros((2, len(rows)))
    rng = np.random.default_rng(0)
    for fold in range(question.folds):
        held_out = np.flatnonzero(question.fold == fold)
        rest = question.fold != fold

        def bits_of(order, held_out=held_out, fold=fold) -> np.ndarray:
            model = material.collection.fit(_first(order, chars, budget))
            return np.array([model.bits(rows[place]).sum() for place in held_out])

        side_a, side_b = (
            list(training_parts(rows[of_side & rest], chars, budget, fold))
            for of_side in (is_a, ~is_a)
        )
        drawn = [rng.permutation(rows[rest]).tolist() for _ in range(samples)]
        result[:, held_out] = lambdas(bits_of, side_a, side_b, drawn)
    lambda_a, lambda_b = result / chars[rows]
    return lambda_a, lambda_b


def _first(order: Sequence[int], chars: np.ndarray, budget: int) -> dict[int, int]:
    """Rows in this order until `budget` characters are full."""
    parts: dict[int, int] = {}
    for row in order:
        if budget > 0:
            parts[int(row)] = int(min(budget, chars[row]))
            budget -= parts[int(row)]
    return parts
