"""The ratio of GPT models instead of n-gram models, from runs that were trained for it.

hlm_jax/sides.py trains the models; here they are only read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hlm_jax.analysis.authorship import Ratios, masks
from hlm_jax.analysis.authorship.questions import Question


def score_pairs(
    question: Question,
    strings: Sequence[str],
    pairs: Sequence[tuple[Path, Path]],
    *,
    unknown: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Ratios:
    """Scores every text of a question by the runs that held it out.

    A token's bits are spread evenly over its characters, so that parts of a text can be summed.

    Args:
      strings: the texts that the question's rows are rows of.
      pairs: for each fold, the folders of the runs of side A and side B.
      unknown: texts that no side is known to have written.

    Raises:
      UserError: a run cannot be read.
    """
    from hlm_jax.run import load_run  # JAX

    bits = np.zeros((2, len(question.rows)))
    others = np.zeros((2, len(unknown)))
    detail = [np.zeros(len(strings[row])) for row in question.rows]
    for fold, pair in enumerate(pairs):
        held_out = np.flatnonzero(question.fold == fold)
        say(f"{question.name}: fold {fold + 1} of {len(pairs)} reads {len(held_out)} texts")
        for side, folder in enumerate(pair):
            run = load_run(folder, "latest")
            for place in held_out:
                costs = _per_character(run, strings[question.rows[place]])
                bits[side, place] = costs.sum()
                detail[place] += costs if side else -costs
            others[side] += [_per_character(run, text).sum() for text in unknown]
    return Ratios(
        question=question,
        bits_a=bits[0],
        bits_b=bits[1],
        chars=np.array([len(strings[row]) for row in question.rows]),
        detail=tuple(detail),
        unknown_a=others[0] / len(pairs),
        unknown_b=others[1] / len(pairs),
    )


def masked_ratio(
    ratios: Ratios, strings: Sequence[str], kinds: Sequence[str], names: Sequence[str]
) -> np.ndarray:
    """The ratio over the characters that a mask leaves, [N]; the models read the whole text."""
    result = np.zeros(len(ratios.chars))
    for place, row in enumerate(ratios.question.rows):
        left_out, replaced = masks.masked_positions(strings[row], kinds, names=names)
        for start, end in replaced:
            left_out[start:end] = True
        kept = ratios.detail[place][~left_out]
        result[place] = kept.sum() / max(1, len(kept))
    return result


def _per_character(run, text: str) -> np.ndarray:
    """Bits of every character of a text, float64 [chars]."""
    costs = np.zeros(len(text))
    for token in run.surprisal(text):
        costs[token.start : token.end] += token.bits / max(1, token.end - token.start)
    return costs
