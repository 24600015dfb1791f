"""A SentencePiece BPE tokenizer of one book: training, encoding, offsets, fingerprint, files.

Every Unicode string survives encode -> decode: a character without a token of its own becomes
UTF-8 byte tokens. `BaseTokenizer` is what all tokenizers share, that of book/hf_tokenizer.py too.
Knows nothing of JAX or of training windows.
"""

import abc
import functools
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import sentencepiece

from hlm_jax.book.utf8 import token_automaton
from hlm_jax.errors import UserError

SEPARATOR = "<|chapter|>"  # starts every chapter; a control token, so no text encodes to it
# “ and ” are tokens of their own: a prompt that ends in 道： then ends at the border of two tokens,
# as training text does before a speech.
USER_DEFINED = ("\n", "“", "”")
_FITS = re.compile(r"to a value <= (\d+)")  # in SentencePiece's message
# SentencePiece's own sign for a space. In a text it is encoded as bytes, or it would come back as a
# space.
ESCAPED = "▁"


class TokenizerError(UserError):
    """A vocabulary that the text cannot fill, a damaged model file or text that is not Unicode.

    Attributes:
      largest: the largest vocabulary that the text fills, where the one asked for was too large.
    """

    largest: int | None = None


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, character_coverage: float
) -> "Tokenizer":
    """Trains BPE on `texts`; the same texts and options give the same model, byte for byte.

    Args:
      texts: training chapters only.
      vocab_size: tokens in all, 256 bytes and the special tokens included.
      character_coverage: fraction of the running text whose characters get a token of their own;
        the rest is encoded as bytes.

    Raises:
      TokenizerError: the text is too small for the vocabulary.
    """
    paragraphs = [line for text in texts for line in text.replace(ESCAPED, "").split("\n") if line]
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(paragraphs),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            normalization_rule_name="identity",  # the default rewrites ，：！？ to ASCII
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=False,
            split_by_number=False,
            required_chars=ESCAPED,  # a space has a token of its own even where the book has none
            user_defined_symbols=list(USER_DEFINED),
            unk_id=0,
            bos_id=1,
            bos_piece=SEPARATOR,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=1 << 24,  # the default drops long paragraphs silently
            num_threads=1,  # with more, the order of threads would decide ties
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        problem = TokenizerError(_advice(str(error), vocab_size, paragraphs))
        if fits := _FITS.search(str(error)):
            problem.largest = int(fits[1])
        raise problem from None
    return Tokenizer(model.getvalue())


def _advice(message: str, vocab_size: int, paragraphs: list[str]) -> str:
    distinct = len({char for paragraph in paragraphs for char in paragraph})
    if fits := _FITS.search(message):
        advice = f"set --config.model.vocab_size={fits[1]} or less, or use a longer text"
        return f"a vocabulary of {vocab_size} is too large for this text: {advice}"
    if (
        "too small" in message
        or "required_chars" in message
        or "Vocabulary size is smaller" in message
    ):
        return (
            f"a vocabulary of {vocab_size} is too small for {distinct} distinct characters and "
            "256 bytes: raise --config.model.vocab_size or lower "
            "--config.tokenizer.character_coverage"
        )
    reason = (message.strip().splitlines() or ["no reason given"])[-1][:160]
    return (
        f"SentencePiece could not train {vocab_size} tokens on this text ({reason}): "
        "try a longer text or another --config.model.vocab_size"
    )


