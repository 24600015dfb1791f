"""A SentencePiece BPE tokenizer of one book: training, encoding, offsets, a fingerprint, and vocab.json + merges.txt.

Every Unicode string survives encode -> decode: what has no piece becomes UTF-8 byte pieces. Knows nothing of JAX or of
training windows.
"""

import functools
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import sentencepiece

from hlm_jax.errors import UserError

SEPARATOR = "<|chapter|>"  # starts every chapter; a control piece, so that no text can encode to it
# “ and ” stand alone: a prompt that ends in 道： then ends where training text does, and speech is marked by a token.
USER_DEFINED = ("\n", "“", "”")
_ESCAPED = (
    "▁"  # SentencePiece's own sign for a space: spelled in bytes, lest it come back as a space
)

# UTF-8 as a finite automaton (RFC 3629, section 4): for every state the bytes that may follow, first to last, and the state
# after them. State 0 stands between two characters; 1, 2 and 3 await as many more bytes; the others narrow the second byte.
_UTF8 = (
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


class TokenizerError(UserError):
    """A vocabulary that the text cannot fill, a damaged model file or text that is not Unicode."""


def train_tokenizer(texts, *, vocab_size: int, character_coverage: float) -> "Tokenizer":
    """Trains BPE on `texts`; the same texts and options give the same model, byte for byte.

    Args:
      texts: iterable of str, training chapters only.
      vocab_size: pieces in all, 256 bytes and the special pieces included.
      character_coverage: share of the running text whose characters get a piece of their own; the rest is spelled in bytes.

    Raises:
      TokenizerError: the text is too small for the vocabulary.
    """
    paragraphs = [line for text in texts for line in text.replace(_ESCAPED, "").split("\n") if line]
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
            required_chars=_ESCAPED,  # a space has a piece of its own even where the book has none
            user_defined_symbols=list(USER_DEFINED),
            unk_id=0,
            bos_id=1,
            bos_piece=SEPARATOR,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=1 << 24,  # the default drops long paragraphs without a word
            num_threads=1,  # the order of threads would decide ties
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise TokenizerError(_advice(str(error), vocab_size, paragraphs)) from None
    return Tokenizer(model.getvalue())


def _advice(message: str, vocab_size: int, paragraphs: list[str]) -> str:
    distinct = len({char for paragraph in paragraphs for char in paragraph})
    if fits := re.search(r"to a value <= (\d+)", message):
        advice = f"set --config.model.vocab_size={fits[1]} or less, or use a longer text"
        return f"a vocabulary of {vocab_size} is too large for this text: {advice}"
    if (
        "too small" in message
        or "required_chars" in message
        or "Vocabulary size is smaller" in message
    ):
        return (
            f"a vocabulary of {vocab_size} is too small for {distinct} distinct characters and 256 bytes: "
            "raise --config.model.vocab_size or lower --config.tokenizer.character_coverage"
        )
    return f"SentencePiece could not train {vocab_size} pieces on this text ({message.strip().splitlines()[-1][:160]})"


class Tokenizer:
    """Text <-> token ids. `separator_id` starts a chapter; `fingerprint` is the sha256 of the model file."""

    def __init__(self, model: bytes):
        self._model = model
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise TokenizerError(
                "not a SentencePiece model; delete the file so that it is trained again"
            ) from error
        self.vocab_size = self._sp.get_piece_size()
        self.separator_id = self._sp.bos_id()
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self._byte_ids = {
            i: int(self.piece(i)[3:5], 16) for i in range(self.vocab_size) if self._sp.is_byte(i)
        }
        self._id_of_byte = {byte: i for i, byte in self._byte_ids.items()}

    @classmethod
    def load(cls, path) -> "Tokenizer":
        """Reads a .model file."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise TokenizerError(f"{path}: cannot be read ({error.strerror})") from error

    def save(self, folder) -> None:
        """Writes tokenizer.model, vocab.json and merges.txt into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(self._model)
        vocab, merges = self.vocab_and_merges()
        (folder / "vocab.json").write_text(
            json.dumps(vocab, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (folder / "merges.txt").write_text(
            "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8"
        )

    @property
    def model_bytes(self) -> bytes:
        """The serialized SentencePiece model."""
        return self._model

    def piece(self, token: int) -> str:
        """The piece as SentencePiece spells it (a space is ▁, a byte is <0x0A>)."""
        return self._sp.id_to_piece(token)

    def encode(self, text: str) -> list[int]:
        """Token ids of any Unicode string; decode gives it back exactly.

        Raises:
          TokenizerError: the string holds a lone surrogate, which is not Unicode text.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"character {error.start} of the text is half of a surrogate pair, not Unicode text"
            ) from None
        encoded_sign = [self._id_of_byte[byte] for byte in _ESCAPED.encode()]
        first, *parts = text.split(_ESCAPED)
        ids = self._sp.encode(first)
        for part in parts:
            ids += encoded_sign + self._sp.encode(part)
        return ids

    def decode(self, ids) -> str:
        """Text of token ids; bytes that are not UTF-8 become �, separators nothing."""
        return b"".join(map(self._bytes_of, ids)).decode("utf-8", errors="replace")

    def bytes_per_token(self, ids) -> list[int]:
        """UTF-8 length of every token, so that token positions can be turned into character offsets."""
        return [len(self._bytes_of(i)) for i in ids]

    def char_offsets(self, ids) -> list[tuple[int, int]]:
        """(start, end) in characters of decode(ids) for every token; the bytes of one character share its span."""
        data = b"".join(map(self._bytes_of, ids))
        # first[b]: index of the character that byte b belongs to (UTF-8 continuation bytes are 10xxxxxx).
        first, char = [], -1
        for byte in data:
            char += (byte & 0xC0) != 0x80
            first.append(char)
        spans, position = [], 0
        for length in self.bytes_per_token(ids):
            if length:
                spans.append((first[position], first[position + length - 1] + 1))
            else:
                at = first[position] if position < len(first) else char + 1
                spans.append((at, at))
            position += length
        return spans

    def _bytes_of(self, token: int) -> bytes:
        return self._token_bytes[int(token)]

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        table = []
        for i in range(self.vocab_size):
            if i in self._byte_ids:
                table.append(bytes([self._byte_ids[i]]))
            elif self._sp.is_control(i) or self._sp.is_unknown(i):
                table.append(b"")
            else:
                table.append(self.piece(i).replace(_ESCAPED, " ").encode())
        return table

    @functools.cached_property
    def utf8_automaton(self) -> tuple[np.ndarray, np.ndarray]:
        """Which tokens keep a text valid UTF-8 in every state, bool [8, V], and the state after each of them, int32 [8, V].

        State 0 stands between two characters: there any piece may follow, but of the bytes only those that begin one.
        """
        allowed, after = (
            np.zeros((len(_UTF8), self.vocab_size), bool),
            np.zeros((len(_UTF8), self.vocab_size), np.int32),
        )
        allowed[0] = True
        allowed[0, list(self._byte_ids)] = False
        for state, ranges in enumerate(_UTF8):
            for first, last, next_state in ranges:
                ids = [self._id_of_byte[byte] for byte in range(first, last + 1)]
                allowed[state, ids], after[state, ids] = True, next_state
        return allowed, after

    def vocab_and_merges(self) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """The BPE in the form of Hugging Face: piece -> id, and merges in order of application.

        SentencePiece keeps scores, not merges: a piece can be built by every split into two pieces, and among the pairs
        present in a text the one whose result has the best score (the lowest id) is merged first.
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


def to_tokenizers(folder):
    """The `tokenizers` library's BPE of a folder's vocab.json and merges.txt: the same ids as `Tokenizer.encode`.

    Needs the extra [export]. Differs only on a literal ▁ and on text that spells a special piece such as <|chapter|>.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers

    folder = Path(folder)
    vocab, merges = models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    bpe = tokenizers.Tokenizer(
        models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    bpe.normalizer = normalizers.Replace(" ", _ESCAPED)
    bpe.decoder = decoders.Sequence(
        [decoders.Replace(_ESCAPED, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bpe.add_tokens([tokenizers.AddedToken(symbol, normalized=False) for symbol in USER_DEFINED])
    return bpe


class StreamDecoder:
    """Turns tokens into text as they arrive, holding back bytes until a character is whole; one that never is stays back."""

    def __init__(self, tokenizer: Tokenizer):
        import codecs

        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids) -> str:
        """The text that `ids` completes."""
        return self._decoder.decode(b"".join(map(self._tokenizer._bytes_of, ids)))
