"""Probabilities of each next character, whatever the tokens: a sum over segmentations.

Vieira et al., "From Language Models over Tokens to Language Models over Characters", arXiv
2412.03719. A covering of a text s is a token sequence whose text begins with s and whose text
without the last token does not. P(s) is the sum over all coverings, and P(c | s) = P(sc) / P(s).
Tokens may end within a character: texts are bytes inside.

The search reads a text once from left to right. Of the hypotheses that end at one byte with the
same last token, the `beam` heaviest are followed. The others lend their weight to the heaviest of
them, as if they predicted the next character as it does. A hypothesis with less than `least` of
P(s) is dropped. With a beam of 1 what is lent depends on s alone, and what is dropped
only lowers probabilities. So the results are then probabilities of a proper model, whose bits can
be compared with any other's. With a wider beam, what is lent within a character that is spelt in
bytes depends on `least` of that character's own weight, so the sum over characters is not proven
to be at most 1.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Generator, Iterable, Sequence

import numpy as np

from hlm_jax.analysis.surprisal.adaptive import AdaptiveModel
from hlm_jax.analysis.surprisal.hypotheses import Node, Request, read_all
from hlm_jax.analysis.surprisal.vocabulary import BYTES, Vocabulary
from hlm_jax.errors import UserError
from hlm_jax.language_model import LanguageModel
from hlm_jax.measures.progress import Progress
from hlm_jax.measures.readings import EXPECTED, with_rest
from hlm_jax.measures.rowfile import row_file

BEAM, LEAST = 1, 1e-3


@dataclasses.dataclass(frozen=True)
class CharacterScores:
    """One text, character by character.

    Attributes:
      bits: float64 [chars], -log2 P(character | those before it). Their sum is the cost of the text
        as the beginning of a chapter, like the sum of its tokens' bits.
      neglected: float64 [chars], the fraction of P(s) that is dropped at the character.
      merged: float64 [chars], the fraction of P(s) that is lent to other hypotheses there.
      bound: float64 [chars]: P(s) is at least 2**-bound for the text up to this character, by the
        hypotheses that were followed, each with its own weight. With `beam` so large that nothing
        is merged, P(s) is at most 2**-bound + the sum of neglected * 2**-bound so far.
      rank: int64 [chars], 1 for the likeliest.
      entropy_bits: float64 [chars], of the next character; all that are spelt in bytes are one.
      expected: natural logarithms of the probabilities of the characters of `alphabet`, and of all
        the rest, before every character, float16 [chars, alphabet + 1], in a temporary file.
      top: for every character the likeliest (character, probability) before it is read, in falling
        order; "" is the end of the chapter, "\ufffd" any character that is spelt in bytes.
      read: how many tokens the model read.

    `rank` and `entropy_bits` are empty where distributions were not asked for, `top` likewise;
    `expected` where no alphabet was given.
    """

    bits: np.ndarray
    neglected: np.ndarray
    merged: np.ndarray
    bound: np.ndarray
    rank: np.ndarray
    entropy_bits: np.ndarray
    expected: np.ndarray
    top: list[list[tuple[str, float]]]
    read: int


def character_scores(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    beam: int = BEAM,
    least: float = LEAST,
    distributions: bool = True,
    top: int = 0,
    alphabet: Sequence[str] | None = None,
    adaptive_rate: float | None = None,
    progress: Progress | None = None,
) -> list[CharacterScores]:
    """The scores of every text, each read like a chapter, from its beginning.

    With `adaptive_rate` the model learns from what it has read: it takes an Adam step on every half
    block of new tokens. Texts are then read one after another, which takes several times as long.

    Args:
      texts: taken as they are: clean and convert them first, as the training text was.
      beam: how many hypotheses with the same end and the same last token are followed.
      least: the least fraction of P(s) that a hypothesis is followed for; 0 drops nothing.
      distributions: whether rank, entropy and top are computed as well.
      top: how many of the likeliest characters to list.
      alphabet: characters of the vocabulary for which `expected` is kept.
      adaptive_rate: learning rate of a model that learns; None for one that stays as it is.
      progress: told (characters done, all characters).

    Raises:
      UserError: an empty text, or an impossible number; no room for temporary files.
    """
    if beam < 1:
        raise UserError(f"beam must be at least 1, not {beam}")
    if not 0 <= least < 1 or top < 0:
        raise UserError(f"least must be in [0, 1) and top at least 0, not {least} and {top}")
    for number, text in enumerate(texts, start=1):
        if not text:
            raise UserError(f"text {number} is empty: give at least one character to score")
        model.tokenizer.encode(text)  # refuses what is not Unicode
    vocabulary = Vocabulary(model.tokenizer)
    distributions = distributions or top > 0
    columns = np.array([vocabulary.number[char] for char in alphabet or ()], np.int64)
    ends = np.cumsum([len(text) for text in texts])
    width = 0 if alphabet is None else len(columns) + 1
    table_TV = row_file(ends[-1] if len(ends) else 0, width, EXPECTED)
    searches = [
        _Search(vocabulary, text, beam, least, distributions, top, columns, expected)
        for text, expected in zip(texts, np.split(table_TV, ends[:-1]), strict=False)
    ]
    if adaptive_rate is None:
        read_all(model.model, model.device_params, vocabulary.tokens, searches, progress)
    else:
        learning = AdaptiveModel(model, adaptive_rate)
        total, before = sum(map(len, texts)), 0
        for search in searches:

            def told(done: int, _: int, before: int = before) -> None:
                if progress:
                    progress(before + done, total)

            update = functools.partial(learning.update, search)
            read_all(model.model, learning.params, vocabulary.tokens, [search], told, update)
            learning.finish(search.text)
            before += len(search.text)
    return [search.scores for search in searches]


@dataclasses.dataclass(eq=False, slots=True)
class _Hypothesis:
    """A token sequence whose text is the text up to byte `end`; all its continuations.

    Attributes:
      weight: its fraction of P(s), with what others lent to it.
      own: its fraction of what the followed hypotheses hold themselves.
      node: None until the model read its last token.
    """

    parent: Node | None
    token: int
    end: int
    weight: float
    own: float
    node: Node | None = None


@dataclasses.dataclass(slots=True)
class _Step:
    """The coverings of a text and its next character.

    Attributes:
      still: hypotheses that end before the character and have tokens that go beyond it.
      weight, own: of those tokens.
      new: unread hypotheses that end with the character.
      inside: unread hypotheses that end within it.
      asked: those being read.
      dropped: weight of those that are not followed.
      apart: the fraction of all weight that was not lent.
    """

    still: list[_Hypothesis] = dataclasses.field(default_factory=list)
    new: list[_Hypothesis] = dataclasses.field(default_factory=list)
    inside: list[_Hypothesis] = dataclasses.field(default_factory=list)
    asked: list[_Hypothesis] = dataclasses.field(default_factory=list)
    weight: float = 0.0
    own: float = 0.0
    dropped: float = 0.0
    apart: float = 1.0


class _Search:
    """Reads one text; `scan` asks for nodes and is sent them, so that texts can share calls.

    Attributes:
      size, done: characters in all, and read.
      scores: set when `scan` ends.
    """

    scores: CharacterScores

    def __init__(
        self,
        vocabulary: Vocabulary,
        text: str,
        beam: int,
        least: float,
        distributions: bool,
        top: int,
        columns: np.ndarray,
        expected: np.ndarray,
    ):
        self._vocabulary, self.text = vocabulary, text
        self._beam, self._least, self._distributions, self._top = beam, least, distributions, top
        self._active: list[_Hypothesis] = []
        self._step = _Step()
        self.size, self.done = len(text), 0
        self._columns, self._expected = columns, expected

    def live(self) -> Iterable[Node]:
        """The nodes that may still get children."""
        step = self._step
        for one in (*self._active, *step.still):
            if one.node is not None:
                yield one.node
        for one in (*step.new, *step.inside, *step.asked):
            if one.parent is not None:
                yield one.parent

    def scan(self) -> Generator[list[Request], list[Node], None]:
        """Yields what to read, receives its nodes."""
        n = len(self.text)
        bits, neglected, merged, bound = np.zeros((4, n))
        rank, entropy_bits, top = np.zeros(n, np.int64), np.zeros(n), []
        data, start, log_own, read = self.text.encode(), 0, 0.0, 1
        self._active = [_Hypothesis(None, self._vocabulary.separator, 0, 1.0, 1.0)]
        yield from self._read(self._active)
        for i, char in enumerate(self.text):
            end = start + len(char.encode())
            next_C = np.zeros(0)
            if self._distributions or self._expected.size:
                next_C = self._next_character(data, start)
            if self._expected.size:
                self._expected[i] = with_rest(next_C[self._columns])
            self._step = step = _Step()
            self._cover(self._active, data, start, end)
            while step.inside:
                chosen = self._follow(step.inside, needed=not step.new)
                step.inside = []
                yield from self._read(chosen)
                read += len(chosen)
                self._cover(chosen, data, start, end)
            weight = step.weight + sum(one.weight for one in step.new)
            own = step.own + sum(one.own for one in step.new)
            bits[i], bound[i] = -math.log2(weight), -math.log2(own) - log_own
            kept = self._follow(step.new, needed=True)
            neglected[i], merged[i] = step.dropped / weight, 1 - step.apart
            self._active = [*step.still, *kept]
            log_own += self._scale()
            yield from self._read(kept)
            read += len(kept)
            if self._distributions:
                rank[i], entropy_bits[i] = self._place(next_C, char, 2 ** -bits[i])
                top.append(self._likeliest(next_C))
            start, self.done = end, i + 1
        self._active, self._step = [], _Step()
        if not self._distributions:
            rank, entropy_bits = rank[:0], entropy_bits[:0]
        self.scores = CharacterScores(
            bits, neglected, merged, bound, rank, entropy_bits, self._expected, top, read
        )

    def _read(self, hypotheses: list[_Hypothesis]) -> Generator[list[Request], list[Node], None]:
        if hypotheses:
            self._step.asked = hypotheses
            nodes = yield [(one.parent, one.token) for one in hypotheses]
            for one, node in zip(hypotheses, nodes, strict=True):
                one.node, one.parent = node, None
            self._step.asked = []

    def _cover(self, hypotheses: list[_Hypothesis], data: bytes, start: int, end: int) -> None:
        """Adds what these hypotheses give to the character at data[start:end]."""
        step, tokens, prefixes = self._step, self._vocabulary.tokens, self._vocabulary.prefixes
        for one in hypotheses:
            assert one.node is not None
            p = one.node.p
            for stop in range(max(start, one.end) + 1, end + 1):
                first, equal, after = prefixes.get(data[one.end : stop], (0, 0, 0))
                if first == after:
                    break
                to = step.new if stop == end else step.inside
                for place in range(first, equal):
                    share, token = float(p[place]), int(tokens[place])
                    to.append(
                        _Hypothesis(one.node, token, stop, one.weight * share, one.own * share)
                    )
                if stop == end and equal < after:
                    share = float(p[equal:after].sum(dtype=np.float64))
                    step.weight += one.weight * share
                    step.own += one.own * share
                    step.still.append(one)

    def _follow(self, hypotheses: list[_Hypothesis], *, needed: bool) -> list[_Hypothesis]:
        """Those to read; the others are merged or dropped.

        Args:
          needed: whether one must be kept, however light: the text could not go on without.
        """
        step = self._step
        total = step.weight + sum(one.weight for one in step.new)
        inside = sum(one.weight for one in step.inside)
        least = 0.0 if needed and step.inside else self._least * total
        groups = collections.defaultdict(list)
        for one in sorted(hypotheses, key=lambda one: -one.weight):
            groups[one.end, one.token].append(one)
        kept, lent = list[_Hypothesis](), 0.0
        for first, *others in groups.values():  # the heaviest first
            if first.weight < least and not (needed and not kept):
                step.dropped += first.weight + sum(one.weight for one in others)
                continue
            followed = [one for one in others[: self._beam - 1] if one.weight >= least]
            kept += [first, *followed]
            lent += (weight := sum(one.weight for one in others[len(followed) :]))
            first.weight += weight
        step.apart *= 1 - lent / (total + inside)
        return kept

    def _scale(self) -> float:
        """Makes a sum of 1 of all weights, and of all own ones; log2 of the latter's sum."""
        step, kept = self._step, self._active[len(self._step.still) :]
        weight = step.weight + sum(one.weight for one in kept)
        own = step.own + sum(one.own for one in kept)
        for one in self._active:
            one.weight /= weight
            one.own /= own
        return math.log2(own)

    # --- distributions ---

    def _next_character(self, data: bytes, start: int) -> np.ndarray:
        """float64 [characters]: probabilities of what comes at byte `start`."""
        vocabulary = self._vocabulary
        next_C = np.zeros(len(vocabulary.characters))
        for one in self._active:
            assert one.node is not None
            read = start - one.end
            first, after = 0, len(vocabulary.tokens)
            if read:
                _, first, after = vocabulary.prefixes[data[one.end : start]]
            p = one.node.p[first:after]
            numbers = vocabulary.next_characters(read)[first:after]
            next_C += one.weight * np.bincount(numbers, p, len(next_C))
            if not read:
                next_C[0] += one.weight * max(0.0, 1 - float(p.sum(dtype=np.float64)))
        return next_C

    def _place(self, next_C: np.ndarray, char: str, p: float) -> tuple[int, float]:
        """(rank of a character of probability p, entropy in bits)."""
        above = next_C > p
        above[[self._vocabulary.number[BYTES], self._vocabulary.number.get(char, 1)]] = False
        positive = next_C[next_C > 0]
        return 1 + int(above.sum()), float(-(positive * np.log2(positive)).sum())

    def _likeliest(self, next_C: np.ndarray) -> list[tuple[str, float]]:
        places = np.argsort(-next_C, kind="stable")[: self._top]
        return [(self._vocabulary.characters[place], float(next_C[place])) for place in places]
