"""Pages of a PDF by pdfium: the text layer, where its lines stand, and the box of each character."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from math import pi, sin
from threading import Lock
from typing import TypeAlias

import pypdfium2
import pypdfium2.raw as pdfium

from m3rag.errors import ReadError
from m3rag.reading.pdf_annotations import Shown, page_as_shown
from m3rag.reading.pdf_fields import Span, beside_labels
from m3rag.reading.pdf_rtl import is_right_to_left

ONE_AT_A_TIME = Lock()  # pdfium is not thread safe, not even for different documents
MAX_PAGES = 50_000

REPAIR = "repair it (such as with qpdf) or export it again"

_LINE = re.compile(r"[^\r\n]+")
_EAST_ASIAN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_BLANKS = re.compile(r"(?<=\S)[ \t]+(?=\S)")
WIDE = 2.0  # heights of the characters beside a gap, at least
THIN = 0.01  # points
SAMPLE = 100  # characters of a page whose direction is looked at
NOT_DRAWN = -1
HALF_WAY = 0.7  # sine of 45 degrees

Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right, top; upwards from below."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A box on a page as it is displayed, in points (1/72 inch) from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Frame:
    """From pdfium's coordinates to those of the page as displayed: cropped, and turned by its `/Rotate`.

    Attributes:
        left: Of the visible part, in pdfium's coordinates, as are the next three.
        bottom: Upwards from below.
        right: Its right edge.
        top: Its upper edge.
        turned: Clockwise, 0, 90, 180 or 270 degrees.
    """

    left: float
    bottom: float
    right: float
    top: float
    turned: int

    @property
    def size(self) -> tuple[float, float]:
        """Width and height as displayed, in points."""
        width, height = self.right - self.left, self.top - self.bottom
        return (height, width) if self.turned in (90, 270) else (width, height)

    def displayed(self, box: Box) -> Rectangle:
        """A box `(left, bottom, right, top)` of pdfium as it is displayed."""
        left, right = box[0] - self.left, box[2] - self.left
        above, below = self.top - box[3], self.top - box[1]
        width, height = self.right - self.left, self.top - self.bottom
        if self.turned == 90:
            return Rectangle(height - below, left, height - above, right)
        if self.turned == 180:
            return Rectangle(width - right, height - below, width - left, height - above)
        if self.turned == 270:
            return Rectangle(above, width - right, below, width - left)
        return Rectangle(left, above, right, below)


class Layer:
    """The text layer of one page; of use until `text_layer` ends."""

    def __init__(self, shown: Shown, layer: pypdfium2.PdfTextPage, *, upright: bool) -> None:
        """Take the text.

        Args:
            shown: The page, for its frame.
            layer: Its text.
            upright: Whether vertical columns have been turned into lines.
        """
        page, self.typed, self.undrawn = shown[:3]
        self._layer = layer
        self._upright = upright
        left, bottom, right, top = page.get_bbox()
        self.frame = Frame(left, bottom, right, top, page.get_rotation())
        text = str(layer.get_text_range())
        # pdfium counts in UTF-16, where an emoji or a mathematical letter is two.
        self._units = [0, *accumulate(1 + (sign > "\uffff") for sign in text)]
        self.text = text
        if upright or self.typed:
            breaks = self._breaks()
            self.text = "".join("\n" if at in breaks else sign for at, sign in enumerate(text))
        own = shown.unfilled.rstrip()
        # The second reading of right-to-left pages has the order of the file, and is compared with this one.
        if own and not upright and not is_right_to_left(text) and text.startswith(own):
            self._put_fields_beside_labels(len(own), [self.displayed(box) for box in shown.fields])

    def _put_fields_beside_labels(self, typed: int, fields: Sequence[Rectangle]) -> None:
        """Move lines from character `typed` on."""
        text = self.text
        spans = [match.span() for match in _LINE.finditer(text)]
        first = sum(start < typed for start, _ in spans)
        places = [self._place(*span) for span in spans]
        # The lines of one field stay together.
        groups: list[range] = []
        last = None
        for at in range(first, len(spans)):
            field = next((n for n, box in enumerate(fields) if _is_within(places[at], box)), None)
            if field is not None and field == last:
                groups[-1] = range(groups[-1].start, at + 1)
            else:
                groups.append(range(at, at + 1))
            last = field
        order = beside_labels(places, groups)
        if order == list(range(len(spans))):
            return
        ends = [*(start for start, _ in spans[1:]), len(text)]
        pieces: list[str] = []
        units: list[int] = []
        for at in order:
            start, end = spans[at][0], ends[at]
            # A line goes with its break; the last one has none.
            missing = "" if end > spans[at][1] else "\n"
            pieces.append(text[start:end] + missing)
            units += [*self._units[start:end], *(NOT_DRAWN for _ in missing)]
        self.text, self._units = "".join(pieces), units

    def _place(self, start: int, end: int) -> Span | None:
        """Where a line's first and last character stand."""
        line = self.text[start:end]
        if not line.strip():
            return None
        boxes = self.box(start + len(line) - len(line.lstrip())), self.box(start + len(line.rstrip()) - 1)
        if boxes[0] is None or boxes[1] is None:
            return None
        a, b = self.displayed(boxes[0]), self.displayed(boxes[1])
        return min(a.left, b.left), min(a.top, b.top), max(a.right, b.right), max(a.bottom, b.bottom)

    def lines(self) -> list[tuple[int, int, float, str]]:
        """Start, end, height and text of each line with characters.

        The height is that of the middle of its first character, 1 at the head of the page as displayed. The
        text has a tab for the blank between a number at the line's start or end and words far from it.
        """
        found = []
        height = self.frame.size[1] or 1.0
        for match in _LINE.finditer(self.text):
            first = match.start() + len(match.group()) - len(match.group().lstrip())
            box = self.box(first) if match.group().strip() else None
            if box is not None:
                shown = self.displayed(box)
                middle = 1 - (shown.top + shown.bottom) / 2 / height
                found.append((match.start(), match.end(), middle, self._with_gaps(*match.span())))
        return found

    def _with_gaps(self, start: int, end: int) -> str:
        """A line with tabs for the wide ones of its first and last blank if a number is beyond them."""
        line = self.text[start:end]
        blanks = list(_BLANKS.finditer(line))
        edges = [(blanks[0], line[: blanks[0].start()]), (blanks[-1], line[blanks[-1].end() :])] if blanks else []
        wide = {
            blank.start()
            for blank, edge in edges
            if any(map(str.isdigit, edge)) and self._is_wide(start + blank.start() - 1, start + blank.end())
        }
        return _BLANKS.sub(lambda found: "\t" if found.start() in wide else found.group(), line)

    def _is_wide(self, before: int, after: int) -> bool:
        boxes = self.box(before), self.box(after)
        if boxes[0] is None or boxes[1] is None:
            return False
        one, other = self.displayed(boxes[0]), self.displayed(boxes[1])
        gap = max(one.left, other.left) - min(one.right, other.right)
        return gap > WIDE * max(one.bottom - one.top, other.bottom - other.top)

    def box(self, index: int) -> Box | None:
        """The box of a character of `text` in the layer's own coordinates; None for one that is not drawn."""
        at = self._drawn(index)
        if at is None:
            return None
        left, bottom, right, top = self._layer.get_charbox(at)
        if right - left < THIN or top - bottom < THIN:
            # Of some fonts there are no outlines; for what is missing the font's own box stands in.
            loose = self._layer.get_charbox(at, loose=True)
            left, right = (left, right) if right - left >= THIN else (loose[0], loose[2])
            bottom, top = (bottom, top) if top - bottom >= THIN else (loose[1], loose[3])
        return left, bottom, right, top

    def is_sideways(self, index: int) -> bool:
        """Whether a character's line runs up or down, in the layer's own coordinates."""
        at = None if self._upright else self._drawn(index)
        return at is not None and abs(sin(pdfium.FPDFText_GetCharAngle(self._layer.raw, at))) > HALF_WAY

    def displayed(self, box: Box) -> Rectangle:
        """A box of the layer as the page is displayed."""
        left, bottom, right, top = box
        return self.frame.displayed((bottom, -right, top, -left) if self._upright else box)

    def _drawn(self, index: int) -> int | None:
        unit = self._units[index]
        at = NOT_DRAWN if unit < 0 else pdfium.FPDFText_GetCharIndexFromTextIndex(self._layer.raw, unit)
        if at < 0 or pdfium.FPDFText_IsGenerated(self._layer.raw, at) == 1:
            return None
        # Where the two ever count differently, no box is better than another's.
        first = self.text[index].encode("utf-16-le", "surrogatepass")[:2]
        return int(at) if pdfium.FPDFText_GetUnicode(self._layer.raw, at) == int.from_bytes(first, "little") else None

    def _breaks(self) -> set[int]:
        """The blanks that pdfium itself puts where a line ends: between columns, and between typed texts."""
        found = set()
        for at, sign in enumerate(self.text):
            if sign == " ":
                index = pdfium.FPDFText_GetCharIndexFromTextIndex(self._layer.raw, self._units[at])
                generated = index >= 0 and pdfium.FPDFText_IsGenerated(self._layer.raw, index) == 1
                if generated and (self._upright or self._is_above(at - 1, at + 1)):
                    found.add(at)
        return found

    def _is_above(self, before: int, after: int) -> bool:
        """Whether two characters have no height in common."""
        if before < 0 or after >= len(self.text):
            return False
        one, other = self.box(before), self.box(after)
        return one is not None and other is not None and (one[1] > other[3] or other[1] > one[3])


