"""Evaluation by brute force, against a search over a store and against naive scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m3rag.bm25 import encoder_tokenizer
from m3rag.errors import ConfigurationError, InputError
from m3rag.evaluation import Passages, RetrievalSet, aggregate, evaluate, evaluate_bm25, load_beir
from m3rag.evaluation.metrics import as_ranked
from m3rag.evaluation.run import rankings, score_all
from m3rag.retrieval import HybridRetriever, Mode
from m3rag.retrieval.mode import M3_MODES
from m3rag.scoring import LEG_SCORES, Weights
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.testing.data import random_output
from m3rag.types import LEGS, Chunk

BIRDS = RetrievalSet(
    name="birds",
    corpus={"1": "Ducks swim in ponds.", "2": "Geese fly south in autumn.", "3": "A swan is a white bird.", "4": ""},
    queries={"a": "Where do ducks swim?", "b": "When do geese fly?", "c": "Which penguins?", "d": "white swan"},
    qrels={"a": {"1": 1}, "b": {"2": 2, "1": 1}, "c": {"3": 1}, "d": {"3": 1}},
)


def searched(encoder: HashEncoder, dataset: RetrievalSet, mode: Mode) -> dict[str, dict[str, float]]:
    """A run of the retriever over a store, with a depth that leaves no passage out."""
    store = MemoryStore(encoder.info)
    chunks = [Chunk(id=key, document_id="d", text=t, start=0, end=len(t)) for key, t in dataset.corpus.items()]
    output = encoder.encode_documents(list(dataset.corpus.values()))
    store.put_document(DocumentRecord(id="d", title="", version="1", chunks=len(chunks)), [(chunks, output)])
    retriever = HybridRetriever(encoder, store, rerank_depth=500)
    return {
        key: as_ranked((hit.chunk.id, hit.score) for hit in retriever.search(query, k=100, mode=mode))
        for key, query in dataset.queries.items()
    }


@pytest.mark.parametrize("mode", M3_MODES)
def test_it_measures_what_a_search_finds(mode: Mode) -> None:
    encoder = HashEncoder()
    table = evaluate(encoder, BIRDS, modes=[mode])
    assert table == {mode.value: pytest.approx(aggregate(searched(encoder, BIRDS, mode), BIRDS.qrels), abs=1e-6)}
    assert 0.5 < table[mode.value]["ndcg@10"] < 1


def test_it_measures_what_a_search_finds_on_real_text(shared_data: Path) -> None:
    whole = load_beir(shared_data / "retrieval" / "xquad" / "mono" / "en")
    dataset = replace(whole, queries=dict(list(whole.queries.items())[:60]))
    dataset = replace(dataset, qrels={key: whole.qrels[key] for key in dataset.queries})
    encoder = HashEncoder()
    table = evaluate(encoder, dataset, modes=["all", "lexical"])
    for mode in (Mode.ALL, Mode.LEXICAL):
        assert table[mode.value] == pytest.approx(aggregate(searched(encoder, dataset, mode), dataset.qrels), abs=1e-6)


def test_blocks_change_nothing() -> None:
    rng = np.random.default_rng(0)
    queries, passages = random_output(rng, 7), random_output(rng, 50)
    for block in (1, 16, 50, 1000):
        scores = score_all(queries, passages, block=block)
        for leg in LEGS:
            assert scores[leg].shape == (7, 50)
            np.testing.assert_allclose(scores[leg], LEG_SCORES[leg](queries, passages), atol=1e-6)

    encoder, done = HashEncoder(), []
    whole = Passages.encode(encoder, BIRDS.corpus)
    parts = Passages.encode(encoder, BIRDS.corpus, block=3, progress=lambda n, total: done.append((n, total)))
    assert done == [(3, 4), (4, 4)]
    assert np.array_equal(whole.output.colbert, parts.output.colbert)
    assert evaluate(encoder, BIRDS, passages=parts) == evaluate(encoder, BIRDS)


def test_rankings_cut_at_the_depth_with_ties_by_id() -> None:
    ids = ["c", "a", "d", "b"]
    scores = {leg: np.array([[0.5, 0.5, 0.9, 0.0]], np.float32) for leg in LEGS}
    (run,) = rankings(scores, Mode.LEXICAL, Weights(), ids, depth=2)
    assert list(run) == ["d", "a"]
    (run,) = rankings(scores, Mode.LEXICAL, Weights(), ids)
    assert list(run) == ["d", "a", "c"]
    (run,) = rankings(scores, Mode.ALL, Weights(), ids)
    assert list(run) == ["d", "a", "c", "b"]
    assert run["d"] == pytest.approx(0.9)


def test_weights_are_used_in_fused_modes_only() -> None:
    encoder = HashEncoder()
    table = evaluate(encoder, BIRDS, weights="0/1/0", modes=["dense", "lexical", "dense+lexical"])
    assert table["dense"] == evaluate(encoder, BIRDS, modes=["dense"])["dense"]
    assert table["dense+lexical"]["mrr@10"] == pytest.approx(table["lexical"]["mrr@10"], abs=0.3)
    with pytest.raises(ConfigurationError, match="weight 0"):
        evaluate(encoder, BIRDS, weights="0/0/1", modes=["dense+lexical"])


def test_bm25() -> None:
    # Stop words, the unknown penguins and query "c" find nothing.
    assert evaluate_bm25(BIRDS, metrics=["hit@1", "recall@10"]) == pytest.approx({"hit@1": 0.75, "recall@10": 0.625})


def test_bm25_with_the_encoders_tokens() -> None:
    dataset = RetrievalSet("zh", {"1": "鸭子游泳。", "2": "天鹅是白色的鸟。"}, {"q": "天鹅在哪里"}, {"q": {"2": 1}})
    assert evaluate_bm25(dataset, metrics=["hit@1"]) == {"hit@1": 0.0}
    tokenize = encoder_tokenizer(HashEncoder())
    assert list(tokenize("天鹅 Swan"))[-1] == "swan"
    assert evaluate_bm25(dataset, tokenize=tokenize, metrics=["hit@1"]) == {"hit@1": 1.0}


def test_bm25_on_real_text_is_where_it_was_measured(shared_data: Path) -> None:
    english = load_beir(shared_data / "retrieval" / "xquad" / "mono" / "en")
    # .9645 with stemming, .953 without, measured independently of this code.
    assert 0.945 < evaluate_bm25(english, metrics=["ndcg@10"])["ndcg@10"] < 0.97


def test_passages_of_another_corpus_are_refused() -> None:
    encoder = HashEncoder()
    passages = Passages.encode(encoder, {"1": "Ducks"})
    with pytest.raises(InputError, match="not the corpus of 'birds'"):
        evaluate(encoder, BIRDS, passages=passages)
    with pytest.raises(InputError, match="corpus is empty"):
        Passages.encode(encoder, {})
    with pytest.raises(ConfigurationError, match="unknown mode"):
        evaluate(encoder, BIRDS, modes=["sparse"])
    with pytest.raises(ConfigurationError, match="evaluate_bm25 gives the baseline"):
        evaluate(encoder, BIRDS, modes=["dense+bm25"])
