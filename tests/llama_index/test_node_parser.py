from __future__ import annotations

import asyncio
import json
import pickle
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.node_parser import JSONNodeParser, MarkdownNodeParser
from llama_index.core.schema import Document, MetadataMode, NodeRelationship, TextNode

from m3rag import KnowledgeBase
from m3rag.chunking.parents import PARENT
from m3rag.encoder import CachedEncoder, M3Encoder, MemoryCache
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.llama_index import M3NodeParser, M3VectorStore, create_query_engine
from m3rag.settings import Settings
from m3rag.testing import HashEncoder

REPEATED = "The same sentence stands here again. " * 60


def parser(**options):
    return M3NodeParser(**{"encoder": HashEncoder(), "chunk_tokens": 32, "overlap_tokens": 4} | options)


@pytest.mark.parametrize("strategy", ["structure", "fixed", "sentence-window", "small-to-big", "semantic"])
def test_spans_are_exact_also_where_the_text_repeats_itself(strategy):
    document = Document(text=REPEATED, id_="doc")
    nodes = parser(strategy=strategy).get_nodes_from_documents([document])
    assert len(nodes) > 10
    for one, two in pairwise(nodes):
        assert one.start_char_idx < two.start_char_idx
        assert one.end_char_idx < two.end_char_idx
    covered = set()
    for node in nodes:
        assert REPEATED[node.start_char_idx : node.end_char_idx] == node.text
        covered |= set(range(node.start_char_idx, node.end_char_idx))
    assert all(i in covered for i, c in enumerate(REPEATED) if not c.isspace())


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from(" \n.aé。數"), max_size=300))
def test_spans_are_exact_for_any_text(text):
    for node in parser(chunk_tokens=8, overlap_tokens=2).get_nodes_from_documents([Document(text=text)]):
        assert text[node.start_char_idx : node.end_char_idx] == node.text


