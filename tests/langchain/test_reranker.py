from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from m3rag.errors import ConfigurationError, InputError
from m3rag.langchain import M3CrossEncoder, M3Reranker
from m3rag.reranking import ColbertReranker
from m3rag.scoring import colbert_scores
from m3rag.testing import HashEncoder
from m3rag.types import Hit

TEXTS = ["Trains run on rails.", "Ducks swim on ponds.", "Boats swim too.", "Ducks eat."]
QUERY = "where do ducks swim"


def documents() -> list[Document]:
    return [
        Document(id=f"d{n}", page_content=text, metadata={"tags": ["x"], "relevance_score": 9.0, "n": n})
        for n, text in enumerate(TEXTS)
    ]


def by_hand(query: str, texts: Sequence[str]) -> list[float]:
    encoder = HashEncoder()
    scores = colbert_scores(encoder.encode_queries([query]), encoder.encode_documents(texts))
    return [float(score) for score in scores[0]]


def test_documents_are_ordered_by_colbert_and_scored_on_copies() -> None:
    given = documents()
    found = M3Reranker(encoder=HashEncoder()).compress_documents(given, QUERY)
    scores = by_hand(QUERY, TEXTS)
    order = sorted(range(4), key=lambda n: -scores[n])
    assert [document.metadata["n"] for document in found] == order
    assert [document.id for document in found] == [f"d{n}" for n in order]
    assert [d.metadata["relevance_score"] for d in found] == pytest.approx([scores[n] for n in order], abs=1e-6)
    found[0].metadata["tags"].append("y")
    assert given == documents()


async def test_asynchronously_it_gives_the_same_and_top_n_cuts() -> None:
    reranker = M3Reranker(encoder=HashEncoder(), top_n=2)
    found = reranker.compress_documents(documents(), QUERY)
    assert len(found) == 2
    assert await reranker.acompress_documents(documents(), QUERY) == found


async def test_the_event_loop_goes_on() -> None:
    beat = threading.Event()

    class Slow:
        def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
            assert beat.wait(10), "the event loop was blocked by the reranker"
            return list(hits[:k])

    under_way = asyncio.create_task(M3Reranker(reranker=Slow(), top_n=1).acompress_documents(documents(), QUERY))
    await asyncio.sleep(0.05)
    beat.set()
    assert len(await under_way) == 1


def test_documents_without_ids_and_doubles_are_all_kept_in_order_of_ties() -> None:
    doubles = [Document(page_content="Ducks.", metadata={"n": n}) for n in range(3)]
    doubles += [Document(id="same", page_content="Ducks.", metadata={"n": n}) for n in (3, 4)]
    found = M3Reranker(encoder=HashEncoder()).compress_documents(doubles, "ducks")
    assert [document.metadata["n"] for document in found] == [0, 1, 2, 4, 3]
    assert [document.id for document in found] == [None, None, None, "same", "same"]


def test_what_was_not_looked_at_follows_without_a_score() -> None:
    reranker = M3Reranker(reranker=ColbertReranker(HashEncoder(), top_n=2))
    found = reranker.compress_documents(documents(), QUERY)
    assert [document.metadata["n"] for document in found] == [1, 0, 2, 3]
    assert ["relevance_score" in document.metadata for document in found] == [True, True, False, False]


def test_nothing_gives_nothing_and_a_blank_query_is_refused() -> None:
    assert M3Reranker(encoder=HashEncoder()).compress_documents([], " ") == []
    with pytest.raises(InputError, match="the query is empty"):
        M3Reranker(encoder=HashEncoder()).compress_documents(documents(), " ")


@pytest.mark.parametrize("pairs", [(QUERY, "Ducks swim"), ("ab", "cd"), [(None, "a")], [("a",)], [7]])
def test_what_is_no_pair_is_named(pairs: Any) -> None:
    with pytest.raises(InputError, match=r"text_pairs\[0\] is .*, must be a \(question, passage\) pair"):
        M3CrossEncoder(encoder=HashEncoder()).score(pairs)


def test_what_is_no_query_is_named() -> None:
    with pytest.raises(InputError, match="the query is a NoneType, must be a string"):
        M3Reranker(encoder=HashEncoder()).compress_documents(documents(), None)  # type: ignore[arg-type]


def test_what_is_no_document_is_named() -> None:
    with pytest.raises(InputError, match="document 0 is a str, must be a Document"):
        M3Reranker(encoder=HashEncoder()).compress_documents(TEXTS, QUERY)  # type: ignore[arg-type]


def test_documents_and_pairs_may_come_from_a_generator() -> None:
    reranker = M3Reranker(encoder=HashEncoder())
    assert reranker.compress_documents(iter(documents()), QUERY) == reranker.compress_documents(documents(), QUERY)  # type: ignore[arg-type]
    model, pairs = M3CrossEncoder(encoder=HashEncoder()), [(QUERY, text) for text in TEXTS]
    assert model.score(iter(pairs)) == model.score(pairs)  # type: ignore[arg-type]


def test_the_cross_encoder_scores_pairs_in_their_order() -> None:
    model = M3CrossEncoder(encoder=HashEncoder())
    pairs = [(query, text) for text in TEXTS for query in (QUERY, "trains on rails")]
    expected = np.stack([by_hand(query, TEXTS) for query in (QUERY, "trains on rails")], axis=1).ravel()
    assert model.score(pairs) == pytest.approx(expected.tolist(), abs=1e-6)
    assert model.score([]) == []
    with pytest.raises(ConfigurationError, match="looks only at its top_n"):
        M3CrossEncoder(reranker=ColbertReranker(HashEncoder(), top_n=1)).score(pairs)


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"M3Reranker takes either encoder=.*, or reranker="):
        M3Reranker()
    with pytest.raises(ConfigurationError, match="M3CrossEncoder takes either"):
        M3CrossEncoder(encoder=HashEncoder(), reranker=ColbertReranker(HashEncoder()))
    with pytest.raises(ValueError, match="reranker is 'best', must be"):
        M3Reranker(reranker="best")
    with pytest.raises(ValueError, match="top_n"):
        M3Reranker(encoder=HashEncoder(), top_n=0)
    with pytest.raises(ValueError, match="topn"):
        M3Reranker(encoder=HashEncoder(), topn=3)


def test_serialised_it_leaves_the_model_out() -> None:
    reranker = M3Reranker(encoder=HashEncoder(), top_n=3)
    assert reranker.model_dump() == {"top_n": 3}
    assert "HashEncoder" not in repr(reranker)
