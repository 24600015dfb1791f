"""Several models as one: averaged probabilities, learned weights, and an n-gram model mixed in.

Probabilities are those of tokens, where the models share a tokenizer, or of characters. A weight
depends on other texts and on what stands before a token, never on the token. So a mixture's
probabilities sum to 1, and its bits per character can be compared with any other model's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey, Learner
from hlm_jax.measures.readings import Counts, Member, Reading, read, shared_tokenizer
from hlm_jax.measures.score import Score, scores
from hlm_jax.measures.weights import (
    ContextWeights,
    Nats,
    fit_weight,
    fit_weights,
    fitting_texts,
)

# Why there are no weights where not `can_cross_fit`.
NOT_CROSS_FITTED = "every validation chapter contains, or is contained in, a scored text"


@dataclasses.dataclass(frozen=True)
class NgramMixture:
    """Texts for an n-gram model, of tokens or of characters, that is mixed in.

    Attributes:
      training: the texts that the n-gram model is fitted on.
      validation: the texts that its weight is fitted on.
    """

    training: Sequence[str]
    validation: Sequence[str]


def mix(nats: Sequence[Nats], weights: Sequence[float] | np.ndarray) -> Nats:
    """Nats of a mixture: the weighted mean of the probabilities that models give to every token.

    Args:
      nats: the arrays of token_nats, one list per model.
      weights: one per model; they sum to 1.
    """
    return [mix_text(models, weights) for models in zip(*nats, strict=True)]


def mix_text(
    models: Sequence[np.ndarray], weights: Sequence[float | np.ndarray] | np.ndarray
) -> np.ndarray:
    """`mix` of one text.

    Args:
      models: nats of its tokens, an array per model.
      weights: one per model, of the whole text or an array of one per token; they sum to 1.
    """
    total = sum(weights)
    if np.abs(total - 1).max() > 1e-9:
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
    readings = read(members, texts, adaptive_rate)
    return [mix_text(one.members, _equal(members)) for one in readings]


def evaluate(
    members: Sequence[Member],
    texts: Sequence[str],
    *,
    adaptive_rate: float | None = None,
    ngram: NgramMixture | None = None,
    learn_on: Sequence[str] | None = None,
) -> dict[str, list[Score]]:
    """Scores of every text, one list for each way of scoring.

    Learned weights of members, and an n-gram model's weights by context, are fitted on validation
    texts. Those for a text are fitted on the validation texts without it (cross-fitting), so a
    validation chapter is scored by weights that have not seen it. With adaptive scores the models
    themselves have read the chapters in their order.

    Args:
      members, texts: as ensemble_nats.
      adaptive_rate: where given, adaptive scores are computed as well.
      ngram: where given, plain and adaptive scores are computed with an n-gram model of tokens
        mixed in as well: with one weight, fitted on all its validation texts, and with weights by
        context (weights.ContextWeights). By context it also joins learned weights. There are no
        scores by context where not `can_cross_fit`. With adaptive scores it counts what it has
        read, text after text.
      learn_on: validation texts; where given, plain and adaptive scores are computed with learned
        weights of the members as well.

    Returns:
      {name: scores}: "" for the plain scores, "adaptive", "learned weights (0.400, 0.600)",
      "n-gram of tokens (weight 0.123)", "n-gram of tokens by context", and these joined by " + ".
      "cross-fitted" stands in a name where a text is among the validation texts; then the weights
      named are means over the texts. "fitted on these chapters" stands beside the one weight of the
      n-gram model where all texts are among them.

    Raises:
      UserError: as ensemble_nats; also validation texts that are missing, or no others than a text.
    """
    if ngram is not None:
        _require_validation(ngram)
    if learn_on is not None and not can_cross_fit(texts, learn_on):
        why = NOT_CROSS_FITTED if learn_on else "no validation chapters are held out"
        raise UserError(f"the weights of the runs cannot be learned: {why}")
    validation = list(ngram.validation if ngram else learn_on or ())
    if learn_on is not None and list(learn_on) != validation:
        raise ValueError("learn_on and ngram have different validation texts")
    counts = Counts(shared_tokenizer(members), ngram.training) if ngram else None
    rows = [fitting_texts(text, validation) for text in texts]
    found: list[dict[str, Nats]] = [{}, {}, {}]  # in the order in which they are returned
    for way, rate in {"": None, "adaptive": adaptive_rate}.items():
        if way and rate is None:
            continue
        own = read(members, texts, rate, counts)
        same = validation == list(texts)
        other = own if same else read(members, validation, rate, counts)
        mean = {row: _equal(members) for row in rows}
        found[0][way] = _members_mixed(own, rows, mean)
        if learn_on is not None:
            learned = {row: fit_weights(_by_model([other[i] for i in row])) for row in set(rows)}
            name = _joined(way, f"learned weights ({_described(learned, rows, len(validation))})")
            found[1][name] = _members_mixed(own, rows, learned)
            learned_name = name
        if counts:
            bases = [mix_text(one.members, _equal(members)) for one in other]
            weight = fit_weight(bases, [one.ngram for one in other])
            described = _described_one(weight, texts, validation)
            name = _joined(way, f"n-gram of tokens ({described})")
            pairs = zip(found[0][way], own, strict=True)
            found[2][name] = [
                mix_text([base, one.ngram], [1 - weight, weight]) for base, one in pairs
            ]
        if counts and all(rows):
            by_context = "n-gram of tokens by context"
            if _crosses(rows, len(validation)):
                by_context += ", cross-fitted"
            found[2][_joined(way, by_context)] = _by_context(own, other, rows, mean, counts.longest)
            if learn_on is not None:
                name = _joined(learned_name, by_context)
                found[2][name] = _by_context(own, other, rows, learned, counts.longest)
    ways = found[0] | found[1] | found[2]
    return {way: scores(values, texts) for way, values in ways.items()}


def can_cross_fit(texts: Sequence[str], validation: Sequence[str]) -> bool:
    """Whether for each of the texts there are validation texts without it."""
    return all(fitting_texts(text, validation) for text in texts)


def evaluate_characters(
    nats: Sequence[Nats],
    texts: Sequence[str],
    *,
    ngram: NgramMixture | None = None,
    validation_nats: Sequence[Nats] = (),
    adaptive: bool = False,
) -> dict[str, list[Score]]:
    """Scores of every text by the mean of the probabilities that models give to its characters.

    The models' tokenizers may differ. A score's tokens are characters.

    Args:
      nats: for every model the nats of every character of every text, as
        analysis/surprisal/characters.py computes them.
      ngram: where given, a Kneser-Ney model of characters is mixed in as well.
      validation_nats: as `nats`, of the n-gram mixture's validation texts, on which its weight is
        fitted.
      adaptive: whether the nats are of models that learned from what they read. Then the n-gram
        model counts what it has read, too, text after text.

    Returns:
      {name: scores}: "exact" and "exact + character 5-gram (weight 0.123)", whose name is as that
      of the n-gram of tokens in `evaluate`; "adaptive exact" and so on of models that learned.

    Raises:
      UserError: an n-gram mixture without texts to fit its weight on.
    """

    def mean(of: Sequence[Nats]) -> Nats:
        return mix(of, [1 / len(of)] * len(of))

    first = "adaptive exact" if adaptive else "exact"
    ways = {first: mean(nats)}
    if ngram is not None:
        _require_validation(ngram)
        model = KneserNey(ngram.training)
        own, own_validation = (
            [-np.log(p) for p in _probabilities(model, some, learns=adaptive)]
            for some in (texts, ngram.validation)
        )
        weight = fit_weight(mean(validation_nats), own_validation)
        described = _described_one(weight, texts, ngram.validation)
        name = f"{first} + character {model.order}-gram ({described})"
        ways[name] = mix([ways[first], own], [1 - weight, weight])
    return {way: scores(values, texts) for way, values in ways.items()}


def _probabilities(model: KneserNey, texts: Sequence[str], *, learns: bool) -> list[np.ndarray]:
    """Of every character of every text; a model that learns reads them in this order."""
    if not learns:
        return [model.probabilities(text) for text in texts]
    learner = Learner(model)
    return [learner.read(text)[0] for text in texts]


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


def share_tokenizer(members: Sequence[Member]) -> bool:
    """Whether all members have the same tokenizer."""
    return len({member.tokenizer.fingerprint for member in members}) == 1


def _require_validation(ngram: NgramMixture) -> None:
    if not ngram.validation:
        raise UserError(
            "no validation chapters are held out: the weight of the n-gram model cannot be fitted"
        )


# --- weights for each text, by the validation texts that they are fitted on ---

_Rows = Sequence[tuple[int, ...]]  # for every text weights.fitting_texts
_Weights = dict[tuple[int, ...], np.ndarray]  # of the members, by the validation texts fitted on


def _members_mixed(own: Sequence[Reading], rows: _Rows, weights: _Weights) -> Nats:
    return [mix_text(one.members, weights[row]) for one, row in zip(own, rows, strict=True)]


def _by_context(
    own: Sequence[Reading],
    other: Sequence[Reading],
    rows: _Rows,
    weights: _Weights,
    longest: int,
) -> Nats:
    """Nats of every text with the n-gram model mixed in by weights.ContextWeights.

    All that is fitted for a text is fitted on the validation texts of its row.

    Args:
      own, other: the texts to score and the validation texts.
      weights: of the members.
      longest: the longest context of the n-gram model.
    """
    fitted = {}
    for row in set(rows):
        texts = [other[i] for i in row]
        fitted[row] = ContextWeights.fit(
            [mix_text(one.members, weights[row]) for one in texts],
            [one.ngram for one in texts],
            [one.lengths for one in texts],
            [one.entropy for one in texts],
            longest=longest,
        )
    nats = []
    for one, row in zip(own, rows, strict=True):
        weight_T = fitted[row].at(one.lengths, one.entropy)
        base = mix_text(one.members, weights[row])
        nats.append(mix_text([base, one.ngram], [1 - weight_T, weight_T]))
    return nats


def _equal(members: Sequence[Member]) -> np.ndarray:
    return np.full(len(members), 1 / len(members))


def _by_model(texts: Sequence[Reading]) -> list[Nats]:
    return [list(of) for of in zip(*(one.members for one in texts), strict=True)]


def _crosses(rows: _Rows, validation: int) -> bool:
    return any(len(row) < validation for row in rows)


def _described(weights: _Weights, rows: _Rows, validation: int) -> str:
    """The weights of members as a name shows them: means over the texts."""
    words = [f"{weight:.3f}" for weight in np.mean([weights[row] for row in rows], axis=0)]
    return ", ".join([*words, "cross-fitted"] if _crosses(rows, validation) else words)


def _described_one(weight: float, texts: Sequence[str], validation: Sequence[str]) -> str:
    """The one weight of an n-gram model as a name shows it."""
    seen = ", fitted on these chapters" if set(texts) <= set(validation) else ""
    return f"weight {weight:.3f}{seen}"


def _joined(way: str, label: str) -> str:
    return f"{way} + {label}" if way else label
