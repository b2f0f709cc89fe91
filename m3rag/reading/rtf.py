"""RTF: what a word processor shows of it, headings by outline level or style."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from m3rag.errors import ReadError
from m3rag.reading.archive_parts import clean_title
from m3rag.reading.content import Content
from m3rag.reading.rtf_tables import BODY_LEVEL, Tables, code_page
from m3rag.reading.rtf_text import TextBuilder
from m3rag.reading.rtf_title import info_title
from m3rag.reading.rtf_tokens import Kind, Token, tokens
from m3rag.reading.scripts import lowered, raised

MAX_DEPTH = 10_000

# Destinations that are no part of the text, also where they are not marked as ignorable.
_UNSEEN = frozenset({
    "colortbl", "pict", "nonshppict", "objdata", "shprslt", "pntext", "listtext", "ftnsep", "ftnsepc", "ftncn",
    "aftnsep", "aftnsepc", "aftncn", "fldinst", "xe", "tc", "tcn", "rxe", "txe", "private1", "filetbl", "annotation",
    "atnid", "atnauthor", "nonesttables", "comment", "bkmkstart", "bkmkend", "template", "sp", "sn", "sv", "falt",
    "panose", "fontemb", "datafield", "formfield",
})  # fmt: skip
# Ignorable destinations that hold text somewhere within.
_HOLDING = frozenset({
    "shpinst", "do", "upr", "moMath", "moMathPara",
})  # fmt: skip
_TEXT_WITHIN = frozenset({
    "shptxt", "dptxbxtext", "ud",
})  # fmt: skip
_MARGINS = frozenset({
    "header", "headerl", "headerr", "headerf", "footer", "footerl", "footerr", "footerf",
})  # fmt: skip
_CHARACTERS = {
    "tab": "\t", "line": "\n", "emdash": "\u2014", "endash": "\u2013", "emspace": "\u2003", "enspace": "\u2002",
    "qmspace": "\u2005", "bullet": "\u2022", "lquote": "\u2018", "rquote": "\u2019", "ldblquote": "\u201c",
    "rdblquote": "\u201d", "~": "\u00a0", "_": "\u2011", "zwj": "\u200d", "zwnj": "\u200c", "nestcell": " ",
    "nestrow": " ",
}  # fmt: skip


_FAMILIES = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}
# What a word with its number changes of the state.
_CHANGES: dict[str, Callable[[int | None], dict[str, Any]]] = {
    "f": lambda number: {"font": number},
    "uc": lambda number: {"fallback": max(number or 0, 0)},
    "v": lambda number: {"hidden": number != 0},
    "deleted": lambda number: {"deleted": number != 0},
    "pard": lambda _: {"style": 0, "level": None, "in_table": False},
    "s": lambda number: {"style": number},
    "outlinelevel": lambda number: {"level": number + 1 if number is not None and number < BODY_LEVEL - 1 else 0},
    "intbl": lambda number: {"in_table": number != 0},
    "super": lambda number: {"script": raised if number != 0 else None},
    "sub": lambda number: {"script": lowered if number != 0 else None},
    "nosupersub": lambda _: {"script": None},
}
# What stands before a part of an equation, in parentheses because its length is not known yet.
_PARTS = {"mnum": "(", "mden": "/(", "msup": "^(", "msub": "_("}


@dataclass(frozen=True, slots=True)
class _State:
    """What a group inherits and its end takes back.

    Attributes:
        skipped: Nothing in the group is text.
        within: A destination of text inside of it is text all the same.
        asides: How many notes and page headers it stands in.
        margin: The innermost of them is a page header or footer.
        script: How raised or lowered text is written.
        closes: What is written at the group's end.
    """

    skipped: bool = False
    within: bool = False
    font: int | None = None
    fallback: int = 1
    hidden: bool = False
    deleted: bool = False
    style: int | None = 0
    level: int | None = None
    in_table: bool = False
    asides: int = 0
    margin: bool = False
    script: Callable[[str], str] | None = None
    closes: str = ""


def read_rtf(data: bytes) -> Content:
    """Read rich text.

    Args:
        data: The file's bytes; text is in the code page of its font, or Unicode escapes.

    Returns:
        Paragraphs, headings, table rows as `a | b`, text boxes, notes after their paragraph, page
        headers and footers where they are defined, each text once. Left out are hidden and deleted
        text, instructions of fields, remarks and pictures.

    Raises:
        ReadError: The bytes are not RTF, or nest deeper than 10,000 groups.
    """
    if not data.lstrip().startswith(b"{\\rtf"):
        raise ReadError("is no RTF: it does not begin with {\\rtf; give it its right suffix")
    return _Reader().read(tokens(data.lstrip()))


class _Reader:
    def __init__(self) -> None:
        self._tables = Tables()
        self._texts = [TextBuilder()]  # the body's, and those of the note or page header inside it
        self._state = _State()
        self._stack: list[_State] = []
        self._default_font: int | None = None
        self._encoding = "cp1252"
        self._title = ""
        self._skip = 0  # bytes that stand for the last Unicode character in old programs
        self._ignorable = False
        self._margins: set[str] = set()
        self._warnings: list[str] = []
        self._hidden = 0

    def read(self, stream: Iterator[Token]) -> Content:
        """Read all of it; what follows the outermost group is not a part of it."""
        for token in stream:
            if token.kind is Kind.OPEN:
                self._open()
            elif token.kind is Kind.CLOSE:
                self._close()
                if not self._stack:
                    break
            elif token.kind is Kind.BYTES:
                self._bytes(token.data)
            elif self._skip:
                self._skip -= 1
            else:
                self._word(token, stream)
        while len(self._texts) > 1:  # of a file that was cut short
            self._end_aside(margin=False)
        body = self._texts[0]
        body.end_paragraph(0)
        if self._stack:
            self._warnings.append("the file ends early: its last part may be missing")
        if body.lost:
            self._warnings.append(f"{body.lost} characters could not be decoded and read \ufffd")
        if self._hidden:
            self._warnings.append(f"left out {self._hidden} hidden passage{'s' if self._hidden > 1 else ''}")
        return Content(
            body.layout.text,
            title=clean_title(self._title),
            headings=tuple(body.layout.headings),
            warnings=tuple(self._warnings),
        )

    @property
    def _text(self) -> TextBuilder:
        return self._texts[-1]

    def _open(self) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise ReadError(f"nests more than {MAX_DEPTH:,} groups, as no program writes; save it again")
        self._stack.append(self._state)
        if self._state.closes:
            self._state = replace(self._state, closes="")
        self._skip, self._ignorable = 0, False

    def _close(self) -> None:
        ended, self._skip = self._state, 0
        if ended.closes:
            self._text.align(None)
            self._text.add(ended.closes)
        if self._stack:
            self._state = self._stack.pop()
        if ended.asides > self._state.asides:
            self._end_aside(margin=ended.margin)

    def _begin_aside(self, *, margin: bool) -> None:
        self._texts.append(TextBuilder())
        self._state = replace(
            self._state, asides=self._state.asides + 1, margin=margin, style=0, level=None, in_table=False
        )

    def _end_aside(self, *, margin: bool) -> None:
        aside = self._texts.pop()
        aside.end_paragraph(0)
        text = aside.layout.text
        self._text.lost += aside.lost
        if margin and (text in self._margins or not any(c.isalpha() for c in text)):
            return
        if margin:
            self._margins.add(text)
        self._text.add_aside(text)

    def _bytes(self, data: bytes) -> None:
        passed = min(self._skip, len(data))
        self._skip -= passed
        self._ignorable = False
        if passed < len(data) and self._shown:
            self._text.align(self._state.script)
            self._text.add_bytes(data[passed:], self._encodings())

    def _encodings(self) -> tuple[str, ...]:
        own = self._tables.fonts.get(self._state.font if self._state.font is not None else -1)
        return (own, self._encoding) if own is not None else (self._encoding,)

    @property
    def _shown(self) -> bool:
        return not (self._state.skipped or self._state.hidden or self._state.deleted)

    def _word(self, token: Token, stream: Iterator[Token]) -> None:
        word, number = token.word, token.number
        if word == "*":
            self._ignorable = True
            return
        ignorable, self._ignorable = self._ignorable, False
        if self._destination(word, stream, ignorable=ignorable) or self._state.skipped:
            return
        if word == "u" and number is not None:
            self._unicode(number)
        elif word in _CHARACTERS:
            if self._shown:
                self._text.align(self._state.script)
                self._text.add(_CHARACTERS[word])
        elif word in _PARTS:
            if self._shown:
                self._text.align(None)
                self._text.add(_PARTS[word])
                self._state = replace(self._state, closes=")")
        elif word in ("par", "sect", "page", "cell", "row"):
            if word != "par" or not self._state.deleted:
                self._end(word)
        else:
            self._property(word, number)

    def _destination(self, word: str, stream: Iterator[Token], *, ignorable: bool) -> bool:
        """Enter a destination; True where the word was one."""
        if word in _TEXT_WITHIN and self._state.within:
            self._state = replace(self._state, skipped=False, within=False)
        elif word in _HOLDING:
            maths = word.startswith("moMath")
            self._state = replace(self._state, skipped=self._state.skipped or not maths, within=not maths)
        elif ignorable or word in _UNSEEN:
            self._state = replace(self._state, skipped=True, within=False)
        elif self._state.skipped:
            return False
        elif word in ("fonttbl", "stylesheet", "info"):
            self._header(word, stream)
        elif word in _MARGINS or word == "footnote":
            self._begin_aside(margin=word in _MARGINS)
        else:
            return False
        return True

    def _header(self, word: str, stream: Iterator[Token]) -> None:
        """Take in a group of the header to its end."""
        group, depth = list[Token](), 1
        for token in stream:
            depth += (token.kind is Kind.OPEN) - (token.kind is Kind.CLOSE)
            if depth == 0:
                break
            group.append(token)
        if word == "fonttbl":
            self._tables.take_fonts(group)
        elif word == "stylesheet":
            self._tables.take_styles(group)
        else:
            self._title = info_title(group, self._encoding)
        self._close()

    def _unicode(self, number: int) -> None:
        self._skip = self._state.fallback
        if self._shown:
            self._text.align(self._state.script)
            self._text.add_unit(number % 0x10000)

    def _end(self, word: str) -> None:
        level = self._state.level if self._state.level is not None else self._tables.level(self._state.style)
        if word == "cell":
            self._text.end_cell()
        elif word == "row":
            self._text.end_row()
        elif self._state.in_table:
            self._text.align(None)
            self._text.add("\n")
        else:
            self._text.end_table()
            self._text.end_paragraph(level)

    def _property(self, word: str, number: int | None) -> None:
        if word in _CHANGES:
            self._state = replace(self._state, **_CHANGES[word](number))
            self._hidden += word == "v" and number != 0
        elif word == "plain":
            self._state = replace(self._state, hidden=False, deleted=False, font=self._default_font, script=None)
        elif word == "deff":
            self._default_font = number
            self._state = replace(self._state, font=number)
        elif word in _FAMILIES:
            self._encoding = _FAMILIES[word]
        elif word == "ansicpg" and number:
            self._code_page(number)

    def _code_page(self, number: int) -> None:
        name = code_page(number)
        if name is None:
            self._warnings.append(f"code page {number} is not known: read as {self._encoding}")
        else:
            self._encoding = name
