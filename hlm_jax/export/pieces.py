"""The tokens of a run's own tokenizer: what each is and how it is written."""

import dataclasses
from enum import IntEnum

import sentencepiece

from hlm_jax.book.tokenizer import USER_DEFINED


class Kind(IntEnum):
    """What a token is; the numbers are those of SentencePiece's model and of GGUF."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    BYTE = 6


@dataclasses.dataclass(frozen=True)
class Piece:
    """One token; a space in `text` is written ▁, a byte <0x0A>.

    Attributes:
      score: SentencePiece's; of two possible merges that with the higher score comes first.
    """

    text: str
    score: float
    kind: Kind


def pieces(model_bytes: bytes) -> list[Piece]:
    """The tokens of a SentencePiece model that this project trained, in the order of their ids."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    found = []
    for token in range(sp.get_piece_size()):
        text = sp.id_to_piece(token)
        kind = Kind.NORMAL
        if sp.is_unknown(token):
            kind = Kind.UNKNOWN
        elif sp.is_control(token):
            kind = Kind.CONTROL
        elif sp.is_byte(token):
            kind = Kind.BYTE
        elif text in USER_DEFINED:
            kind = Kind.USER_DEFINED
        found.append(Piece(text, sp.get_score(token), kind))
    return found
