"""Files -> text: a text, HTML or EPUB file, or a folder of them in reading order.

Knows nothing of chapters but the numbers in names. encoding.py turns bytes into text, markup.py
HTML and EPUB. What a text goes through afterwards is in corpus.py.
"""

import collections
import dataclasses
import os
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hlm_jax.book.encoding import CorpusError, Decoded, decode
from hlm_jax.book.headings import SENTENCE_END, number_in, numbers_in
from hlm_jax.book.markup import Dropped, decode_html, dropped, epub_texts, html_text, is_html

__all__ = ["CorpusError", "Dropped", "Source", "TextFile", "read_source", "read_text"]

# Of the files of a folder, those that are read; one without a suffix if it is text.
_READ = (".txt", ".text", ".md", ".html", ".htm", ".xhtml", ".epub", "")


@dataclasses.dataclass(frozen=True)
class TextFile:
    """One file's text, or that of one document of an EPUB.

    Attributes:
      name: relative to the book's folder, with "/"; or the name inside the EPUB.
      text: with LF line ends.
      encoding: a codec of Python.
    """

    name: str
    text: str
    encoding: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A book as its files.

    Attributes:
      name: of the file without suffix, or of the folder.
      path: absolute.
      files: in reading order.
      encoding: of all files, the most frequent first, such as "utf-8" or "epub (utf-8)".
      notes: damage, and what is doubtful about the files; one line each.
      dropped: what is not the book's text: footnotes, navigation, README, LICENSE.
      skipped: how many files of a folder were not read, by suffix.
    """

    name: str
    path: str
    files: tuple[TextFile, ...]
    encoding: str
    notes: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    skipped: dict[str, int]


@dataclasses.dataclass(frozen=True)
class _Content:
    """What one file on disk holds."""

    files: list[TextFile]
    encoding: str
    notes: list[str]
    dropped: list[Dropped]


def read_text(path: str | Path) -> str:
    """The text of one file in any of the formats, LF line ends; warns where something is damaged.

    `~` in the path is expanded.

    Raises:
      CorpusError: missing, empty, damaged, or in an unknown format or encoding.
    """
    path = Path(path).expanduser()
    content = _content(_bytes(path), path, path.name)
    for note in content.notes:
        warnings.warn(note, stacklevel=2)
    return "\n".join(file.text.removesuffix("\n") for file in content.files) + (
        "\n" if content.files[-1].text.endswith("\n") else ""
    )


def read_source(path: str | Path) -> Source:
    """A book from a file, or from a folder with its subfolders.

    The files of a folder are ordered by the numbers in their names or else in their first lines,
    in any form of numeral, or else by name, with prefaces first and epilogues last.

    Args:
      path: `~` is expanded.

    Raises:
      CorpusError: as read_text; also a folder without text.
    """
    path = Path(path).expanduser()
    if not _is_folder(path):
        content = _content(_bytes(path), path, path.name)
        return _source(path.absolute().stem, path, [content], [], [], {})
    found, skipped, notes = _walk(path)
    found, others = _apart(path, found)
    firsts: dict[Path, tuple[float, ...]] = {}  # numbers in the first lines
    by_path: dict[Path, _Content] = {}
    for file, data in found:
        if not data.strip():
            notes.append(f"{file}: the file is empty")
            continue
        suffix = file.suffix.lower()
        if (not suffix or suffix not in _READ) and not _may_be_text(data):
            skipped[suffix] = skipped.get(suffix, 0) + 1
            continue
        by_path[file] = content = _content(data, file, file.relative_to(path).as_posix())
        firsts[file] = _heading_numbers(content.files[0].text)
    if not by_path:
        raise CorpusError(f"{path}: no text in this folder ({_there(skipped, others, notes)})")
    ordered, doubts = _in_order(path, list(by_path), firsts)
    contents = [by_path[file] for file in ordered]
    notes += doubts + _twice(path, contents)
    return _source(path.resolve().name, path, contents, notes, others, skipped)


def _source(
    name: str,
    path: Path,
    contents: list[_Content],
    notes: list[str],
    others: list[Dropped],
    skipped: dict[str, int],
) -> Source:
    encodings = collections.Counter(content.encoding for content in contents)
    parts: dict[str, Dropped] = {}
    for part in (part for content in contents for part in content.dropped):
        old = parts.get(part.what, dataclasses.replace(part, chars=0))
        parts[part.what] = dataclasses.replace(old, chars=old.chars + part.chars)
    return Source(
        name,
        str(path.absolute()),
        tuple(file for content in contents for file in content.files),
        ", ".join(encoding for encoding, _ in encodings.most_common()),
        tuple(notes + [note for content in contents for note in content.notes]),
        (*parts.values(), *others),
        dict(sorted(skipped.items())),
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from error


def _content(data: bytes, path: Path, name: str) -> _Content:
    """The text of one file of any format.

    Raises:
      CorpusError: as read_text.
    """
    if not data.strip():
        raise CorpusError(f"{path}: the file is empty")
    if data.startswith(b"PK") and _zip_kind(path) == "epub":
        epub = epub_texts(path)
        if not epub.pages:
            raise CorpusError(f"{path}: no text in this EPUB; its pages may be images")
        codecs = collections.Counter(page.encoding for page in epub.pages)
        encoding = ", ".join(codec for codec, _ in codecs.most_common())
        files = [TextFile(page.name, page.text, page.encoding) for page in epub.pages]
        return _Content(files, f"epub ({encoding})", list(epub.notes), list(epub.dropped))
    _refuse_other_formats(data, path)
    decoded = _decoded(data, path)
    text, encoding = decoded.text, decoded.encoding
    left_out: list[Dropped] = []
    if path.suffix.lower() in (".html", ".htm", ".xhtml") or is_html(text):
        decoded = decode_html(data, str(path))
        text, left_out = html_text(decoded.text, str(path))
        encoding = f"html ({decoded.encoding})"
    if not text.strip():
        raise CorpusError(f"{path}: no text in it")
    return _Content(
        [TextFile(name, text, decoded.encoding)], encoding, list(decoded.notes), left_out
    )


def _decoded(data: bytes, path: Path) -> Decoded:
    """The file as text; HTML may say itself which encoding it is in."""
    looks_like_html = path.suffix.lower() in (".html", ".htm", ".xhtml") or re.search(
        rb"(?i)<(?:!doctype|html|meta)", data[:2_000]
    )
    return (decode_html if looks_like_html else decode)(data, str(path))


_MAGIC = (  # how files of other formats begin, at which offset
    (0, b"%PDF-", "pdf"),
    (0, b"{\\rtf", "rtf"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "doc"),
    (60, b"BOOKMOBI", "mobi"),
    (60, b"TEXtREAd", "mobi"),
    (0, b"TPZ", "mobi"),
    (0, b"\xeaDRMION\xee", "mobi"),
    (0, b"AT&TFORM", "djvu"),
    (0, b"ITSF\3\0", "chm"),
    (0, b"\x89PNG\r\n", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"GIF8", "image"),
    (0, b"II*\0", "image"),
    (0, b"MM\0*", "image"),
    (8, b"WEBPVP8", "image"),
    (0, b"Rar!\x1a\x07", "archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "archive"),
    (0, b"\x1f\x8b\x08", "archive"),
    (0, b"BZh", "archive"),
    (0, b"\xfd7zXZ\0", "archive"),
    (0, b"\x28\xb5\x2f\xfd", "archive"),
    (257, b"ustar", "archive"),
)
_SUFFIXES = {
    "pdf": (".pdf",),
    "rtf": (".rtf",),
    "doc": (".doc", ".wps"),
    "docx": (".docx", ".odt"),
    "mobi": (".mobi", ".azw", ".azw3", ".azw4", ".prc", ".kfx"),
    "fb2": (".fb2", ".lit", ".lrf", ".umd", ".snb", ".pdb"),
    "djvu": (".djvu", ".djv"),
    "chm": (".chm",),
    "image": (".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".webp", ".bmp"),
    "archive": (".zip", ".rar", ".7z", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tar"),
    "epub": (".epub",),
}
_ADVICE = {
    "pdf": "PDF is not read; extract its text with pdftotext {name} {plain} and read it through",
    "rtf": "RTF is not read; save it as plain text in UTF-8",
    "doc": "Word's .doc is not read; save it as plain text in UTF-8",
    "docx": "a word processor's file is not read; save it as plain text in UTF-8, "
    "or pandoc {name} -t plain --wrap=none -o {plain}",
    "mobi": "Kindle's format is not read; convert it with Calibre: "
    "ebook-convert {name} {stem}.epub",
    "fb2": "this e-book's format is not read; convert it with Calibre: "
    "ebook-convert {name} {stem}.epub",
    "djvu": "DjVu is not read; extract its text with djvutxt {name} {plain} and read it through",
    "chm": "CHM is not read; convert it with Calibre: ebook-convert {name} {stem}.epub",
    "image": "an image is not read; use a text, HTML or EPUB file",
    "archive": "an archive is not read; unpack it into a folder and give the folder",
    "epub": "a damaged EPUB, or none; get it again",
}


def _refuse_other_formats(data: bytes, path: Path) -> None:
    """Raises CorpusError with the advice that helps for a file that is neither text nor HTML."""
    begins = (kind for at, magic, kind in _MAGIC if data[at : at + len(magic)] == magic)
    kind = next(begins, "")
    if not kind and data.startswith((b"PK\3\4", b"PK\5\6")):
        kind = _zip_kind(path)
    if not kind and b"%PDF-" in data[:1_024]:
        kind = "pdf"
    if not kind and b"<FictionBook" in data[:2_000]:
        kind = "fb2"
    kind = kind or _named_kind(path)
    if kind:
        plain = path.stem + (".txt" if path.suffix != ".txt" else "-plain.txt")
        advice = _ADVICE[kind].format(name=path.name, stem=path.stem, plain=plain)
        raise CorpusError(f"{path}: {advice}")


def _named_kind(path: Path) -> str:
    """The format that a file's suffix names, "" for text and HTML."""
    suffix = path.suffix.lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if suffix in suffixes), "")


