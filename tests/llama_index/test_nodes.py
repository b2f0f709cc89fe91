from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from m3rag import KnowledgeBase
from m3rag.chunking.parents import GAP, PARENT
from m3rag.errors import InputError
from m3rag.llama_index import M3NodeParser, M3VectorStore, create_query_engine
from m3rag.llama_index.nodes import NODE, to_chunk, to_node, to_scored_node
from m3rag.settings import Settings
from m3rag.store.memory import MemoryStore
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Hit, LegScores

SOURCE = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="a.pdf", node_type=ObjectType.DOCUMENT, hash="h")}


def full() -> TextNode:
    return TextNode(
        id_="n1",
        text="Enten — 🦆 schwimmen.",
        metadata={"lang": "de", "page_label": "7", "tags": ["a", "b"], "deep": {"x": [1, None]}},
        excluded_llm_metadata_keys=["lang"],
        excluded_embed_metadata_keys=["tags"],
        metadata_template="{key}={value}",
        metadata_separator="; ",
        text_template="{content} <{metadata_str}>",
        mimetype="text/markdown",
        start_char_idx=10,
        end_char_idx=30,
        relationships={
            **SOURCE,
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="n2", metadata={"k": 1}),
            NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2")],
        },
    )


@pytest.mark.parametrize(
    "node",
    [
        full(),
        TextNode(id_="empty", text=""),
        IndexNode(id_="i", text="an index", index_id="other"),
        ImageNode(id_="p", text="a picture", image_url="http://example.org/p.png"),
        Node(id_="m", text_resource=MediaResource(text="text"), image_resource=MediaResource(url="http://x.org/y")),
    ],
    ids=lambda node: type(node).__name__,
)
def test_a_node_comes_back_whole_through_a_store(node: Any) -> None:
    encoder = HashEncoder()
    chunk = to_chunk(node)
    store = MemoryStore(encoder.info)
    store.upsert([chunk], encoder.encode_documents([chunk.encoded_text]))
    (stored,) = store.get([node.node_id])
    back = to_node(stored)
    assert type(back) is type(node)
    assert back == node
    assert back.hash == node.hash


def test_a_document_comes_back_as_a_node_with_its_text() -> None:
    back = to_node(to_chunk(Document(id_="d", text="All of it.", metadata={"k": 1})))
    assert (back.node_id, back.get_content(), back.metadata) == ("d", "All of it.", {"k": 1})


class Own(TextNode):
    """A class of a user's, with a field more."""

    colour: str = "blue"

    @classmethod
    def class_name(cls) -> str:
        return "Own"


@pytest.mark.parametrize("node_type", [Document, Own])
def test_of_other_classes_a_text_node_comes_back(node_type: Any) -> None:
    node = node_type(id_="n", text="All.", metadata={"k": 1}, text_template="<{content}>", relationships=SOURCE)
    back = to_node(to_chunk(node))
    assert type(back) is TextNode
    assert back == TextNode(id_="n", text="All.", metadata={"k": 1}, text_template="<{content}>", relationships=SOURCE)


def test_a_chunk_has_the_place_of_the_node() -> None:
    chunk = to_chunk(full())
    assert (chunk.id, chunk.document_id, chunk.text) == ("n1", "a.pdf", "Enten — 🦆 schwimmen.")
    assert (chunk.start, chunk.end, chunk.page, chunk.headings) == (10, 30, 7, ())
    assert {key: value for key, value in chunk.metadata.items() if key != NODE} == full().metadata


@pytest.mark.parametrize(
    ("metadata", "page", "headings"),
    [
        ({"page": 3, "headings": ["A", "B"]}, 3, ("A", "B")),
        ({"page": "iv", "headings": "A"}, None, ()),
        ({"page": 0, "page_label": "12"}, 12, ()),
        ({"page": True, "headings": ["A", 1]}, None, ()),
    ],
)
def test_page_and_headings_are_taken_where_they_are_such(
    metadata: dict[str, Any], page: int | None, headings: tuple[str, ...]
) -> None:
    chunk = to_chunk(TextNode(text="x", metadata=metadata))
    assert (chunk.page, chunk.headings) == (page, headings)


@pytest.mark.parametrize("span", [(None, None), (5, 6), (-1, 10)])
def test_a_span_that_does_not_fit_the_text_is_the_whole_text(span: tuple[Any, Any]) -> None:
    node = TextNode(id_="n", text="Ducks swim.", start_char_idx=span[0], end_char_idx=span[1])
    chunk = to_chunk(node)
    assert (chunk.start, chunk.end, chunk.document_id) == (0, 11, "n")
    assert to_node(chunk) == node


