"""HTML -> text: one line for each block of text, without what is not the book's text.

Footnotes, readings above characters (ruby) and navigation are left out and listed.
"""

import codecs
import html.entities
import re
from typing import Any

from hlm_jax.book.dropped import Dropped
from hlm_jax.book.encoding import Decoded, decode
from hlm_jax.book.errors import CorpusError

_BLOCKS = re.compile(
    "address|article|aside|blockquote|body|caption|center|dd|details|dialog|dir|div|dl|dt|fieldset"
    "|figcaption|figure|footer|form|h[1-6]|header|hgroup|hr|html|legend|li|main|menu|nav|ol|p|pre"
    "|section|summary|table|tbody|tfoot|thead|tr|ul"
)
_NO_TEXT = re.compile(
    "applet|audio|button|canvas|datalist|embed|frameset|head|iframe|input|map|math|meter|noscript"
    "|object|progress|script|select|style|svg|template|textarea|title|video"
)
_NOTE_NAME = re.compile(r"(?i)^(?:duokan-)?(?:(?:foot|end|rear)-?_?notes?|note-?_?ref)")
_NOTE_TYPE = re.compile(r"(?:foot|end|rear)notes?\b|noteref\b")
_MARK = re.compile(r"\s*[\[［(（〔【]?(?:[0-9０-９]{1,4}|[a-z*†‡①-⑳㉑-㉟注註])+[\]］)）〕】]?\s*")
_BRACKETED = re.compile(
    r"\s*[\[［〔【](?:[0-9０-９]{1,4}|[注註][0-9０-９]*)[\]］〕】]\s*|\s*[①-⑳†‡]\s*"
)
_CJK = "‘’“”…—\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_WRAP = re.compile(rf"(?<=[{_CJK}])[ \t\f]*\n[ \t\n\f]*(?=[{_CJK}])")
_SPACE = re.compile(r"[ \t\n\f]+")
_TAG = re.compile(r"</?(?:p|br|div|td|tr|li|h[1-6]|font|span|hr|center)\b[^<>]{0,500}>", re.I)
_OPENING = re.compile(
    r"(?:<\?xml[^>]{0,200}\?>|<!--.{0,2000}?-->|\s)*<(?:!doctype\s+html|html|head|body)\b",
    re.I | re.S,
)
_DECLARED = re.compile(
    rb"""<meta[^>]{0,300}?charset\s*=\s*["']?([\w.:-]{2,30})|^\s*<\?xml[^>]{0,200}?encoding\s*=\s*"""
    rb"""["']([\w.:-]{2,30})""",
    re.I,
)


def is_html(text: str) -> bool:
    """Whether a text is HTML: it begins as HTML does, or most of its lines have tags of HTML."""
    if _OPENING.match(text):
        return True
    if len(re.findall("<(?:p|br|div)[ />]", text[:100_000], re.I)) < 3:
        return False
    lines = [line for line in text[:100_000].split("\n") if line.strip()]
    return sum(bool(_TAG.search(line)) for line in lines) > 0.5 * len(lines)


def decode_html(data: bytes, name: str) -> Decoded:
    """The source text of HTML: as `decode`, or as the document says where that fails or is vague.

    Raises:
      CorpusError: as `decode`.
    """
    declared = _declared(data)
    try:
        decoded = decode(data, name)
    except CorpusError:
        text = _strictly(data, declared)
        if text is None:
            raise
        return Decoded(text, declared)
    if decoded.encoding in ("cp1252", "latin-1", "cp1251", "koi8-r"):
        text = _strictly(data, declared)
        if text is not None and not declared.startswith(("gb", "big5", "euc", "shift", "utf")):
            return Decoded(text, declared)
    return decoded


def _declared(data: bytes) -> str:
    """The codec that the document names, or ""."""
    match = _DECLARED.search(data[:4_000])
    if not match:
        return ""
    try:
        codec = codecs.lookup((match[1] or match[2]).decode("ascii"))
    except (LookupError, UnicodeDecodeError):
        return ""
    # Browsers read Latin-1 as its superset.
    return "cp1252" if codec.name == "iso8859-1" else codec.name


def _strictly(data: bytes, codec: str) -> str | None:
    """The text in a codec, LF line ends; None if a byte does not fit or there is no codec."""
    if not codec:
        return None
    try:
        text = data.decode(codec)
    except (UnicodeDecodeError, LookupError):  # LookupError: not a codec of text
        return None
    return None if "\0" in text else "\n".join(text.splitlines())


def html_text(source: str, name: str = "HTML") -> tuple[str, list[Dropped]]:
    """The text of HTML or XHTML, one line for each block, and what was left out.

    White space is collapsed except in <pre>; entities are resolved; cells are separated by a space.

    Args:
      name: stands at the beginning of errors.

    Raises:
      CorpusError: tags nested deeper than the parser goes.
    """
    writer = _Writer()
    writer.walk(_tree(source, name))
    return writer.text(), writer.dropped


