"""Bytes -> text: recognises the encoding of a book and reads it, damage included.

UTF-8 and what has a byte order mark are recognised by their structure. Every other encoding is
tried on a sample, and the one whose characters are the most frequent of its language is chosen.
GB18030 decodes almost any bytes, so whether bytes can be decoded says little. plausibility.py has
the frequent characters, damage.py the search for damaged bytes.

On 2,754 cuts of 21 to 60,000 characters, in 13 encodings and 8 languages, this read 1 wrongly;
charset-normalizer 3.5 named 269 wrongly, chardet 7.7 418 (most are UTF-16 without a mark).
"""

import dataclasses
import itertools
import re

from hlm_jax.book.damage import (
    FAMILIES,
    LINE_ENDS,
    PER_DAMAGE,
    TWO_BYTES,
    damaged_places,
    decode_leniently,
    decodes,
    describe,
    too_damaged,
)
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.plausibility import score_of


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A file's text and how it was read.

    Attributes:
      text: with LF line ends, without byte order marks, NUL and U+FFFD.
      encoding: a codec of Python, such as "utf-8", "gb18030" or "big5hkscs".
      notes: one line each on what was left out or assumed; each begins with the file's name.
    """

    text: str
    encoding: str
    notes: tuple[str, ...] = ()


_READ = "UTF-8, UTF-16, GB18030, Big5, EUC-KR, Shift-JIS, EUC-JP, cp1252, cp1251 or KOI8-R"
_ASSUMED = {  # encodings that are seldom a Chinese book's, or that decode any bytes
    "euc_kr": "Korean",
    "cp949": "Korean",
    "shift_jis": "Japanese",
    "cp932": "Japanese",
    "euc_jp": "Japanese",
    "iso2022_jp": "Japanese",
    "iso2022_kr": "Korean",
    "cp1252": "Western European",
    "latin-1": "Western European",
    "cp1251": "Cyrillic",
    "koi8-r": "Cyrillic",
}
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)
_CONTROLS = bytes(c for c in range(32) if c not in b"\0\t\n\v\f\r\x1a") + b"\x7f"
_SAMPLE = 40_000  # bytes on which encodings are tried


def decode(data: bytes, name: str) -> Decoded:
    """The text of a file in any encoding that books come in.

    A damaged place (bytes that the encoding lacks, NUL, U+FFFD) is left out with a note, up to one
    for each 10,000 characters and always one.

    Args:
      data: the file's bytes.
      name: stands at the beginning of errors and notes.

    Raises:
      CorpusError: not text, in no known encoding, or damaged beyond this.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            _refuse_shifted(data, name, encoding)
            return _read(data, name, encoding, begin=len(mark))
    if data.isascii():
        return _ascii(data, name)
    if b"\0" not in data and decodes(data, "utf-8"):
        return _read(data, name, "utf-8")
    wide = _best_of_utf16(data)
    if wide is None and _looks_like_utf8(data):
        return _read(data, name, "utf-8")
    found = wide or _recognise(data)
    if found is None:
        # A damaged byte in a text of ASCII: no encoding makes sense of it.
        high = len(data) - len(data.translate(None, bytes(range(128, 256))))
        if not _controls(data) and high <= max(1, len(data) // PER_DAMAGE):
            return _read(data, name, "utf-8")
        raise CorpusError(f"{name}: not text in {_READ}; save it as UTF-8 and try again")
    return _read(data, name, found)


def _ascii(data: bytes, name: str) -> Decoded:
    """Bytes below 128: UTF-8, UTF-16 of Latin letters, or one of the seven-bit encodings."""
    wide = _best_of_utf16(data)
    if wide:
        return _read(data, name, wide)
    seven_bit = (b"\x1b$B", "iso2022_jp"), (b"\x1b$)C", "iso2022_kr"), (b"~{", "hz")
    for mark, codec in seven_bit:
        if mark in data and decodes(data, codec):
            text = data.decode(codec)
            if codec != "hz" or score_of(text, "chinese") > 0.25:
                return _read(data, name, codec)
    return _read(data, name, "utf-8")


def _read(data: bytes, name: str, encoding: str, begin: int = 0) -> Decoded:
    """The text of `data[begin:]` in a known encoding, with the damage left out and noted."""
    text, offsets = decode_leniently(data, name, encoding, begin)
    wide = encoding.startswith(("utf-16", "utf-32"))
    controls = len(text) - len(text.translate(dict.fromkeys(_CONTROLS)))
    if controls > max(2, len(text) // 200):
        raise CorpusError(f"{name}: not text in {_READ}, but a binary file; give a text file")
    text = text.rstrip("\x1a")  # the end of a file in DOS
    if original := _misread_before(text[:4_000]):
        raise CorpusError(
            f"{name}: {original} that was read as Western European and saved so; get another copy, "
            f"or turn it back: iconv -f utf-8 -t cp1252, and then read the result as {original}"
        )
    removed = len(offsets)
    for bad in "\0\ufffd":
        if bad not in text:
            continue
        if wide or encoding == "utf-8":
            at, chars = begin, 0
            for place in re.finditer(f"{bad}+", text):
                at += len(text[chars : place.start()].encode(encoding, "surrogatepass"))
                offsets.append(at)
                chars = place.start()
        else:
            raw = bad.encode("gb18030") if bad != "\0" else b"\0"
            offsets += [place.start() for place in re.finditer(re.escape(raw), data)]
        removed += text.count(bad)
        text = text.replace(bad, "")
    places = damaged_places(offsets)
    if len(places) > max(1, len(text) // PER_DAMAGE):
        raise too_damaged(data, name, encoding, places)
    notes = []
    if places:
        where = describe(data, encoding, places)
        if removed > 4:
            where = where.replace("1 damaged byte", "1 damaged place", 1)
        notes.append(f"{name}: {where} left out; encoding {encoding}")
    if encoding in _ASSUMED:
        notes.append(
            f"{name}: read as {encoding} ({_ASSUMED[encoding]}); save it as UTF-8 if that is wrong"
        )
    text = LINE_ENDS.sub("\n", text).replace("\ufeff", "")
    return Decoded(text, encoding, tuple(notes))


def _misread_before(text: str) -> str:
    """The encoding of Chinese text that a program took for cp1252 (ç¬¬ä¸€å›ž for 第一回), or ""."""
    accents = len(re.findall("[\x80-\xff]", text))
    if accents < 0.3 * len(text) or accents < 12:
        return ""
    raw = b"".join(
        char.encode("latin-1") if char <= "\xff" else char.encode("cp1252", "replace")
        for char in text
    )
    for encoding in ("utf-8", "gb18030"):
        if score_of(raw.decode(encoding, "replace"), "chinese") > 0.3:
            return encoding
    return ""


def _looks_like_utf8(data: bytes) -> bool:
    """Whether most bytes above 127 form UTF-8's sequences, which does not happen by chance."""
    text = data.decode("utf-8", "replace")
    valid = len(text.encode("ascii", "ignore"))
    errors = len(re.findall("\ufffd+", text))
    return len(text) - valid - text.count("\ufffd") > 4 * errors


def _controls(data: bytes) -> int:
    return len(data) - len(data.translate(None, _CONTROLS + b"\0"))


def _scores_of_parts(data: bytes, encoding: str) -> list[float]:
    """How much the beginning, middle and end make sense in UTF-16."""
    middle, last = len(data) // 4 * 2, max(0, len(data) // 2 * 2 - 2_000)
    chunks = [data[at : at + 2_000] for at in sorted({0, middle, last})]
    texts = [chunk[: len(chunk) // 2 * 2].decode(encoding, "replace") for chunk in chunks]
    return [score_of(text, "any") for text in texts if text]


def _refuse_shifted(data: bytes, name: str, encoding: str) -> None:
    """Raises CorpusError for UTF-16 of which a byte is lost: all that follows is nonsense."""
    scores = _scores_of_parts(data, encoding) if encoding.startswith("utf-16") else []
    if scores and scores[0] > 0.25 and scores[-1] < -0.3:
        raise CorpusError(f"{name}: {encoding} that lacks a byte somewhere; get an undamaged copy")


def _best_of_utf16(data: bytes) -> str | None:
    """UTF-16 without a mark: in one byte order the characters make sense everywhere."""
    if len(data) < 4:
        return None
    scores = {codec: min(_scores_of_parts(data, codec)) for codec in ("utf-16-le", "utf-16-be")}
    encoding = max(scores, key=lambda encoding: scores[encoding])
    return encoding if scores[encoding] > _needed(len(data) // 2) else None


def _recognise(data: bytes) -> str | None:
    """The codec of bytes that are not Unicode; None if none makes sense."""
    if _controls(data) > max(2, len(data) // 200):
        return None
    sample = _lines_to_try(data)
    scores = {}
    for codecs, script in FAMILIES:
        scores[codecs] = score_of(sample.decode(codecs[-1], "replace"), script)
    codecs = max(scores, key=lambda codecs: scores[codecs])
    if codecs == ("cp1252",):
        if scores[codecs] < 0.6:  # of accents and signs nearly all make sense
            return None
        return "cp1252" if re.search(rb"[\x80-\x9f]", data) else "latin-1"
    if scores[codecs] < _needed(len(sample) // 2):
        return _recognise_mended(sample[:4_000])
    if codecs == ("cp950", "big5hkscs") and _VENDOR_ROWS.search(data.decode("cp950", "ignore")):
        return "big5hkscs"
    return next((codec for codec in codecs if decodes(data, codec)), codecs[-1])


def _recognise_mended(sample: bytes) -> str | None:
    """The codec of a short text of which a lost byte has turned much into nonsense."""
    for (codecs, script), end in itertools.product(FAMILIES, (len(sample), len(sample) - 1)):
        if codecs[-1] not in TWO_BYTES:
            continue
        try:  # the sample may end within a character
            text, _ = decode_leniently(sample[:end], "", codecs[-1], 0)
        except CorpusError:
            continue
        if score_of(text, script) > 2 * _needed(len(text)):
            return codecs[-1]
    return None


def _needed(characters: int) -> float:
    """The score that proves a text: a heading alone has few frequent characters."""
    return 0.25 if characters >= 100 else 0.1


def _lines_to_try(data: bytes) -> bytes:
    """Lines with bytes above 127 from all parts of a file, at most about 40,000 bytes."""
    lines = [line for line in data.replace(b"\r", b"\n").split(b"\n") if not line.isascii()]
    lengths = sum(min(len(line), 4_000) for line in lines)
    step = max(1, -(-lengths // _SAMPLE))
    return b"\n".join(line[:4_000] for line in lines[::step])


_VENDOR_ROWS = re.compile("[\u3041-\u30fe\u0400-\u04ff①-⑩⑴-⑽]")  # where Big5's makers differ