def _zip_kind(path: Path) -> str:
    """Which format a ZIP file is: epub, docx or archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile:
        return _named_kind(path) or "archive"
    if "META-INF/container.xml" in names:
        return "epub"
    return "docx" if names & {"word/document.xml", "content.xml"} else "archive"


def _walk(folder: Path) -> tuple[list[tuple[Path, bytes]], dict[str, int], list[str]]:
    """(files that may hold text with their bytes, number of other files by suffix, notes)."""
    found: list[tuple[Path, bytes]] = []
    skipped: collections.Counter[str] = collections.Counter()
    notes: list[str] = []
    seen: set[tuple[int, int]] = set()  # folders, by device and number: links may form a circle

    def enter(inside: Path) -> None:
        try:
            status = inside.stat()
            entries = sorted(os.scandir(inside), key=lambda entry: entry.name)
        except OSError as error:
            raise CorpusError(f"{inside}: cannot be read ({error.strerror})") from error
        if (status.st_dev, status.st_ino) in seen:
            notes.append(f"{inside}: a link to a folder that is read already")
            return
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if path.is_dir():
                enter(path)
            elif not path.is_file():
                notes.append(f"{path}: neither a file nor a folder")
            elif path.suffix.lower() in _READ or _is_numbered_title(path):
                found.append((path, _bytes(path)))
            else:
                skipped[path.suffix.lower()] += 1

    enter(folder)
    return found, dict(skipped), notes


def _is_numbered_title(path: Path) -> bool:
    """Whether what looks like a suffix is part of a name without one: "3. Title", 第1.2回."""
    return bool(re.search(r"[\s\u2e80-\uffef]", path.suffix))


_REPOSITORY = re.compile(  # names of files that stand beside a book
    r"(?i)(?:readme|license|licence|copying|changelog|changes|contributing|contributors|notice"
    r"|authors|todo|code_of_conduct|mimetype|cname|_\w+)(?:[-_. (（].*)?"
)
_ABOUT = re.compile(  # names of files about a book, and of its lists
    r"(?i)(?:index|toc|contents|nav|summary|笔记|封[面底]|扉[页頁]|书评|書評|目[录錄次]|(?:使用|下载|下載)?[说說]明|(?:内容|內容|作品|作者|小说)?[简簡]介"
    r"|版[权權](?:信息|声明|聲明|頁|页)?|(?:免责)?声明)(?:[-_. (（].*)?"
)


def _apart(
    folder: Path, found: list[tuple[Path, bytes]]
) -> tuple[list[tuple[Path, bytes]], list[Dropped]]:
    """(the book's files, what is left out: README, LICENSE, tables of contents and the like).

    A table of contents or description that is half of all is the book, whatever its name, and a
    README alone in its subfolder is a chapter.
    """
    names = {path: path.stem if path.suffix.lower() in _READ else path.name for path, _ in found}
    inside = collections.Counter(path.parent for path in names)
    beside = {
        path
        for path, name in names.items()
        if _is_named(_REPOSITORY, name) and (path.parent == folder or inside[path.parent] > 1)
    }
    total = sum(len(data) for path, data in found if path not in beside)
    kept, others = [], []
    for path, data in found:
        about = _is_named(_ABOUT, names[path]) and 2 * len(data) < total
        if path in beside or about:
            text = data.decode("utf-8", "replace")  # only counted
            others.append(dropped(f"file {path.name}", [text]))
        else:
            kept.append((path, data))
    return kept, others


def _is_named(names: re.Pattern[str], name: str) -> bool:
    """Whether a file has one of these names; what has a number is a chapter."""
    return bool(names.fullmatch(name)) and number_in(name) is None


def _may_be_text(data: bytes) -> bool:
    try:
        decode(data, "")
    except CorpusError:
        return False
    return True


def _there(skipped: dict[str, int], others: Sequence[Dropped], notes: Sequence[str]) -> str:
    """What a folder without text holds, for an error."""
    parts = [f"{count} {suffix or 'without suffix'}" for suffix, count in skipped.items()]
    parts += [other.what for other in others]
    empty = sum(note.endswith("the file is empty") for note in notes)
    parts += [f"{empty} empty"] if empty else []
    return "only " + ", ".join(parts) if parts else "it is empty"


_FRONT = re.compile(
    r"(?i)[自原代总總再]?序[言章文曲]?|楔子|引[首子言]|前言|凡例|[题題][词詞辞辭]|卷首|弁言|缘起|緣起"
    r"|prologue|preface|foreword|introduction|title|cover"
)
_BACK = re.compile(
    r"(?i)[后後][记記序]|跋|尾[声聲]|[结結]语|附[录錄]|番外.*|epilogue|afterword|postscript|appendix"
)


def _numbers(name: str) -> tuple[float, ...]:
    """The numbers of a name, volume first; () without. A tenth more for 上, two for 中, … ."""
    number = number_in(name)
    half = _HALVES.search(name)
    tenths = "上中下".index(half[1]) + 1 if half else 0
    if number is None:
        return (tenths,) if half else ()
    several = numbers_in(name)
    upper = several[:-1] if several and several[-1] == number else ()
    return (*upper, number + tenths / 10 if half else number)


_HALVES = re.compile(r"([上中下])[卷册冊部集篇编編]?[)）】\]]?\s*$")


def _heading_numbers(text: str) -> tuple[float, ...]:
    """The numbers in a text's first line if that is a heading, else ()."""
    first = re.search(r"\S.*", text)
    line = first[0].strip() if first else ""
    if len(line) > 60 or line.endswith(tuple(SENTENCE_END)):
        return ()
    # A digit within a line without 回 or Chapter is no chapter's number.
    return _numbers(line) if numbers_in(line) or not re.search(r"[^0-9][0-9]", line) else ()


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which chapter-2 comes before chapter-10."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _in_order(
    folder: Path, files: list[Path], firsts: dict[Path, tuple[float, ...]]
) -> tuple[list[Path], list[str]]:
    """(files of a folder and its subfolders in reading order, what is doubtful about it)."""
    inside: dict[Path, list[Path]] = collections.defaultdict(list)
    for file in files:
        inside[folder / file.relative_to(folder).parts[0]].append(file)
    notes: list[str] = []
    ordered: list[Path] = []
    for entry in _sorted(folder, list(inside), firsts, notes):
        if entry in firsts:
            ordered.append(entry)
        else:
            below, doubts = _in_order(entry, inside[entry], firsts)
            ordered += below
            notes += doubts
    return ordered, notes


