"""Surprisal of texts: what every token or character cost a model, beside what counting expects.

One row is one token or one character, with its exact place in the text; there is no word segmenter.
docs/surprisal.md describes the columns and how to use them.
"""

import functools
import math
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hlm_jax.analysis.books import select
from hlm_jax.analysis.columns import NONE
from hlm_jax.analysis.speech import speech_mask
from hlm_jax.analysis.surprisal.copies import copies_within
from hlm_jax.analysis.surprisal.table import (
    COLUMNS,
    Document,
    SurprisalTable,
    character_places,
    copied_share,
    paragraphs,
    repeated,
)
from hlm_jax.analysis.tables import shown
from hlm_jax.book.tokenizer import BaseTokenizer
from hlm_jax.errors import UserError
from hlm_jax.language_model import LanguageModel
from hlm_jax.measures.ngram import KneserNey
from hlm_jax.measures.overlap import SPAN, OverlapIndex
from hlm_jax.measures.progress import Progress
from hlm_jax.measures.reference import Reference
from hlm_jax.measures.score import encode
from hlm_jax.run import SPLITS, Run

__all__ = ["COLUMNS", "Document", "SurprisalTable", "documents_of", "joined", "surprisal_table"]

UNITS = ("token", "char")
KINDS = ("neglected", "merged")  # what the search over segmentations leaves out
NO_BOOK = "without the model's book the columns of counts, copies and splits are empty"


def surprisal_table(
    model: LanguageModel,
    documents: str | Document | Iterable[str | Document],
    *,
    unit: str = "token",
    top: int = 0,
    stride: int | None = None,
    reference: Reference | None = None,
    progress: Progress | None = None,
) -> SurprisalTable:
    """Scores every text from its beginning, where the chapter separator stands, exactly as it is.

    The bits of a text's rows sum to its cost under the model.

    Args:
      documents: one text or several. Clean and convert other texts as the training text was
        (Run.read_chapters does) before they are given here.
      unit: "token", or "char": probabilities of each next character, whatever its segmentation
        (analysis/surprisal/characters.py).
      top: how many of the likeliest units to report in the columns top_1, top_2, ….
      stride: of the windows of tokens (Evaluator.token_details); half a block by default.
      reference: the book that the model was trained on, for unigram_bits, ngram_bits, copied_len
        and the splits of texts; without it these are empty.

    Raises:
      UserError: an empty text, an unknown unit, or an impossible number.
    """
    if isinstance(documents, str | Document):
        documents = [documents]
    texts = [_document(text, reference) for text in documents]
    if not texts:
        raise UserError("there is no text to score")
    if unit not in UNITS:
        raise UserError(f"there is no unit {unit!r}: use {' or '.join(UNITS)}")
    characters = _character_columns(texts, reference)
    notes = [] if reference else [NO_BOOK]
    if unit == "token":
        columns = _token_columns(model, texts, characters, top, stride, progress)
    else:
        if stride is not None:
            raise UserError("a stride is of tokens: leave it out with --unit char")
        columns = _exact_columns(model, texts, characters, top, progress, notes)
    order = [*COLUMNS, *(name for name in columns if name not in COLUMNS)]
    return SurprisalTable(unit, {name: columns[name] for name in order}, texts, characters, notes)


def _document(text: str | Document, reference: Reference | None) -> Document:
    if isinstance(text, Document):
        return text
    return Document("text", 1, text, split_of(text, reference) if reference else "")


def split_of(text: str, reference: Reference) -> str:
    """The split of the chapters that a passage comes from, else "outside".

    A text that stands in a chapter, or is copied by more than half from the chapters of one split
    in spans of SPAN characters or more, has that split; training comes first. Fewer than SPAN
    characters prove nothing: they are "train" where they stand in a training chapter, else "", not
    known.
    """
    inside = text.strip()
    if len(inside) < SPAN:
        known = inside and any(inside in c.text for c in reference.splits["train"])
        return "train" if known else ""
    for name in SPLITS:
        if any(inside in chapter.text for chapter in reference.splits[name]):
            return name
    for name in SPLITS:
        if reference.splits[name] and copied_share(_index(reference, name).matches(text)[0]) > 0.5:
            return name
    return "outside"


_INDICES: "weakref.WeakKeyDictionary[Reference, dict[str, OverlapIndex]]"
_INDICES = weakref.WeakKeyDictionary()  # of what is held out; it is searched for every text


