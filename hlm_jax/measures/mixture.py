"""Several models as one: averaged probabilities, and log-linear mixtures with an n-gram model.

Probabilities are those of tokens, where the models share a tokenizer, or of characters. Weights
are fitted on other texts, and are the same for every token. So a mixture's probabilities sum to 1,
and its bits per character can be compared with any other model's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey, Learner
from hlm_jax.measures.pool import Predictions, fit_weights, pooled_nats
from hlm_jax.measures.progress import Progress, stages
from hlm_jax.measures.readings import (
    EXPECTED,
    Counts,
    Member,
    Reading,
    learning,
    read,
    shared_tokenizer,
    with_rest,
)
from hlm_jax.measures.rowfile import row_file
from hlm_jax.measures.score import Score, scores
from hlm_jax.measures.weights import Nats

# Why there are no weights where not `can_cross_fit`.
NOT_CROSS_FITTED = "every validation chapter contains, or is contained in, a scored text"


@dataclasses.dataclass(frozen=True)
class NgramMixture:
    """Texts for an n-gram model, of tokens or of characters, that is mixed in.

    Attributes:
      training: the texts that the n-gram model is fitted on.
      validation: the texts that weights are fitted on.
    """

    training: Sequence[str]
    validation: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of scoring texts.

    Attributes:
      scores: one a text.
      weights: of a log-linear mixture, in the order of its models, n-gram models last; means over
        the texts where they are cross-fitted. Empty for other ways.
      cross_fitted: whether the weights for some text were fitted on validation texts without it.
    """

    scores: list[Score]
    weights: tuple[float, ...] = ()
    cross_fitted: bool = False


def label(name: str, weights: Sequence[float] = (), cross_fitted: bool = False) -> str:
    """A way's name as a line shows it: "log-linear (weights 0.400, 0.600, cross-fitted)"."""
    if not weights:
        return name
    words = [f"{round(weight, 3) + 0.0:.3f}" for weight in weights]  # without a -0
    return f"{name} (weights {', '.join(words + ['cross-fitted'] * cross_fitted)})"


def mix(nats: Sequence[Nats], weights: Sequence[float] | np.ndarray) -> Nats:
    """Nats of a mixture: the weighted mean of the probabilities that models give to every token.

    Args:
      nats: the arrays of token_nats, one list per model.
      weights: one per model; they sum to 1.
    """
    return [mix_text(models, weights) for models in zip(*nats, strict=True)]


