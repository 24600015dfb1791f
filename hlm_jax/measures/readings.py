"""Texts as several models read them: what each token costs, and what the models expected there.

For models of one tokenizer, and an n-gram model of its tokens. `mixture` makes one model of them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey, Learner
from hlm_jax.measures.pool import Predictions
from hlm_jax.measures.progress import Progress, stages
from hlm_jax.measures.rowfile import row_file
from hlm_jax.measures.score import encode
from hlm_jax.measures.weights import Nats

EXPECTED = "what the models expect of these texts"
_LEAST = 1e-9  # so that nothing is impossible


class Member(Protocol):
    """A model that can be mixed with others of the same tokenizer."""

    @property
    def tokenizer(self) -> Any:
        """Text <-> token ids; `fingerprint` tells one tokenizer from another."""

    def token_nats(self, sequences: list[list[int]]) -> Nats:
        """Nats of every token of every sequence except its first."""

    def adaptive_token_nats(self, sequences: list[list[int]], learning_rate: float) -> Nats:
        """The same of a model that goes on learning from what it has scored."""

    def log_probabilities(
        self, sequences: list[list[int]], learning_rate: float | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The nats of either, and the logarithms of all probabilities, in parts of sequences."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What models say of the T tokens, or characters, of a text.

    Attributes:
      nats: by each neural model, then by n-gram models if there are any, float [T] each.
      expected: by the same models. None where it was not asked for.
    """

    nats: Sequence[np.ndarray]
    expected: Predictions | None


class Counts:
    """An n-gram model of tokens.

    Args:
      tokenizer: that of the neural models.
      training: the texts that it is fitted on.
    """

    def __init__(self, tokenizer: Any, training: Sequence[str]):
        self._alphabet = range(tokenizer.vocab_size)
        tokens = [tokenizer.encode(text) for text in training]
        self._model = KneserNey(tokens, alphabet_size=len(self._alphabet))

    def log_probabilities(
        self, sequences: Sequence[Sequence[int]], *, learns: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Member.log_probabilities of the n-gram model, a token a part.

        Args:
          learns: whether it counts what it has read.
        """
        learner = Learner(self._model, counts=learns)
        for ids in sequences:
            for p, row in learner.distributions(ids[1:], self._alphabet):
                yield np.array([-np.log(p)]), np.log(row)[None]


def read(
    members: Sequence[Member],
    texts: Sequence[str],
    adaptive_rate: float | None = None,
    *,
    counts: Counts | None = None,
    expected: bool = False,
    progress: Progress | None = None,
) -> list[Reading]:
    """Every text as the models read it, each from its own beginning, like a chapter.

    Args:
      adaptive_rate: learning rate of models that learn from what they have scored; None for models
        that stay as they are.
      counts: the n-gram model; None for none. Where the models learn, there is also one that counts
        what it has scored.
      expected: whether to keep what the models expected, in temporary files.
      progress: told how many tokens have been read, each by one model after another.

    Raises:
      UserError: no member, different tokenizers, or an empty text; no room for the files.
    """
    tokenizer = shared_tokenizer(members)
    sequences = encode(tokenizer, texts)
    ends = np.cumsum([len(ids) - 1 for ids in sequences])
    total = sum(len(ids) - 1 for ids in sequences)
    n_grams = learning(adaptive_rate is not None) if counts and expected else ()
    stage = stages(progress, [total] * (len(members) + len(n_grams)))
    if not expected:
        nats = []
        for member, told in zip(members, stage, strict=True):
            if adaptive_rate is None:
                nats.append(member.token_nats(sequences))
            else:
                nats.append(member.adaptive_token_nats(sequences, adaptive_rate))
            told(1, 1)
        return [Reading(of, None) for of in zip(*nats, strict=True)]
    width = tokenizer.vocab_size
    models, costs = [], []
    by_parts = [member.log_probabilities(sequences, adaptive_rate) for member in members]
    if counts:
        by_parts += [counts.log_probabilities(sequences, learns=learns) for learns in n_grams]
    for parts, told in zip(by_parts, stage, strict=True):
        table_TV, cost_T, done = row_file(total, width, EXPECTED), np.zeros(total), 0
        for nats_T, rows_TV in parts:
            part = slice(done, done := done + len(nats_T))
            cost_T[part] = nats_T
            table_TV[part] = rows_TV[:, :width]  # a model may have columns beyond the vocabulary
            told(done, total)
        costs.append(np.split(cost_T, ends[:-1]))
        models.append(np.split(table_TV, ends[:-1]))
    return [
        Reading(of, Predictions(expected_by, np.asarray(ids[1:])))
        for of, expected_by, ids in zip(
            zip(*costs, strict=True), zip(*models, strict=True), sequences, strict=True
        )
    ]


def learning(adaptive: bool) -> tuple[bool, ...]:
    """Of the n-gram models of a mixture, whether each counts what it has read.

    Beside models that learn there are two. What one has learned is their difference, and a mixture
    of powers weighs it by itself.
    """
    return (False, True) if adaptive else (False,)


def with_rest(p: np.ndarray) -> np.ndarray:
    """Natural logarithms of some symbols' probabilities [V] and of the rest's, [V + 1]."""
    return np.log(np.maximum(np.append(p, 1 - p.sum()), _LEAST))


def shared_tokenizer(members: Sequence[Member]) -> Any:
    """The tokenizer of all members.

    Raises:
      UserError: no member, or different tokenizers.
    """
    if not members:
        raise UserError("an ensemble needs at least one model")
    for number in with_other_tokenizer(members):
        raise UserError(
            f"model {number} of the ensemble has another tokenizer than model 1: "
            "their tokens' probabilities cannot be averaged, those of characters can (--exact)"
        )
    return members[0].tokenizer


def with_other_tokenizer(members: Sequence[Member]) -> list[int]:
    """The numbers, from 1, of members with another tokenizer than the first."""
    prints = [member.tokenizer.fingerprint for member in members]
    return [number for number, one in enumerate(prints, start=1) if one != prints[0]]
