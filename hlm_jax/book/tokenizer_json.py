"""What a tokenizer.json says: its tokens, their bytes, and whether texts come back as they were.

The format is that of the library `tokenizers`, which opens the file. It is looked at as the library
writes it again: complete, and in today's form whatever version wrote it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hlm_jax.book.tokenizer import ESCAPED, TokenizerError

TOKENIZER = "tokenizer.json"
# What a normalizer of this type does to a text, where it cannot be taken back.
_ALTERS = {
    "Lowercase": "writes everything in lower case",
    "NFD": "takes characters apart (NFD)",
    "NFKD": "rewrites characters (NFKD)",
    "NFKC": "rewrites characters (NFKC), ， to a comma for example",
    "Precompiled": "rewrites characters by a table of SentencePiece",
    "StripAccents": "removes accents",
    "Strip": "removes spaces at the ends",
    "BertNormalizer": "cleans texts as BERT does",
    "Prepend": "puts something before every text (a dummy prefix)",
}
_KEEPS = ("Digits", "UnicodeScripts", "FixedLength")  # pre-tokenizers that only cut
# UTF-8 never holds these bytes (RFC 3629).
_NOT_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


def _alphabet() -> dict[int, str]:
    """The character that GPT-2 writes for each byte: itself where it is visible, else a later one.

    `bytes_to_unicode` of the code of Radford et al. 2019.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    later = {byte: chr(0x100 + number) for number, byte in enumerate(hidden)}
    return {byte: chr(byte) for byte in visible} | later


_ALPHABET = _alphabet()
_BYTE_OF = {char: byte for byte, char in _ALPHABET.items()}


