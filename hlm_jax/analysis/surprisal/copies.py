"""How much of each chapter of a book stands word for word in the book's other chapters."""

from collections.abc import Sequence

import numpy as np

from hlm_jax.measures.overlap import suffix_array

_BORDER = "\0"


def copies_within(texts: Sequence[str]) -> list[np.ndarray]:
    """The longest prefix of text[i:] that occurs in another of the texts, for every text and i.

    All suffixes of all texts are sorted (Manber & Myers 1993). Of those from other texts, the two
    nearest in this order to a suffix, one before and one behind it, share most with it. What they
    share is the least of what the neighbours between them share (Kasai et al. 2001). Takes
    O(n log² n) for n characters in all; a copy never crosses the border of two texts.

    Returns:
      An int32 array [chars] for each text; 0 where the character occurs in no other text.
    """
    book = "".join(text.replace(_BORDER, "\ufffe") + _BORDER for text in texts)
    if not book:
        return []
    lengths = [len(text) + 1 for text in texts]
    ends = np.cumsum(lengths)
    order = suffix_array(book)
    owner = np.repeat(np.arange(len(texts)), lengths)[order]  # the text of each suffix, in order
    shared = _shared_with_next(book, order)  # of the suffixes at places k and k + 1 of the order
    before = _nearest_other(owner, np.append(0, shared))
    behind = _nearest_other(owner[::-1], np.append(0, shared[::-1]))[::-1]
    longest = np.empty(len(book), np.int64)
    longest[order] = np.maximum(before, behind)
    longest = np.minimum(longest, np.repeat(ends - 1, lengths) - np.arange(len(book)))
    parts = np.split(longest.astype(np.int32), ends[:-1])
    return [part[:-1] for part in parts]


def _nearest_other(owner: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """What each suffix shares with the last one before it that another text owns, int64 [n].

    Args:
      owner: the text of each suffix, in their order.
      shared: characters that each suffix shares with the one just before it; 0 for the first.
    """
    # Within a run of one owner, the suffix just before the run is the nearest: a running minimum
    # that starts anew with every run. Runs are kept apart by a step that no length reaches.
    step = np.int64(len(owner) + 1)
    run = np.cumsum(np.append(0, owner[1:] != owner[:-1])) * step
    return np.minimum.accumulate(shared - run) + run


def _shared_with_next(book: str, order: np.ndarray) -> np.ndarray:
    """Common prefix of every two neighbours in the order of suffixes, int64 [n - 1].

    Borders end a prefix. In the order of the book itself, each is at most one character shorter
    than that of the suffix before (Kasai et al. 2001).
    """
    n = len(book)
    follower = np.full(n, n, np.int64)  # the suffix just behind each in the order
    follower[order[:-1]] = order[1:]
    lengths, length = [0] * n, 0
    for here, there in enumerate(follower.tolist()):
        length = length - 1 if length > 0 else 0
        if there == n:
            length = 0
            continue
        limit = n - max(here, there)
        while (
            length < limit
            and (char := book[here + length]) == book[there + length]
            and char != _BORDER
        ):
            length += 1
        lengths[here] = length
    return np.array(lengths, np.int64)[order[:-1]]
