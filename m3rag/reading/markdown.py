"""Markdown: the source as it stands, and where its headings are (CommonMark 0.31, 4.2 and 4.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from m3rag.reading.content import Content
from m3rag.reading.decoding import decode
from m3rag.reading.markdown_comments import without_comments
from m3rag.types import Heading

_LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t\n]|\Z)")
_UNDERLINE = re.compile(r" {0,3}(?:(=+)|(-+))[ \t]*\n?\Z")
_FENCE = re.compile(r" {0,3}(?:(`{3,})[^`\n]*|(~{3,})[^\n]*)\n?\Z")
# Lines that a paragraph, and so an underlined heading, cannot contain: lists, quotes, code, tables' rows, rules.
_NO_PARAGRAPH = re.compile(
    r" {4}|\t| {0,3}(?:[>|]|(?:[-*+]|\d{1,9}[.)])(?:\s|\Z)|<[/!?a-zA-Z]|///|:::|!!!|([-*_])[ \t]*(?:\1[ \t]*){2,}\n?\Z)"
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(?=[\w-]+[ \t]*:)(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
# On its line, or as a block (`title: >-`) on the next ones (YAML 1.2, 8.1).
_FRONT_TITLE = re.compile(r"^title:[ \t]*(?:[|>][-+\d]{0,2}[ \t]*\n((?:[ \t]+.*\n)+)|(.+))", re.MULTILINE)

# `# Title { #anchor }` is an attribute list of mkdocs, pandoc and others, not a part of the title.
_ATTRIBUTES = re.compile(r"\{:?[ \t]*[#.][^{}]*\}[ \t]*\Z")
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|\*\*|__|`|\\(?=[^\w\s])")


def read_markdown(data: bytes) -> Content:
    """Read Markdown: text verbatim except comments, headings outside code.

    Args:
        data: The file's bytes.

    Returns:
        The source with line feeds as line ends, without HTML comments (which no reader of the page
        sees). A heading's span covers its whole lines, marks included; its
        text is without marks. The title is that of the YAML front matter.

    Raises:
        ReadError: The bytes are not text.
    """
    decoded = decode(data)
    text = without_comments(decoded.text)
    front = _FRONT_MATTER.match(text)
    title = _FRONT_TITLE.search(front.group(1)) if front else None
    headings = _headings(text, start=front.end() if front else 0)
    return Content(
        text,
        title=" ".join((title[1] or title[2].rstrip(" \t").strip("\"'")).split()) if title else "",
        headings=tuple(h for h in headings if h.text),
        metadata={"encoding": decoded.encoding},
        warnings=decoded.warnings,
    )


def _headings(text: str, *, start: int) -> Iterator[Heading]:
    fence, paragraph = "", None  # what closes the open code block; where the open paragraph starts
    for match in _LINE.finditer(text, start):
        line, begin, end = match.group(), match.start(), match.end() - match.group().endswith("\n")
        marker = _FENCE.match(line)
        if fence:
            closing = line.strip()
            if closing and set(closing) == {fence[0]} and len(closing) >= len(fence):
                fence = ""
        elif marker:
            fence, paragraph = marker.group(1) or marker.group(2), None
        elif atx := _ATX.match(line):
            yield Heading(_plain(_without_closing(line[atx.end() :])), len(atx.group(1)), begin, end)
            paragraph = None
        elif paragraph is not None and (underline := _UNDERLINE.match(line)):
            yield Heading(_plain(text[paragraph:begin]), 1 if underline.group(1) else 2, paragraph, end)
            paragraph = None
        elif not line.strip() or _NO_PARAGRAPH.match(line):
            # An item's or a quote's next lines belong to it, so only a blank line ends the exclusion.
            paragraph = None
        elif paragraph is None and _begins_paragraph(text, begin):
            paragraph = begin


def _without_closing(source: str) -> str:
    """What an ATX heading says: without blanks around it and the `#`s that may close it."""
    source = source.strip(" \t\n")
    content = source.rstrip("#")
    return content.rstrip(" \t") if content.endswith((" ", "\t")) else source


def _begins_paragraph(text: str, begin: int) -> bool:
    previous = text[text.rfind("\n", 0, max(begin - 1, 0)) + 1 : begin]
    return not previous.strip() or not _NO_PARAGRAPH.match(previous)


def _plain(source: str) -> str:
    # From the last brace on: a search would try every blank of a long row of them.
    brace = source.rfind("{")
    if brace >= 0 and _ATTRIBUTES.match(source, brace):
        source = source[:brace]
    return " ".join(_MARKUP.sub("", _LINK.sub(r"\1", source)).split())