def _index(reference: Reference, name: str) -> OverlapIndex:
    """The chapters of a split, searchable for copied spans."""
    if name == "train":
        return reference.overlap_index
    of_splits = _INDICES.setdefault(reference, {})
    if name not in of_splits:
        of_splits[name] = OverlapIndex(reference.splits[name])
    return of_splits[name]


# --- columns ---


def _character_columns(
    documents: Sequence[Document], reference: Reference | None
) -> dict[str, np.ndarray]:
    """What is known of every character of all texts without the model."""
    texts = [document.text for document in documents]
    total = sum(map(len, texts))
    columns: dict[str, np.ndarray] = {"unigram_bits": np.full(total, np.nan)}
    columns["ngram_bits"] = np.full(total, np.nan)
    columns["copied_len"] = np.full(total, NONE, np.int32)
    if reference:
        training = [chapter.text for chapter in reference.splits["train"]]
        unigram = KneserNey(training, order=1)
        columns["unigram_bits"] = np.concatenate(
            [-np.log2(unigram.probabilities(t)) for t in texts]
        )
        five = [-np.log2(reference.baseline.probabilities(t)) for t in texts]
        columns["ngram_bits"] = np.concatenate(five)
        columns["copied_len"] = np.concatenate(_copied(documents, training, reference))
    columns["is_speech"] = np.concatenate([speech_mask(text) for text in texts])
    return columns


def _copied(
    documents: Sequence[Document], training: Sequence[str], reference: Reference
) -> list[np.ndarray]:
    """The longest copy from every character on; a training chapter's, from the other chapters."""
    place = {text: number for number, text in enumerate(training)}

    @functools.cache
    def within() -> list[np.ndarray]:
        return copies_within(training)

    return [
        within()[place[document.text]]
        if document.split == "train" and document.text in place
        else reference.overlap_index.matches(document.text)[0]
        for document in documents
    ]


