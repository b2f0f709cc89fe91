from __future__ import annotations

from langchain_core.documents import Document

from m3rag.langchain.passages import hits_of, passages_of


def test_a_document_of_our_retriever_is_the_chunk_it_was() -> None:
    metadata = {
        "document_id": "a.pdf",
        "source": "https://a.example",
        "start": 5,
        "end": 16,
        "page": 3,
        "headings": ["Birds", "Ducks"],
        "relevance_score": 0.5,
    }
    (chunk,) = passages_of([Document(id="c1", page_content="Ducks swim.", metadata=metadata)])
    assert (chunk.id, chunk.document_id, chunk.start, chunk.end, chunk.page) == ("c1", "a.pdf", 5, 16, 3)
    assert chunk.encoded_text == "Birds > Ducks\nDucks swim."


def test_metadata_of_any_kind_are_taken() -> None:
    odd = {"source": object(), "page": "iv", "start": -1, "headings": [object()], 7: lambda: None, "n": float("nan")}
    (chunk,) = passages_of([Document(page_content="Ducks.", metadata=odd)])
    assert (chunk.start, chunk.end, chunk.page, chunk.headings, dict(chunk.metadata)) == (0, 6, None, (), {})


def test_each_has_an_id_of_its_own_and_keeps_its_documents_name() -> None:
    documents = [Document(id="a", page_content=text) for text in ("one", "two")]
    documents += [Document(page_content="three"), Document(page_content="four", metadata={"source": "s"})]
    chunks = passages_of(documents)
    assert len({chunk.id for chunk in chunks}) == len(chunks)
    assert [chunk.document_id for chunk in chunks[:2]] == ["a", "a"]
    assert chunks[3].document_id == "s"
    assert [hit.chunk for hit in hits_of(documents)] == chunks


def test_a_document_named_as_another_would_be_is_not_taken_for_it() -> None:
    documents = [Document(id="document 000001", page_content="one"), Document(page_content="two")]
    for given in (documents, documents[::-1], [*documents, documents[0], Document(page_content="three")]):
        chunks = passages_of(given)
        assert [chunk.text for chunk in chunks] == [document.page_content for document in given]
        assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_a_splitters_start_index_counts() -> None:
    (chunk,) = passages_of([Document(page_content="Ducks.", metadata={"start_index": 40})])
    assert (chunk.start, chunk.end) == (40, 46)
