from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import BaseDocumentTransformer, Document

from m3rag.chunking import Chunker, widened
from m3rag.errors import ConfigurationError, InputError
from m3rag.langchain import M3TextSplitter
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Hit
from m3rag.types import Document as M3Document

REPEATED = "The same sentence stands here again. " * 60


def splitter(**options):
    return M3TextSplitter(**{"encoder": HashEncoder(), "chunk_tokens": 32, "overlap_tokens": 4} | options)


def check_spans(text, chunks):
    for chunk in chunks:
        start = chunk.metadata["start_index"]
        assert text[start : start + len(chunk.page_content)] == chunk.page_content
    starts = [chunk.metadata["start_index"] for chunk in chunks]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("strategy", ["structure", "fixed", "sentence-window", "small-to-big", "semantic"])
def test_start_index_is_exact_also_where_the_text_repeats_itself(strategy):
    document = Document(id="doc", page_content=REPEATED, metadata={"source": "a.txt"})
    chunks = splitter(strategy=strategy).split_documents([document])
    assert len(chunks) > 10
    check_spans(REPEATED, chunks)
    expected = Chunker(strategy=strategy, chunk_tokens=32, overlap_tokens=4).split(
        M3Document("", REPEATED, "h"), HashEncoder()
    )
    assert [c.metadata["start_index"] for c in chunks] == [c.start for c in expected]


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from(" \n.aé。數"), max_size=400))
def test_start_index_is_exact_for_any_text(text):
    chunks = splitter(chunk_tokens=8, overlap_tokens=2).create_documents([text])
    check_spans(text, chunks)
    assert [c.page_content for c in chunks] == splitter(chunk_tokens=8, overlap_tokens=2).split_text(text)


def test_metadata_are_kept_as_copies_and_the_documents_stay_as_they_are():
    metadata = {"source": "a.txt", "tags": ["one"], 7: object}
    document = Document(page_content=REPEATED, metadata=metadata)
    before = document.model_copy(deep=True)
    chunks = splitter().split_documents(iter([document]))
    chunks[0].metadata["tags"].append("two")
    assert document == before
    assert chunks[1].metadata == metadata | {"start_index": chunks[1].metadata["start_index"]}


def test_ids_come_from_the_documents_id_and_repeat():
    documents = [Document(id=name, page_content=REPEATED) for name in ("a", "b")]
    chunks = splitter().split_documents(documents)
    ids = [chunk.id for chunk in chunks]
    assert len(set(ids)) == len(ids)
    assert [i.split("#")[0] for i in ids] == ["a"] * (len(ids) // 2) + ["b"] * (len(ids) // 2)
    assert ids == [chunk.id for chunk in splitter().split_documents(documents)]
    assert not set(ids) & {chunk.id for chunk in splitter(chunk_tokens=16).split_documents(documents)}
    assert {chunk.id for chunk in splitter().split_documents([Document(page_content=REPEATED)])} == {None}


def test_it_is_a_document_transformer():
    documents = [Document(id="a", page_content=REPEATED)]
    assert isinstance(splitter(), BaseDocumentTransformer)
    chunks = splitter().transform_documents(documents)
    assert chunks == splitter().split_documents(documents)
    assert asyncio.run(splitter().atransform_documents(documents)) == chunks
    with pytest.raises(InputError, match="knows no option depth"):
        splitter().transform_documents(documents, depth=1)


def test_a_parent_can_be_found_from_what_a_chunk_says():
    found = splitter(strategy="small-to-big").split_documents([Document(id="d", page_content=REPEATED)])
    chunks = [
        Chunk(c.id or "", "d", c.page_content, c.metadata["start_index"],
              c.metadata["start_index"] + len(c.page_content), metadata=c.metadata)
        for c in found
    ]  # fmt: skip
    (passage,) = widened([Hit(chunks[5], 1.0)], lambda _: chunks)
    assert REPEATED[passage.chunk.start : passage.chunk.end] == passage.chunk.text
    assert len(passage.chunk.text) > len(chunks[5].text)


def test_texts_and_metadatas_must_be_as_many():
    chunks = splitter().create_documents(["one", "two"], [{"n": 1}, {"n": 2}])
    assert [(c.page_content, c.metadata) for c in chunks] == [
        ("one", {"n": 1, "start_index": 0}),
        ("two", {"n": 2, "start_index": 0}),
    ]
    with pytest.raises(InputError, match="2 texts and 1 metadatas"):
        splitter().create_documents(["one", "two"], [{}])
    with pytest.raises(InputError, match="texts must be a list of strings, got one string: 'one'"):
        splitter().create_documents("one")


def test_what_is_no_text_is_told():
    with pytest.raises(InputError, match="text is a list, must be one string: create_documents takes several"):
        splitter().split_text(["a"])
    with pytest.raises(InputError, match="a document is a str: create_documents splits texts"):
        splitter().split_documents(["a"])
    with pytest.raises(InputError, match="texts is a int, must be a list of strings"):
        splitter().create_documents(7)
    assert [chunk.page_content for chunk in splitter().create_documents(text for text in "ab")] == ["a", "b"]


def test_nothing_gives_nothing():
    assert splitter().split_documents([Document(page_content=" \n"), Document(page_content="")]) == []


def test_a_model_is_read_for_its_tokenizer_alone():
    chunks = M3TextSplitter(model="mini", chunk_tokens=16, overlap_tokens=0).create_documents(["Ducks swim. " * 20])
    assert len(chunks) > 4
    assert all(c.page_content.endswith("swim.") for c in chunks)


def test_by_itself_a_chunk_within_a_run_without_blanks_may_count_one_more():
    thai = M3TextSplitter(model="mini", chunk_tokens=32, overlap_tokens=8)
    counts = [thai._count(chunk) for chunk in thai.split_text("เป็ดว่ายน้ำในสระและกินพืชน้ำเพราะหิวมาก" * 10)]
    assert max(counts) == 33
    assert min(counts[:-1]) > 16


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": "mini"}, InputError, "encoder is already loaded: leave out model"),
        ({"encoder": "mini"}, InputError, "encoder is a str, must be an m3rag encoder"),
        ({"strategy": "sentences"}, ConfigurationError, "did you mean sentence-window"),
        ({"chunk_tokens": 8, "overlap_tokens": 4}, ConfigurationError, "less than half"),
    ],
)
def test_what_cannot_be_used_is_named(options, error, said):
    with pytest.raises(error, match=said):
        splitter(**options)
