"""RTF's header: the code pages of its fonts and the heading levels of its styles."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from m3rag.reading.rtf_tokens import Kind, Token

SYMBOL = "symbol"
"""Stands for the code page of fonts whose letters are pictures."""

_CHARSETS = {
    0: "cp1252", 2: SYMBOL, 77: "mac_roman", 78: "shift_jis", 79: "big5", 80: "euc_kr", 83: "mac_greek",
    86: "mac_turkish", 88: "mac_latin2", 89: "mac_cyrillic", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030",
    136: "cp950", 161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257",
    204: "cp1251", 222: "cp874", 238: "cp1250", 254: "cp437", 255: "cp850",
}  # fmt: skip
_PAGES = {936: "gb18030", 10000: "mac_roman", 10001: "shift_jis", 10006: "mac_greek", 10007: "mac_cyrillic",
          10029: "mac_latin2", 65001: "utf-8"}  # fmt: skip
_HEADING = re.compile(r"heading\s*([1-9])", re.IGNORECASE)
BODY_LEVEL = 10
MAX_ANCESTORS = 50  # a style may be based on itself in a damaged file


@dataclass(slots=True)
class Tables:
    """What the header says.

    Attributes:
        fonts: The encoding of a font's bytes by its number; a font without one of its own is left out.
        styles: `(level or None, number of the style it is based on)` by number.
    """

    fonts: dict[int, str] = field(default_factory=dict)
    styles: dict[int, tuple[int | None, int | None]] = field(default_factory=dict)

    def level(self, style: int | None) -> int:
        """The heading level (from 1) of paragraphs of a style; 0 for body text."""
        for _ in range(MAX_ANCESTORS):
            level, style = self.styles.get(style, (None, None)) if style is not None else (0, None)
            if level is not None:
                return level if level < BODY_LEVEL else 0
        return 0

    def take_fonts(self, group: Iterable[Token]) -> None:
        """Read the tokens of a font table."""
        number = None
        for token in group:
            if token.kind is Kind.WORD and token.word == "f":
                number = token.number
            elif number is not None and token.kind is Kind.WORD and token.number is not None:
                if token.word == "fcharset" and token.number in _CHARSETS:
                    self.fonts[number] = _CHARSETS[token.number]
                elif token.word == "cpg" and (name := code_page(token.number)):
                    self.fonts[number] = name

    def take_styles(self, group: Iterable[Token]) -> None:
        """Read the tokens of a style sheet."""
        for entry in _entries(group):
            words = {token.word: token.number for token in entry if token.kind is Kind.WORD}
            number = 0 if "s" not in words and "cs" not in words else words.get("s")
            if number is None:
                continue
            name = b"".join(t.data for t in entry if t.kind is Kind.BYTES).decode("latin-1").split(";")[0].strip()
            outline, heading = words.get("outlinelevel"), _HEADING.fullmatch(name)
            level = int(heading.group(1)) if heading else 1 if name.casefold() == "title" else None
            if level is None and outline is not None:
                level = outline + 1
            based = words.get("sbasedon")
            self.styles[number] = (level, based if based != number else None)


def code_page(number: int) -> str | None:
    """Python's name of a Windows code page; None for one it does not have."""
    name = _PAGES.get(number, f"cp{number}")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return None


def _entries(group: Iterable[Token]) -> Iterator[list[Token]]:
    """The groups directly inside of a group, without the groups inside of those."""
    depth, entry = 0, list[Token]()
    for token in group:
        if token.kind is Kind.OPEN:
            depth += 1
        elif token.kind is Kind.CLOSE:
            depth -= 1
            if depth == 0:
                yield entry
                entry = []
        elif depth == 1:
            entry.append(token)