def _sorted(
    folder: Path, entries: list[Path], firsts: dict[Path, tuple[float, ...]], notes: list[str]
) -> list[Path]:
    """A folder's files and subfolders in reading order; adds to `notes` what is doubtful."""
    names = {
        entry: entry.stem if entry in firsts and entry.suffix.lower() in _READ else entry.name
        for entry in entries
    }
    entries = sorted(entries, key=lambda entry: _natural(names[entry]))
    if len(entries) < 2:
        return entries
    numbers = {entry: _numbers(names[entry]) for entry in entries}
    place = {entry: 1 for entry in entries}  # 0: before the numbered ones, 2: behind
    for entry in entries:
        if not numbers[entry]:
            name = names[entry].strip()
            place[entry] = 0 if _FRONT.fullmatch(name) else 2 if _BACK.fullmatch(name) else 1
    body = [entry for entry in entries if place[entry] == 1]
    if len({len(numbers[entry]) for entry in body if numbers[entry]}) > 1:  # some with a volume
        last = {entry: numbers[entry][-1:] for entry in body}
        if _tell_apart(body, last):
            numbers |= last
        else:
            notes.append(f"{folder.name}: only some names have the number of a volume")
    if not _tell_apart(body, numbers):
        lines = {entry: firsts.get(entry, ()) for entry in body}
        if _tell_apart(body, lines):
            numbers |= lines
            notes.append(f"{folder.name}: in the order of the numbers in the files' first lines")
        elif any(numbers[entry] for entry in body):
            numbers |= _doubtful(folder, body, names, numbers, notes)
    _note_gaps(folder, [numbers[entry] for entry in body if numbers[entry]], notes)
    # Without a number of its own a file stands behind those with one.
    return sorted(
        entries,
        key=lambda entry: (place[entry], not numbers[entry], numbers[entry]),
    )


