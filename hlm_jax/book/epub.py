"""EPUB -> text: its documents in the order of its spine."""

import dataclasses
import posixpath
import re
import urllib.parse
import zipfile
import zlib
from pathlib import Path
from typing import Any

from hlm_jax.book.dropped import Dropped
from hlm_jax.book.errors import CorpusError
from hlm_jax.book.markup import decode_html, html_text, tag_of


@dataclasses.dataclass(frozen=True)
class Page:
    """One document of an EPUB: its name inside, its plain text, and its encoding."""

    name: str
    text: str
    encoding: str


@dataclasses.dataclass(frozen=True)
class Epub:
    """An EPUB's documents in reading order, what was left out, and notes of one line each."""

    pages: tuple[Page, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]


_MAX_BYTES = 200_000_000  # unpacked; the longest novels are below 20 MB
_MEDIA = re.compile(
    r"(?i)\.(?:jpe?g|png|gif|webp|svg|bmp|tiff?|[ot]tf|woff2?|mp[34]|m4a|ogg|css|js)$"
)
_FONTS_ONLY = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def epub_texts(path: str | Path) -> Epub:
    """The documents of an EPUB in the order of its spine.

    Tables of contents, covers and documents outside the order are left out and listed.

    Raises:
      CorpusError: damaged, encrypted, no EPUB, or unpacked above 200 MB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _epub(archive, str(path))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise CorpusError(f"{path}: damaged EPUB ({error}); get it again") from error


def _epub(archive: zipfile.ZipFile, name: str) -> Epub:
    size = sum(info.file_size for info in archive.infolist() if not _MEDIA.search(info.filename))
    if size > _MAX_BYTES:
        raise CorpusError(f"{name}: its texts are {size:,} bytes unpacked; that is no book")
    _refuse_encrypted(archive, name)
    container = _xml(archive, "META-INF/container.xml", name)
    package = next((e.get("full-path") for e in container.iter() if tag_of(e) == "rootfile"), None)
    if not package:
        raise CorpusError(f"{name}: damaged EPUB (container.xml names no package); get it again")
    opf = _xml(archive, package, name)
    folder = posixpath.dirname(package)
    items = {e.get("id"): e for e in opf.iter() if tag_of(e) == "item"}
    front = {
        _inside(folder, e.get("href", "")): e.get("type", "").lower()
        for e in opf.iter()
        if tag_of(e) == "reference" and "#" not in e.get("href", "")
    }
    pages: list[Page] = []
    left_out: list[Dropped] = []
    notes: list[str] = []
    seen: set[str] = set()
    for reference in (e for e in opf.iter() if tag_of(e) == "itemref"):
        item = items.get(reference.get("idref"))
        if item is None:
            notes.append(f"{name}: the spine names {reference.get('idref')}, which is missing")
            continue
        inside = _inside(folder, item.get("href", ""))
        if inside in seen or "html" not in item.get("media-type", "html") + inside.lower():
            continue  # an image as a page
        seen.add(inside)
        data = _member(archive, inside)
        if data is None:
            notes.append(f"{name}: the spine names {inside}, which is missing")
            continue
        decoded = decode_html(data, f"{name}/{inside}")
        notes += decoded.notes
        text, inner = html_text(decoded.text, f"{name}/{inside}")
        what = ""
        if reference.get("linear") == "no":
            what = "EPUB pages outside the reading order"
        elif "nav" in item.get("properties", "").split() or front.get(inside) == "toc":
            what = "EPUB table of contents"
        elif front.get(inside) == "cover" and len(text) < 1_000:
            what = "EPUB cover"
        left_out += inner
        if what and text.strip():
            left_out.append(Dropped.of(what, text))
        elif text.strip():
            pages.append(Page(inside, text, decoded.encoding))
        elif not inner:
            left_out.append(Dropped("page without text", 0, inside))
    return Epub(tuple(pages), tuple(left_out), tuple(notes))


def _inside(folder: str, href: str) -> str:
    """The name in the archive of what a package file refers to."""
    href = urllib.parse.unquote(href.split("#", 1)[0])
    return posixpath.normpath(posixpath.join(folder, href)).lstrip("/")


def _member(archive: zipfile.ZipFile, inside: str) -> bytes | None:
    """A file of the archive; the case of its name may differ. None: not there."""
    names = {name.lower(): name for name in archive.namelist()}
    found = inside if inside in archive.namelist() else names.get(inside.lower())
    return None if found is None else archive.read(found)


def _xml(archive: zipfile.ZipFile, inside: str, name: str) -> Any:
    from lxml import etree

    data = _member(archive, inside)
    if data is None:
        raise CorpusError(f"{name}: damaged EPUB ({inside} is missing); get it again")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, recover=True, remove_comments=True
    )
    tree = etree.fromstring(data, parser) if data.strip() else None
    if tree is None:
        raise CorpusError(f"{name}: damaged EPUB ({inside} is no XML); get it again")
    return tree


def _refuse_encrypted(archive: zipfile.ZipFile, name: str) -> None:
    if any(info.flag_bits & 1 for info in archive.infolist()):
        raise CorpusError(f"{name}: the archive has a password; unpack it with it first")
    if _member(archive, "META-INF/encryption.xml") is None:
        return
    tree = _xml(archive, "META-INF/encryption.xml", name)
    for element in tree.iter():
        if tag_of(element) != "encrypteddata":
            continue
        method = next((e for e in element if tag_of(e) == "encryptionmethod"), None)
        if method is None or method.get("Algorithm") not in _FONTS_ONLY:
            raise CorpusError(
                f"{name}: protected against copying (DRM); get a copy without protection"
            )
