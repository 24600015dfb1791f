"""What figures are held against: the book's chapters, the n-gram baselines, the overlap indices.

Reads only. Opening a reference never writes a file, so it works on a folder without write access.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hlm_jax.book import corpus as corpora
from hlm_jax.book.corpus import Chapter, Corpus
from hlm_jax.book.edition import EditionError
from hlm_jax.book.extra import extra_rows, load_again
from hlm_jax.book.files import CorpusError
from hlm_jax.book.splits import split_chapters
from hlm_jax.config import book_arguments
from hlm_jax.errors import UserError
from hlm_jax.measures.ngram import KneserNey, Mixture
from hlm_jax.measures.overlap import SPAN, Overlap, OverlapIndex


class Reference:
    """A book's chapters by split, and what is computed from them when it is first asked for.

    Args:
      splits: {"train", "val", "test"}: chapters, as splits.split_chapters returns them.
      extra: the further texts that were trained on; or what reads them, called when they are first
        asked for.
    """

    def __init__(
        self,
        splits: Mapping[str, Sequence[Chapter]],
        extra: Sequence[Corpus] | Callable[[], Sequence[Corpus]] = (),
    ):
        self.splits = {name: list(chapters) for name, chapters in splits.items()}
        self._extra = extra

    @classmethod
    def open(
        cls, corpus: Mapping[str, Any], split: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> "Reference":
        """Reads the book that a run was trained on; its further texts when they are asked for.

        Args:
          corpus: a config's section corpus; `path` may have been given anew.
          split: the keyword arguments of splits.split_chapters.
          recorded: the corpus report of the run.

        Raises:
          UserError: the book cannot be read, or it is another text.
        """
        try:
            book = corpora.load_corpus(**book_arguments({"corpus": corpus}), write_cache=False)
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
        rows = extra_rows(recorded)
        of_extra = functools.partial(_read_extra, corpus, rows) if rows else ()
        return cls(split_chapters(book.chapters, **split), of_extra)

    @functools.cached_property
    def extra(self) -> list[Corpus]:
        """The further texts; empty without.

        Raises:
          UserError: one cannot be read, or is another text than that of the training.
        """
        return list(self._extra() if callable(self._extra) else self._extra)

    def with_readable_extra(self, note: Callable[[str], None]) -> "Reference":
        """This reference; without its further texts where one cannot be read.

        Args:
          note: is told why, in one line.
        """
        try:
            _ = self.extra
            return self
        except UserError as error:
            note(f"no 5-gram with the further texts: {error}")
            return Reference(self.splits)

    @functools.cached_property
    def baseline(self) -> KneserNey:
        """The Kneser-Ney 5-gram model of the training chapters."""
        return KneserNey([chapter.text for chapter in self.splits["train"]])

    def baseline_bits_per_char(self, texts: str | Sequence[str]) -> float:
        """The baseline's bits per character over one text or several."""
        return self.baseline.bits_per_char([texts] if isinstance(texts, str) else texts)

    @functools.cached_property
    def mixed_baseline(self) -> Mixture | None:
        """The baseline mixed with a Kneser-Ney 5-gram model of the training chapters and `extra`.

        Its weight is fitted on the validation chapters. None without these or without further
        texts. The second model counts the book too: a model of the further texts alone would give
        the book's names almost no probability, and the mixture would cost more.

        Raises:
          UserError: as `extra`.
        """
        if not self.splits["val"] or not self.extra:
            return None
        chapters = [*self.splits["train"], *self._extra_chapters]
        everything = KneserNey([chapter.text for chapter in chapters])
        return Mixture(self.baseline, everything, [c.text for c in self.splits["val"]])

    @property
    def mixed_weight(self) -> float | None:
        """The weight of the model that knows the further texts in `mixed_baseline`."""
        return self.mixed_baseline.weight if self.mixed_baseline else None

    def mixed_bits_per_char(self, texts: str | Sequence[str]) -> float | None:
        """As baseline_bits_per_char, of `mixed_baseline`; None where there is none."""
        if self.mixed_baseline is None:
            return None
        return self.mixed_baseline.bits_per_char([texts] if isinstance(texts, str) else texts)

    def baselines(self, texts: Sequence[str]) -> tuple[float, float | None]:
        """(baseline_bits_per_char, mixed_bits_per_char) over several texts."""
        return self.baseline_bits_per_char(texts), self.mixed_bits_per_char(texts)

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

    @property
    def _extra_chapters(self) -> list[Chapter]:
        return [chapter for text in self.extra for chapter in text.chapters]

    @functools.cached_property
    def extra_overlap_index(self) -> OverlapIndex | None:
        """The further texts, searchable for copied spans; None without.

        Its chapters are numbered from 0 through all texts; `extra_place` names them.

        Raises:
          UserError: as `extra`.
        """
        texts = [chapter.text for chapter in self._extra_chapters]
        return OverlapIndex(Chapter(i, "", t) for i, t in enumerate(texts)) if texts else None

    def extra_place(self, number: int) -> str:
        """Which chapter a span of extra_overlap_index names, such as "西游记, chapter 3"."""
        places = [(text, chapter) for text in self.extra for chapter in text.chapters]
        text, chapter = places[number]
        return f"{text.name}, chapter {chapter.number}"

    def extra_source(self, text: str) -> str:
        """Which chapter of the further texts a text is copied from by more than half, else "".

        Raises:
          UserError: as `extra`.
        """
        if self.extra_overlap_index is None:
            return ""
        overlap = self.extra_overlap_index.measure(text)
        if overlap.copied_fraction <= 0.5:
            return ""
        longest = max(overlap.longest, key=lambda span: span.end - span.start)
        return self.extra_place(longest.chapter)

    @functools.cached_property
    def extra_human_overlap(self) -> Overlap | None:
        """The overlap of the validation chapters with the further texts; None without either."""
        chapters = self.splits["val"]
        if not chapters or self.extra_overlap_index is None:
            return None
        return self.extra_overlap_index.measure_all([chapter.text for chapter in chapters])

    def describe_extra_overlap(self, text: str) -> str:
        """One line on what a text copies from the further texts; "" without them.

        Raises:
          UserError: as `extra`.
        """
        if self.extra_overlap_index is None:
            return ""
        overlap, human = self.extra_overlap_index.measure(text), self.extra_human_overlap
        longest = max(overlap.longest, key=lambda span: span.end - span.start, default=None)
        where = "no character of it is in them"
        if longest:
            place = self.extra_place(longest.chapter)
            where = f"longest {longest.end - longest.start} ({place})"
        beside = f" (held-out chapters {human.copied_fraction:.2%})" if human else ""
        return (
            f"recitation of the further texts: copied spans of {SPAN}+ "
            f"{overlap.copied_fraction:.1%} of the characters{beside}, {where}"
        )


def _read_extra(corpus: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Corpus]:
    """The further texts that a run has recorded."""
    return load_again(
        rows,
        convert=corpus["convert"],
        drop_brackets=corpus.get("drop_brackets", ""),
        parts=corpus["parts"],
    )
