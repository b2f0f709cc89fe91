"""Where a passage stands on a page of a PDF."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import pypdfium2

from m3rag.errors import InputError, ReadError
from m3rag.reading.hygiene import clean
from m3rag.reading.pdf import pdf_text
from m3rag.reading.pdf_pages import ONE_AT_A_TIME, Box, Layer, Rectangle, opened, text_layer

_WORD = re.compile(r"\S+")
SAME_LINE = 0.1  # of the lower of two boxes, which they share; the boxes are of the ink, not of the line
WITHIN_A_LINE = 2.0  # heights between two boxes of one line, at most


def page_rectangles(
    path: str | Path, page: int, start: int, end: int, *, password: str | None = None
) -> tuple[Rectangle, ...]:
    """The boxes of a passage on one page, one for each line of it.

    The file is read as `read` did, so that the offsets are exact; it must not have changed since
    (compare `Document.content_hash`). On a page with right-to-left letters whole words are boxed.

    Args:
        path: The PDF.
        page: The page's number, from 1.
        start: First character of the passage in `Document.text`.
        end: One past the last; of a passage over several pages the part on this page is boxed.
        password: For an encrypted file.

    Returns:
        Boxes in points (1/72 inch) from the upper left corner of the page as it is displayed, in
        the order of the text. Empty where the page has nothing of the passage.

    Raises:
        InputError: There is no such page, or no such span.
        ReadError: The file cannot be read; the message begins with the path.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ReadError(f"{path}: could not be read ({error.strerror}); check the path and its permissions") from error
    try:
        pdf = pdf_text(data, password=password)
        text, pages = pdf.joined()
        edited, _ = clean(text)
        if not 1 <= page <= len(pages):
            raise InputError(f"{path}: has no page {page}, only 1 to {len(pages)}")
        if not 0 <= start <= end <= len(edited.text):
            raise InputError(f"{path}: has no characters [{start}, {end}), only [0, {len(edited.text)})")
        span = pages[page - 1]
        sources = [edited.back(at) - span.start for at in range(start, end) if not edited.text[at].isspace()]
        shown = pdf.pages[page - 1]
        raw = [shown.back(at) for at in sources if 0 <= at < span.end - span.start]
        if not raw:
            return ()
        with ONE_AT_A_TIME, opened(data, password) as document, text_layer(document, page - 1) as layer:
            if layer is None:
                return ()
            if page - 1 in pdf.second:
                raw = _same_words(shown.source, raw, layer.text)
            return _lines(layer, raw)
    except (ReadError, pypdfium2.PdfiumError) as error:
        raise ReadError(f"{path}: {error}") from error


def _same_words(second: str, indexes: Iterable[int], first: str) -> list[int]:
    """The characters of pdfium's reading whose words are those at these characters of the other one."""
    ours, theirs = list(_WORD.finditer(second)), list(_WORD.finditer(first))
    matcher = SequenceMatcher(None, [_key(w.group()) for w in ours], [_key(w.group()) for w in theirs], autojunk=False)
    blocks: dict[int, range] = {}
    for kind, a, b, c, d in matcher.get_opcodes():
        for word in range(a, b):
            # Words that one reading has glued together or torn apart stand for each other as a whole.
            blocks[word] = range(c + word - a, c + word - a + 1) if kind == "equal" else range(c, d)
    sought = set(indexes)
    hit = [n for n, word in enumerate(ours) if not sought.isdisjoint(range(*word.span()))]
    found = sorted({at for n in hit for at in blocks[n]})
    return [index for at in found for index in range(*theirs[at].span())]


def _key(word: str) -> str:
    """A word whatever the order of its letters: the parts of a ligature may be swapped."""
    return "".join(sorted(unicodedata.normalize("NFKC", word)))


def _lines(layer: Layer, indexes: Sequence[int]) -> tuple[Rectangle, ...]:
    """Boxes of characters as boxes of lines."""
    lines: list[Box] = []
    for index in dict.fromkeys(indexes):
        box = layer.box(index)
        if box is None:
            continue
        mark = unicodedata.category(layer.text[index]).startswith("M")
        shared = -1.0 if mark else SAME_LINE
        if lines and _continues(lines[-1], box, sideways=layer.is_sideways(index), shared=shared):
            last = lines.pop()
            box = (min(last[0], box[0]), min(last[1], box[1]), max(last[2], box[2]), max(last[3], box[3]))
        lines.append(box)
    return tuple(map(layer.displayed, lines))


def _continues(line: Box, box: Box, *, sideways: bool, shared: float) -> bool:
    """Whether a box is a part of the line before it: beside it, with enough of its height shared."""
    along, across = (1, 0) if sideways else (0, 1)
    gap = max(line[along], box[along]) - min(line[along + 2], box[along + 2])
    common = min(line[across + 2], box[across + 2]) - max(line[across], box[across])
    heights = line[across + 2] - line[across], box[across + 2] - box[across]
    return common >= shared * min(heights) and gap <= WITHIN_A_LINE * max(heights)
