"""PDF: the text layer of each page, without running headers and page numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pypdfium2
import pypdfium2.raw as pdfium

from m3rag.errors import ReadError
from m3rag.reading.content import Content
from m3rag.reading.hygiene_edits import Edited, replace_spans, substitute
from m3rag.reading.pdf_hyphens import HYPHEN, Hyphens
from m3rag.reading.pdf_outline import Entry, headings_of, outline_of
from m3rag.reading.pdf_pages import ONE_AT_A_TIME, REPAIR, opened, text_layer
from m3rag.reading.pdf_rtl import RightToLeft, in_reading_order, is_right_to_left
from m3rag.reading.pdf_running import Line, running_lines
from m3rag.types import Page

SEPARATOR = "\n\n"
MAX_CHARACTERS = 100_000_000

_HYPHEN = re.compile(f"{HYPHEN}[ \t]*\n?")
_BREAK = re.compile(r"\r\n?")
_LINE_END = re.compile(r"\r\n?|\n")
_BLANKS = re.compile(r"(?<=\S)[ \t]{2,}(?=\S)|[ \t]+(?=\n)")
_EDGES = re.compile(r"\A\s+|\s+\Z")
_JUNK_TITLE = re.compile(
    r"(?:\(?(?:untitled|anonymous|unknown|title|document|slide|page|no ?title|powerpoint presentation)\)?[\s\d._-]*"
    r"|microsoft (?:word|powerpoint|excel)\b.*"
    r"|\S*\.(?:docx?|rtf|odt|txt|tex|dvi|ps|pdf|indd|qxd|pptx?|xlsx?|html?|exe|pmd|fm|eps|tiff?|jpe?g|png)"
    r"|(?:https?|file):.*|about:blank"
    r"|[\W\d_]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class PdfText:
    """The pages of a PDF as text.

    Attributes:
        pages: Each with its map to the text that its layer gave, empty for a page without text.
        second: Indexes of the pages read by pypdf, whose map does not lead to pdfium's characters.
        failed: Numbers of the pages that are damaged.
        blank: Numbers of the pages on which nothing is drawn.
        misread: Numbers of the pages that pypdf could not read, so that pdfium's reading stands.
        typed: Numbers of the pages with form fields, text annotations or stamps, drawn into them.
        undrawn: Numbers of the pages with text annotations that state no appearance, and how many of them.
        title: The metadata's title.
        outline: The bookmarks.
    """

    pages: list[Edited] = field(default_factory=list)
    second: set[int] = field(default_factory=set)
    failed: list[int] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    misread: list[int] = field(default_factory=list)
    typed: list[int] = field(default_factory=list)
    undrawn: Counter[int] = field(default_factory=Counter)
    title: str = ""
    outline: tuple[Entry, ...] = ()

    def joined(self) -> tuple[str, tuple[Page, ...]]:
        """The text of the document and the span of each page in it."""
        spans: list[Page] = []
        kept: list[str] = []
        at = 0
        for number, page in enumerate(self.pages, 1):
            if page.text and kept:
                at += len(SEPARATOR)
            spans.append(Page(number, at, at + len(page.text)))
            if page.text:
                kept.append(page.text)
                at += len(page.text)
        return SEPARATOR.join(kept), tuple(spans)


def read_pdf(data: bytes, *, password: str | None = None) -> Content:
    """Read the text layer of a PDF.

    Args:
        data: The file's bytes.
        password: Of the user or the owner, for an encrypted file.

    Returns:
        The pages' texts joined by a blank line, with every page as a span: words rejoined that were
        hyphenated at a line's end, running headers only where they stand first, page numbers not
        at all (see `pdf_running`). Bookmarks whose words stand on their page are headings. Pages
        that show something but have no text are named in the warnings.

    Raises:
        ReadError: The file is damaged, needs a password or has no text layer at all.
    """
    pdf = pdf_text(data, password=password)
    text, spans = pdf.joined()
    if not text:
        one = len(pdf.pages) == 1
        raise ReadError(
            f"has no text layer on {'its only page' if one else f'any of its {len(pdf.pages)} pages'}: "
            "run OCR on it first (such as ocrmypdf)"
        )
    return Content(
        text,
        title=_title(pdf.title),
        pages=spans,
        headings=headings_of(pdf.outline, text, spans),
        warnings=tuple(_warnings(pdf)),
    )


def pdf_text(data: bytes, *, password: str | None = None) -> PdfText:
    """The pages of a PDF as text, with their maps.

    Args:
        data: The file's bytes.
        password: Of the user or the owner, for an encrypted file.

    Raises:
        ReadError: The file is damaged or needs a password.
    """
    with ONE_AT_A_TIME, opened(data, password) as document:
        encrypted = pdfium.FPDF_GetSecurityHandlerRevision(document.raw) >= 0
        pdf = PdfText(title=str(document.get_metadata_value("Title") or ""), outline=outline_of(document))
        raw = _extract(document, pdf)
        leave = running_lines(
            [[Line(text, height) for _, _, height, text in lines] for _, lines in raw],
            titles=[(entry.page, entry.title) for entry in pdf.outline],
        )
        hyphens = Hyphens(text for text, _ in raw)
        second = RightToLeft(data, document, changed=encrypted or bool(pdf.typed))
        for index, (text, lines) in enumerate(raw):
            left = [lines[at][:2] for at in sorted(leave[index])]
            again = _second_reading(second, index, pdf) if is_right_to_left(text) else None
            if again is None:
                pdf.pages.append(_edited(text, left, hyphens))
            else:
                again = in_reading_order(again, text)
                pdf.pages.append(_edited(again, _same_lines([text[a:b] for a, b in left], again), hyphens))
    return pdf


def _extract(document: pypdfium2.PdfDocument, pdf: PdfText) -> list[tuple[str, list[tuple[int, int, float, str]]]]:
    """Each page's text and its lines as (start, end, height, text with wide gaps)."""
    raw: list[tuple[str, list[tuple[int, int, float, str]]]] = []
    characters = 0
    for index in range(len(document)):
        text, lines = "", []
        try:
            with text_layer(document, index) as layer:
                if layer is None:
                    pdf.blank.append(index + 1)
                else:
                    text, lines = layer.text, layer.lines()
                    pdf.undrawn[index + 1] = layer.undrawn
                    if layer.typed:
                        pdf.typed.append(index + 1)
        except pypdfium2.PdfiumError:
            pdf.failed.append(index + 1)
        characters += len(text)
        if characters > MAX_CHARACTERS:
            raise ReadError(f"has more than {MAX_CHARACTERS:,} characters by page {index + 1}: split it")
        raw.append((text, lines))
    if len(pdf.failed) == len(raw):
        raise ReadError(f"is a damaged PDF (no page can be read): {REPAIR}")
    return raw