def _tell_apart(entries: list[Path], numbers: dict[Path, tuple[float, ...]]) -> bool:
    """Whether every entry has a number and no two the same."""
    found = [numbers[entry] for entry in entries]
    return all(found) and len(set(found)) == len(found)


def _doubtful(
    folder: Path,
    body: list[Path],
    names: dict[Path, str],
    numbers: dict[Path, tuple[float, ...]],
    notes: list[str],
) -> dict[Path, tuple[float, ...]]:
    """The numbers to sort by where names lack one or share one; says so in `notes`."""
    without = [names[entry] for entry in body if not numbers[entry]]
    counts = collections.Counter(numbers[entry] for entry in body if numbers[entry])
    repeated = [_dotted(number) for number, count in sorted(counts.items()) if count > 1]
    if 2 * len(counts) <= len(body):  # the title's number, say: it tells nothing
        notes.append(f"{folder.name}: in the order of the files' names, which may be wrong")
        return dict.fromkeys(body, ())
    if repeated:
        notes.append(f"{folder.name}: several files have number {_list(repeated)}")
    if without:
        notes.append(f"{folder.name}: without a number and read last: {_list(without)}")
    return {}


def _note_gaps(folder: Path, found: list[tuple[float, ...]], notes: list[str]) -> None:
    groups: dict[tuple[float, ...], set[int]] = collections.defaultdict(set)
    for number in found:
        groups[number[:-1]].add(int(number[-1]))
    missing = [
        _dotted((*upper, number))
        for upper, last in sorted(groups.items())
        for number in range(min(last), max(last) + 1)
        if number not in last and max(last) < 10_000
    ]
    if missing:
        notes.append(f"{folder.name}: no file has number {_list(missing)}")


def _dotted(number: tuple[float, ...]) -> str:
    return ".".join(map(str, number))


def _list(words: Sequence[str]) -> str:
    shown = ", ".join(words[:10])
    return shown if len(words) <= 10 else f"{shown} and {len(words) - 10} more"


def _twice(folder: Path, contents: list[_Content]) -> list[str]:
    """One note for each file whose text stands in another one as well."""
    seen: dict[str, str] = {}
    notes = []
    for file in (file for content in contents for file in content.files):
        text = file.text.strip()
        if text in seen:
            notes.append(f"{folder.name}: {seen[text]} and {file.name} have the same text")
        else:
            seen[text] = file.name
    return notes
