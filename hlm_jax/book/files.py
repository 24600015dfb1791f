"""Bytes -> text: reads a text file in any encoding that Chinese books come in, or a folder of them.

Knows nothing of chapters. What a text goes through afterwards is in corpus.py.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from hlm_jax.errors import UserError

TEXT_SUFFIXES = (".txt", ".md", "")  # of the files that a folder of chapters is read from


class CorpusError(UserError):
    """A book that cannot be read or is not a book."""


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A part of a book that is not the book's text and was left out.

    Attributes:
      what: the kind in a few words, such as "Project Gutenberg licence".
      chars: how many characters.
      first: how the part begins, at most 40 characters.
    """

    what: str
    chars: int
    first: str


def read_text(path: str | Path) -> str:
    """A text file's content with LF line ends.

    The file is UTF-8, UTF-16 (with or without BOM), GB18030 or Big5. `~` in the path is expanded.

    Raises:
      CorpusError: missing, empty, or in none of these encodings.
    """
    path = Path(path).expanduser()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.strip():
        raise CorpusError(f"{path}: the file is empty")
    return _decode(data, path).replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")


def read_book(path: str | Path) -> tuple[str, str, dict[str, Any]]:
    """A book's name, its text, and where it came from ({"path": absolute path}).

    Args:
      path: a text file, or a folder of chapter files, which are read in the order of their names
        (chapter-2 before chapter-10). `~` is expanded.

    Raises:
      CorpusError: as read_text; also a folder without text files.
    """
    path = Path(path).expanduser().absolute()
    try:
        is_folder = path.is_dir()
        inside = list(path.iterdir()) if is_folder else []
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_folder:
        return path.stem, read_text(path), {"path": str(path)}
    files = [
        file
        for file in inside
        if file.suffix.lower() in TEXT_SUFFIXES and file.is_file() and not file.name.startswith(".")
    ]
    if not files:
        raise CorpusError(f"{path}: no .txt files in this folder")
    texts = [read_text(file) for file in sorted(files, key=_natural)]
    text = "\n".join(text.strip("\n") for text in texts)
    return path.resolve().name, text, {"path": str(path), "files": len(files)}


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key under which chapter-2 comes before chapter-10."""
    parts = [part for part in re.split(r"(\d+)", path.name) if part]
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
    return key, path.name


def _decode(data: bytes, path: Path) -> str:
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
        if "\0" not in text:
            return text
    except UnicodeDecodeError:
        pass
    import charset_normalizer  # late: most books are UTF-8

    # The detector chooses among the encodings of Chinese books; its choice must decode every byte.
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
        plausible, _, text = max(readable, key=lambda candidate: candidate[:2])
        # A wrong encoding yields rare Han characters only, which score about 0.5.
        # A heading alone has few frequent characters, so a short text needs less.
        if plausible > (0.6 if len(text) >= 200 else 0.5):
            return text
    raise CorpusError(
        f"{path}: not text in UTF-8, UTF-16, GB18030 or Big5; save it as UTF-8 and try again"
    )


_COMMON = re.compile(
    r"[\n\r\t -~，。：；！？、“”‘’「」『』《》…—\u3000"
    r"的一是不了人我在有他之来大以个中上也你而子那得于着下自后道"
    r"個們國說時會對過這為來還沒後作裡见只去便儿心么]"
)


def _plausibility(text: str) -> float:
    """How much a decoding looks like Chinese prose, about 0 to 1.5.

    A Han character counts half, a frequent one or punctuation one more.
    """
    sample = text[:100_000]
    han = len(re.findall(r"[\u4e00-\u9fff]", sample))
    return (0.5 * han + len(_COMMON.findall(sample))) / max(1, len(sample))
