"""The book of a command line, and the chapters that words such as 1-80,90 mean."""

import warnings
from collections.abc import Iterable, Sequence

from hlm_jax.book.chapters import Chapter
from hlm_jax.book.corpus import Corpus, load_corpus
from hlm_jax.book.splits import chapters_named
from hlm_jax.config import book_arguments, load_config
from hlm_jax.errors import UserError


def read_book(config: str, overrides: Iterable[str] = (), path: str | None = None) -> Corpus:
    """The cleaned chapters of a book, as training reads them. A short book is read too.

    The book's warnings are warned of; scripts/book.py prints its other notes.

    Args:
      config: a config file, such as configs/tiny.py; only its section `corpus` matters.
      overrides: "section.key=value", such as "corpus.heading=PATTERN".
      path: a text, HTML or EPUB file, or a folder; None for the book of the config, which is the
        default edition where nothing else is said.

    Raises:
      UserError: the book cannot be read, or it is named twice.
    """
    words = list(overrides)
    if path is not None:
        if any(word.startswith("corpus.path=") for word in words):
            raise UserError("give the book once: by its name or as --config.corpus.path")
        if not path:
            raise UserError("the name of the book is empty")
        words.append(f"corpus.path={path}")
    book = load_corpus(**book_arguments(load_config(config, words)), strict=False)
    for warning in book.report["warnings"]:
        if not warning.startswith("note: "):  # facts that need no repair
            warnings.warn(warning, stacklevel=2)
    return book


def select(chapters: Sequence[Chapter], words: str, option: str = "--chapters") -> list[Chapter]:
    """The chapters that `words` means, in the book's order: numbers and ranges, "1-40,81,90-120".

    Args:
      option: where the words come from; errors begin with it.

    Raises:
      UserError: no such numbers, or chapters that the book lacks.
    """
    try:
        chosen = chapters_named(chapters, words, option)
    except ValueError as error:
        raise UserError(f"{option} {words}: {error}") from None
    if not chosen:
        raise UserError(f"{option}: give numbers and ranges, such as 1-40,81")
    return chosen
