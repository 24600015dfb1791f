"""The characters that the tokens of a vocabulary write, found by their bytes."""

import numpy as np

from hlm_jax.book.tokenizer import BaseTokenizer

END, BYTES = "", "\ufffd"  # what is no character of the vocabulary: the end, one spelt in bytes


class Vocabulary:
    """A tokenizer's tokens in the order of their bytes: those with one prefix stand together.

    Attributes:
      separator: the id of the token before a text.
      tokens: int32 [C], ids; tokens without bytes are left out.
      prefixes: {bytes: (first, after equal, after)}: the tokens that begin with these bytes, the
        equal ones first.
      characters: what may come next: END, BYTES and the characters of the tokens.
    """

    def __init__(self, tokenizer: BaseTokenizer):
        data = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        order = sorted((text, token) for token, text in enumerate(data) if text)
        self.separator = tokenizer.separator_id
        self.tokens = np.array([token for _, token in order], np.int32)
        self._data = [text for text, _ in order]
        self.prefixes: dict[bytes, tuple[int, int, int]] = {}
        for place, text in enumerate(self._data):
            for end in range(1, len(text) + 1):
                first, equal, _ = self.prefixes.get(text[:end], (place, place, place))
                equal = place + 1 if end == len(text) else equal
                self.prefixes[text[:end]] = first, equal, place + 1
        whole = {char for text in self._data for char in text.decode(errors="ignore")}
        self.characters = [END, BYTES, *sorted(whole)]
        self.number = {char: number for number, char in enumerate(self.characters)}
        self._next: dict[int, np.ndarray] = {}

    def next_characters(self, read: int) -> np.ndarray:
        """int64 [C]: the number of the character after the first `read` bytes of every token."""
        if read not in self._next:
            self._next[read] = np.array([self._first(text[read:]) for text in self._data])
        return self._next[read]

    def _first(self, rest: bytes) -> int:
        if not rest:
            return self.number[END]
        char = rest[:4].decode(errors="ignore")[:1]
        return self.number[char if char and rest.startswith(char.encode()) else BYTES]