def mix_text(models: Sequence[np.ndarray], weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """`mix` of one text: nats of its tokens, an array per model."""
    total = sum(weights)
    if abs(total - 1) > 1e-9:
        raise ValueError(f"the weights of a mixture must sum to 1, not {total}")
    with np.errstate(divide="ignore"):  # the logarithm of a weight of 0
        terms = [
            np.log(weight) - np.asarray(values, np.float64)
            for weight, values in zip(weights, models, strict=True)
        ]
    return -np.logaddexp.reduce(terms)


def ensemble_nats(
    members: Sequence[Member], texts: Sequence[str], adaptive_rate: float | None = None
) -> Nats:
    """Nats of every token of every text under the mean of the members' probabilities.

    Args:
      members: one or more models of the same tokenizer.
      texts: each is scored like a chapter, from its own beginning.
      adaptive_rate: learning rate of models that learn from what they have scored; None for models
        that stay as they are.

    Raises:
      UserError: no member, different tokenizers, or an empty text.
    """
    return [_mean(one, len(members)) for one in read(members, texts, adaptive_rate)]


def evaluate(
    members: Sequence[Member],
    texts: Sequence[str],
    *,
    adaptive_rate: float | None = None,
    ngram: NgramMixture | None = None,
    learn_on: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Way]:
    """Scores of every text, by every way of scoring.

    Weights are fitted on validation texts. Those for a text are fitted on the validation texts
    without it (cross-fitting), so a validation chapter is scored by weights that have not seen it.
    With adaptive scores the models read the chapters in their order: the weights for a chapter are
    fitted on the others, the later ones as read by models that have learned from it.

    Args:
      members, texts: as ensemble_nats.
      adaptive_rate: where given, adaptive scores are computed as well.
      ngram: where given, plain and adaptive scores are computed by a log-linear mixture of the
        members and an n-gram model of tokens as well. With adaptive scores there is a second one,
        which counts what it has read, text after text.
      learn_on: validation texts; where given, plain and adaptive scores are computed by a
        log-linear mixture of the members as well. Of one member it is a power of its probabilities:
        1 / a temperature.
      progress: told how far the models have read, of all that they read.

    Returns:
      The ways by name: "" for the mean of the probabilities, "adaptive", "log-linear", "n-gram of
      tokens", and "adaptive + " these two.

    Raises:
      UserError: as ensemble_nats; also validation texts that are missing, or no others than a text;
        no room for temporary files.
    """
    validation = fitted_on(texts, ngram, learn_on)
    fits = bool(validation)
    counts = Counts(shared_tokenizer(members), ngram.training) if ngram else None
    rows = [fitting_texts(text, validation) for text in texts]
    lists = [texts, *([validation] if validation and validation != list(texts) else [])]
    ways = {"": None} | ({} if adaptive_rate is None else {"adaptive": adaptive_rate})
    stage = stages(progress, [sum(map(len, some)) for some in lists] * len(ways))
    found: list[dict[str, Way]] = [{}, {}, {}]  # in the order in which they are returned
    for way, rate in ways.items():
        own, *rest = [
            read(members, some, rate, counts=counts, expected=fits, progress=next(stage))
            for some in lists
        ]
        other = rest[0] if rest else own
        found[0][way] = Way(scores([_mean(one, len(members)) for one in own], texts))
        if learn_on is not None:
            found[1][_joined(way, "log-linear")] = _pooled(own, other, rows, texts, len(members))
        if counts:
            found[2][_joined(way, "n-gram of tokens")] = _pooled(own, other, rows, texts)
        del own, other, rest  # their files, before further ones are written
    return found[0] | found[1] | found[2]


def fitted_on(
    texts: Sequence[str], ngram: NgramMixture | None, learn_on: Sequence[str] | None
) -> list[str]:
    """The validation texts that weights are fitted on; none where there are no weights.

    Raises:
      UserError: there are none, or for one of the texts no others.
    """
    if ngram is None and learn_on is None:
        return []
    validation = list((ngram.validation if ngram else learn_on) or ())
    if learn_on is not None and list(learn_on) != validation:
        raise ValueError("learn_on and ngram have different validation texts")
    if not can_cross_fit(texts, validation):
        why = NOT_CROSS_FITTED if validation else "no validation chapters are held out"
        raise UserError(f"the weights of the models cannot be fitted: {why}")
    return validation


def fitting_texts(text: str, validation: Sequence[str]) -> tuple[int, ...]:
    """Which of the validation texts the weights for `text` may be fitted on: their places.

    All those that neither are a part of it nor have it as a part, ends of lines aside.
    """
    text, others = text.strip(), [other.strip() for other in validation]
    return tuple(i for i, other in enumerate(others) if other not in text and text not in other)


def can_cross_fit(texts: Sequence[str], validation: Sequence[str]) -> bool:
    """Whether for each of the texts there are validation texts without it."""
    return all(fitting_texts(text, validation) for text in texts)


def evaluate_characters(
    own: Sequence[Reading],
    texts: Sequence[str],
    *,
    other: Sequence[Reading] = (),
    validation: Sequence[str] = (),
    alphabet: Sequence[str] = (),
    learn: bool = False,
    ngram: NgramMixture | None = None,
    adaptive: bool = False,
) -> dict[str, Way]:
    """As `evaluate`, by characters. The models' tokenizers may differ.

    Args:
      own: the texts as the models read them, as analysis/surprisal/exact.py computes it.
      other, validation: validation texts as the models read them, and these texts.
      alphabet: the characters that have a column of their own in what is expected.
      learn: whether to compute scores by a log-linear mixture of the models as well.
      ngram: where given, a Kneser-Ney model of characters joins the mixture.
      adaptive: whether the readings are of models that learned from what they read. Then a second
        n-gram model counts what it has read, too, text after text.

    Returns:
      The ways by name: "exact", "exact + log-linear", "exact + character 5-gram"; "adaptive exact"
      and so on of models that learned. A score's tokens are characters.
    """
    models, first = len(own[0].nats), "adaptive exact" if adaptive else "exact"
    ways = {first: Way(scores([_mean(one, models) for one in own], texts))}
    rows = [fitting_texts(text, validation) for text in texts]
    if learn:
        ways[f"{first} + log-linear"] = _pooled(own, other, rows, texts, models)
    if ngram is not None:
        model = KneserNey(ngram.training)
        same = list(validation) == list(texts)
        own = _with_ngram(model, own, texts, alphabet, adaptive=adaptive)
        other = own if same else _with_ngram(model, other, validation, alphabet, adaptive=adaptive)
        ways[f"{first} + character {model.order}-gram"] = _pooled(own, other, rows, texts)
    return ways


def _with_ngram(
    model: KneserNey,
    readings: Sequence[Reading],
    texts: Sequence[str],
    alphabet: Sequence[str],
    *,
    adaptive: bool,
) -> list[Reading]:
    """The readings with those of n-gram models of characters; the texts come in this order."""
    ends = np.cumsum([len(text) for text in texts])
    costs, tables = [], []
    for learns in learning(adaptive):
        table_TV = row_file(ends[-1], len(alphabet) + 1, EXPECTED)
        cost_T, done, learner = np.zeros(ends[-1]), 0, Learner(model, counts=learns)
        for text in texts:
            for i, (p, row) in enumerate(learner.distributions(text, alphabet), start=done):
                cost_T[i], table_TV[i] = -np.log(p), with_rest(row)
            done += len(text)
        costs.append(np.split(cost_T, ends[:-1]))
        tables.append(np.split(table_TV, ends[:-1]))
    found = []
    for i, one in enumerate(readings):
        assert one.expected is not None
        rows = [*one.expected.rows, *(of[i] for of in tables)]
        nats = [*one.nats, *(of[i] for of in costs)]
        found.append(Reading(nats, dataclasses.replace(one.expected, rows=rows)))
    return found


def figures(
    score: Score, baseline: float | None, with_extra: float | None = None
) -> dict[str, Any]:
    """A score as a JSON-able row, as scripts/evaluate.py prints it.

    Args:
      baseline: bits per character of the n-gram model on the same text; None where it is unknown.
      with_extra: those of reference.mixed_baseline; None for a run without further texts.
    """
    row = {
        "bits_per_char": score.bits_per_char,
        "nats_per_token": score.nats_per_token,
        "tokens": score.tokens,
        "chars": score.chars,
        "ngram_bits_per_char": baseline,
    }
    return row if with_extra is None else row | {"ngram_with_extra_bits_per_char": with_extra}


def character_figures(
    score: Score, baseline: float | None, with_extra: float | None = None
) -> dict[str, Any]:
    """`figures` of a score by characters: without tokens."""
    row = figures(score, baseline, with_extra)
    return {key: value for key, value in row.items() if key not in ("tokens", "nats_per_token")}


def describe(row: dict[str, Any]) -> str:
    """One line for the terminal of a row of `figures` or `character_figures`."""
    bits, baseline = row["bits_per_char"], row["ngram_bits_per_char"]
    words = [f"{bits:.4f} bits/char"]
    if baseline:
        words[0] += f" (5-gram {baseline:.4f}, ratio {bits / baseline:.4f}"
        if further := row.get("ngram_with_extra_bits_per_char"):
            words[0] += f"; with the further texts {further:.4f}, ratio {bits / further:.4f}"
        words[0] += ")"
    if "tokens" in row:
        words += [f"{row['nats_per_token']:.4f} nats/token", f"{row['tokens']:,} tokens"]
    words.append(f"{row['chars']:,} characters")
    if "neglected" in row:
        words.append(f"neglected {row['neglected']:.1e} and merged {row['merged']:.1e} a character")
    return ", ".join(words)


def _pooled(
    own: Sequence[Reading],
    other: Sequence[Reading],
    rows: Sequence[tuple[int, ...]],
    texts: Sequence[str],
    models: int | None = None,
) -> Way:
    """A log-linear mixture of the first models, or of all.

    Args:
      own, other: the texts to score and the validation texts, as the models read them.
      rows: for every text `fitting_texts`.
      texts: the texts to score.
    """
    weights = {row: fit_weights([_expected(other[i], models) for i in row]) for row in set(rows)}
    nats = []
    for one, row in zip(own, rows, strict=True):
        expected = _expected(one, models)
        nats.append(pooled_nats(expected, weights[row]) + _within_rest(one.nats[:models], expected))
    means = np.mean([weights[row] for row in rows], axis=0)
    cross_fitted = any(len(row) < len(other) for row in rows)
    return Way(scores(nats, texts), tuple(map(float, means)), cross_fitted)


def _expected(one: Reading, models: int | None) -> Predictions:
    assert one.expected is not None
    return dataclasses.replace(one.expected, rows=one.expected.rows[:models])


def _within_rest(nats: Sequence[np.ndarray], expected: Predictions) -> np.ndarray:
    """What a symbol without a column of its own costs more than the rest does, float64 [T].

    By the mean of what the models make of it.
    """
    more = np.zeros(len(expected.symbols))
    if expected.rest is not None:
        at = np.flatnonzero(expected.symbols == expected.rest)
        # Rounded up: a symbol is no larger a part of the rest than its model says.
        up = np.float16(np.inf)
        rest = [np.nextafter(rows[at, expected.rest], up).astype(float) for rows in expected.rows]
        parts = [np.minimum(np.exp(-of[at] - r), 1.0) for of, r in zip(nats, rest, strict=True)]
        more[at] = -np.log(np.mean(parts, axis=0))
    return more


def _mean(one: Reading, models: int) -> np.ndarray:
    """Nats of a text under the mean of the probabilities by the first models."""
    return mix_text(one.nats[:models], [1 / models] * models)


def _joined(way: str, label: str) -> str:
    return f"{way} + {label}" if way else label
