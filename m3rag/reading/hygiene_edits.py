"""A text after replacements, with the exact map between its characters and those of its source."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Pass:
    """The replacements of one pass: half-open spans before it and after it, in order."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    new_starts: tuple[int, ...]
    new_ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Edited:
    """A text and how it came from its source.

    Attributes:
        text: After all replacements.
        source: Before them.
        passes: What each pass replaced, first to last; none for the source itself.
    """

    text: str
    source: str
    passes: tuple[_Pass, ...] = ()

    @classmethod
    def of(cls, source: str) -> Edited:
        """A text that nothing has been replaced in."""
        return cls(source, source)

    def forward(self, offset: int) -> int:
        """Where a boundary of the source lies in the text; one within a replaced span goes to its start."""
        for done in self.passes:
            at = bisect_left(done.ends, offset + 1) - 1  # the last replacement that ends at or before it
            shifted = offset if at < 0 else done.new_ends[at] + offset - done.ends[at]
            inside = at + 1
            if inside < len(done.starts) and done.starts[inside] < offset:
                shifted = done.new_starts[inside]
            offset = shifted
        return offset

    def back(self, index: int) -> int:
        """The character of the source that a character of the text came from.

        A replacement's characters come from the characters that it stands for, one for one as far
        as they go, then from the last.
        """
        for done in reversed(self.passes):
            at = bisect_right(done.new_starts, index) - 1
            if at < 0:
                continue
            if index < done.new_ends[at]:
                index = min(done.starts[at] + index - done.new_starts[at], done.ends[at] - 1)
            else:
                index = done.ends[at] + index - done.new_ends[at]
        return index


def substitute(source: str | Edited, pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str]) -> Edited:
    """Replace what a pattern finds, keeping the map.

    Args:
        source: A text, or one already edited.
        pattern: Finds the spans, none of them empty.
        replacement: What to put in the place of one.

    Returns:
        The text with one pass more, or as it was where nothing was found.
    """
    before = source if isinstance(source, Edited) else Edited.of(source)
    spans = [(found.start(), found.end(), replacement(found)) for found in pattern.finditer(before.text)]
    return replace_spans(before, [span for span in spans if before.text[span[0] : span[1]] != span[2]])


def replace_spans(source: Edited, spans: list[tuple[int, int, str]]) -> Edited:
    """Replace spans by texts.

    Args:
        source: What to edit.
        spans: `(start, end, new text)`, in order, not overlapping, none empty.

    Returns:
        The text with one pass more, or as it was for no spans.
    """
    if not spans:
        return source
    pieces: list[str] = []
    new_starts: list[int] = []
    new_ends: list[int] = []
    done = length = 0
    for start, end, new in spans:
        length += start - done
        new_starts.append(length)
        length += len(new)
        new_ends.append(length)
        pieces += [source.text[done:start], new]
        done = end
    pieces.append(source.text[done:])
    made = _Pass(tuple(s[0] for s in spans), tuple(s[1] for s in spans), tuple(new_starts), tuple(new_ends))
    return Edited("".join(pieces), source.source, (*source.passes, made))