def _token_columns(
    model: LanguageModel,
    documents: Sequence[Document],
    characters: dict[str, np.ndarray],
    top: int,
    stride: int | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """The columns with a row for each token."""
    tokenizer = model.tokenizer
    sequences = encode(tokenizer, [document.text for document in documents])
    details = model.evaluator.token_details(
        model.device_params, sequences, top=top, stride=stride, progress=progress
    )
    spans = [np.array(tokenizer.char_offsets(ids[1:]), np.int64) for ids in sequences]
    counts = [len(ids) - 1 for ids in sequences]
    start, end = np.concatenate(spans).T
    offsets = np.cumsum([0, *(len(document.text) for document in documents)])
    place = start + np.repeat(offsets[:-1], counts)

    def together(name: str, dtype: type) -> np.ndarray:
        return np.concatenate([getattr(one, name) for one in details]).astype(dtype)

    columns: dict[str, Any] = {
        "doc": repeated([document.name for document in documents], counts),
        "chapter": np.repeat([document.chapter for document in documents], counts),
        "paragraph": np.concatenate([paragraphs(d.text) for d in documents])[place],
        "index": np.concatenate([np.arange(n) for n in counts]),
        "start": start,
        "end": end,
        "text": [
            document.text[a:b]
            for document, span in zip(documents, spans, strict=True)
            for a, b in span.tolist()
        ],
        "token_id": np.concatenate([ids[1:] for ids in sequences]).astype(np.int32),
        "bits": together("nats", np.float64) / math.log(2),
        "rank": together("rank", np.int32),
        "entropy_bits": together("entropy", np.float64) / math.log(2),
        "context_tokens": together("context", np.int32),
        "split": repeated([document.split for document in documents], counts),
        "copied_len": characters["copied_len"][place],
        "is_speech": characters["is_speech"][place],
    }
    for name in ("unigram_bits", "ngram_bits"):
        columns[name] = _of_spans(characters[name], place)
    if top:
        ids = np.concatenate([one.top_ids for one in details])
        p = np.exp(np.concatenate([one.top_logprobs for one in details]))
        names = token_names(tokenizer)
        for k in range(top):
            pairs = zip(ids[:, k].tolist(), p[:, k].tolist(), strict=True)
            columns[f"top_{k + 1}"] = [f"{names[token]}:{of_it:.4f}" for token, of_it in pairs]
    return columns


def _of_spans(of_characters: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The sum over each token's characters; of the bytes of one character the first has it all.

    Args:
      place: of each token's first character; the tokens follow each other without a gap.
    """
    first = np.append(True, place[1:] != place[:-1])
    sums = np.full(len(place), np.nan if np.isnan(of_characters).any() else 0.0)
    sums[first] = np.add.reduceat(of_characters, place[first])
    return sums


def token_names(tokenizer: BaseTokenizer) -> list[str]:
    """The text of every token of the vocabulary; the name of one that is no text, as <0xE5>."""
    names = []
    for token in range(tokenizer.vocab_size):
        try:
            names.append(tokenizer.token_bytes(token).decode() or tokenizer.piece(token))
        except UnicodeDecodeError:
            names.append(tokenizer.piece(token))
    return names


def _exact_columns(
    model: LanguageModel,
    documents: Sequence[Document],
    characters: dict[str, np.ndarray],
    top: int,
    progress: Progress | None,
    notes: list[str],
) -> dict[str, Any]:
    """The columns with a row for each character; adds to `notes` what the search neglected."""
    from hlm_jax.analysis.surprisal.characters import character_scores

    texts = [document.text for document in documents]
    found = character_scores(model, texts, top=top, progress=progress)
    total = sum(map(len, texts))
    columns = character_places(documents)
    columns |= {"token_id": np.full(total, NONE), "context_tokens": np.full(total, NONE)}
    for name in ("bits", "rank", "entropy_bits"):
        columns[name] = np.concatenate([getattr(one, name) for one in found])
    columns |= characters
    end = model.tokenizer.piece(model.tokenizer.separator_id)
    for k in range(top):
        likely = (choices[k : k + 1] for one in found for choices in one.top)
        columns[f"top_{k + 1}"] = [
            f"{choice[0][0] or end}:{choice[0][1]:.4f}" if choice else "" for choice in likely
        ]
    dropped, lent = (max(float(getattr(one, n).max()) for one in found) for n in KINDS)
    notes.append(
        f"exact characters: at no character was more than {dropped:.1e} of the probability of the "
        f"text dropped, or more than {lent:.1e} lent between segmentations"
    )
    return columns


# --- what to score ---


def documents_of(
    run: Run,
    *,
    split: str | None = None,
    texts: Sequence[str | Path] = (),
    chapters: str = "",
    reference: Reference | None = None,
) -> list[Document]:
    """The chapters of a run's book, or text files, cleaned as the training text was.

    Args:
      split: "train", "val", "test" or "all"; by default "val", or "all" where chapters are named.
      texts: files instead, each a document; numbered from 1.
      chapters: the numbers of those to take, such as "3,5-7"; all by default.
      reference: where given, files that stand in its chapters get the split of these.

    Raises:
      UserError: a file or the book cannot be read, an empty split, or a number of no chapter.
    """
    if texts:
        if chapters or split:
            raise UserError("--text takes whole files: leave out --split and --chapters")
        found = []
        for number, path in enumerate(texts, start=1):
            (file,) = run.read_chapters(text=path)
            known = split_of(file.text, reference) if reference else ""
            found.append(Document(shown(file.heading), number, file.text, known, is_file=True))
        return found
    split = split or ("all" if chapters else "val")
    if split != "all":
        run.read_chapters(split=split)  # tells what to do where it is empty
    of = {chapter: name for name in SPLITS for chapter in run.reference.splits[name]}
    taken = sorted(of, key=lambda chapter: chapter.number)
    if chapters:
        taken = select(taken, chapters)
        if other := [c for c in taken if split not in (of[c], "all")]:
            raise UserError(
                f"chapter {other[0].number} is in the split {of[other[0]]}, not {split}: "
                "leave out --split, or the chapter"
            )
    name = shown(run.meta["corpus"]["name"])
    return [
        Document(name, chapter.number, chapter.text, of[chapter])
        for chapter in taken
        if split in (of[chapter], "all")
    ]


def joined(tables: Sequence[SurprisalTable]) -> SurprisalTable:
    """One table of several with the same unit and columns, in their order.

    Raises:
      UserError: there is none.
    """
    if not tables:
        raise UserError("there is no table to join")

    def chain(columns: Sequence[Any]) -> Any:
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)
        return [value for column in columns for value in column]

    first = tables[0]
    return SurprisalTable(
        first.unit,
        {name: chain([table.columns[name] for table in tables]) for name in first.columns},
        [document for table in tables for document in table.documents],
        {name: chain([table.characters[name] for table in tables]) for name in first.characters},
        list(dict.fromkeys(note for table in tables for note in table.notes)),
    )