def _second_reading(second: RightToLeft, index: int, pdf: PdfText) -> str | None:
    try:
        text = second.text(index)
    except Exception:  # noqa: BLE001
        # A parser of damaged files may raise anything; the first reading stands, and that is told.
        text = ""
    if text.strip():
        pdf.second.add(index)
        return text
    pdf.misread.append(index + 1)
    return None


def _same_lines(lines: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Where lines of one reading stand in the other, which has their letters in another order."""
    sought = [_letters(line) for line in lines]
    found = []
    for match in re.finditer(r"[^\n]+", text):
        letters = _letters(match.group())
        if letters in sought:
            sought.remove(letters)
            found.append(match.span())
    return found


def _letters(line: str) -> list[str]:
    return sorted("".join(line.split()))


def _edited(raw: str, left: Sequence[tuple[int, int]], hyphens: Hyphens) -> Edited:
    # A line goes with its break.
    spans = [(start, found.end() if (found := _LINE_END.match(raw, end)) else end, "") for start, end in left]
    page = replace_spans(Edited.of(raw), sorted(spans))
    page = substitute(page, _BREAK, lambda found: "\n")
    page = substitute(page, _HYPHEN, hyphens.rejoined)
    page = substitute(page, _BLANKS, lambda found: " " if found.string[found.end()] != "\n" else "")
    return substitute(page, _EDGES, lambda found: "")


def _warnings(pdf: PdfText) -> list[str]:
    told = []
    if pdf.failed:
        told.append(f"{_named(pdf.failed)} could not be read: damaged; repair the file (such as with qpdf)")
    known = {*pdf.failed, *pdf.blank}
    empty = [number for number, page in enumerate(pdf.pages, 1) if not page.text and number not in known]
    if empty:
        told.append(f"{_named(empty)} without a text layer: run OCR on the file if there is text to be seen")
    if noted := +pdf.undrawn:
        notes = f"{noted.total()} text annotation{'s' if noted.total() > 1 else ''}"
        told.append(f"left out {notes} stored without an appearance ({_named(sorted(noted))}): print the file to PDF")
    if pdf.misread:
        told.append(f"{_named(pdf.misread)} with right-to-left letters read by pdfium alone: their order may be wrong")
    return told


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
    title = " ".join(raw.split())
    return "" if _JUNK_TITLE.fullmatch(title) else title
