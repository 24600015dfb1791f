"""Do two sides come from one edition? Editors choose quotation marks, spellings and punctuation.

A model tells two editions apart at a glance, and nothing is learned about authors. Three tests,
each on the texts of both sides:

- marks: the style of quotation marks; mixed where the sides differ in most of their marks.
- spellings: which one of pairs such as 著 and 着; mixed likewise.
- rates: ；, ： and others per 10,000 characters; mixed where sides dealt anew to the texts (a
  permutation test, p < 0.01 after Holm) hardly ever differ as much, and where the sides also differ
  by a standard deviation and twice as much as the halves of each side do, since punctuation drifts
  inside one book.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hlm_jax.errors import UserError

QUOTES = {"「」": "「」『』", "“”": "“”‘’", '""': '"', "«»": "«»"}
# Of one script or print against another; pairs that authors choose (什 and 甚) are not here.
SPELLINGS = (
    *(("著", "着"), ("里", "裡裏"), ("么", "麽麼"), ("为", "為爲"), ("说", "說説")),
    *(("个", "個箇"), ("来", "來"), ("却", "卻"), ("线", "綫線")),
)
RATES = "；：！？、，。…—·"
_P, _DRAWS = 0.01, 2000
_SHARE = 0.5  # difference of two shares that no author makes
_FEWEST = 20  # occurrences on each side that a share needs


@dataclasses.dataclass(frozen=True)
class Difference:
    """One trait in which the sides look like two editions.

    Attributes:
      a, b: its share, or its rate per 10,000 characters, on each side.
      p: of the permutation test over texts.
    """

    trait: str
    a: float
    b: float
    p: float
    is_rate: bool

    def __str__(self) -> str:
        if self.is_rate:
            return f"{self.trait} {self.a:.1f} and {self.b:.1f} per 10,000 characters"
        return f"{self.trait} {self.a:.0%} and {self.b:.0%}"


def edition_differences(texts: Sequence[str], is_a: np.ndarray) -> list[Difference]:
    """Traits in which the sides differ as editions do; empty for sides of one edition."""
    found = []
    marks = {name: _counts(texts, style) for name, style in QUOTES.items()}
    total = np.sum(list(marks.values()), axis=0)
    for name, count in marks.items():
        found += _share(f"quotation marks {name}", count, total, is_a)
    if not found and (quoted := _quoted(total, texts, is_a)):
        found.append(quoted)
    for first, others in SPELLINGS:
        one, other = _counts(texts, first), _counts(texts, others)
        found += _share(f"{first} for {others[0]}", one, one + other, is_a)
    return found + _rates(texts, is_a)


def refuse(differences: Sequence[Difference]) -> None:
    """Refuses sides of two editions.

    Raises:
      UserError: names up to three traits.
    """
    if differences:
        named = "; ".join(map(str, differences[:3]))
        raise UserError(
            f"the sides look like two editions ({named}): use one edition for both, since a "
            "difference of editors would pass for one of authors; --allow_editions goes on, best "
            "with --mask punctuation"
        )


def _counts(texts: Sequence[str], characters: str) -> np.ndarray:
    return np.array([sum(text.count(c) for c in characters) for text in texts], np.float64)


def _share(trait: str, count: np.ndarray, total: np.ndarray, is_a: np.ndarray) -> list[Difference]:
    """A difference of the shares count / total of both sides, if it is one of editions."""
    if min(total[is_a].sum(), total[~is_a].sum()) < _FEWEST:
        return []
    a, b = (float(count[s].sum() / total[s].sum()) for s in (is_a, ~is_a))
    known = total > 0
    shares = np.divide(count, total, out=np.zeros(len(count)), where=known)
    p = float(_p_values(shares[known, None], is_a[known])[0]) if _two_sided(is_a[known]) else 0.0
    few = min(is_a.sum(), (~is_a).sum()) < 5  # so few texts that no p can be small
    large = abs(a - b) > _SHARE
    return [Difference(trait, a, b, p, False)] if large and (p < _P or few) else []


def _quoted(total: np.ndarray, texts: Sequence[str], is_a: np.ndarray) -> Difference | None:
    """Speech marked on one side alone."""
    chars = np.array([len(text) for text in texts], np.float64)
    a, b = (float(1e4 * total[s].sum() / chars[s].sum()) for s in (is_a, ~is_a))
    if max(a, b) > 50 and min(a, b) < 0.05 * max(a, b):
        return Difference("quotation marks", a, b, 0.0, True)
    return None


def _rates(texts: Sequence[str], is_a: np.ndarray) -> list[Difference]:
    chars = np.array([len(text) for text in texts], np.float64)
    rates = np.stack([1e4 * _counts(texts, mark) / chars for mark in RATES], axis=1)
    p = _p_values(rates, is_a)
    order, reached = np.argsort(p, kind="stable"), 0.0
    found = []
    for rank, k in enumerate(order):  # Holm: the smallest of m times m, the next times m - 1, …
        reached = max(reached, min(1.0, p[k] * (len(p) - rank)))
        column = rates[:, k]
        between = _away(column[is_a], column[~is_a])
        inside = max(
            _away(side[: len(side) // 2], side[len(side) // 2 :]) if len(side) > 3 else 0.0
            for side in (column[is_a], column[~is_a])
        )
        if reached < _P and between > max(1.0, 2 * inside):
            a, b = float(column[is_a].mean()), float(column[~is_a].mean())
            found.append(Difference(RATES[k], a, b, float(p[k]), True))
    return found


def _away(first: np.ndarray, second: np.ndarray) -> float:
    """The difference of two mean rates in standard deviations of at least 1 per 10,000."""
    spread = np.sqrt((first.var() + second.var()) / 2)
    return float(abs(first.mean() - second.mean()) / max(spread, 1.0))


def _two_sided(is_a: np.ndarray) -> bool:
    return bool(is_a.any() and (~is_a).any())


def _p_values(values_NK: np.ndarray, is_a: np.ndarray) -> np.ndarray:
    """How often sides dealt anew differ at least as much in their means, [K]."""
    rng = np.random.default_rng(0)
    dealt = rng.permuted(np.tile(is_a, (_DRAWS, 1)), axis=1)

    def apart(sides: np.ndarray) -> np.ndarray:
        n = sides.sum(axis=1, keepdims=True)
        return np.abs(sides @ values_NK / n - (~sides) @ values_NK / (sides.shape[1] - n))

    observed = apart(is_a[None])
    return (1 + (apart(dealt) >= observed - 1e-12).sum(axis=0)) / (1 + _DRAWS)
