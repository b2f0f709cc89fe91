"""Build the text of a document from inline pieces and block ends, with exact heading spans."""

from __future__ import annotations

import re

from m3rag.types import Heading

# A no-break space is meant: it is not folded.
_FOLD = re.compile(r"[ \t\n\r\f]+")


class Layout:
    """Collects text as a browser would flow it: white space folded, blocks on lines of their own."""

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        self._pieces: list[str] = []
        self._length = 0
        self._breaks = 0  # line ends owed before the next text
        self._blank = False  # a blank owed before the next text on the same line
        self._cells: list[list[str]] | None = None
        self._heading: list[str] | None = None

    @property
    def text(self) -> str:
        """What has been laid out so far."""
        return "".join(self._pieces)

    @property
    def in_row(self) -> bool:
        """Whether a row is open."""
        return self._cells is not None

    def add(self, text: str, *, preformatted: bool = False) -> None:
        """Add inline text; the line ends of preformatted text are kept."""
        if self._heading is not None:
            self._heading.append(text)
        elif self._cells is not None:
            (self._cells or self._new_cell())[-1].append(text)
        elif preformatted:
            self._write(text)
        else:
            self._flow(text)

    def end_block(self, breaks: int) -> None:
        """End the line (1) or the paragraph (2); within a heading or a cell it is a blank."""
        if self._heading is not None:
            self._heading.append(" ")
        elif self._cells is not None:
            if self._cells:
                self._cells[-1].append(" ")
        else:
            self._breaks, self._blank = max(self._breaks, breaks), False

    def open_heading(self, level: int) -> None:
        """What follows is a heading, until it is closed."""
        self.end_block(2)
        if self._cells is None:
            self._heading = []

    def close_heading(self, level: int) -> None:
        """Write the heading as a paragraph of one line and note its span."""
        if self._heading is None:
            return
        text, self._heading = " ".join(_FOLD.sub(" ", "".join(self._heading)).split()), None
        if text:
            self._write(text)
            self.headings.append(Heading(text, level, self._length - len(text), self._length))
            self.end_block(2)

    def open_row(self) -> None:
        """What follows are the cells of one row, until it is closed."""
        self.end_block(1)
        self._cells = []

    def open_cell(self) -> None:
        """The next cell of the open row."""
        if self._cells is not None:
            self._new_cell()

    def close_row(self) -> None:
        """Write the row as one line; a row without text is left out."""
        cells = [" ".join("".join(cell).split()) for cell in self._cells or ()]
        self._cells = None
        if any(cells):
            self._write(" | ".join(cells).strip())
        self.end_block(1)

    def _new_cell(self) -> list[list[str]]:
        assert self._cells is not None
        self._cells.append([])
        return self._cells

    def _flow(self, text: str) -> None:
        folded = _FOLD.sub(" ", text)
        self._blank = self._blank or folded.startswith(" ")
        inner = folded.strip(" ")
        if not inner:
            return
        self._write(inner)
        self._blank = folded.endswith(" ")

    def _write(self, text: str) -> None:
        if self._pieces and self._breaks:
            text = "\n" * self._breaks + text
        elif self._pieces and self._blank:
            text = " " + text
        self._breaks, self._blank = 0, False
        self._pieces.append(text)
        self._length += len(text)