def _is_within(line: Span | None, field: Rectangle) -> bool:
    """Whether the start of a line is in a field."""
    if line is None:
        return False
    return field.left <= line[0] <= field.right and field.top <= (line[1] + line[3]) / 2 <= field.bottom


@contextmanager
def opened(data: bytes, password: str | None) -> Iterator[pypdfium2.PdfDocument]:
    """Open a PDF for as long as the block lasts.

    Args:
        data: The file's bytes.
        password: Of the user or the owner; None for none.

    Raises:
        ReadError: The file is damaged, has more than 50,000 pages, or needs another password.
    """
    try:
        document = pypdfium2.PdfDocument(data, password=password)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) != pdfium.FPDF_ERR_PASSWORD:
            raise ReadError(f"is a damaged PDF ({error}): {REPAIR}") from error
        if password:
            raise ReadError("is encrypted and the password is not the right one: give another") from error
        raise ReadError(
            "is encrypted and needs a password: save a copy without one (or give it: in Python with `password=`, at "
            "the command line with `--password-file`)"
        ) from error
    try:
        if len(document) > MAX_PAGES:
            raise ReadError(f"says it has {len(document):,} pages, the limit is {MAX_PAGES:,}: split it")
        if document.get_formtype() == pdfium.FORMTYPE_ACRO_FORM:
            # A form that is damaged costs the fields that state no appearance, not the text.
            with suppress(pypdfium2.PdfiumError):
                document.init_forms()
        yield document
    finally:
        document.close()


