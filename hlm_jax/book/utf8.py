"""UTF-8 as a finite automaton over tokens, and the decoding of tokens that arrive one by one."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

# RFC 3629, section 4: for every state the bytes that may follow (first, last, state after them).
# State 0 lies between two characters. States 1, 2 and 3 expect as many more bytes.
# States 4 to 7 restrict the second byte of a character.
_STATES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    (
        (0x00, 0x7F, 0),
        (0xC2, 0xDF, 1),
        (0xE0, 0xE0, 4),
        (0xE1, 0xEC, 2),
        (0xED, 0xED, 5),
        (0xEE, 0xEF, 2),
        (0xF0, 0xF0, 6),
        (0xF1, 0xF3, 3),
        (0xF4, 0xF4, 7),
    ),
    ((0x80, 0xBF, 0),),
    ((0x80, 0xBF, 1),),
    ((0x80, 0xBF, 2),),
    ((0xA0, 0xBF, 1),),
    ((0x80, 0x9F, 1),),
    ((0x90, 0xBF, 2),),
    ((0x80, 0x8F, 2),),
)


def token_automaton(token_bytes: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens keep a text valid UTF-8, and where they lead.

    A text is whole characters exactly where the state is 0. A token without bytes, such as the
    chapter separator, may only follow a whole character.

    Args:
      token_bytes: the bytes of every token, V of them.

    Returns:
      (allowed_AV, after_AV): bool and int32 [A, V]; the state after token v in state a.
    """
    # step[a][byte]: the state after a byte, -1 where UTF-8 does not allow it.
    step = np.full((len(_STATES), 256), -1, np.int32)
    for state, ranges in enumerate(_STATES):
        for first, last, next_state in ranges:
            step[state, first : last + 1] = next_state
    table = step.tolist()
    allowed_AV = np.zeros((len(_STATES), len(token_bytes)), bool)
    after_AV = np.zeros((len(_STATES), len(token_bytes)), np.int32)
    for start in range(len(_STATES)):
        for token, data in enumerate(token_bytes):
            state = start if data or start == 0 else -1
            for byte in data:
                state = table[state][byte]
                if state < 0:
                    break
            if state >= 0:
                allowed_AV[start, token], after_AV[start, token] = True, state
    return allowed_AV, after_AV


class _HasBytes(Protocol):
    def token_bytes(self, token: int) -> bytes: ...


class StreamDecoder:
    """Decodes tokens as they arrive.

    Bytes are buffered until they form a character; an incomplete one at the end is dropped.
    """

    def __init__(self, tokenizer: _HasBytes):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that `ids` complete."""
        return self._decoder.decode(b"".join(map(self._tokenizer.token_bytes, ids)))
