"""Several models as one: averaged probabilities, and an n-gram model mixed in.

Probabilities are those of tokens, where the models share a tokenizer, or of characters. A mixture's
probabilities sum to 1, so its bits per character can be compared with any other model's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey, fit_weight
from hlm_jax.measures.score import Score, encode, scores

Nats = list[np.ndarray]  # nats of every token of every text, one float array a text


class Member(Protocol):
    """A model that can be mixed with others of the same tokenizer."""

    @property
    def tokenizer(self) -> Any:
        """Text <-> token ids; `fingerprint` tells one tokenizer from another."""

    def token_nats(self, sequences: list[list[int]]) -> Nats:
        """Nats of every token of every sequence except its first."""

    def adaptive_token_nats(self, sequences: list[list[int]], learning_rate: float) -> Nats:
        """The same of a model that goes on learning from what it has scored."""


@dataclasses.dataclass(frozen=True)
class NgramMixture:
    """Texts for an n-gram model, of tokens or of characters, that is mixed in.

    Attributes:
      training: the texts that the n-gram model is fitted on.
      validation: the texts that its weight is fitted on.
    """

    training: Sequence[str]
    validation: Sequence[str]


def mix(nats: Sequence[Nats], weights: Sequence[float]) -> Nats:
    """Nats of a mixture: the weighted mean of the probabilities that models give to every token.

    Args:
      nats: the arrays of token_nats, one list per model.
      weights: one per model; they sum to 1.
    """
    if abs(sum(weights) - 1) > 1e-9:
        raise ValueError(f"the weights of a mixture must sum to 1, not {sum(weights)}")

    def one(models: Sequence[np.ndarray]) -> np.ndarray:
        terms = [
            np.log(weight) - np.asarray(values, np.float64)
            for weight, values in zip(weights, models, strict=True)
            if weight
        ]
        return -np.logaddexp.reduce(terms)

    return [one(models) for models in zip(*nats, strict=True)]


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
    sequences = encode(_shared_tokenizer(members), texts)
    if adaptive_rate is None:
        nats = [member.token_nats(sequences) for member in members]
    else:
        nats = [member.adaptive_token_nats(sequences, adaptive_rate) for member in members]
    return mix(nats, [1 / len(members)] * len(members))


def evaluate(
    members: Sequence[Member],
    texts: Sequence[str],
    *,
    adaptive_rate: float | None = None,
    ngram: NgramMixture | None = None,
) -> dict[str, list[Score]]:
    """Scores of every text, one list for each way of scoring.

    Args:
      members, texts: as ensemble_nats.
      adaptive_rate: where given, adaptive scores are computed as well.
      ngram: where given, every way is computed once more with an n-gram model of tokens mixed in.

    Returns:
      {name: scores}: "" for the plain scores, "adaptive", "n-gram of tokens (weight 0.123)" and
      "adaptive + n-gram of tokens (weight 0.123)".

    Raises:
      UserError: as ensemble_nats; also an n-gram mixture without texts to fit its weight on.
    """
    if ngram is not None:
        _require_validation(ngram)
    ways: dict[str, float | None] = {"": None}
    if adaptive_rate is not None:
        ways["adaptive"] = adaptive_rate
    nats = {way: ensemble_nats(members, texts, rate) for way, rate in ways.items()}
    if ngram is not None:
        tokenizer = _shared_tokenizer(members)
        training = [tokenizer.encode(text) for text in ngram.training]
        model = KneserNey(training, alphabet_size=tokenizer.vocab_size)

        def ngram_nats(texts: Sequence[str]) -> Nats:
            return [-np.log(model.probabilities(tokenizer.encode(text))) for text in texts]

        same = list(ngram.validation) == list(texts)
        own = ngram_nats(texts)
        own_validation = own if same else ngram_nats(ngram.validation)
        for way, rate in ways.items():
            validation = nats[way] if same else ensemble_nats(members, ngram.validation, rate)
            weight = fit_weight(validation, own_validation)
            name = f"n-gram of tokens (weight {weight:.3f})"
            nats[f"{way} + {name}" if way else name] = mix([nats[way], own], [1 - weight, weight])
    return {way: scores(values, texts) for way, values in nats.items()}


def evaluate_characters(
    nats: Sequence[Nats],
    texts: Sequence[str],
    *,
    ngram: NgramMixture | None = None,
    validation_nats: Sequence[Nats] = (),
) -> dict[str, list[Score]]:
    """Scores of every text by the mean of the probabilities that models give to its characters.

    The models' tokenizers may differ. A score's tokens are characters.

    Args:
      nats: for every model the nats of every character of every text, as
        analysis/surprisal/characters.py computes them.
      ngram: where given, a Kneser-Ney model of characters is mixed in as well.
      validation_nats: as `nats`, of the n-gram mixture's validation texts, on which its weight is
        fitted.

    Returns:
      {name: scores}: "exact" and "exact + character 5-gram (weight 0.123)".

    Raises:
      UserError: an n-gram mixture without texts to fit its weight on.
    """

    def mean(of: Sequence[Nats]) -> Nats:
        return mix(of, [1 / len(of)] * len(of))

    ways = {"exact": mean(nats)}
    if ngram is not None:
        _require_validation(ngram)
        model = KneserNey(ngram.training)
        own, own_validation = (
            [-np.log(model.probabilities(text)) for text in some]
            for some in (texts, ngram.validation)
        )
        weight = fit_weight(mean(validation_nats), own_validation)
        name = f"exact + character {model.order}-gram (weight {weight:.3f})"
        ways[name] = mix([ways["exact"], own], [1 - weight, weight])
    return {way: scores(values, texts) for way, values in ways.items()}


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


def _shared_tokenizer(members: Sequence[Member]) -> Any:
    if not members:
        raise UserError("an ensemble needs at least one model")
    first, *others = members
    for number, other in enumerate(others, start=2):
        if other.tokenizer.fingerprint != first.tokenizer.fingerprint:
            raise UserError(
                f"model {number} of the ensemble has another tokenizer than model 1: "
                "their tokens' probabilities cannot be averaged, those of characters can (--exact)"
            )
    return first.tokenizer