def test_what_is_not_json_or_reserved_is_named() -> None:
    with pytest.raises(InputError, match=r"node 'n' cannot be written as JSON .*leave that out of its metadata"):
        to_chunk(TextNode(id_="n", text="x", metadata={"f": object()}))
    with pytest.raises(InputError, match=r"node 'n' cannot be written as JSON .*Out of range"):
        to_chunk(TextNode(id_="n", text="x", metadata={"deep": [{"f": float("nan")}]}))
    with pytest.raises(InputError, match=r"or its obj out of the node, and give that to M3Retriever\(object_map="):
        to_chunk(IndexNode(id_="n", text="x", index_id="i", obj=object()))
    with pytest.raises(InputError, match="node 'n': the metadata key 'm3rag:node' is reserved"):
        to_chunk(TextNode(id_="n", text="x", metadata={NODE: {}}))
    assert to_chunk(TextNode(text="x", metadata={"day": date(2024, 5, 1)})).metadata["day"] == "2024-05-01"


def test_what_the_node_parser_says_of_parents_is_kept() -> None:
    text = "Ducks swim on ponds. " * 30
    parser = M3NodeParser(model_name="mini", strategy="small-to-big", chunk_tokens=64, overlap_tokens=0)
    nodes = parser.get_nodes_from_documents([Document(id_="d", text=text)])
    assert PARENT in nodes[0].metadata
    assert to_chunk(nodes[0]).metadata[PARENT] == nodes[0].metadata[PARENT]
    assert to_node(to_chunk(nodes[0])) == nodes[0]


@pytest.mark.parametrize(
    ("place", "ours"),
    [
        ((None, None), {}),  # as other splitters leave it
        ((0, 11), {}),
        ((95, 106), {}),
        ((20, 30), {}),  # does not fit the text
        ((20, 31), {PARENT: "all"}),
        ((20, 31), {PARENT: [10]}),
        ((20, 31), {GAP: None}),
    ],
)
def test_a_passage_that_the_node_does_not_stand_in_is_left_out(place: tuple[Any, Any], ours: dict[str, Any]) -> None:
    metadata = {"k": 1, PARENT: [10, 100], GAP: " ", **ours}
    node = TextNode(text="Ducks swim.", start_char_idx=place[0], end_char_idx=place[1], metadata=metadata)
    assert to_chunk(node).metadata.keys() == {"k", NODE}
    assert node.metadata == metadata


@pytest.mark.parametrize("chunk_size", [60, 90])
def test_what_another_splitter_made_of_small_chunks_is_found_and_answered_from(
    chunk_size: int, scripted: Callable[..., Any]
) -> None:
    text = " ".join(f"Topic {i} says ducks like pond {i}." for i in range(40))
    small = M3NodeParser(model_name="mini", strategy="small-to-big", chunk_tokens=256)([Document(id_="D", text=text)])
    parts = SentenceSplitter(chunk_size=chunk_size, chunk_overlap=0).get_nodes_from_documents(small)
    assert all(PARENT in node.metadata for node in parts)
    with KnowledgeBase(":memory:", encoder=HashEncoder(), settings=Settings()) as kb:
        M3VectorStore(kb).add(parts)
        for llm in (scripted("Ducks do [1]."), None):
            found = create_query_engine(kb, llm, k=5).query("What says topic 7?").source_nodes
            assert found
            assert all(one.text in text for one in found)


def test_a_chunk_of_another_origin_is_a_sensible_node() -> None:
    chunk = Chunk("c", "a.pdf", "Ducks swim.", 5, 16, page=3, headings=("Birds",), metadata={"k": [1], PARENT: [0, 99]})
    node = to_node(chunk)
    assert isinstance(node, TextNode)
    assert (node.node_id, node.text, node.start_char_idx, node.end_char_idx) == ("c", "Ducks swim.", 5, 16)
    assert node.metadata == {"k": [1], "document_id": "a.pdf", "headings": ["Birds"], "page": 3}
    assert node.ref_doc_id == "a.pdf"
    node.metadata["k"].append(2)
    assert chunk.metadata["k"] == [1]


def test_a_scored_node_shows_no_reserved_key_and_leaves_the_hit_alone() -> None:
    hit = Hit(to_chunk(full()), 0.5, LegScores(dense=0.25))
    found = to_scored_node(hit)
    assert found.score == 0.5
    assert found.metadata["scores"]["dense"] == 0.25
    assert not [key for key in found.metadata if key.startswith("m3rag")]
    assert found.node.excluded_llm_metadata_keys == ["lang", "scores"]
    assert to_scored_node(hit) == found


def test_the_hash_is_that_of_the_stored_node_whatever_the_search() -> None:
    own = {"k": 1, "scores": "mine", "headings": ["A"], "page": 3, "document_id": "x", "z": 0}
    for node in (
        full(),
        IndexNode(id_="i", text="an index", index_id="other", metadata={"k": 1}),
        TextNode(id_="t", text="a text", metadata=own),
    ):
        chunk = to_chunk(node)
        found = [
            to_scored_node(Hit(chunk, 0.5, LegScores(**scores))).node for scores in ({"dense": 1.0}, {"bm25": 3.0})
        ]
        assert found[0].metadata != found[1].metadata
        assert found[0].hash == found[1].hash == node.hash
        assert copy.deepcopy(found[0]).hash == pickle.loads(pickle.dumps(found[0])).hash == node.hash  # noqa: S301
        assert type(node).from_dict(found[0].to_dict()).node_id == node.node_id
        found[0].set_content("edited")
        assert found[0].hash != node.hash
