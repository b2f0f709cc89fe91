"""The text of an RTF file as it is read: bytes and UTF-16 units to paragraphs and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from m3rag.reading.layout import Layout
from m3rag.reading.rtf_tables import SYMBOL
from m3rag.reading.scripts import settled

# Bullets of the fonts Symbol and Wingdings; their other pictures have no meaning as text.
_PICTURES = {0xB7: "\u2022", 0xA7: "\u2022", 0x20: " "}


class TextBuilder:
    """Collects one paragraph or row after the other."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.lost = 0  # characters that no encoding had
        self._pieces: list[str] = []
        self._cells: list[str] = []
        self._asides: list[str] = []
        self._bytes = bytearray()
        self._encodings: tuple[str, ...] = ()
        self._aligned: Callable[[str], str] | None = None
        self._begun = 0  # the first piece that is aligned so

    def add(self, text: str) -> None:
        """Add characters; a line feed ends a line."""
        self._decode()
        self._pieces.append(text)

    def align(self, how: Callable[[str], str] | None) -> None:
        """What is added from now on stands raised or lowered, or neither."""
        if how is self._aligned:
            return
        self._decode()
        if self._aligned is not None:
            self._pieces[self._begun :] = [self._aligned("".join(self._pieces[self._begun :]))]
        self._aligned, self._begun = how, len(self._pieces)

    def add_unit(self, unit: int) -> None:
        """Add a UTF-16 unit; a pair of surrogates becomes one character when its paragraph ends."""
        # Symbol fonts put their pictures into the private area.
        self.add("" if 0xE000 <= unit <= 0xF8FF else chr(unit))

    def add_bytes(self, data: bytes, encodings: tuple[str, ...]) -> None:
        """Add bytes, in the first of these encodings that has them all."""
        if encodings != self._encodings:
            self._decode()
            self._encodings = encodings
        self._bytes += data

    def add_aside(self, text: str) -> None:
        """Add a note or a page header: after the paragraph it interrupts, or at once between two."""
        self._decode()
        self._asides.append(text)
        if not self._pieces and not self._cells:
            self._lay_asides()

    def end_paragraph(self, level: int) -> None:
        """The paragraph is complete; a level above 0 makes it a heading."""
        if self._cells:  # of a row that was never ended
            self.end_row()
        text = self._taken()
        self.layout.end_block(2)
        if level and text.strip():
            self.layout.open_heading(level)
            self.layout.add(text)
            self.layout.close_heading(level)
        else:
            self._lines(text)
        self.layout.end_block(2)
        self._lay_asides()

    def end_cell(self) -> None:
        """The cell is complete."""
        self._cells.append(self._taken())

    def end_row(self) -> None:
        """The row is complete."""
        cells, self._cells = self._cells, []
        self.layout.open_row()
        for cell in cells:
            self.layout.open_cell()
            self.layout.add(cell)
        self.layout.close_row()
        self._lay_asides()

    def end_table(self) -> None:
        """What follows is no row."""
        if self._cells:
            self.end_row()
        self.layout.end_block(2)

    def _lines(self, text: str) -> None:
        for number, line in enumerate(text.split("\n")):
            if number:
                self.layout.end_block(1)
            self.layout.add(line)

    def _lay_asides(self) -> None:
        asides, self._asides = self._asides, []
        for aside in asides:
            self.layout.end_block(2)
            self._lines(aside)
            self.layout.end_block(2)

    def _taken(self) -> str:
        self.align(None)
        self._decode()
        text, self._pieces = settled("".join(self._pieces)), []
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _decode(self) -> None:
        data, self._bytes = bytes(self._bytes), bytearray()
        if data:
            self._pieces.append(self._decoded(data, self._encodings))

    def _decoded(self, data: bytes, encodings: Sequence[str]) -> str:
        if encodings[0] == SYMBOL:
            return "".join(_PICTURES.get(byte, "") for byte in data)
        for encoding in encodings:
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                continue
        text = data.decode(encodings[0], errors="replace")
        self.lost += text.count("\ufffd")
        return text