@contextmanager
def text_layer(document: pypdfium2.PdfDocument, index: int) -> Iterator[Layer | None]:
    """The text layer of a page for as long as the block lasts; None for a page on which nothing is drawn.

    pdfium orders lines as they are displayed, and mixes up those that are shown sideways or upside down, as
    wide tables are: the page is turned while it looks at them. It leaves out text objects without width, and
    the columns of vertical writing are such in fonts that state no widths. Turned by a quarter they are lines,
    in the right order too. What is typed into form fields, text annotations and stamps is part of it.

    Args:
        document: An open document.
        index: The page, from 0.

    Raises:
        pypdfium2.PdfiumError: The page is damaged.
    """
    shown = page_as_shown(document, index)
    page = shown.page
    turned = page.get_rotation()
    layer = None
    try:
        layer = page.get_textpage()
        standing = _standing(layer)
        if standing != turned:
            layer.close()
            page.set_rotation(standing)
            layer = page.get_textpage()
            page.set_rotation(turned)
        text = str(layer.get_text_range())
        if not text and not shown.undrawn and not pdfium.FPDFPage_CountObjects(page.raw):
            yield None
            return
        upright = (not text.strip() or bool(_EAST_ASIAN.search(text))) and _is_vertical(page)
        if upright:
            layer.close()
            for drawn in page.get_objects(max_depth=1):
                pdfium.FPDFPageObj_Transform(drawn.raw, 0, 1, -1, 0, 0, 0)
            layer = page.get_textpage()
        yield Layer(shown, layer, upright=upright)
    finally:
        if layer is not None:
            layer.close()
        page.close()


def _standing(layer: pypdfium2.PdfTextPage) -> int:
    """How far clockwise, 0, 90, 180 or 270 degrees, a page must be turned for most of its text to stand upright."""
    count = pdfium.FPDFText_CountChars(layer.raw)
    found = Counter(
        round(-pdfium.FPDFText_GetCharAngle(layer.raw, at) / (pi / 2)) % 4 * 90
        for at in range(0, count, max(count // SAMPLE, 1))
        if pdfium.FPDFText_IsGenerated(layer.raw, at) != 1
    )
    return found.most_common(1)[0][0] if found else 0


def _is_vertical(page: pypdfium2.PdfPage) -> bool:
    """Whether most of the page's texts are columns that pdfium believes to have no width."""
    thin = wide = 0
    for drawn in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_TEXT], max_depth=1):
        left, bottom, right, top = drawn.get_bounds()
        if right - left < THIN < top - bottom:
            thin += 1
        else:
            wide += 1
    return thin > wide
