"""docling's JSON to our content. The two files were written by docling 2.143, less what nobody reads."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.errors import ReadError
from m3rag.reading import Format, parse
from m3rag.reading.content import Content
from m3rag.reading.docling_document import content_of
from m3rag.types import Heading, Page

HERE = Path(__file__).parent


def recorded(name: str) -> Content:
    return content_of(json.loads((HERE / name).read_text(encoding="utf-8")))


def document(nodes, *, pages=0):
    """A document with these nodes in its body; `children` and `captions` among them are nodes too."""
    made = {"body": {"self_ref": "#/body", "children": [], "label": "unspecified"}, "nodes": []}

    def add(node):
        node = dict(node)
        made["nodes"].append(node)
        node["self_ref"] = f"#/nodes/{len(made['nodes']) - 1}"
        node.setdefault("content_layer", "body")
        for key in ("children", "captions"):
            node[key] = [add(inner) for inner in node.get(key, ())]
        return {"$ref": node["self_ref"]}

    made["body"]["children"] = [add(node) for node in nodes]
    made["texts"] = [node for node in made["nodes"] if "text" in node]
    made["pages"] = {str(number): {"page_no": number} for number in range(1, pages + 1)}
    return made


def text(words, label="text", *, page=0, **more):
    places = [{"page_no": page}] if page else []
    return {"label": label, "text": words, "prov": places, **more}


def cell(words, row, column, *, rows=1, columns=1):
    return {
        "text": words,
        "start_row_offset_idx": row,
        "end_row_offset_idx": row + rows,
        "start_col_offset_idx": column,
        "end_col_offset_idx": column + columns,
    }


def test_a_word_document():
    content = recorded("docling_report.docx.json")
    assert content.text.split("\n\n") == [
        "Annual report",
        "Prepared for the board.",
        "Water supply",
        "The pump delivers 40 litres a minute, un tested .",  # docling keeps no white space between runs
        "1. Close the valve.\n2. Open the tap.\nCopper",
        "Prices",
        "Part | Price | Stock\nPump | 120 | 4 9\nValve | 15 |",
        "Line one\nline two — naïve 水.",
    ]
    assert content.title == "Annual report"
    assert content.pages == ()
    assert [(h.text, h.level) for h in content.headings] == [("Annual report", 1), ("Water supply", 2), ("Prices", 3)]
    assert all(content.text[h.start : h.end] == h.text for h in content.headings)


def test_a_pdf_with_an_empty_page():
    content = recorded("docling_three.pdf.json")
    first, third = "Water supply\n\nThe pump delivers 40 litres a minute.", "Prices\n\nA valve costs 15 euros."
    assert content.text == f"{first}\n\n{third}"  # and not the page header
    assert content.pages == (
        Page(1, 0, len(first)),
        Page(2, len(first), len(first)),
        Page(3, len(first) + 2, len(content.text)),
    )
    assert content.headings == (Heading("Water supply", 1, 0, 12), Heading("Prices", 1, len(first) + 2, len(first) + 8))
    assert content.warnings == ("page 2 without text",)


def test_a_table_has_its_caption_before_it_and_spanning_cells_once():
    cells = [
        cell("b", 1, 1),
        cell("over\ntwo rows", 0, 0, rows=2),
        cell("over two columns", 0, 1, columns=2),
        cell("c", 1, 2),
    ]
    inner = text("a rich cell's own node")
    caption = text("Table 1: sizes", "caption")
    table = {"label": "table", "data": {"table_cells": cells}, "captions": [caption], "children": [inner]}
    content = content_of(document([text("before"), table, text("after")]))
    assert content.text == "before\n\nTable 1: sizes\n\nover two rows | over two columns\n| b | c\n\nafter"


def test_text_within_pictures_is_told_and_captions_are_text():
    picture = {"label": "picture", "captions": [text("Figure 1", "caption")], "children": [text("axis"), text("0.5")]}
    content = content_of(document([picture, {"label": "picture"}, text("after")]))
    assert content.text == "Figure 1\n\nafter"
    assert content.warnings == ("left out text within 1 picture",)


def test_code_keeps_its_lines_and_runs_of_a_heading_are_its_text():
    runs = {"label": "inline", "children": [text("Using"), text("pip")]}
    heading = text("", "section_header", level=2, children=[runs])
    content = content_of(document([heading, text("if a:\n    b()", "code"), text("E = mc²", "formula")]))
    assert content.text == "Using pip\n\nif a:\n    b()\n\nE = mc²"
    assert content.headings == (Heading("Using pip", 2, 0, 9),)


def test_layers_that_are_no_text_are_left_out():
    notes = {"label": "comment_section", "content_layer": "background", "children": [text("N", content_layer="notes")]}
    hidden = [text(layer, content_layer=layer) for layer in ("furniture", "background", "invisible")]
    assert content_of(document([*hidden, text("seen"), notes])).text == "seen\n\nN"


def test_a_document_without_anything_is_empty():
    assert content_of(document([])) == Content("")
    assert content_of(document([], pages=2)).pages == (Page(1, 0, 0), Page(2, 0, 0))


def read_broken(data: bytes) -> Content:
    return content_of(json.loads(data))


@pytest.mark.parametrize(
    "broken", ['{"body": {"children": [{"$ref": "#/texts/7"}]}, "texts": []}', "{}", '{"body": 1}']
)
def test_what_is_no_document_of_doclings_is_an_error_of_the_file(broken):
    with pytest.raises(ReadError, match="its parser failed"):
        parse(broken.encode(), name="a.json", formats=[Format("docling", (".json",), read_broken)])


LABELS = ("text", "title", "section_header", "list_item", "code", "footnote", "caption")
LEAVES = st.tuples(st.sampled_from(LABELS), st.integers(1, 4))
TREES = st.lists(
    st.recursive(
        LEAVES.map(lambda leaf: (*leaf, ())),
        lambda inner: st.tuples(st.sampled_from((*LABELS, "list", "inline")), st.integers(1, 4), st.lists(inner)),
        max_leaves=20,
    )
)


@given(TREES)
def test_every_text_is_there_once_and_on_its_page(tree):
    written = {}

    def node(label, page, children, *, inline_on=None):
        # The runs of a paragraph are on its page; a group is on none itself.
        on = inline_on or page
        inner = [node(*child, inline_on=on if label == "inline" else inline_on) for child in children]
        if label in ("list", "inline"):
            return {"label": label, "prov": [{"page_no": on}] if label == "inline" else [], "children": inner}
        word = f"w{len(written)}é"
        written[word] = (label, on, inline_on is not None)
        return text(word, label, page=on, children=inner)

    content = content_of(document([node(*one) for one in tree], pages=4))
    assert sorted(content.text.split()) == sorted(written)
    for page in content.pages:
        for word in content.text[page.start : page.end].split():
            assert written[word][1] == page.number
    assert {h.text for h in content.headings} == {
        word for word, (label, _, in_runs) in written.items() if label in ("title", "section_header") and not in_runs
    }
    assert all(content.text[h.start : h.end] == h.text for h in content.headings)
    assert list(content.headings) == sorted(content.headings, key=lambda h: h.start)