def test_relationships_stay_within_a_document():
    documents = [Document(text=REPEATED, id_=name) for name in ("a", "b")]
    nodes = parser().get_nodes_from_documents(documents)
    assert [node.ref_doc_id for node in nodes] == ["a"] * (len(nodes) // 2) + ["b"] * (len(nodes) // 2)
    for number, node in enumerate(nodes):
        assert node.relationships[NodeRelationship.SOURCE].node_id == node.ref_doc_id
        before = nodes[number - 1] if number and nodes[number - 1].ref_doc_id == node.ref_doc_id else None
        assert (node.prev_node.node_id if node.prev_node else None) == (before.node_id if before else None)
        after = nodes[number + 1] if number + 1 < len(nodes) else None
        after = after if after and after.ref_doc_id == node.ref_doc_id else None
        assert (node.next_node.node_id if node.next_node else None) == (after.node_id if after else None)
    assert not any(node.prev_node or node.next_node for node in parser(include_prev_next_rel=False)(documents))


def test_ids_repeat_unless_a_function_makes_them():
    document = Document(text=REPEATED, id_="doc")
    ids = [node.node_id for node in parser()([document])]
    assert len(set(ids)) == len(ids)
    assert all(i.startswith("doc#") for i in ids)
    assert ids == [node.node_id for node in parser()([document])]
    named = parser(id_func=lambda i, doc: f"{doc.node_id}/{i}")([document])
    assert [node.node_id for node in named] == [f"doc/{i}" for i in range(len(ids))]


def test_metadata_and_templates_are_the_documents_as_copies():
    document = Document(
        text=REPEATED, metadata={"source": "a", "tags": ["x"]}, excluded_embed_metadata_keys=["source"],
        excluded_llm_metadata_keys=["tags"], metadata_separator="; ", metadata_template="{key}={value}",
        text_template="{metadata_str}\n---\n{content}",
    )  # fmt: skip
    first, second, *_ = parser()([document])
    first.metadata["tags"].append("y")
    assert document.metadata == {"source": "a", "tags": ["x"]}
    assert second.get_content(MetadataMode.EMBED) == f"tags=['x']\n---\n{second.text}"
    assert second.get_content(MetadataMode.LLM) == f"source=a\n---\n{second.text}"
    assert second.get_content(MetadataMode.ALL) == f"source=a; tags=['x']\n---\n{second.text}"
    assert parser(include_metadata=False)([document])[0].metadata == {}


def test_what_is_ours_is_shown_to_no_model():
    node = parser(strategy="small-to-big")([Document(text=REPEATED)])[3]
    assert node.metadata["m3rag:parent"]
    assert node.get_content(MetadataMode.EMBED) == node.get_content(MetadataMode.LLM) == node.text


def test_nodes_can_be_split_again_and_stay_their_documents():
    document = Document(text=REPEATED, id_="doc")
    large = parser(chunk_tokens=128, overlap_tokens=0)([document])
    small = parser(chunk_tokens=16, overlap_tokens=0)(large)
    assert {node.ref_doc_id for node in small} == {"doc"}
    assert len({node.node_id for node in small}) == len(small)
    assert len(parser()([TextNode(text="No document at all.")])) == 1


@pytest.mark.parametrize("strategy", ["structure", "small-to-big"])
def test_nodes_of_nodes_have_their_place_in_the_document(strategy):
    text = " ".join(f"Duck {i} swims in pond {i}. It eats weed. Cat {i} climbs a tree." for i in range(30))
    large = parser(chunk_tokens=64, overlap_tokens=0)([Document(id_="D", text=text)])
    assert large[1].start_char_idx > 0
    small = parser(chunk_tokens=16, overlap_tokens=0, strategy=strategy).get_nodes_from_documents(large)
    assert len(small) > len(large)
    for node in small:
        assert text[node.start_char_idx : node.end_char_idx] == node.text
        if strategy == "small-to-big":
            start, end = node.metadata[PARENT]
            assert start <= node.start_char_idx < node.end_char_idx <= end


@pytest.mark.parametrize("strategy", ["structure", "small-to-big"])
@pytest.mark.parametrize("place", [(None, None), (7, 9), (-3, len(REPEATED) - 3)])
def test_nodes_of_a_node_whose_place_in_its_document_is_not_known_have_none(place, strategy):
    node = TextNode(text=REPEATED, start_char_idx=place[0], end_char_idx=place[1])
    node.relationships[NodeRelationship.SOURCE] = Document(id_="D", text="").as_related_node_info()
    nodes = parser(strategy=strategy)([node])
    assert len(nodes) > 10
    assert {(one.ref_doc_id, one.start_char_idx, one.end_char_idx) for one in nodes} == {("D", None, None)}
    assert not any(key.startswith("m3rag:") for one in nodes for key in one.metadata)


def test_nodes_of_a_node_whose_place_is_not_known_are_found_and_answered_from(scripted):
    text = json.dumps([{"name": bird, "text": f"The {bird} eats {bird} weed. " * 20} for bird in ("duck", "goose")])
    records = JSONNodeParser().get_nodes_from_documents([Document(id_="birds", text=text)])
    assert [(one.ref_doc_id, one.start_char_idx) for one in records] == [("birds", None)] * 2
    with KnowledgeBase(":memory:", encoder=HashEncoder(), settings=Settings()) as kb:
        M3VectorStore(kb).add(parser(strategy="small-to-big")(records))
        for llm in (scripted("Goose weed [1]."), None):
            found = create_query_engine(kb, llm, k=2).query("What does the goose eat?").source_nodes
            assert found[0].text in records[1].text
            assert {(one.node.start_char_idx, one.node.end_char_idx) for one in found} == {(None, None)}


def test_nodes_of_nodes_are_neighbours_within_their_document():
    sections = MarkdownNodeParser().get_nodes_from_documents(
        [Document(id_=name, text="# A\n\nDucks swim.\n\n# B\n\nGeese honk.\n\n# C\n\nSwans sing.") for name in "de"]
    )
    nodes = parser()(sections)
    assert [node.ref_doc_id for node in nodes] == ["d"] * 3 + ["e"] * 3
    ids = [node.node_id for node in nodes]
    assert [node.next_node and node.next_node.node_id for node in nodes] == [*ids[1:3], None, *ids[4:], None]
    assert [node.prev_node and node.prev_node.node_id for node in nodes] == [None, *ids[:2], None, *ids[3:5]]


def test_a_node_with_a_place_but_no_document_is_itself_the_source():
    node = TextNode(text="Ducks swim.", start_char_idx=40, end_char_idx=51)
    (one,) = parser()([node])
    assert (one.ref_doc_id, one.start_char_idx, one.end_char_idx) == (node.node_id, 0, 11)


def test_what_a_small_chunk_knows_of_its_passage_is_not_said_of_its_parts():
    small = parser(strategy="small-to-big")([Document(id_="doc", text=REPEATED)])
    assert not any(
        key.startswith("m3rag:") for node in parser(chunk_tokens=8, overlap_tokens=0)(small) for key in node.metadata
    )


def test_caches_tell_parsers_of_different_encoders_apart():
    documents = [Document(text=REPEATED, id_="doc")]

    class Halves(HashEncoder):
        @property
        def info(self):
            return replace(super().info, fingerprint="halves")

    class Spans:
        word_spans = HashEncoder().word_spans

    mini = M3Encoder("mini", device="cpu")
    one, other = Spans(), Spans()
    made = [{}, {"model_name": "mini"}, {"encoder": HashEncoder()}, {"encoder": Halves()}]
    made += [{"encoder": one}, {"encoder": other}]  # of which no name is known
    hashes = [get_transformation_hash(documents, M3NodeParser(**options)) for options in made]
    assert len(set(hashes)) == len(hashes)
    for encoder in (mini, CachedEncoder(mini, MemoryCache())):
        assert get_transformation_hash(documents, M3NodeParser(encoder=encoder)) == hashes[1]
    assert get_transformation_hash(documents, M3NodeParser(encoder=HashEncoder())) == hashes[2]


def test_a_pipeline_gives_no_nodes_of_another_tokenizer():
    documents = [Document(text=REPEATED, id_="doc")]
    pipeline = IngestionPipeline(transformations=[parser()])
    pipeline.run(documents=documents)
    pipeline.transformations = [parser(encoder=M3Encoder("mini", device="cpu"))]
    fresh = pipeline.transformations[0](documents)
    assert [node.text for node in pipeline.run(documents=documents)] == [node.text for node in fresh]
    assert [node.text for node in parser()(documents)] != [node.text for node in fresh]


def test_a_dict_of_a_shared_encoder_gives_the_same_nodes_or_none():
    documents = [Document(text=REPEATED, id_="doc")]
    shared = M3NodeParser(encoder=M3Encoder("mini", device="cpu"))
    assert shared.model_name == "mini"
    restored = M3NodeParser.from_dict(shared.to_dict())
    assert [node.text for node in restored(documents)] == [node.text for node in shared(documents)]
    unknown = M3NodeParser.from_dict(M3NodeParser(encoder=HashEncoder()).to_dict())
    with pytest.raises(ModelError, match="unknown model 'hash"):
        unknown(documents)


def test_it_is_made_from_defaults_as_the_parsers_of_llama_index_are():
    documents = [Document(text=REPEATED, id_="doc")]
    made = M3NodeParser.from_defaults(encoder=HashEncoder(), chunk_tokens=16, overlap_tokens=0, callback_manager=None)
    plain = parser(chunk_tokens=16, overlap_tokens=0)
    assert made.to_dict() == plain.to_dict()
    assert [node.node_id for node in made(documents)] == [node.node_id for node in plain(documents)]
    with pytest.raises(ValueError, match="chunk_size"):
        M3NodeParser.from_defaults(chunk_size=8)


def test_in_a_pipeline_it_repeats_and_its_cache_knows_the_settings():
    documents = [Document(text=REPEATED, id_="doc")]
    pipeline = IngestionPipeline(transformations=[parser()])
    nodes = pipeline.run(documents=documents)
    assert [n.node_id for n in pipeline.run(documents=documents)] == [n.node_id for n in nodes]
    pipeline.transformations = [parser(chunk_tokens=16, overlap_tokens=0)]
    assert len(pipeline.run(documents=documents)) > len(nodes)


async def test_asynchronous_calls_do_not_block_the_loop():
    beat = threading.Event()

    class Waiting(HashEncoder):
        def word_spans(self, text):
            assert beat.wait(10), "the event loop was blocked by the parser"
            return super().word_spans(text)

    waiting = M3NodeParser(encoder=Waiting())
    document = Document(text=REPEATED, id_="doc")
    for call in (waiting.aget_nodes_from_documents([document]), waiting.acall([document])):
        beat.clear()
        task = asyncio.create_task(call)
        await asyncio.sleep(0.05)
        beat.set()
        assert [n.text for n in await task] == [n.text for n in M3NodeParser(encoder=HashEncoder())([document])]


def test_callbacks_see_the_parsing():
    handler = LlamaDebugHandler(print_trace_on_end=False)
    parser(callback_manager=CallbackManager([handler]))([Document(text=REPEATED)])
    assert len(handler.get_event_pairs(CBEventType.NODE_PARSING)) == 1


def test_a_pickle_holds_the_settings_and_reads_the_tokenizer_again():
    made = M3NodeParser(model_name="mini", chunk_tokens=16, overlap_tokens=0)
    nodes = made([Document(text=REPEATED, id_="doc")])
    stored = pickle.dumps(made)
    assert len(stored) < 5000
    restored = pickle.loads(stored)  # noqa: S301
    assert [n.node_id for n in restored([Document(text=REPEATED, id_="doc")])] == [n.node_id for n in nodes]
    with pytest.raises(InputError, match="the encoder given cannot be pickled"):
        pickle.dumps(parser())


def test_a_dict_holds_the_settings():
    stored = parser(strategy="fixed").to_dict()
    assert stored["class_name"] == "M3NodeParser"
    assert (stored["strategy"], stored["chunk_tokens"], stored["overlap_tokens"]) == ("fixed", 32, 4)
    assert M3NodeParser.from_dict(stored).to_dict() == stored


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model_name": "mini"}, InputError, "encoder is already loaded: leave out model_name"),
        ({"encoder": "mini"}, InputError, "encoder is a str, must be an m3rag encoder"),
        ({"strategy": "sentences"}, ConfigurationError, "did you mean sentence-window"),
        ({"chunk_tokens": 8, "overlap_tokens": 4}, ConfigurationError, "less than half"),
        ({"chunk_size": 8}, ValueError, "chunk_size"),
    ],
)
def test_what_cannot_be_used_is_named(options, error, said):
    with pytest.raises(error, match=said):
        parser(**options)
