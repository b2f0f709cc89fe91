"""PDF by pdfium: the text layer of each page. Pages with right-to-left letters may come out reversed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import pypdfium2
import pypdfium2.raw as pdfium

from m3rag.errors import ReadError
from m3rag.reading.content import Content
from m3rag.reading.hygiene import strip_hidden
from m3rag.types import Page

SEPARATOR = "\n\n"
ONE_AT_A_TIME = Lock()  # pdfium is not thread safe, not even for different documents

# pdfium's sign for a hyphen at a line's end, and the letters around it.
_HYPHEN = re.compile("(.)?\ufffe[ \t]*\n?(\\S)?")
_JUNK_TITLE = re.compile(
    r"(?:\(?(?:untitled|anonymous|unknown|title|document|slide|page|no ?title|powerpoint presentation)\)?[\s\d._-]*"
    r"|microsoft (?:word|powerpoint|excel)\b.*"
    r"|\S*\.(?:docx?|rtf|odt|txt|tex|dvi|ps|pdf|indd|qxd|pptx?|xlsx?|html?|exe|pmd|fm|eps|tiff?|jpe?g|png)"
    r"|(?:https?|file):.*"
    r"|[\W\d_]*)",
    re.IGNORECASE,
)


def read_pdf(data: bytes) -> Content:
    """Read the text layer of a PDF.

    Args:
        data: The file's bytes.

    Returns:
        The pages' texts joined by a blank line, words rejoined that were hyphenated at a line's
        end, with every page as a span; pages that show something but have no text are named in
        the warnings.

    Raises:
        ReadError: The file is damaged, needs a password or has no text layer at all.
    """
    with ONE_AT_A_TIME:
        raw = _extract(data)
    pages = [strip_hidden(_rejoin(t)).strip() for t in raw.texts]
    if not any(pages):
        raise ReadError(f"has no text layer on any of its {len(pages)} pages: run OCR on it first (such as ocrmypdf)")
    text, spans = _join(pages)
    known = {*raw.failed, *raw.blank}
    empty = [number for number, page in enumerate(pages, 1) if not page and number not in known]
    warnings = []
    if raw.failed:
        warnings.append(f"{_named(raw.failed)} could not be read: damaged; repair the file (such as with qpdf)")
    if empty:
        warnings.append(f"{_named(empty)} without a text layer: run OCR on the file if there is text to be seen")
    return Content(text, title=_title(raw.title), pages=spans, warnings=tuple(warnings))


@dataclass(frozen=True, slots=True)
class _Raw:
    """Each page's text, the numbers of the pages that failed or show nothing, the metadata's title."""

    texts: list[str]
    failed: list[int]
    blank: list[int]
    title: str


def _extract(data: bytes) -> _Raw:
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD:
            raise ReadError("is encrypted and needs a password: save a copy without one") from error
        raise ReadError(f"is a damaged PDF ({error}): repair it (such as with qpdf) or export it again") from error
    try:
        raw = _Raw([], [], [], str(document.get_metadata_value("Title") or ""))
        for index in range(len(document)):
            try:
                text = _page_text(document, index)
            except pypdfium2.PdfiumError:
                text = ""
                raw.failed.append(index + 1)
            if text is None:
                raw.blank.append(index + 1)
            raw.texts.append(text or "")
    finally:
        document.close()
    if raw.failed and len(raw.failed) == len(raw.texts):
        raise ReadError("is a damaged PDF (no page can be read): repair it (such as with qpdf) or export it again")
    return raw


def _page_text(document: pypdfium2.PdfDocument, index: int) -> str | None:
    """The page's text; None for a page on which nothing is drawn."""
    page = document[index]
    try:
        layer = page.get_textpage()
        try:
            text = str(layer.get_text_range())
            return text if text or pdfium.FPDFPage_CountObjects(page) else None
        finally:
            layer.close()
    finally:
        page.close()


def _rejoin(text: str) -> str:
    def join(match: re.Match[str]) -> str:
        before, after = match.group(1) or "", match.group(2) or ""
        # "Schwarz-Weiss" and "1-2" are written with their hyphen, "unter-nehmen" and "INTER-NATIONAL" are not.
        word = before.isalpha() and after.isalpha() and (after.islower() or before.isupper() or not after.isupper())
        return before + ("" if word else "-") + after

    return _HYPHEN.sub(join, text.replace("\r\n", "\n").replace("\r", "\n"))


def _join(pages: Sequence[str]) -> tuple[str, tuple[Page, ...]]:
    spans: list[Page] = []
    kept: list[str] = []
    at = 0
    for number, page in enumerate(pages, 1):
        if page and kept:
            at += len(SEPARATOR)
        spans.append(Page(number, at, at + len(page)))
        if page:
            kept.append(page)
            at += len(page)
    return SEPARATOR.join(kept), tuple(spans)


def _named(numbers: Sequence[int]) -> str:
    """`page 3`, `pages 2, 5-7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    listed = ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
    return f"page{'s' if len(numbers) > 1 else ''} {listed}"


def _title(raw: str) -> str:
    title = " ".join(strip_hidden(raw).split())
    return "" if _JUNK_TITLE.fullmatch(title) else title
