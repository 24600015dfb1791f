"""The tokenizer of another model: a tokenizer.json, used as it is through the library `tokenizers`.

Two kinds give every text back. Byte-level ones, such as GPT-2's and Qwen's, write each byte as one
character of an alphabet of 256. Those with byte fallback, such as Llama's and this project's own
export, write a character without a token as tokens of its bytes, and a space as ▁. All others are
refused when they are opened. What a tokenizer alters in one text (Qwen's normalises to NFC) is
refused when that text is encoded.
"""

import functools
import json
from pathlib import Path
from typing import Any

from hlm_jax.book.tokenizer import ESCAPED, BaseTokenizer, TokenizerError, require_unicode
from hlm_jax.book.tokenizer_json import TOKENIZER, TokenizerJson

SETTINGS, CONFIG = "tokenizer_config.json", "config.json"
DEFAULT_SEPARATOR = "<|endoftext|>"
_SIZE = "model_vocab_size"  # in the settings that `save` writes; transformers has no such key


class HFTokenizer(BaseTokenizer):
    """A tokenizer.json and the token that starts a chapter.

    Attributes:
      tokenizer_json: the file as it was.
      separator: the name of the token that starts a chapter.

    Args:
      data: the content of tokenizer.json.
      separator: None for <|endoftext|>.
      vocab_size: tokens of the model, whose last rows may be padding; None for the tokenizer's.

    Raises:
      TokenizerError: it is not read here and why, or the library is missing.
    """

    format = "huggingface"

    def __init__(self, data: bytes, *, separator: str | None, vocab_size: int | None = None):
        self._content = TokenizerJson(data)
        self.tokenizer_json, self.separator = data, separator or DEFAULT_SEPARATOR
        vocabulary = self._content.vocabulary
        if self.separator not in vocabulary:
            raise TokenizerError(
                f"{TOKENIZER} has no token {self.separator}"
                + ("" if separator else ", and no bos_token or eos_token that may start a chapter")
            )
        own_size = 1 + max(vocabulary.values())
        self.vocab_size = own_size if vocab_size is None else vocab_size
        if own_size > self.vocab_size:
            raise TokenizerError(
                f"{TOKENIZER} has {own_size} tokens and the model {self.vocab_size}: "
                "they do not belong together"
            )
        self.separator_id = vocabulary[self.separator]
        self._content.make_special(self.separator)
        record = {
            "tokenizer_json": data.decode(),
            "separator": self.separator,
            "vocab_size": self.vocab_size,
        }
        super().__init__(json.dumps(record, ensure_ascii=False).encode())

    @classmethod
    def from_model_bytes(cls, data: bytes) -> "HFTokenizer":
        """The inverse of `model_bytes`.

        Raises:
          TokenizerError: it was altered, or the library is missing.
        """
        try:
            record = json.loads(data)
            text, separator = record["tokenizer_json"].encode(), record["separator"]
            vocab_size = record["vocab_size"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TokenizerError("not a stored tokenizer of the format huggingface") from error
        return cls(text, separator=separator, vocab_size=vocab_size)

    @classmethod
    def load(cls, folder: str | Path, *, vocab_size: int | None = None) -> "HFTokenizer":
        """Opens a folder that holds tokenizer.json.

        A chapter starts with the bos_token of tokenizer_config.json or config.json, else with the
        eos_token, else with <|endoftext|>.

        Raises:
          TokenizerError: no tokenizer.json, or one that is not read here.
        """
        folder = Path(folder)
        try:
            data = (folder / TOKENIZER).read_bytes()
        except OSError as error:
            raise TokenizerError(
                f"{TOKENIZER} cannot be read ({error.strerror}); where there are only other files "
                'of a tokenizer, make it: python -c "from transformers import AutoTokenizer as '
                f"Tokenizer; Tokenizer.from_pretrained('{folder}').save_pretrained('{folder}')\""
            ) from error
        settings, config = (_object_in(folder / name) for name in (SETTINGS, CONFIG))
        if vocab_size is None:
            vocab_size = settings.get(_SIZE)
        separator = TokenizerJson(data).separator(settings, config)
        return cls(data, separator=separator, vocab_size=vocab_size)

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which `load` opens again."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER).write_bytes(self.tokenizer_json)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.separator,
            "clean_up_tokenization_spaces": False,
            _SIZE: self.vocab_size,
        }
        text = json.dumps(settings, ensure_ascii=False, indent=2) + "\n"
        (folder / SETTINGS).write_text(text, encoding="utf-8")

    def piece(self, token: int) -> str:
        """The token as its library writes it; bytes that are no text as <0xE5><0x8D>."""
        data = self.token_bytes(token)
        try:
            data.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in data)
        return self._content.opened.id_to_token(int(token)) or f"<padding {token}>"

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, in which the names of special tokens are ordinary text.

        Raises:
          TokenizerError: the string is not Unicode text, or the tokenizer would alter it; the first
            character that it alters is named.
        """
        require_unicode(text)
        # A literal ▁ would come back as a space where ▁ stands for one.
        first, *parts = text.split(ESCAPED) if self._content.escapes else [text]
        ids = self._encoded(first)
        for part in parts:
            ids += [self._content.byte_token(byte) for byte in ESCAPED.encode()]
            ids += self._encoded(part)
        if b"".join(map(self.token_bytes, ids)) != text.encode():
            raise TokenizerError(self._difference(text, self.decode(ids)))
        return ids

    def _encoded(self, text: str) -> list[int]:
        return list(self._content.opened.encode(text, add_special_tokens=False).ids)

    def _difference(self, text: str, back: str) -> str:
        """Names the first character that an encoded text does not give back."""
        pairs = enumerate(zip(text, back, strict=False))
        shorter = min(len(text), len(back))
        place = next((i for i, (before, after) in pairs if before != after), shorter)
        reason = ", as it normalises texts to NFC" if self._content.normalises else ""
        return (
            f"the tokenizer does not give the text back: character {place}, {_named(text, place)}, "
            f"becomes {_named(back, place)}{reason}; mend the text there, or start from a model "
            "with another tokenizer"
        )

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        table = self._content.token_bytes() | {self.separator_id: None}
        return [table.get(token) or b"" for token in range(self.vocab_size)]

    @functools.cached_property
    def _never_written(self) -> list[int]:
        """Padding and special tokens, except the separator."""
        empty = (token for token, data in enumerate(self._token_bytes) if not data)
        return [token for token in empty if token != self.separator_id]


def _named(text: str, place: int) -> str:
    return f"{text[place]} (U+{ord(text[place]):04X})" if place < len(text) else "nothing"


def _object_in(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} where there is no file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path} is not readable JSON: download it again") from error
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} holds no JSON object: download it again")
    return found
