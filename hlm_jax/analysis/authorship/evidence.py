"""What in the texts speaks for each side: characters, pieces of two or three, and passages.

Every figure sums, over texts that the models did not see, the bits under B less the bits under A.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hlm_jax.analysis.authorship.delta import CharacterCounts

PASSAGE = 80  # characters
_LEAST = 0.05  # of the texts: a piece of fewer is of one scene


@dataclasses.dataclass(frozen=True)
class Piece:
    """A character or several, and what they say wherever they stand.

    Attributes:
      bits: summed over all texts; above 0 for A.
      texts: how many have it.
      rate_a, rate_b: mean occurrences per 10,000 characters of the texts of each side, and the
        standard deviations.
    """

    text: str
    bits: float
    texts: int
    rate_a: float
    deviation_a: float
    rate_b: float
    deviation_b: float

    @property
    def alone(self) -> bool:
        """Whether one side has it and the other never."""
        return min(self.rate_a, self.rate_b) == 0


@dataclasses.dataclass(frozen=True)
class Passage:
    """A stretch of a text: its row among the question's, its place and its bits for A."""

    place: int
    start: int
    end: int
    bits: float


def pieces(
    strings: Sequence[str],
    detail: Sequence[np.ndarray],
    is_a: np.ndarray,
    *,
    size: int = 1,
    top: int = 30,
) -> tuple[list[Piece], list[Piece]]:
    """The pieces of `size` characters with the largest sums for A and for B, the largest first.

    Those that both sides have come first: what stands on one side only may be an edition's.

    A piece has the bits of all its characters. Those in fewer than a twentieth of the texts, and
    those with a line end, are left out.
    """
    codes = [
        np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64) for text in strings
    ]
    keys = np.concatenate([_joined(code, size) for code in codes])
    bits = np.concatenate([_summed(costs, size) for costs in detail])
    where = np.repeat(np.arange(len(strings)), [max(0, len(code) - size + 1) for code in codes])
    found, index = np.unique(keys, return_inverse=True)
    sums = np.bincount(index, weights=bits, minlength=len(found))
    holders = np.unique(index * len(strings) + where) // len(strings)
    texts = np.bincount(holders, minlength=len(found))
    sums[texts < max(2, _LEAST * len(strings))] = 0.0
    chars = np.array([len(text) for text in strings])

    def piece(k: int) -> Piece:
        counts = np.bincount(where[index == k], minlength=len(strings))
        rate = 1e4 * counts / np.maximum(chars, 1)
        a, b = rate[is_a], rate[~is_a]
        spread = [float(side.std(ddof=1)) if len(side) > 1 else 0.0 for side in (a, b)]
        return Piece(
            _text(int(found[k]), size), float(sums[k]), int(texts[k]), float(a.mean()), spread[0],
            float(b.mean()), spread[1],
        )  # fmt: skip

    order = [k for k in np.argsort(-sums, kind="stable") if "\n" not in _text(int(found[k]), size)]
    for_a = [piece(k) for k in order[: 2 * top] if sums[k] > 0]
    for_b = [piece(k) for k in order[::-1][: 2 * top] if sums[k] < 0]
    first, second = (sorted(side, key=lambda one: one.alone)[:top] for side in (for_a, for_b))
    return first, second


def passages(
    detail: Sequence[np.ndarray], *, length: int = PASSAGE, top: int = 6
) -> tuple[list[Passage], list[Passage]]:
    """The stretches with the largest sums for A and for B, one of each text at most."""
    highest: list[Passage] = []
    lowest: list[Passage] = []
    for place, costs in enumerate(detail):
        size = min(length, len(costs))
        sums = _summed(costs, size)
        for at, kept in ((int(sums.argmax()), highest), (int(sums.argmin()), lowest)):
            kept.append(Passage(place, at, at + size, float(sums[at])))
    return (
        sorted(highest, key=lambda passage: -passage.bits)[:top],
        sorted(lowest, key=lambda passage: passage.bits)[:top],
    )


def one_sided(
    strings: Sequence[str], is_a: np.ndarray, *, least: int = 20, top: int = 20
) -> tuple[list[tuple[str, int, int]], list[tuple[str, int, int]]]:
    """(character, occurrences, texts) of those that one side alone has: of A, then of B.

    A spelling or a mark among them is more likely an editor's, or a digital text's, than an
    author's.

    Args:
      least: occurrences; such a character must stand in a twentieth of all texts, too.
    """
    counts = CharacterCounts(strings)
    found = []
    for side in (is_a, ~is_a):
        here, there = counts.counts_NC[side].sum(axis=0), counts.counts_NC[~side].sum(axis=0)
        texts = (counts.counts_NC > 0).sum(axis=0)
        alone = (there == 0) & (here >= least) & (texts >= _LEAST * len(strings))
        order = [k for k in np.argsort(-here, kind="stable") if alone[k]][:top]
        found.append([(counts.characters[k], int(here[k]), int(texts[k])) for k in order])
    return found[0], found[1]


def _joined(codes: np.ndarray, size: int) -> np.ndarray:
    """The codes of every run of `size` characters in one number each; 21 bits hold a character."""
    n = max(0, len(codes) - size + 1)
    keys = np.zeros(n, np.int64)
    for k in range(size):
        keys = (keys << 21) | codes[k : k + n]
    return keys


def _text(key: int, size: int) -> str:
    return "".join(chr((key >> (21 * k)) & 0x1FFFFF) for k in range(size - 1, -1, -1))


def _summed(costs: np.ndarray, size: int) -> np.ndarray:
    """Sums of every run of `size` values."""
    total = np.concatenate([[0.0], np.cumsum(costs)])
    return total[size:] - total[:-size] if len(costs) >= size else np.zeros(0)
