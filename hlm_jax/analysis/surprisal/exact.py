"""Scores of texts by characters: of models, of their mean, and of mixtures with an n-gram model."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hlm_jax.analysis.surprisal.characters import BEAM, CharacterScores, character_scores
from hlm_jax.analysis.surprisal.vocabulary import BYTES, END, Vocabulary
from hlm_jax.language_model import LanguageModel
from hlm_jax.measures import mixture
from hlm_jax.measures.mixture import NgramMixture, Way
from hlm_jax.measures.pool import Predictions
from hlm_jax.measures.progress import Progress, stages
from hlm_jax.measures.readings import Reading


def evaluate(
    models: Sequence[LanguageModel],
    texts: Sequence[str],
    *,
    beam: int = BEAM,
    ngram: NgramMixture | None = None,
    learn_on: Sequence[str] | None = None,
    adaptive_rate: float | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Way], dict[str, float]]:
    """Scores of texts by characters: of the mean of the models' probabilities, and of mixtures.

    Args:
      models: their tokenizers may differ.
      beam: as character_scores.
      ngram: where given, a character n-gram model is mixed in as well.
      learn_on: validation texts; where given, also with weights of the models fitted on them.
      adaptive_rate: where given, scores of models that learn as they read are computed as well.
      progress: told how far the models have read, of all that they read.

    Returns:
      (the ways of measures/mixture.evaluate_characters, means per character over all
      models: `neglected`, `merged` and, of one model alone, `bound_bits_per_char`; of models that
      stay as they are).

    Raises:
      UserError: as character_scores, and as mixture.evaluate of weights that cannot be fitted.
    """
    validation = mixture.fitted_on(texts, ngram, learn_on)
    common = [set(Vocabulary(model.tokenizer).characters) for model in models]
    alphabet = sorted(set.intersection(*common) - {END, BYTES}) if validation else None
    column = {char: number for number, char in enumerate(alphabet or ())}

    # Side by side, and each once. A model that learns reads either list from its beginning.
    every = [*texts, *(text for text in validation if text not in texts)]
    learned = [texts] + ([validation] if validation != list(texts) else [])
    lists = [every, *(learned if adaptive_rate is not None else [])]
    stage = stages(progress, [sum(map(len, some)) for some in lists for _ in models])

    def read(some: Sequence[str], rate: float | None) -> list[list[CharacterScores]]:
        return [
            character_scores(
                model,
                some,
                beam=beam,
                distributions=False,
                alphabet=alphabet,
                adaptive_rate=rate,
                progress=next(stage),
            )
            for model in models
        ]

    def readings(found: list[list[CharacterScores]], texts: Sequence[str]) -> list[Reading]:
        made = []
        for text, by in zip(texts, zip(*found, strict=True), strict=True):
            symbols = np.array([column.get(char, len(column)) for char in text])
            expected = Predictions([one.expected for one in by], symbols, len(column))
            made.append(Reading([math.log(2) * one.bits for one in by], expected))
        return made

    read_of = [dict(zip(every, of, strict=True)) for of in read(every, None)]
    static = [[of[text] for text in texts] for of in read_of]
    other = [[of[text] for text in validation] for of in read_of]
    named: dict[str, Any] = {"validation": validation, "alphabet": list(column), "ngram": ngram}
    named["learn"] = learn_on is not None
    ways = mixture.evaluate_characters(
        readings(static, texts), texts, other=readings(other, validation), **named
    )
    if adaptive_rate is not None:
        found = read(texts, adaptive_rate)
        other = found if validation == list(texts) else read(validation, adaptive_rate)
        ways |= mixture.evaluate_characters(
            readings(found, texts),
            texts,
            other=readings(other, validation),
            adaptive=True,
            **named,
        )
    own = [one for of in static for one in of]
    sums = {
        "neglected": [one.neglected.sum() for one in own],
        "merged": [one.merged.sum() for one in own],
    }
    sums |= {"bound_bits_per_char": [one.bound[-1] for one in own]} if len(models) == 1 else {}
    chars = len(models) * sum(map(len, texts))
    return ways, {name: float(sum(values)) / chars for name, values in sums.items()}
