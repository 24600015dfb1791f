"""A trained model with the record of its training, opened for reading on any machine.

Needs only a checkpoint, and writes nothing. The book is opened when it is first asked for.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hlm_jax import checkpoint
from hlm_jax.book.corpus import Chapter, clean_file
from hlm_jax.errors import UserError
from hlm_jax.language_model import LanguageModel, sampling_of
from hlm_jax.measures.reference import Reference
from hlm_jax.model.gpt import GPT, GPTConfig
from hlm_jax.pretrained import describe_base

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Run(LanguageModel):
    """A LanguageModel and what it was trained with.

    Attributes:
      workdir: the run's folder.
      step: of the checkpoint that was read.
      config: of the training.
      meta: everything that travels with the weights (checkpoint.make_meta).
      corpus: where the book lies now; None for the place that the training recorded.
    """

    workdir: Path
    step: int
    config: ConfigDict
    meta: dict[str, Any]
    corpus: Path | None = None

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, step {self.step} of {self.workdir}>"

    @property
    def origin(self) -> str:
        """What it started from, and what that model may have read of the held-out chapters; or "".

        Empty also where every text of that model was compared and holds none of them.
        """
        init = self.meta.get("init")
        if not init or not (init["seen"] or init["unknown"]):
            return ""
        split = self.config.split
        return describe_base(init, held_out=bool(split.held_out or split.train or split.test))

    @functools.cached_property
    def reference(self) -> Reference:
        """The book that the run was trained on: what its figures are compared with.

        Raises:
          UserError: the book cannot be read, or it is not the text of the training.
        """
        place = self.config.corpus.to_dict()
        if self.corpus is not None:
            place["path"] = str(self.corpus)
        return Reference.open(place, self.config.split.to_dict(), self.meta["corpus"])

    def read_chapters(
        self, *, split: str | None = None, text: str | Path | None = None
    ) -> list[Chapter]:
        """The chapters to measure: a split of the run's book ("val" by default), or a text file.

        A text file is one chapter, cleaned and converted as the training text was.

        Raises:
          UserError: the file or the book cannot be read, or the split is empty or unknown.
        """
        if text is not None:
            brackets = self.config.corpus.drop_brackets
            cleaned = clean_file(text, convert=self.convert, drop_brackets=brackets)
            return [Chapter(1, Path(text).name, cleaned)]
        name = split or "val"
        if name not in SPLITS:
            raise UserError(f"there is no split {name!r}: use {', '.join(SPLITS)}")
        chapters = self.reference.splits[name]
        if not chapters:
            others = [f"--split {other}" for other in SPLITS if self.reference.splits[other]]
            raise UserError(
                f"{self.workdir} holds no {name} chapters out: use {', '.join(others)} or "
                "--text FILE"
            )
        return chapters


def load_run(
    workdir: str | Path, step: str | int = "best", corpus: str | Path | None = None
) -> Run:
    """Opens a run for reading, on any machine, whatever devices trained it.

    Args:
      workdir: the folder given to training as --workdir.
      step: "best" by validation bits per character, "latest", or a number.
      corpus: the book, where it is no longer in the place that the training recorded.

    Raises:
      UserError: no such run, or a damaged checkpoint.
    """
    workdir = Path(os.path.expanduser(workdir))
    number, params, meta = checkpoint.read(workdir, step)
    config = ConfigDict(meta["config"])
    return Run(
        GPT(GPTConfig(**config.model)),
        params,
        checkpoint.tokenizer_of(meta),
        sampling_of(config),
        config.corpus.convert,
        workdir=workdir,
        step=number,
        config=config,
        meta=meta,
        corpus=None if corpus is None else Path(os.path.expanduser(corpus)),
    )