def _tree(text: str, name: str) -> Any:
    """The parsed document: as XML where it is well-formed, so that <title/> and <a/> are empty."""
    from lxml import etree  # late: most books are plain text

    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text)
    if "xmlns" in text[:2_000]:
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True,
            remove_pis=True, huge_tree=False, encoding="utf-8",
        )  # fmt: skip
        body = re.sub(r"<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>", "", text, count=1, flags=re.S | re.I)
        body = re.sub(r"&(\w+);", _entity, body)
        try:
            return etree.fromstring(body.strip().encode("utf-8", "replace"), parser)
        except etree.XMLSyntaxError:
            pass  # tag soup
    # Never closed, these would nest deeper than the parser goes.
    text = re.sub(
        r"</?(?:font|b|i|u|em|strong|big|small|center)(?:\s[^<>]*)?>", "", text, flags=re.I
    )
    loose = etree.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
    tree = etree.fromstring(text.encode("utf-8", "replace"), loose)
    if any("depth" in error.message for error in loose.error_log):
        raise CorpusError(f"{name}: tags nested thousands deep; save it as plain text")
    return etree.Element("html") if tree is None else tree


def _entity(match: re.Match[str]) -> str:
    """An entity of HTML as its character; those of XML and unknown ones stay."""
    if match[1] in ("amp", "lt", "gt", "quot", "apos"):
        return match[0]
    return html.entities.html5.get(match[1] + ";", "&amp;" + match[0][1:])


class _Writer:
    """Collects a document's lines, and the parts that are not its text."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self.dropped: list[Dropped] = []

    def text(self) -> str:
        self._end_line()
        text = re.sub("[\0\ufffd]", "", "\n".join(self._lines)).strip("\n")
        return text + "\n" if text else ""

    def walk(self, root: Any) -> None:
        from lxml import etree

        events = etree.iterwalk(root, events=("start", "end"))
        pre = 0
        for event, element in events:
            tag = tag_of(element)
            block = bool(_BLOCKS.fullmatch(tag))
            if event == "start":
                skip, what = _skipped(element, tag)
                if skip:
                    if what and (inside := _collapse("".join(element.itertext())).strip()):
                        self.dropped.append(Dropped.of(what, inside))
                    events.skip_subtree()
                    continue  # its end event follows
                if block:
                    self._end_line()
                pre += tag == "pre"
                self._write(element.text, pre > 0)
                continue
            if not _skipped(element, tag)[0]:
                if block or tag == "br":
                    self._end_line(as_is=pre > 0)
                pre -= tag == "pre"
                if tag in ("td", "th"):
                    self._line.append(" ")
            elif block:
                self._end_line()
            if element is not root:
                self._write(element.tail, pre > 0)

    def _write(self, text: str | None, pre: bool) -> None:
        if not text:
            return
        if not pre:
            self._line.append(text)
            return
        *lines, last = text.split("\n")
        for line in lines:
            self._lines.append("".join([*self._line, line]).rstrip())
            self._line = []
        self._line.append(last)

    def _end_line(self, as_is: bool = False) -> None:
        line = "".join(self._line)
        line = line.rstrip() if as_is else _collapse(line).strip(" ")
        if line:
            self._lines.append(line)
        self._line = []


def _collapse(text: str) -> str:
    """White space as a browser shows it: no space where a line breaks between Chinese signs."""
    return _SPACE.sub(" ", _WRAP.sub("", text)).replace("\xa0", " ")


def tag_of(element: Any) -> str:
    tag = element.tag
    return tag.rsplit("}", 1)[-1].lower() if isinstance(tag, str) else ""


def _skipped(element: Any, tag: str) -> tuple[bool, str]:
    """(whether an element is left out, as which kind; "" where it holds no text of the book)."""
    if not tag or _NO_TEXT.fullmatch(tag):
        return True, ""
    if tag in ("rt", "rtc"):
        return True, "ruby readings"
    if tag == "rp":  # the brackets around a reading
        return True, ""
    if tag == "nav":
        return True, "navigation"
    if tag in ("html", "body"):
        return False, ""
    if tag == "aside" or _is_note(element, tag):
        return True, "footnotes"
    return False, ""


def _is_note(element: Any, tag: str) -> bool:
    """Whether an element is a footnote or the mark of one."""
    kind = " ".join(
        value
        for key, value in element.attrib.items()
        if key in ("role", "epub:type") or key.endswith("}type")
    )
    if _NOTE_TYPE.search(kind.replace("doc-", "")):
        return True
    if tag not in ("h1", "h2", "h3", "h4", "h5", "h6"):
        names = [*element.get("class", "").split(), element.get("id", "")]
        if any(_NOTE_NAME.match(name) for name in names):
            return True
    if tag not in ("sup", "a"):
        return False
    text = "".join(element.itertext())
    inside = {tag_of(child) for child in element.iter() if child is not element}
    if {tag, *inside} >= {"sup", "a"}:
        return bool(_MARK.fullmatch(text))
    return tag == "sup" and bool(_BRACKETED.fullmatch(text))
