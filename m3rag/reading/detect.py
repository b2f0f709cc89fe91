"""What a file is by its content: first bytes, names inside a ZIP, and what a text begins with."""

from __future__ import annotations

import re

from m3rag.reading.archive import Archive

# Other software reads PDFs with some bytes before the header, and writes them.
PDF_HEADER_WITHIN = 1024
ZIP = b"PK\x03\x04"
MAX_MIMETYPE = 200

TEXT_KINDS = frozenset({"html", "eml", "json", "text"})
"""The kinds that are text: among these, a suffix that is known decides."""

KINDS = {
    "pdf": "a PDF",
    "docx": "a Word document (.docx)",
    "pptx": "a PowerPoint presentation (.pptx)",
    "xlsx": "an Excel workbook (.xlsx)",
    "odt": "an OpenDocument text (.odt)",
    "ods": "an OpenDocument spreadsheet (.ods)",
    "odp": "an OpenDocument presentation (.odp)",
    "epub": "an EPUB book",
    "rtf": "an RTF document",
    "zip": "a ZIP archive",
    "ole2": "an old or encrypted Office document",
    "png": "a PNG image",
    "jpeg": "a JPEG image",
    "gif": "a GIF image",
    "tiff": "a TIFF image",
    "gzip": "a gzip archive",
    "bzip2": "a bzip2 archive",
    "xz": "an xz archive",
    "7z": "a 7-Zip archive",
    "rar": "a RAR archive",
    "elf": "a program",
    "sqlite": "an SQLite database",
    "parquet": "a Parquet file",
    "media": "an audio or video file",
    "html": "a web page",
    "eml": "an e-mail message",
    "json": "JSON",
    "text": "text",
}
"""Every kind that `kind_of` can name, in words."""

_MAGIC = (
    (b"{\\rtf", "rtf"),
    (b"PK\x05\x06", "zip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole2"),
    (b"\x89PNG\r\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh91AY&SY", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x7fELF", "elf"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"PAR1\x15", "parquet"),
    (b"ID3\x03", "media"),
    (b"ID3\x04", "media"),
    (b"OggS", "media"),
    (b"\x1aE\xdf\xa3", "media"),
)
_MIMETYPES = {
    "application/epub+zip": "epub",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.presentation": "odp",
}
# The main part has this folder by convention only, but every program that writes the formats keeps to it.
_FOLDERS = (("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx"))
_PDF = re.compile(rb"%PDF-\d")
_HTML = re.compile(
    rb"\s*(?:<!--(?:(?!-->).)*-->\s*|<\?xml[^>]*\?>\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL
)
_MAIL = re.compile(rb"(?:[A-Za-z][A-Za-z0-9-]*:[^\n]*\n(?:[ \t][^\n]*\n)*){2,}")
_MAIL_HEADERS = re.compile(rb"^(?:from|date|message-id|received|mime-version|subject):", re.IGNORECASE | re.MULTILINE)
_HEAD = 1 << 16


def kind_of(data: bytes) -> str:
    """Name what a file is by its content alone.

    Args:
        data: The whole file.

    Returns:
        A key of `KINDS`; `text` for whatever shows no signature, which may be binary still.
    """
    return container_of(data) or text_kind(data)


def container_of(data: bytes) -> str:
    """Name a format that is known by a signature; empty for text and for what is not known.

    Args:
        data: The whole file.
    """
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[4:8] == b"ftyp":
        return "media"
    if data.startswith(ZIP):
        return _zip_kind(data)
    head = data[:PDF_HEADER_WITHIN]
    header = _PDF.search(head)
    # A text that speaks of PDF headers has no binary before one, and something to read.
    if header and (header.start() == 0 or b"\x00" in head or not _is_prose(head[: header.start()])):
        return "pdf"
    return ""


def _is_prose(before: bytes) -> bool:
    return len(re.findall(rb"[A-Za-z]{2,}", before)) > 3


def _zip_kind(data: bytes) -> str:
    archive = Archive(data)  # refuses bombs, paths and damage by name
    names = archive.names
    mimetype = archive.read("mimetype", limit=MAX_MIMETYPE) if "mimetype" in names else b""
    kind = _MIMETYPES.get(mimetype.decode("ascii", "replace").strip().removesuffix("-template"), "")
    if kind:
        return kind
    if "META-INF/container.xml" in names:
        return "epub"
    return next((kind for folder, kind in _FOLDERS if any(n.lower().startswith(folder) for n in names)), "zip")


def text_kind(data: bytes) -> str:
    """Name what a text is by how it begins; `text` for prose, tables and whatever else has no sign of its own.

    Args:
        data: The whole file.
    """
    head = data[:_HEAD].removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(head):
        return "html"
    headers = _MAIL.match(head)
    if headers and len(_MAIL_HEADERS.findall(headers.group())) > 1:
        return "eml"
    start = head.lstrip()[:2]
    if start[:1] in (b"{", b"[") and (
        start in (b"[]", b"{}") or head.lstrip()[1:].lstrip()[:1] in b'"[{-0123456789tfn'
    ):
        return "json"
    return "text"