class TokenizerJson:
    """The content of a tokenizer.json that gives every text back, apart from NFC.

    Attributes:
      opened: the `tokenizers.Tokenizer`.
      vocabulary: token -> id, added tokens included.
      normalises: whether texts are brought to Unicode's form NFC.
      escapes: whether ▁ stands for a space.

    Raises:
      TokenizerError: it is none or not read here, and why, or the library is missing.
    """

    def __init__(self, data: bytes):
        self.opened = _opened(data)
        self._spec: dict[str, Any] = json.loads(self.opened.to_str())
        model, added = self._spec["model"], self._spec["added_tokens"]
        if reason := _alters(self._spec):
            raise TokenizerError(f"{TOKENIZER} cannot be used: {reason}")
        vocab = model["vocab"]
        if isinstance(vocab, list):  # Unigram: pairs of a token and its score
            vocab = {token: number for number, (token, _) in enumerate(vocab)}
        self.vocabulary: dict[str, int] = vocab | {one["content"]: one["id"] for one in added}
        normalizers, cutters = (list(_parts(self._spec[name])) for name in _STAGES)
        self.normalises = any(part["type"] == "NFC" for part in normalizers)
        self.escapes = any(
            part["type"] == "Metaspace" or part.get("content") == ESCAPED
            for part in (*normalizers, *cutters)
        )
        self._byte_level = _is_byte_level(self._spec)
        self._refuse_lacking_bytes()

    def byte_token(self, byte: int) -> int:
        """The id of the token that is this byte alone."""
        return self.vocabulary[self._byte_name(byte)]

    def token_bytes(self) -> dict[int, bytes | None]:
        """The bytes that a token adds to a text, by its id; None for one that is no text."""
        added = {one["content"] for one in self._spec["added_tokens"]}
        special = {one["content"] for one in self._spec["added_tokens"] if one["special"]}
        model = self._spec["model"]
        unknown = model.get("unk_token")
        if model.get("unk_id") is not None:  # Unigram
            unknown = model["vocab"][model["unk_id"]][0]
        bytes_named = {self._byte_name(byte): bytes([byte]) for byte in range(256)}
        space = " " if self.escapes else ESCAPED
        table: dict[int, bytes | None] = {}
        for name, token in self.vocabulary.items():
            if name in special or name == unknown:
                table[token] = None
            elif name in added:
                table[token] = name.replace(ESCAPED, space).encode()
            elif name in bytes_named:
                table[token] = bytes_named[name]
            elif self._byte_level:
                known = all(char in _BYTE_OF for char in name)
                table[token] = bytes(_BYTE_OF[char] for char in name) if known else None
            else:
                table[token] = name.replace(ESCAPED, space).encode()
        return table

    def separator(self, settings: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
        """The token that starts a chapter: the first one that exists of bos_token and eos_token.

        Args:
          settings: of tokenizer_config.json.
          config: of config.json, which may give ids instead.
        """
        name_of = {token: name for name, token in self.vocabulary.items()}
        for role in ("bos_token", "eos_token"):
            named, number = settings.get(role), config.get(f"{role}_id")
            named = named.get("content") if isinstance(named, dict) else named
            number = number[0] if isinstance(number, list) and number else number
            by_number = name_of.get(number) if isinstance(number, int) else None
            for name in (named, config.get(role), by_number):
                if isinstance(name, str) and name in self.vocabulary:
                    return name
        return None

    def make_special(self, name: str) -> None:
        """Makes the library take the name of this token in a text as ordinary text."""
        for one in self._spec["added_tokens"]:
            if one["content"] == name and not one["special"]:
                one["special"] = True
                self.opened = _opened(json.dumps(self._spec).encode())

    def _byte_name(self, byte: int) -> str:
        return _ALPHABET[byte] if self._byte_level else f"<0x{byte:02X}>"

    def _refuse_lacking_bytes(self) -> None:
        needed = (byte for byte in range(256) if byte not in _NOT_UTF8)
        lacking = [byte for byte in needed if self._byte_name(byte) not in self.vocabulary]
        if lacking:
            raise TokenizerError(
                f"{TOKENIZER} cannot be used: it has no token for the byte 0x{lacking[0]:02X} "
                f"({len(lacking)} bytes lack one), so some texts would be lost"
            )


_STAGES = ("normalizer", "pre_tokenizer")


def _opened(data: bytes) -> Any:
    """The library's tokenizer; it takes the names of special tokens in a text as text."""
    try:
        import tokenizers
    except ImportError:
        raise TokenizerError(
            "a tokenizer.json needs the package tokenizers: EXTRAS=export bash "
            "scripts/environment.sh"
        ) from None
    try:
        library = tokenizers.Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises bare exceptions
        reason = (str(error).strip() or repr(error)).splitlines()[0][:160]
        raise TokenizerError(f"{TOKENIZER} cannot be opened ({reason})") from error
    library.encode_special_tokens = True
    library.no_truncation()
    library.no_padding()
    return library


def _parts(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The single normalizers or pre-tokenizers of a part, out of its sequences."""
    if not part:
        return
    if part["type"] == "Sequence":
        for inner in part.get("normalizers") or part.get("pretokenizers") or ():
            yield from _parts(inner)
    else:
        yield part


def _is_byte_level(spec: Mapping[str, Any]) -> bool:
    return any(part["type"] == "ByteLevel" for name in _STAGES for part in _parts(spec[name]))


def _alters(spec: Mapping[str, Any]) -> str:
    """Why texts would not come back as they were; "" where they do."""
    model = spec["model"]
    if model["type"] not in ("BPE", "Unigram"):
        return f"its model is {model['type']}, which cannot write every text"
    for part in _parts(spec["normalizer"]):
        name = part["type"]
        spaces = part.get("pattern") == {"String": " "} and part.get("content") == ESCAPED
        if name not in ("NFC", "ByteLevel") and not (name == "Replace" and spaces):
            return f"its normalizer {name} {_ALTERS.get(name, 'alters texts')}"
    for part in _parts(spec["pre_tokenizer"]):
        if reason := _adds_or_drops(part):
            return f"its pre-tokenizer {part['type']} {reason}"
    if not _is_byte_level(spec) and not model.get("byte_fallback"):
        return "it has no tokens for bytes: a character outside its vocabulary would be lost"
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            return f"its {name} {model[name]!r} is no part of a text"
    if model.get("dropout"):
        return "it cuts the same text differently each time (BPE dropout)"
    return ""


def _adds_or_drops(part: Mapping[str, Any]) -> str:
    """What a pre-tokenizer does to a text other than cutting it; "" for nothing."""
    name = part["type"]
    prefix = name == "ByteLevel" and part["add_prefix_space"]
    if prefix or (name == "Metaspace" and part["prepend_scheme"] != "never"):
        return "puts a space before every text (a dummy prefix)"
    if name == "ByteLevel" or (name == "Metaspace" and part["replacement"] == ESCAPED):
        return ""
    if name in ("Split", "Punctuation") and part["behavior"] != "Removed":
        return ""
    return "" if name in _KEEPS else "drops characters of a text"
