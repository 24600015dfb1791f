"""The tokenizer as transformers and the `tokenizers` library read it: plain JSON objects.

A tokenizer of this project becomes a BPE with byte fallback. It gives the same ids, except for a
text that holds a literal ▁ or the name of a special token such as <|chapter|>. No post-processor
adds a token. A run that began with the tokenizer.json of another model gives that back unchanged.
"""

import json
from typing import Any

from hlm_jax.book.hf_tokenizer import HFTokenizer
from hlm_jax.book.tokenizer import ESCAPED, SEPARATOR, BaseTokenizer, Tokenizer
from hlm_jax.export.pieces import Kind, pieces


def tokenizer_json(tokenizer: BaseTokenizer) -> bytes:
    """The content of tokenizer.json."""
    if isinstance(tokenizer, HFTokenizer):
        return tokenizer.tokenizer_json
    if not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"a tokenizer of the format {tokenizer.format}")
    return (json.dumps(_bpe(tokenizer), ensure_ascii=False, indent=1) + "\n").encode()


def _bpe(tokenizer: Tokenizer) -> dict[str, Any]:
    vocab, merges = tokenizer.vocab_and_merges()
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": _unknown(tokenizer),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    }
    decoders = [
        {"type": "Replace", "pattern": {"String": ESCAPED}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(tokenizer),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": ESCAPED},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }


def special_tokens(tokenizer: BaseTokenizer) -> dict[str, str]:
    """special_tokens_map.json: the chapter separator begins, ends and pads."""
    separator = tokenizer.separator if isinstance(tokenizer, HFTokenizer) else SEPARATOR
    named = dict.fromkeys(("bos_token", "eos_token", "pad_token"), separator)
    unknown = _unknown(tokenizer)
    return named | ({"unk_token": unknown} if unknown else {})


def tokenizer_config(tokenizer: BaseTokenizer, block_size: int) -> dict[str, Any]:
    """tokenizer_config.json.

    The class is named as transformers 4 names it, which 5 maps to its own. Another class would
    rebuild the tokenizer from the model's type.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        **special_tokens(tokenizer),
    }


def _unknown(tokenizer: BaseTokenizer) -> str | None:
    """The name of the token for what has no token; a byte-level tokenizer has none."""
    if isinstance(tokenizer, HFTokenizer):
        return json.loads(tokenizer.tokenizer_json)["model"].get("unk_token")
    own = pieces(tokenizer.model_bytes)
    return next(piece.text for piece in own if piece.kind == Kind.UNKNOWN)


def _added_tokens(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The tokens that are looked for in a text before merging."""
    return [
        {
            "id": token,
            "content": piece.text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": piece.kind != Kind.USER_DEFINED,
        }
        for token, piece in enumerate(pieces(tokenizer.model_bytes))
        if piece.kind in (Kind.UNKNOWN, Kind.CONTROL, Kind.USER_DEFINED)
    ]
