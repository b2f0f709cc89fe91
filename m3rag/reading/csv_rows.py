"""Rows of a text in CSV, to the last one: a quotation mark that is never closed costs no row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from itertools import chain

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
        done = counted = 0
        number = 1
        while done < len(self._text):
            source.seek(done)
            # Strict, or a mark that is never closed would end at the next one that is opened.
            reader = csv.reader(chain(source, [_END]), delimiter=self.delimiter, skipinitialspace=True, strict=True)
            try:
                for row in reader:
                    if row == [_END]:
                        return
                    yield row
                    done = source.tell()
            except csv.Error:  # also for a value that exceeds what the parser takes, which is how most such marks end
                pass
            number += self._text.count("\n", counted, done)
            end = self._text.find("\n", done) + 1 or len(self._text)
            yield self._line(self._text[done:end], number)
            counted, done = done, end

    def _line(self, line: str, number: int) -> list[str]:
        """The cells of a line that is not sound; where a mark is open at its end, all of them are read as text."""
        try:
            rows = list(csv.reader([line, _END], delimiter=self.delimiter or ",", skipinitialspace=True))
        except csv.Error:
            rows = []
        if len(rows) > 1:
            return rows[0]
        self.unclosed.append(number)
        return line.rstrip("\n").split(self.delimiter)
