"""A book for stylo, the R package of stylometry: a corpus folder and a table of frequencies.

stylo (Eder, Rybicki & Kestemont 2016, R Journal 8(1)) reads the folder corpus/ of its working
directory, one text a file, whose name is Class_Title.txt; texts of one class get one colour. It
reads a table by `t(read.table(FILE))`: samples in columns, features in rows, the header one field
shorter than the rows, fields between white space, strings in double quotes.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hlm_jax.analysis.stylometry import Features
from hlm_jax.analysis.tables import write_text
from hlm_jax.book.chapters import Chapter
from hlm_jax.errors import UserError

TABLE, CORPUS = "table_with_frequencies.txt", "corpus"
_WIDE = re.compile("([\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff])")


def write_stylo(
    folder: str | Path,
    chapters: Sequence[Chapter],
    groups: Sequence[str],
    features: Features,
) -> Path:
    """Writes corpus/Class_Title.txt of every chapter and table_with_frequencies.txt.

    In the corpus every Han character and kana stands between spaces, so that each is a word for
    stylo: read it with corpus.lang = "CJK", analyzed.features = "w". Headings are left out.

    Args:
      groups: each chapter's class: letters, digits and dots.
      features: the rows of the table; frequencies are in percent, as stylo has them.

    Raises:
      UserError: the folder's corpus/ has other files, or cannot be written.
    """
    folder = Path(os.path.expanduser(folder))
    width = max(3, len(str(max(chapter.number for chapter in chapters))))
    names = [
        f"{group}_{chapter.number:0{width}d}"
        for group, chapter in zip(groups, chapters, strict=True)
    ]
    corpus = folder / CORPUS
    there = {path.name for path in corpus.iterdir()} if corpus.is_dir() else set()
    if others := there - {f"{name}.txt" for name in names}:
        raise UserError(f"{corpus} has other files ({min(others)}): give a new folder")
    for name, chapter in zip(names, chapters, strict=True):
        lines = (" ".join(_WIDE.sub(r" \1 ", line).split()) for line in chapter.body.split("\n"))
        write_text(corpus / f"{name}.txt", "\n".join(lines))
    frequencies = features.frequencies([chapter.body for chapter in chapters])
    return write_text(folder / TABLE, table_text(names, features.names, frequencies / 100))


def table_text(samples: Sequence[str], features: Sequence[str], frequencies_NF: np.ndarray) -> str:
    """A table as R's write.table() writes it and read.table() reads it.

    A quotation mark in a name stands behind a backslash. A feature with a backslash is left out:
    R cannot read what it writes for one.
    """
    rows = [
        " ".join([_quoted(feature), *(f"{value:.8g}" for value in column)])
        for feature, column in zip(features, frequencies_NF.T, strict=True)
        if "\\" not in feature
    ]
    return "\n".join([" ".join(map(_quoted, samples)), *rows, ""])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '\\"') + '"'
