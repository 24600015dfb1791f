"""Texts as several models read them: what each of their tokens costs, and how sure the models were.

For models of one tokenizer, and an n-gram model of its tokens. `mixture` makes one model of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey, Learner
from hlm_jax.measures.score import encode
from hlm_jax.measures.weights import Nats


class Member(Protocol):
    """A model that can be mixed with others of the same tokenizer."""

    @property
    def tokenizer(self) -> Any:
        """Text <-> token ids; `fingerprint` tells one tokenizer from another."""

    def token_nats(self, sequences: list[list[int]]) -> Nats:
        """Nats of every token of every sequence except its first."""

    def adaptive_token_nats(self, sequences: list[list[int]], learning_rate: float) -> Nats:
        """The same of a model that goes on learning from what it has scored."""

    def nats_and_entropy(
        self, sequences: list[list[int]], learning_rate: float | None = None
    ) -> tuple[Nats, Nats]:
        """The nats of either, and the entropies in nats of the predictions."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What models say of the T tokens of a text.

    Attributes:
      members: nats by each neural model, float32 [T] each.
      entropy: mean over them of the entropies of their predictions, in nats, float32 [T]. That of
        their mean prediction would need all of their distributions at once.
      ngram: nats by the n-gram model, float64 [T].
      lengths: of the contexts that the n-gram model knows (KneserNey.context_lengths), int64 [T].

    The last three are empty where there is no n-gram model.
    """

    members: Sequence[np.ndarray]
    entropy: np.ndarray
    ngram: np.ndarray
    lengths: np.ndarray


class Counts:
    """An n-gram model of tokens. Its static probabilities of a text are computed once.

    Args:
      tokenizer: that of the neural models.
      training: the texts that it is fitted on.

    Attributes:
      longest: the longest context that it looks at, in tokens.
    """

    def __init__(self, tokenizer: Any, training: Sequence[str]):
        self._tokenizer = tokenizer
        tokens = [tokenizer.encode(text) for text in training]
        self._model = KneserNey(tokens, alphabet_size=tokenizer.vocab_size)
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.longest = self._model.order - 1

    def of(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """(nats, KneserNey.context_lengths) of every token; float64 and int64 [T]."""
        if text not in self._known:
            ids = self._tokenizer.encode(text)
            nats = -np.log(self._model.probabilities(ids))
            self._known[text] = nats, self._model.context_lengths(ids)
        return self._known[text]

    def learning(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `of`, of every text, by a model that counts what it has read of them in this order."""
        learner = Learner(self._model)
        found = (learner.read(self._tokenizer.encode(text)) for text in texts)
        return [(-np.log(p), lengths) for p, lengths in found]


def read(
    members: Sequence[Member],
    texts: Sequence[str],
    adaptive_rate: float | None = None,
    counts: Counts | None = None,
) -> list[Reading]:
    """Every text as the models read it, each from its own beginning, like a chapter.

    Args:
      adaptive_rate: learning rate of models that learn from what they have scored; None for models
        that stay as they are.
      counts: the n-gram model; None for none. It counts what it has scored where the models learn.

    Raises:
      UserError: no member, different tokenizers, or an empty text.
    """
    sequences = encode(shared_tokenizer(members), texts)
    if counts is None:
        none = np.zeros(0)
        if adaptive_rate is None:
            nats = [member.token_nats(sequences) for member in members]
        else:
            nats = [member.adaptive_token_nats(sequences, adaptive_rate) for member in members]
        return [Reading(of, none, none, none) for of in zip(*nats, strict=True)]
    found = [member.nats_and_entropy(sequences, adaptive_rate) for member in members]
    if adaptive_rate is None:
        counted = [counts.of(text) for text in texts]
    else:
        counted = counts.learning(texts)
    readings = []
    for i, (ngram, lengths) in enumerate(counted):
        entropy = np.mean([entropies[i] for _, entropies in found], axis=0)
        readings.append(Reading([nats[i] for nats, _ in found], entropy, ngram, lengths))
    return readings


def shared_tokenizer(members: Sequence[Member]) -> Any:
    """The tokenizer of all members.

    Raises:
      UserError: no member, or different tokenizers.
    """
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
