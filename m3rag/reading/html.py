"""HTML: what a person sees of a page, with headings and table rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import Literal

from selectolax.lexbor import LexborHTMLParser, LexborNode

from m3rag.errors import ReadError
from m3rag.reading.content import Content
from m3rag.reading.decoding import decode
from m3rag.reading.html_beside import UNSEEN, Kept, is_beside, keeps, own_words
from m3rag.reading.html_math import Scripts
from m3rag.reading.html_nesting import check_nesting, tags
from m3rag.reading.layout import Layout

PARAGRAPHS = tags(
    "p ul ol dl table pre blockquote section article main header footer aside figure hr form fieldset details address "
    "body"
)
LINES = tags("div li dt dd tr br caption figcaption legend summary option center td th thead tbody tfoot")
HEADINGS = {f"h{level}": level for level in range(1, 7)}
BLOCKS = PARAGRAPHS | LINES | HEADINGS.keys()

_CHARSET = re.compile(rb"""(?:charset|<\?xml[^>]*encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
# XHTML closes an element in its own tag; a parser of HTML takes that for a start, and all that follows for its content.
_XHTML = re.compile(r"\s*(?:<\?xml\b|(?:<!doctype[^>]*>\s*)?<html\s[^>]*\bxmlns\s*=)", re.IGNORECASE)
_CLOSED = re.compile(
    r"<(?!(?:br|hr|img|input|link|meta|col|area|base|embed|source|track|wbr)\b)([A-Za-z][\w:-]*)(\s[^<>]*)?/>"
)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_INVISIBLE = re.compile(
    r"(?:^|[;\s])(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?:font-size|opacity)\s*:\s*0(?:\.0*)?(?![.\d])"
    r"|(?:left|top|text-indent)\s*:\s*-\d{4})",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"(?:^|[;\s])(background(?:-color)?|color)\s*:\s*([^;!]+)", re.IGNORECASE)

Event = Literal["open", "close", "text", "hidden", "beside"]


def read_html(data: bytes, *, framed: bool = True) -> Content:
    """Read a web page: blocks as lines and paragraphs, table rows as `a | b`.

    Left out: scripts and styles, navigation, the site's own asides (not notes and admonitions), footer
    and header (not one with an `h1` or with much to say), and every node that is hidden (`hidden`,
    `aria-hidden`, `display:none`, text in the colour of its own background and their like); how many of
    the latter and of asides, headers and footers had words is told.

    Args:
        data: The file's bytes; their encoding is that of the byte order mark, the declaration, or
            a guess.
        framed: False where no site is around the text, as in mail and books: headers, footers and
            asides are parts of it.

    Returns:
        The visible text; `text[start:end]` of a heading is its text.

    Raises:
        ReadError: The bytes are not text, the page nests thousands of elements deep, or nothing of it is visible.
    """
    declared = _CHARSET.search(data[:4096])
    decoded = decode(data, declared=declared.group(1).decode("ascii") if declared else None)
    page = with_end_tags(decoded.text) if _XHTML.match(decoded.text) else decoded.text
    check_nesting(page)
    tree = LexborHTMLParser(page)
    title = tree.css_first("head > title")
    layout = Layout()
    told = _lay_out(tree.body, layout, _page_tables(tree), framed=framed) if tree.body is not None else ()
    if not layout.text and decoded.text.strip():
        raise ReadError("shows no text: all of it is navigation, script or hidden; save the page as it is displayed")
    return Content(
        layout.text,
        title=" ".join(title.text().split()) if title else "",
        headings=tuple(layout.headings),
        metadata={"encoding": decoded.encoding},
        warnings=(*decoded.warnings, *told),
    )


def with_end_tags(xhtml: str) -> str:
    """XHTML as HTML: an element that is closed in its own tag gets an end tag, a CDATA section is its text."""
    end = xhtml.rfind("]]>") + 3  # sections that never end are sought no further
    text = _CDATA.sub(lambda found: escape(found[1], quote=False), xhtml[:end]) + xhtml[end:]
    return _CLOSED.sub(r"<\1\2></\1>", text)


def _lay_out(body: LexborNode, layout: Layout, page_tables: set[int], *, framed: bool) -> tuple[str, ...]:
    """Fill the layout; returns what is to be told of elements with text that were passed over."""
    rows, preformatted = 0, 0
    passed_over: Counter[str] = Counter()
    scripts = Scripts(_seen)
    for event, node in _walk(body, framed=framed):
        tag = node.tag or ""
        if event in ("hidden", "beside"):
            passed_over[_told_as(event, node)] += 1
            continue
        if event != "text" and tag in BLOCKS:
            scripts.end_line()
        if text := scripts.written(event, node):
            layout.add(text, preformatted=preformatted > 0)
        if event == "text":
            continue
        opening = event == "open"
        if tag == "tr" and _table(node) not in page_tables:
            rows += 1 if opening else -1
            (layout.open_row if opening else layout.close_row)()
        elif tag in ("td", "th") and rows:
            if opening:
                layout.open_cell()
        elif tag in PARAGRAPHS:
            layout.end_block(2)
        elif tag in LINES:
            layout.end_block(1)
        if tag in ("pre", "textarea"):
            preformatted += 1 if opening else -1
        if tag in HEADINGS:
            (layout.open_heading if opening else layout.close_heading)(HEADINGS[tag])
    return tuple(_told(passed_over))


def _told_as(event: Event, node: LexborNode) -> str:
    """What an element that is passed over is called; empty where nothing is told of it."""
    if event == "hidden":
        return event if node.text(strip=True) else ""
    tag = node.tag or ""
    return "" if tag in UNSEEN or tag == "a" or not own_words(node) else tag


def _told(passed_over: Counter[str]) -> Iterator[str]:
    if hidden := passed_over.pop("hidden", 0):
        yield f"left out {hidden} hidden element{'s' if hidden > 1 else ''} with text"
    beside = sorted(filter(None, passed_over))
    if beside:
        number = sum(passed_over[tag] for tag in beside)
        yield f"left out {number} part{'s' if number > 1 else ''} beside the text ({', '.join(beside)})"


def _walk(root: LexborNode, *, framed: bool) -> Iterator[tuple[Event, LexborNode]]:
    """The visible nodes in order, each element opened and closed; without recursion, pages nest deep."""
    path: list[LexborNode] = []
    around: Counter[Kept] = Counter()  # how many of the open elements make headers or asides a part of the text
    node: LexborNode | None = root
    while node is not None:
        descended = None
        if node.is_text_node:
            yield "text", node
        elif node.is_element_node and _hidden(node):
            yield "hidden", node
        elif node.is_element_node and is_beside(node, framed=framed, kept=around):
            yield "beside", node
        elif node.is_element_node:
            yield "open", node
            descended = node.child
            path.append(node)
            if kept := keeps(node):
                around.update(kept)
        following = descended
        while following is None and path:
            if path[-1].mem_id != node.mem_id:
                following = node.next
            if following is None:
                node = path.pop()
                if kept := keeps(node):
                    around.subtract(kept)
                yield "close", node
                if path:
                    following = node.next
        node = following


def _seen(root: LexborNode) -> str:
    """The text within an element that a person sees."""
    return "".join(node.text_content or "" for event, node in _walk(root, framed=False) if event == "text")


def _hidden(node: LexborNode) -> bool:
    """Whether a page hides what it holds here; what is never shown of any page is not hidden."""
    if node.tag in UNSEEN:
        return False
    attributes = node.attributes
    if "hidden" in attributes or (attributes.get("aria-hidden") or "").strip().lower() == "true":
        return True
    style = attributes.get("style") or ""
    if _INVISIBLE.search(style):
        return True
    colours = {name.lower()[:5]: value.strip().lower() for name, value in _COLOUR.findall(style)}
    return len(colours) > 1 and len(set(colours.values())) == 1


def _page_tables(tree: LexborHTMLParser) -> set[int]:
    """Tables that lay out a page, whose cells hold headings or tables and so are not one line."""
    found: set[int] = set()
    for inner in tree.css("table table, table h1, table h2, table h3, table h4, table h5, table h6"):
        node = inner.parent
        # In a header cell or a caption a heading is the name of a column or of the table.
        while inner.tag != "table" and node is not None and node.tag not in ("td", "th", "table"):
            node = node.parent
        if inner.tag != "table" and node is not None and node.tag != "td":
            continue
        while node is not None and not (node.tag == "table" and node.mem_id in found):
            if node.tag == "table":
                found.add(node.mem_id)
            node = node.parent
    return found


def _table(row: LexborNode) -> int:
    node = row.parent
    while node is not None and node.tag != "table":
        node = node.parent
    return node.mem_id if node is not None else 0
