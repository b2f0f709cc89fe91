"""docling's document, as its JSON has it, to our content: pages, headings, lists, tables as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3rag.reading.content import Content
from m3rag.reading.joining import Part, join
from m3rag.reading.layout import Layout
from m3rag.types import Page

Node = Mapping[str, Any]

# Speaker notes are text of the document; page headers, watermarks and hidden text are other layers.
_LAYERS = frozenset({"body", "notes"})
_PREFORMATTED = frozenset({"code", "formula"})


def content_of(document: Node) -> Content:
    """Lay out a `DoclingDocument`.

    Args:
        document: What `DoclingDocument.export_to_dict()` gives, or its JSON file.

    Returns:
        The text in docling's reading order: headings with their spans, list items with their numbers,
        table rows as `a | b`, a caption before its table or picture. What stands on a page is one
        span; a paragraph that goes over a page break is on the page it begins on. Text within pictures
        is not in, and is told.

    Raises:
        KeyError, IndexError, ValueError: It is not a document of docling's. The registry makes
            `ReadError` of these.
    """
    walk = _Walk(document)
    walk.children(document["body"])
    numbers = sorted(walk.layouts)
    joined = join([Part(walk.layouts[n].text, tuple(walk.layouts[n].headings)) for n in numbers])
    # What has no place of its own before the first page is counted to it, so 0 is of documents without pages.
    pages = () if numbers == [0] else tuple(Page(n, *span) for n, span in zip(numbers, joined.spans, strict=True))
    return Content(
        joined.text, title=walk.title, pages=pages, headings=joined.headings, warnings=tuple(_told(walk, pages))
    )


def _told(walk: _Walk, pages: tuple[Page, ...]) -> Iterator[str]:
    empty = [str(page.number) for page in pages if page.start == page.end]
    if empty and len(empty) < len(pages):
        yield f"page{'s' if len(empty) > 1 else ''} {', '.join(empty)} without text"
    if walk.pictures:
        yield f"left out text within {walk.pictures} picture{'s' if walk.pictures > 1 else ''}"


class _Walk:
    """Lays out nodes in order, each once, on the page it stands on."""

    def __init__(self, document: Node) -> None:
        self.title = ""
        self.pictures = 0  # those with text in them
        self.layouts = {int(number): Layout() for number in document.get("pages") or {}} or {0: Layout()}
        self._document = document
        self._page = min(self.layouts)
        self._done: set[str] = set()
        titles = (t for t in document.get("texts", ()) if t["label"] == "title" and t["content_layer"] in _LAYERS)
        # A section's level counts from below the title, if there is one.
        self._below = 1 if next(titles, None) else 0

    @property
    def _layout(self) -> Layout:
        return self.layouts[self._page]

    def children(self, node: Node) -> None:
        """Lay out what a node holds."""
        for child in self._resolved(node.get("children", ())):
            self._node(child)

    def _resolved(self, references: Any) -> Iterator[Node]:
        for reference in references:
            _, collection, number = reference["$ref"].split("/")
            yield self._document[collection][int(number)]

    def _node(self, node: Node) -> None:
        if node["self_ref"] in self._done:
            return
        self._done.add(node["self_ref"])
        if node.get("content_layer", "body") not in _LAYERS:
            self.children(node)  # a slide's notes may hang on what is none of the text
            return
        self._turn_to(node)
        label = node["label"]
        if "data" in node and "table_cells" in node["data"]:
            self._captioned(node)
            self._table(node["data"]["table_cells"])
        elif label in ("picture", "chart"):
            self._captioned(node)
            self.pictures += any(self._inner_texts(node))
        elif label == "inline":
            self._paragraph(node, " ".join(self._inner_texts(node)))
        elif "text" in node:
            self._text(node)
        else:
            self.children(node)

    def _turn_to(self, node: Node) -> None:
        places = node.get("prov")
        if places:
            self._page = int(places[0]["page_no"])
            self.layouts.setdefault(self._page, Layout())

    def _text(self, node: Node) -> None:
        # A heading or an item with formatted runs has its text in a group of its own.
        runs = [c for c in self._resolved(node.get("children", ())) if c["label"] == "inline"]
        text = node["text"] or (" ".join(self._inner_texts(runs[0])) if runs else "") or node.get("orig", "")
        label = node["label"]
        if label in ("title", "section_header"):
            level = 1 if label == "title" else int(node.get("level", 1)) + self._below
            self._layout.open_heading(level)
            self._layout.add(text)
            self._layout.close_heading(level)
            self.title = self.title or (" ".join(text.split()) if label == "title" else "")
        elif label == "list_item":
            marker = node.get("marker", "") if node.get("enumerated") else ""
            self._paragraph(node, f"{marker} {text}".strip(), breaks=1)
        else:
            self._paragraph(node, text)
        self.children(node)

    def _paragraph(self, node: Node, text: str, *, breaks: int = 2) -> None:
        layout = self._layout
        layout.end_block(breaks)
        if node["label"] in _PREFORMATTED:
            layout.add(text, preformatted=True)
        else:
            for line in text.split("\n"):
                layout.add(line)
                layout.end_block(1)
        layout.end_block(breaks)

    def _inner_texts(self, node: Node) -> Iterator[str]:
        """The texts below a node, which are laid out with it and not again."""
        for child in self._resolved(node.get("children", ())):
            if child["self_ref"] not in self._done:
                self._done.add(child["self_ref"])
                if child.get("content_layer", "body") in _LAYERS and child.get("text"):
                    yield child["text"]
                yield from self._inner_texts(child)

    def _captioned(self, node: Node) -> None:
        self._layout.end_block(2)
        for caption in self._resolved(node.get("captions", ())):
            self._node(caption)

    def _table(self, cells: list[Node]) -> None:
        rows: dict[int, list[tuple[int, str]]] = {}
        for cell in cells:
            first = int(cell["start_row_offset_idx"])
            for row in range(first, max(int(cell["end_row_offset_idx"]), first + 1)):
                # A cell over several rows is written once, and leaves its place empty in the others.
                text = cell["text"] if row == first else ""
                rows.setdefault(row, []).append((int(cell["start_col_offset_idx"]), text))
        layout = self._layout
        layout.end_block(2)
        for _, row_cells in sorted(rows.items()):
            layout.open_row()
            for _, text in sorted(row_cells, key=lambda cell: cell[0]):
                layout.open_cell()
                layout.add(text)
            layout.close_row()
        layout.end_block(2)