class BaseTokenizer(abc.ABC):
    """Text <-> token ids, where every token adds the same bytes to every text.

    Attributes:
      format: how `model_bytes` is read: "sentencepiece" or "huggingface".
      vocab_size: number of tokens.
      separator_id: the token that starts a chapter.
      model_bytes: the serialized tokenizer, enough to open it again.
      fingerprint: sha256 of `model_bytes`.
    """

    format: ClassVar[str]
    vocab_size: int
    separator_id: int

    def __init__(self, model_bytes: bytes):
        self.model_bytes = model_bytes
        self.fingerprint = hashlib.sha256(model_bytes).hexdigest()

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text; decode gives it back exactly.

        Raises:
          TokenizerError: the tokenizer cannot write this text.
        """

    @abc.abstractmethod
    def piece(self, token: int) -> str:
        """The token as its library writes it."""

    @abc.abstractmethod
    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer's files into `folder`."""

    @functools.cached_property
    @abc.abstractmethod
    def _token_bytes(self) -> Sequence[bytes]:
        """What `token_bytes` gives, of all tokens."""

    @property
    def _never_written(self) -> Sequence[int]:
        """Tokens that no text may hold: `utf8_automaton` never allows them."""
        return ()

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; bytes that are not UTF-8 become �, separators nothing."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def bytes_per_token(self, ids: Iterable[int]) -> list[int]:
        """Number of UTF-8 bytes of every token."""
        return [len(self.token_bytes(i)) for i in ids]

    def char_offsets(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """(start, end) in characters of decode(ids) for every token.

        Tokens that are bytes of one character share its span. A separator has an empty span.
        """
        ids = list(ids)
        data = b"".join(map(self.token_bytes, ids))
        # first[b]: index of the character of byte b (UTF-8 continuation bytes are 10xxxxxx).
        first: list[int] = []
        char = -1
        for byte in data:
            char += (byte & 0xC0) != 0x80
            first.append(char)
        spans: list[tuple[int, int]] = []
        position = 0
        for length in self.bytes_per_token(ids):
            if length:
                spans.append((first[position], first[position + length - 1] + 1))
            else:
                at = first[position] if position < len(first) else char + 1
                spans.append((at, at))
            position += length
        return spans

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that a token adds to a text; none for a separator."""
        return self._token_bytes[int(token)]

    @functools.cached_property
    def utf8_automaton(self) -> tuple[np.ndarray, np.ndarray]:
        """(allowed_AV, after_AV) of utf8.token_automaton, for this vocabulary."""
        allowed_AV, after_AV = token_automaton(self._token_bytes)
        allowed_AV[:, list(self._never_written)] = False
        return allowed_AV, after_AV


def require_unicode(text: str) -> None:
    """Raises a TokenizerError where a string holds a lone surrogate, which is not Unicode text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"character {error.start} of the text is half of a surrogate pair, "
            "not Unicode text: save the text as UTF-8 anew"
        ) from None


class Tokenizer(BaseTokenizer):
    """A SentencePiece model; `model_bytes` is its .model file."""

    format = "sentencepiece"

    def __init__(self, model: bytes):
        super().__init__(model)
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise TokenizerError(
                "not a SentencePiece model; delete the file so that it is trained again"
            ) from error
        self.vocab_size: int = self._sp.get_piece_size()
        self.separator_id: int = self._sp.bos_id()
        # SentencePiece's name of a byte token is <0x0A>.
        byte_ids = [i for i in range(self.vocab_size) if self._sp.is_byte(i)]
        self._byte_of_id = {i: int(self.piece(i)[3:5], 16) for i in byte_ids}
        self._id_of_byte = {byte: i for i, byte in self._byte_of_id.items()}

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Reads a .model file.

        Raises:
          TokenizerError: it cannot be read or is not a SentencePiece model.
        """
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise TokenizerError(f"{path}: cannot be read ({error.strerror})") from error

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.model, vocab.json and merges.txt into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(self.model_bytes)
        vocab, merges = self.vocab_and_merges()
        (folder / "vocab.json").write_text(
            json.dumps(vocab, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (folder / "merges.txt").write_text(
            "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8"
        )

    def piece(self, token: int) -> str:
        """The token as SentencePiece writes it (a space is ▁, a byte is <0x0A>)."""
        return self._sp.id_to_piece(token)

    def encode(self, text: str) -> list[int]:
        """Token ids of any Unicode string; decode gives it back exactly.

        Raises:
          TokenizerError: the string holds a lone surrogate, which is not Unicode text.
        """
        require_unicode(text)
        encoded_sign = [self._id_of_byte[byte] for byte in ESCAPED.encode()]
        first, *parts = text.split(ESCAPED)
        ids = self._sp.encode(first)
        for part in parts:
            ids += encoded_sign + self._sp.encode(part)
        return ids

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        table = []
        for i in range(self.vocab_size):
            if i in self._byte_of_id:
                table.append(bytes([self._byte_of_id[i]]))
            elif self._sp.is_control(i) or self._sp.is_unknown(i):
                table.append(b"")
            else:
                table.append(self.piece(i).replace(ESCAPED, " ").encode())
        return table

    def vocab_and_merges(self) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """The BPE in the form of Hugging Face: token -> id, and merges in order of application.

        SentencePiece keeps scores, not merges. A token can be built from every split into two
        tokens. Among the pairs present in a text the one whose result has the best score (the
        lowest id) is merged first.
        """
        vocab = {self.piece(i): i for i in range(self.vocab_size)}
        whole = {
            p: i
            for p, i in vocab.items()
            if not (self._sp.is_byte(i) or self._sp.is_control(i) or self._sp.is_unknown(i))
        }
        mergeable = {p: i for p, i in whole.items() if p not in USER_DEFINED}
        merges = []
        for piece, i in mergeable.items():
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in mergeable and right in mergeable:
                    merges.append(
                        (-self._sp.get_score(i), mergeable[left], mergeable[right], left, right)
                    )
        return vocab, [(left, right) for *_, left, right in sorted(merges)]
