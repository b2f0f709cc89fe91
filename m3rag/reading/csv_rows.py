"""Rows of a text in CSV, to the last one: a quotation mark that is never closed costs no row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import StringIO
from itertools import chain

AGAIN = 8  # times the text: what may be read in vain, beyond which each line is a row
LINES = 20  # of a row that is not sound

_OPEN = re.compile(r'(?:[^"]++|"")*+')
_END = "\0"  # a row of its own behind the last one; where it is not, a quotation mark is open


class Rows:
    """The rows of a text.

    Attributes:
        delimiter: What stands between cells; None where each line is a cell.
        unclosed: The numbers of the lines, from 1, whose quotation marks are read as text.
    """

    def __init__(self, text: str, delimiter: str | None) -> None:
        """Take a text without the character U+0000."""
        self.unclosed: list[int] = []
        self._text = text
        self.delimiter = delimiter

    def __iter__(self) -> Iterator[list[str]]:
        if self.delimiter is None:
            yield from ([line] for line in self._text.split("\n"))
            return
        source = StringIO(self._text, newline="")
        done = counted = again = 0
        number = 1
        while done < len(self._text):
            source.seek(done)
            # Strict, or a mark that is never closed would end at the next one that is opened.
            reader = csv.reader(chain(source, [_END]), delimiter=self.delimiter, skipinitialspace=True, strict=True)
            try:
                for row in reader if again < AGAIN * len(self._text) else ():
                    if row == [_END]:
                        return
                    yield row
                    done = source.tell()
            except csv.Error:  # also for a value that exceeds what the parser takes, which is how most such marks end
                pass
            number += self._text.count("\n", counted, done)
            again += source.tell() - done
            found, end, seen = self._unsound(done, LINES if again < AGAIN * len(self._text) else 1)
            if found is None:
                self.unclosed.append(number)
                found = self._text[done:end].rstrip("\n").split(self.delimiter)
            yield found
            again += seen - end
            counted, done = done, end

    def _unsound(self, start: int, lines: int) -> tuple[list[str] | None, int, int]:
        """A row with a mark where none may stand.

        Args:
            start: Where it begins.
            lines: How many it may have.

        Returns:
            Its cells, None where a mark stays open; where it, or then its first line, ends; how far it was looked for.
        """
        cells = [""]
        first = end = self._text.find("\n", start) + 1 or len(self._text)
        line = self._text[start:end]
        for _ in range(lines):
            try:
                rows = list(csv.reader([line, _END], delimiter=self.delimiter or ",", skipinitialspace=True))
            except csv.Error:
                break
            begun, *others = rows[0] or [""]
            cells = [*cells[:-1], cells[-1] + begun, *others]
            if len(rows) > 1:
                return cells, end, end
            cells[-1] = cells[-1].removesuffix(_END)
            begin, end = end, self._text.find("\n", end) + 1 or len(self._text)
            line = self._text[begin:end]
            # Where another's opening mark seems to close the value, its own is missing.
            if not line or not self._closed_well(line):
                break
            line = f'"{line}'
        return None, first, end

    def _closed_well(self, line: str) -> bool:
        """Whether what stands behind the value that is open before a line is a delimiter, a line end or nothing."""
        behind = _OPEN.sub("", line, count=1)[1:].lstrip(" ")
        return behind[:1] in ("", "\n", self.delimiter)
