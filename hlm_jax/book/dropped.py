"""Parts of a book that are not the book's text: what they are, how long, how they begin."""

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A part of a book that is not the book's text and was left out.

    Attributes:
      what: the kind in a few words, such as "Project Gutenberg licence".
      chars: how many characters.
      first: how the part begins in one line, at most 40 characters; the name of an empty page.
    """

    what: str
    chars: int
    first: str

    @classmethod
    def of(cls, what: str, text: str) -> "Dropped":
        """The entry for a part of this text."""
        return cls(what, len(text), " ".join(text.split(maxsplit=40))[:40])


def together(parts: Iterable[Dropped]) -> list[Dropped]:
    """One entry for each kind, with the number of places where it was found more than once."""
    kinds: dict[str, list[Dropped]] = {}
    for part in parts:
        if part.first:
            kinds.setdefault(part.what, []).append(part)
    return [
        Dropped(
            what if len(several) == 1 else f"{what} ({len(several)} places)",
            sum(part.chars for part in several),
            several[0].first,
        )
        for what, several in kinds.items()
    ]
