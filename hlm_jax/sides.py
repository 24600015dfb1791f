"""Two models a fold, one for each of two sets of chapters, so that only their texts differ.

In every fold both are trained on as many characters, for the same steps, with one vocabulary that
is fitted on the training chapters of both. So their probabilities of a held-out chapter can be
compared token by token.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from hlm_jax import config as configs
from hlm_jax.book.corpus import Corpus, load_corpus
from hlm_jax.book.splits import chapters_named, evened
from hlm_jax.errors import UserError
from hlm_jax.folds import words_on
from hlm_jax.numbers import written_numbers
from hlm_jax.process import Job, Say, train_all
from hlm_jax.training.progress import say


@dataclasses.dataclass(frozen=True)
class Pair:
    """The two models of a fold.

    Attributes:
      test: the chapters that neither was trained on.
      a, b: the folders of the runs, for run.load_run.
      train_a, train_b: the chapters that each is trained on.
      chars_a, chars_b: characters of these chapters.
    """

    test: tuple[int, ...]
    a: Path
    b: Path
    train_a: tuple[int, ...]
    train_b: tuple[int, ...]
    chars_a: int
    chars_b: int


def train_sides(
    config: str,
    overrides: Sequence[str],
    *,
    a: Sequence[int],
    b: Sequence[int],
    folds: Sequence[Sequence[int]],
    workdir: str | Path,
    say: Say = say,
) -> list[Pair]:
    """Trains two models for every fold; what is finished in `workdir` is not trained again.

    Args:
      config, overrides, say: as folds.train_folds; `train.steps` must be given.
      a, b: the numbers of the chapters of each side.
      folds: the chapters that each fold holds out of both sides. Chapters of neither side may be
        among them.
      workdir: gets the folders fold-01-a, fold-01-b, fold-02-a and so on.

    Raises:
      UserError: as folds.train_folds; a chapter on both sides, or a side with no chapter left.
    """
    workdir = Path(os.path.expanduser(workdir))
    book = load_corpus(**configs.book_arguments(configs.load_config(config, overrides)))
    pairs = plan_sides(config, overrides, book, a=a, b=b, folds=folds, workdir=workdir)
    jobs = []
    for k, pair in enumerate(pairs, 1):
        both = (*pair.train_a, *pair.train_b)
        for side, folder, train in (("A", pair.a, pair.train_a), ("B", pair.b, pair.train_b)):
            words = words_on(config, overrides, train, pair.test, both)
            name = f"fold {k} of {len(pairs)}, side {side}"
            jobs.append(Job(name, folder, config, words))
    train_all(jobs, book.report, say)
    return pairs


def plan_sides(
    config: str,
    overrides: Sequence[str],
    book: Corpus,
    *,
    a: Sequence[int],
    b: Sequence[int],
    folds: Sequence[Sequence[int]],
    workdir: Path,
) -> list[Pair]:
    """What train_sides would train on this book, by its arguments; trains and writes nothing.

    Args:
      The others are those of train_sides.

    Raises:
      UserError: as train_sides.
    """
    if not configs.load_config(config, overrides).train.steps:
        raise UserError(
            "train.steps is 0, and the sides would differ in steps: set --config.train.steps"
        )
    if both := set(a) & set(b):
        raise UserError(f"chapters {written_numbers(both)} are on both sides: name them once")
    named = [*a, *b, *(number for fold in folds for number in fold)]
    chapters = chapters_named(book.chapters, written_numbers(named), "the sides")
    lengths = {chapter.number: len(chapter.text) for chapter in chapters}
    pairs = []
    for k, fold in enumerate(folds, 1):
        left_a, left_b = ([n for n in sorted(side) if n not in fold] for side in (a, b))
        if not left_a or not left_b:
            raise UserError(f"fold {k} holds a whole side out: use more folds or more chapters")
        train_a, train_b = evened(left_a, left_b, lengths)
        pair = Pair(
            test=tuple(sorted(fold)),
            a=workdir / f"fold-{k:02d}-a",
            b=workdir / f"fold-{k:02d}-b",
            train_a=tuple(train_a),
            train_b=tuple(train_b),
            chars_a=sum(lengths[n] for n in train_a),
            chars_b=sum(lengths[n] for n in train_b),
        )
        pairs.append(pair)
    return pairs
