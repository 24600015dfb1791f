"""What figures are held against: the book's chapters, the n-gram baseline, the overlap index.

Reads only. Opening a reference never writes a file, so it works on a folder without write access.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from hlm_jax.book import corpus as corpora
from hlm_jax.book.corpus import Chapter
from hlm_jax.book.edition import EditionError
from hlm_jax.book.files import CorpusError
from hlm_jax.book.splits import split_chapters
from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.overlap import Overlap, OverlapIndex


class Reference:
    """A book's chapters by split, and what is computed from them when it is first asked for.

    Args:
      splits: {"train", "val", "test"}: chapters, as splits.split_chapters returns them.
    """

    def __init__(self, splits: Mapping[str, Sequence[Chapter]]):
        self.splits = {name: list(chapters) for name, chapters in splits.items()}

    @classmethod
    def open(
        cls, corpus: Mapping[str, Any], split: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> "Reference":
        """Reads the book that a run was trained on.

        Args:
          corpus: the keyword arguments of corpus.load_corpus; `path` may have been given anew.
          split: the keyword arguments of splits.split_chapters.
          recorded: the corpus report of the run.

        Raises:
          UserError: the book cannot be read, or it is another text.
        """
        try:
            book = corpora.load_corpus(**corpus, write_cache=False)
        except (CorpusError, EditionError) as error:
            reason = str(error).splitlines()[0].rstrip()
            raise UserError(
                f"{reason}; give the text that the run was trained on with --corpus BOOK"
            ) from error
        if why := corpora.difference(book.report, recorded):
            where = book.report["source"].get("path", book.name)
            raise UserError(
                f"{where} is not the text that the run was trained on ({why}): "
                "give that text with --corpus BOOK"
            )
        return cls(split_chapters(book.chapters, **split))

    @functools.cached_property
    def baseline(self) -> KneserNey:
        """The Kneser-Ney 5-gram model of the training chapters."""
        return KneserNey([chapter.text for chapter in self.splits["train"]])

    def baseline_bits_per_char(self, texts: str | Sequence[str]) -> float:
        """The baseline's bits per character over one text or several."""
        return self.baseline.bits_per_char([texts] if isinstance(texts, str) else texts)

    @functools.cached_property
    def overlap_index(self) -> OverlapIndex:
        """The training chapters, searchable for copied spans."""
        return OverlapIndex(self.splits["train"])

    @functools.cached_property
    def human_overlap(self) -> Overlap | None:
        """The overlap of real held-out chapters with training chapters that lack them.

        Without validation chapters, the training chapters are split for this figure alone.
        None for a book of one chapter.
        """
        splits = self.splits
        if not splits["val"]:
            splits = split_chapters(splits["train"], held_out=True)
        if not splits["val"]:
            return None
        index = self.overlap_index if splits is self.splits else OverlapIndex(splits["train"])
        return index.measure_all([chapter.text for chapter in splits["val"]])
