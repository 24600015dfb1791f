"""Damaged bytes of a text in a known encoding: found, left out and described.

A lost or altered byte of an encoding of two bytes moves the border between all characters up to the
line's end. Which bytes to leave out is what makes most sense of the line.
"""

import functools
import re
from collections.abc import Iterable

from hlm_jax.book.errors import CorpusError
from hlm_jax.book.plausibility import sum_of, weights_of

# The codecs of one encoding, narrowest first: the first that decodes every byte names it.
# Together with the script whose frequent characters prove it.
FAMILIES = (
    (("cp1252",), "latin"),  # first: of equal scores the first wins, and accents are rare
    (("gb18030",), "chinese"),
    (("cp950", "big5hkscs"), "chinese"),
    (("euc_kr", "cp949"), "korean"),
    (("shift_jis", "cp932"), "japanese"),
    (("euc_jp",), "japanese"),
    (("cp1251",), "cyrillic"),
    (("koi8-r",), "cyrillic"),
)
TWO_BYTES = {"gb18030", "cp950", "big5hkscs", "euc_kr", "cp949", "shift_jis", "cp932", "euc_jp"}
LINE_ENDS = re.compile("\r\n|[\r\f\v\x85\u2028\u2029]")
PER_DAMAGE = 10_000  # characters for each damaged place that is tolerated
_RUN = 14  # characters in a row that are all rare: perhaps the rest of a line after a lost byte


def describe(data: bytes, encoding: str, places: list[int]) -> str:
    """The damage in words: how many places, and where the first is."""
    before = data[: places[0]].decode(encoding, "ignore")
    line = LINE_ENDS.sub("\n", before).count("\n") + 1
    if len(places) == 1:
        return f"1 damaged byte at offset {places[0]:,} (line {line:,})"
    return f"{len(places):,} damaged places, the first at offset {places[0]:,} (line {line:,}),"


def too_damaged(data: bytes, name: str, encoding: str, places: list[int]) -> CorpusError:
    return CorpusError(
        f"{name}: {describe(data, encoding, places)} are too many for a text in {encoding}; "
        "get an undamaged copy, or mend it and save it as UTF-8"
    )


def damaged_places(offsets: list[int]) -> list[int]:
    """Offsets of damaged bytes, in order; those that are close together count once."""
    places: list[int] = []
    last = -100
    for offset in sorted(offsets):
        if offset - last > 16:
            places.append(offset)
        last = offset
    return places


def decode_leniently(data: bytes, name: str, encoding: str, begin: int) -> tuple[str, list[int]]:
    """The text without the bytes that cannot be decoded or shift the rest, and their offsets."""
    enough = max(1, len(data) // PER_DAMAGE)
    view = memoryview(data)
    pieces: list[str] = []
    offsets: list[int] = []
    sound: set[int] = set()  # where rare characters proved to be the text's own
    while True:
        first, vendor = len(data), ""
        try:
            text = str(view[begin:], encoding)
        except UnicodeDecodeError as error:
            first, past = begin + error.start, begin + error.end
            text = str(view[begin:first], encoding)
            if encoding == "big5hkscs":
                vendor = _vendor(data[first : first + 2])
        damage = None
        if encoding in TWO_BYTES:
            damage = _shift(data, begin, text, encoding, sound)
            if damage is None and first < len(data) and not vendor:
                damage = _damaged_bytes(data, begin, first, encoding)[1:]
        elif first < len(data):
            damage = first, past
        if damage is not None:
            first, past = damage
            text = str(view[begin:first], encoding)
            offsets.append(first)
            if len(places := damaged_places(offsets)) > enough:
                raise too_damaged(data, name, encoding, places)
        elif vendor:
            text, past = text + vendor, first + 2
        pieces.append(text)
        if first == len(data):
            return "".join(pieces), offsets
        begin = past


def _vendor(pair: bytes) -> str:
    """A character of Big5 that Microsoft's table has and Hong Kong's lacks, or ""."""
    try:
        char = pair.decode("cp950")
    except UnicodeDecodeError:
        return ""
    return char if len(char) == 1 else ""


def _shift(
    data: bytes, begin: int, text: str, encoding: str, sound: set[int]
) -> tuple[int, int] | None:
    """The bytes of a damage that no decoder notices: it turns the line's rest into nonsense.

    Args:
      data, begin, text: `text` is what stands in `data` from `begin` on.
      sound: ends of runs of rare characters that need not be looked at; more are added.

    Returns:
      (first byte, byte after the last), or None: there is none.
    """
    script = _script(encoding)
    at, chars = begin, 0
    for run in _nonsense(script).finditer(text):
        at, chars = at + len(text[chars : run.end()].encode(encoding)), run.end()
        if at in sound or len(set(run[0])) < 8 or len(sound) == 50:  # ━━━━━━━━; a dictionary
            continue
        gain, first, past = _damaged_bytes(data, begin, at, encoding)
        if gain > 8:
            return first, past
        sound.add(at)
    return None


def _damaged_bytes(data: bytes, begin: int, first: int, encoding: str) -> tuple[float, int, int]:
    """Which bytes to leave out of the line around an error, so that the rest of it makes sense.

    A lost or altered byte moves the border between all characters up to the line's end, and the
    decoder may notice only there.

    Args:
      data, begin: the text from `begin` on is not yet decoded.
      first: where the decoder stopped, or nonsense ends.

    Returns:
      (how many frequent characters are gained, first byte, byte after the last).
    """
    script = _script(encoding)
    start = max(begin, data.rfind(b"\n", begin, first) + 1)
    if first - start > 2_000:
        start = next(at for at in range(first - 2_000, first) if decodes(data[start:at], encoding))
    end = min(data.find(b"\n", first) + 1 or len(data), first + 400)

    @functools.cache
    def sense(cut: int, width: int) -> float:
        try:
            before = data[start:cut].decode(encoding)
        except UnicodeDecodeError:
            return float("-inf")
        after = data[cut + width : end].decode(encoding, "replace")
        return sum_of(before, script) + sum_of(after, script) - width / 10

    def best(cuts: Iterable[int]) -> tuple[float, int, int]:
        return max((sense(cut, width), cut, width) for cut in cuts for width in (1, 2))

    rough = best(cut for cut in range(start, first + 1) if (first - cut) % 32 in (0, 1))
    fine = best(range(max(start, rough[1] - 34), min(first, rough[1] + 34) + 1))
    score, cut, width = max(rough, fine)
    whole = sum_of(data[start:end].decode(encoding, "replace"), script)
    return score - whole, cut, min(cut + width, len(data))


def _script(encoding: str) -> str:
    return next(script for codecs, script in FAMILIES if encoding in codecs)


@functools.cache
def _nonsense(script: str) -> re.Pattern[str]:
    """A long run without any frequent character of the script."""
    frequent = "".join(char for char, weight in weights_of(script).items() if weight > 0.5)
    return re.compile(f"[^\\x00-\x7f{re.escape(frequent)}]{{{_RUN},}}")


def decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
