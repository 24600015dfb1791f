"""Files -> text: a text, HTML or EPUB file, or a folder of them in reading order.

encoding.py turns bytes into text, markup.py and epub.py turn HTML and EPUB into text, and folder.py
puts the files of a folder into order. Other formats are refused here with the program that converts
them. What a text goes through afterwards is in corpus.py.
"""

import collections
import dataclasses
import os
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hlm_jax.book.dropped import Dropped
from hlm_jax.book.encoding import Decoded, decode
from hlm_jax.book.epub import epub_texts
from hlm_jax.book.errors import CorpusError, NoTextError
from hlm_jax.book.folder import READ, apart, heading_numbers, in_order, is_numbered_title
from hlm_jax.book.markup import decode_html, html_text, is_html

__all__ = ["CorpusError", "Dropped", "Source", "TextFile", "read_source", "read_text"]


@dataclasses.dataclass(frozen=True)
class TextFile:
    """One file's text, or that of one document of an EPUB.

    Attributes:
      name: relative to the book's folder, with "/"; or the name inside the EPUB.
      text: with LF line ends.
    """

    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A book as its files.

    Attributes:
      name: of the file without suffix, or of the folder.
      path: absolute.
      files: in reading order.
      encoding: of all files, the most frequent first, such as "utf-8" or "epub (utf-8)".
      notes: damage, and what is doubtful about the files; one line each. What is said of several
        files is one note, which names the first.
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
    path = Path(os.path.expanduser(path))
    content = _content(_bytes(path), path, path.name)
    for note in _together(content.notes):
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
    path = Path(os.path.expanduser(path))
    if not _is_folder(path):
        content = _content(_bytes(path), path, path.name)
        return _source(path.absolute().stem, path, [content], [], [], {})
    found, skipped, notes = _walk(path)
    found, others = apart(path, found)
    firsts: dict[Path, tuple[float, ...]] = {}  # numbers in the first lines
    by_path: dict[Path, _Content] = {}
    for file, data in found:
        suffix = file.suffix.lower()
        if (not suffix or suffix not in READ) and not _may_be_text(data):
            skipped[suffix] = skipped.get(suffix, 0) + 1
            continue
        try:
            content = _content(data, file, file.relative_to(path).as_posix())
        except NoTextError as error:
            notes.append(str(error))
            continue
        by_path[file] = content
        firsts[file] = heading_numbers(content.files[0].text)
    if not by_path:
        raise CorpusError(f"{path}: no text in this folder ({_there(skipped, others, notes)})")
    ordered, doubts = in_order(path, list(by_path), firsts)
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
    return Source(
        name,
        str(path.absolute()),
        tuple(file for content in contents for file in content.files),
        ", ".join(encoding for encoding, _ in encodings.most_common()),
        tuple(_together([*notes, *(note for content in contents for note in content.notes)])),
        (*(part for content in contents for part in content.dropped), *others),
        dict(sorted(skipped.items())),
    )


def _together(notes: Sequence[str]) -> list[str]:
    """Notes that say the same of several files as one, which names the first."""
    places: dict[str, list[str]] = {}
    for note in notes:
        place, _, words = note.partition(": ")
        places.setdefault(words, []).append(place)
    return [
        f"{several[0]} and {len(several) - 1} more: {words}"
        if len(several) > 1
        else f"{several[0]}: {words}"
        for words, several in places.items()
    ]


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
        raise NoTextError(f"{path}: the file is empty")
    if data.startswith(b"PK") and _zip_kind(path) == "epub":
        epub = epub_texts(path)
        if not epub.pages:
            raise NoTextError(f"{path}: no text in this EPUB; its pages may be images")
        codecs = collections.Counter(page.encoding for page in epub.pages)
        encoding = ", ".join(codec for codec, _ in codecs.most_common())
        files = [TextFile(page.name, page.text) for page in epub.pages]
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
        raise NoTextError(f"{path}: no text in it")
    return _Content([TextFile(name, text)], encoding, list(decoded.notes), left_out)


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
            elif path.suffix.lower() in READ or is_numbered_title(path):
                found.append((path, _bytes(path)))
            else:
                skipped[path.suffix.lower()] += 1

    enter(folder)
    return found, dict(skipped), notes


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
    empty = sum("no text in" in note or "file is empty" in note for note in notes)
    parts += [f"{empty} without text"] if empty else []
    return "only " + ", ".join(parts) if parts else "it is empty"


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
