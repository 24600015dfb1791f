"""Chapter numbers as people write them: "1-5,8" <-> [1, 2, 3, 4, 5, 8]. Imports nothing."""

import itertools
import re
from collections.abc import Iterable


def chapter_numbers(words: str) -> list[int]:
    """The numbers of "1-5,8", rising; an empty list for an empty text.

    Raises:
      ValueError: something else than numbers and rising ranges, or a number twice.
    """
    numbers: list[int] = []
    for part in words.split(",") if words.strip() else []:
        match = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", part)
        if not match:
            raise ValueError(f"{part.strip()!r} is no chapter number and no range such as 1-5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {part.strip()} falls: write {last}-{first}")
        numbers += range(first, last + 1)
    numbers.sort()
    for number, after in itertools.pairwise(numbers):
        if number == after:
            raise ValueError(f"chapter {number} is named twice in {words}")
    return numbers


def written_numbers(numbers: Iterable[int]) -> str:
    """The shortest words for chapter numbers, rising: "1-5,8"."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in ranges)
