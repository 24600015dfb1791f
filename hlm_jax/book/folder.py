"""The files of a folder: which are the book's, and in which order they are read.

Decides by names and by the numbers in first lines.
"""

import collections
import re
from collections.abc import Sequence
from pathlib import Path

from hlm_jax.book.dropped import Dropped
from hlm_jax.book.headings import SENTENCE_END, number_in, numbers_in

# Of the files of a folder, those that are read; one without a suffix if it is text.
READ = (".txt", ".text", ".md", ".html", ".htm", ".xhtml", ".epub", "")


def without_suffix(name: str) -> str:
    """A file's name without the suffix of a text; "3. The Title" has none."""
    path = Path(name)
    return path.stem if path.suffix.lower() in READ else path.name


def is_numbered_title(path: Path) -> bool:
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


def apart(
    folder: Path, found: list[tuple[Path, bytes]]
) -> tuple[list[tuple[Path, bytes]], list[Dropped]]:
    """(the book's files, what is left out: README, LICENSE, tables of contents and the like).

    A table of contents or description that is half of all is the book, whatever its name, and a
    README alone in its subfolder is a chapter.
    """
    names = {path: without_suffix(path.name) for path, _ in found}
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
            others.append(Dropped.of(f"file {path.name}", text))
        else:
            kept.append((path, data))
    return kept, others


def _is_named(names: re.Pattern[str], name: str) -> bool:
    """Whether a file has one of these names; what has a number is a chapter."""
    return bool(names.fullmatch(name)) and number_in(name) is None


_FRONT = re.compile(
    r"(?i)[自原代总總再]?序[言章文曲]?|楔子|引[首子言]|前言|凡例|[题題][词詞辞辭]|卷首|弁言|缘起|緣起"
    r"|prologue|preface|foreword|introduction|title|cover"
)
_BACK = re.compile(
    r"(?i)[后後][记記序]|跋|尾[声聲]|[结結]语|附[录錄]|番外.*|epilogue|afterword|postscript|appendix"
)


def _numbers(name: str) -> tuple[float, ...]:
    """The numbers of a name, volume first; () without. A tenth more for 上, two for 中, … .

    A name with 上 and no number has the tenth alone. A letter, as in 006b, is so many thousandths.
    """
    if lettered := LETTERED.match(name):
        return (int(lettered[1]) + (ord(lettered[2].lower()) - 96) / 1000,)
    number = number_in(name)
    half = _HALVES.search(name)
    tenths = "上中下".index(half[1]) + 1 if half else 0
    if number is None:
        return (tenths / 10,) if half else ()
    several = numbers_in(name)
    upper = several[:-1] if several and several[-1] == number else ()
    return (*upper, number + tenths / 10 if half else number)


LETTERED = re.compile(r"([0-9]{1,5})([A-Za-z])(?:[\s_.、\-]+|$)")  # 006b: between 006 and 007
_HALVES = re.compile(r"([上中下])[卷册冊部集篇编編]?[)）】\]]?\s*$")


def heading_numbers(text: str) -> tuple[float, ...]:
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


def in_order(
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
            below, doubts = in_order(entry, inside[entry], firsts)
            ordered += below
            notes += doubts
    return ordered, notes


def _sorted(
    folder: Path, entries: list[Path], firsts: dict[Path, tuple[float, ...]], notes: list[str]
) -> list[Path]:
    """A folder's files and subfolders in reading order; adds to `notes` what is doubtful."""
    names = {
        entry: without_suffix(entry.name) if entry in firsts else entry.name for entry in entries
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
        if not 0 < number[-1] < 1:  # 上, 中 or 下 alone
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
    """The numbers of a file for people: 2.1, 3上 for the first half of 3, and 6b."""
    whole = int(number[-1])
    thousandths = round(1000 * (number[-1] - whole))
    half = "上中下"[thousandths // 100 - 1] if thousandths >= 100 else ""
    half = chr(96 + thousandths) if 0 < thousandths < 100 else half
    last = str(whole) if whole or not half else ""
    return ".".join([*map(str, number[:-1]), last + half])


def _list(words: Sequence[str]) -> str:
    shown = ", ".join(words[:10])
    return shown if len(words) <= 10 else f"{shown} and {len(words) - 10} more"
