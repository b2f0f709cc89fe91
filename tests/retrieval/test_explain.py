"""The tokens shown for a hit account for its whole lexical score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3rag.encoder.encoder import M3Encoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.retrieval import HybridRetriever, top_tokens
from m3rag.retrieval.words import matched_words
from m3rag.scoring import lexical_scores
from m3rag.store import QdrantEdgeStore
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.testing.data import random_output
from m3rag.types import Chunk


def test_contributions_sum_to_the_lexical_score() -> None:
    output = random_output(np.random.default_rng(3), 40, max_tokens=60)
    scores = lexical_scores(output[:10], output)
    shared = 0
    for q in range(10):
        for p in range(40):
            matches = top_tokens(output[q].lexical, output[p].lexical, str)
            shared += len(matches)
            assert sum(match.contribution for match in matches) == pytest.approx(float(scores[q, p]), abs=1e-6)
            assert [m.contribution for m in matches] == sorted((m.contribution for m in matches), reverse=True)
            assert top_tokens(output[q].lexical, output[p].lexical, str, limit=2) == matches[:2]
    assert shared > 400


def test_tokens_are_readable_and_only_those_shared() -> None:
    encoder = HashEncoder()
    query = encoder.encode_queries(["Do ducks swim in winter?"])
    passage = encoder.encode_documents(["In summer ducks fly."])
    assert {token for token, _ in top_tokens(query.lexical, passage.lexical, encoder.token)} == {"ducks", "in"}


def test_rows_that_cannot_be_compared_are_refused() -> None:
    output = random_output(np.random.default_rng(3), 2)
    other = HashEncoder().encode_queries(["ducks"])
    for query, passage in ((output, output), (output[0], other), (output[0], output)):
        with pytest.raises(InputError, match="one row"):
            top_tokens(query.lexical, passage.lexical, str)


def test_a_hit_is_explained_by_tokens_and_on_demand_by_alignment(tiny_checkpoint: Path) -> None:
    encoder = M3Encoder(str(tiny_checkpoint), device="cpu")
    texts = ["Ducks swim in ponds.", "Geese fly south in autumn."]
    chunks = [
        Chunk(id=str(i), document_id="d", text=text, start=0, end=len(text), headings=("Birds",))
        for i, text in enumerate(texts)
    ]
    store = MemoryStore(encoder.info)
    output = encoder.encode_documents([chunk.encoded_text for chunk in chunks])
    store.put_document(DocumentRecord(id="d", title="", version="1", chunks=2), [(chunks, output)])
    retriever = HybridRetriever(encoder, store)
    hits = retriever.search("Where do ducks swim?", mode="all")
    for hit, found in zip(
        hits, retriever.explain("Where do ducks swim?", hits, limit=None, alignment=True), strict=True
    ):
        assert found.hit == hit
        assert sum(match.contribution for match in found.tokens) == pytest.approx(hit.scores.lexical, abs=1e-5)
        assert found.alignment is not None
        similarities = [aligned.similarity for aligned in found.alignment]
        assert np.mean(similarities) == pytest.approx(hit.scores.colbert, abs=2e-3)
        for aligned in found.alignment:
            passage = hit.chunk.encoded_text[aligned.passage_start : aligned.passage_end]
            assert aligned.passage_special or passage == aligned.passage_token.lstrip("▁")
    (one,) = retriever.explain("Where do ducks swim?", hits[0], limit=1)
    assert (len(one.tokens), one.alignment) == (1, None)
    assert retriever.explain("Where do ducks swim?", []) == []


def test_an_encoder_that_cannot_tell_its_tokens_is_told() -> None:
    class Silent:
        """A HashEncoder but for `tokens`."""

        def __getattr__(self, name: str) -> Any:
            if name == "tokens":
                raise AttributeError(name)
            return getattr(inner, name)

    inner = HashEncoder()
    encoder, store = Silent(), MemoryStore(inner.info)
    chunk = Chunk(id="0", document_id="d", text="ducks", start=0, end=5)
    record = DocumentRecord(id="d", title="", version="1", chunks=1)
    store.put_document(record, [([chunk], encoder.encode_documents(["ducks"]))])
    retriever = HybridRetriever(encoder, store)
    with pytest.raises(ConfigurationError, match=r"Silent cannot tell its tokens.*M3Encoder"):
        retriever.explain("ducks", retriever.search("ducks"), alignment=True)


def test_a_chunk_removed_since_is_explained_by_its_text(tmp_path: Path) -> None:
    encoder = HashEncoder()
    texts = ["Do ducks swim?", "Ducks fly south.", "A duck is a bird."]
    chunks = [Chunk(id=str(i), document_id=str(i), text=text, start=0, end=len(text)) for i, text in enumerate(texts)]
    for store in (MemoryStore(encoder.info), QdrantEdgeStore.create(tmp_path / "index", encoder.info)):
        store.upsert(chunks, encoder.encode_documents(texts))
        retriever = HybridRetriever(encoder, store)
        query = "Do ducks fly in winter?"
        hits = retriever.search(query, mode="lexical")
        assert len(hits) >= 2
        before = retriever.explain(query, hits)
        words = [matched_words(encoder, query, hit, store=store) for hit in hits]
        for gone in ([hits[0].chunk.id], [hit.chunk.id for hit in hits]):
            store.delete_chunks(gone)
            for now, then in zip(retriever.explain(query, hits), before, strict=True):
                assert now.hit == then.hit
                assert [match.token for match in now.tokens] == [match.token for match in then.tokens]
                then_gave = [match.contribution for match in then.tokens]
                assert [match.contribution for match in now.tokens] == pytest.approx(then_gave, abs=1e-3)
            for hit, then_matched in zip(hits, words, strict=True):
                matched = matched_words(encoder, query, hit, store=store)
                assert [word[:3] for word in matched] == [word[:3] for word in then_matched] != []
        store.close()
