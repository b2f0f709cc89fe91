"""What tuning computes from the scores of candidates, against real searches with the same weights."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from m3rag.errors import InputError
from m3rag.evaluation.labelled import Judgements, LabelledQuestion, Level, Relevant
from m3rag.evaluation.metrics import per_query
from m3rag.evaluation.tune_candidates import Judged, collect, reachable
from m3rag.evaluation.tune_search import as_rows
from m3rag.output import M3Output
from m3rag.retrieval import HybridRetriever
from m3rag.scoring import Weights
from m3rag.store.memory import MemoryStore
from m3rag.testing import HashEncoder
from m3rag.testing.data import MODEL, random_document, random_query
from m3rag.types import ModelInfo

WEIGHTS = [
    Weights(1, 0.3, 1),
    Weights(1, 0, 0),
    Weights(0, 0, 1),
    Weights(0.2, 0.7, 0.1),
    Weights(0, 1, 1),
    Weights(1, 5, 0),
]


class Drawn(HashEncoder):
    """Gives each question representations that were drawn once."""

    def __init__(self, queries: dict[str, M3Output]) -> None:
        super().__init__()
        self.queries = queries

    @property
    def info(self) -> ModelInfo:
        return MODEL

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        return M3Output.concatenate([self.queries[text] for text in texts])


def filled(rng: np.random.Generator) -> MemoryStore:
    store = MemoryStore(MODEL)
    for i in range(20):
        document = random_document(rng, f"d{i:02}", chunks=int(rng.integers(1, 9)))
        store.put_document(document.record, document.parts())
    return store


@pytest.fixture
def searched() -> HybridRetriever:
    """Some hundred random chunks, of which a search ranks a part; 12 questions."""
    rng = np.random.default_rng(0)
    store = filled(rng)
    encoder = Drawn({f"q{i}": random_query(rng) for i in range(12)})
    return HybridRetriever(encoder, store, candidates=25, rerank_depth=12)


def asked(retriever: HybridRetriever, level: Level) -> list[LabelledQuestion]:
    """Questions with one to four random things relevant to each."""
    rng = np.random.default_rng(1)
    chunks, _ = retriever.store.scan(limit=1000)
    made = []
    for name in [f"q{i}" for i in range(12)]:
        picked = [chunks[i] for i in rng.choice(len(chunks), size=rng.integers(1, 5), replace=False)]
        relevant = {
            "document": {c.document_id: Relevant(c.document_id, gain=2) for c in picked},
            "page": {c.id: Relevant(c.document_id, c.page) for c in picked if c.page},
            "chunk": {c.id: Relevant(c.id) for c in picked},
        }[level]
        if relevant:
            made.append(LabelledQuestion(name, name, tuple(relevant.values())))
    return made


@pytest.mark.parametrize("metric", ["ndcg@10", "ndcg@3", "mrr@10", "recall@5", "hit@1"])
@pytest.mark.parametrize("level", ["document", "chunk"])
def test_it_computes_what_searches_give(searched: HybridRetriever, level: Level, metric: str) -> None:
    questions = asked(searched, level)
    judged, skipped = collect(searched, questions)
    assert skipped == []
    values = np.array([question.values(as_rows(WEIGHTS), metric) for question in judged])
    for at, weights in enumerate(WEIGHTS):
        run: dict[str, dict[str, float]] = {}
        for question in questions:
            hits = searched.search(question.query, k=12, mode="all", weights=weights)
            names = dict.fromkeys(hit.chunk.id if level == "chunk" else hit.chunk.document_id for hit in hits)
            run[question.id] = {name: 1 / rank for rank, name in enumerate(names, 1)}
        qrels = {question.id: {item.id: item.gain for item in question.relevant} for question in questions}
        assert values[:, at].tolist() == pytest.approx(list(per_query(run, qrels, [metric])[metric].values()))
    assert 0 < values.mean() < 1


def test_pages_are_ranked_by_their_best_chunk(searched: HybridRetriever) -> None:
    questions = asked(searched, "page")
    judged, _ = collect(searched, questions)
    (found,) = [question for question in judged if question.question == questions[0]]
    hits = searched.search(questions[0].query, k=12, mode="all", weights=WEIGHTS[0])
    pages = list(dict.fromkeys((hit.chunk.document_id, hit.chunk.page) for hit in hits))
    wanted = {(item.id, item.page) for item in questions[0].relevant}
    ranks = [rank for rank, page in enumerate(pages, 1) if page in wanted]
    assert found.values(as_rows(WEIGHTS[:1]), "mrr@12").tolist() == [1 / ranks[0] if ranks else 0.0]


def test_no_row_that_some_weights_want_is_left_out() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores = rng.integers(0, 6, (60, 2)).astype(float)  # with many ties
        kept = set(reachable(scores, 7).tolist())
        for share in np.linspace(0, 1, 33):
            fused = scores @ [share, 1 - share]
            assert set(np.argsort(-fused, kind="stable")[:7].tolist()) <= kept
        assert len(kept) < 60
    assert reachable(scores[:5], 7).tolist() == [0, 1, 2, 3, 4]
    assert reachable(np.zeros((0, 2)), 7).tolist() == []


def test_ties_are_broken_by_the_id_of_the_best_chunk() -> None:
    question = LabelledQuestion("q", "q", (Relevant("b"),))
    for chunk_ids, rank in ((("x", "y", "z"), 2), (("z", "x", "y"), 1), (("y", "z", "x"), 2)):
        units = [("a", 0), ("b", 0), ("b", 0)]
        judged = Judgements("document", {("b", 0): 1}, ())
        scores = np.array([[1.0] * 3, [1.0] * 3, [0.5] * 3])
        found = Judged.of(question, judged, units, list(chunk_ids), scores, depth=200)
        assert found.values(as_rows(WEIGHTS[:1]), "mrr@10").tolist() == [1 / rank]


def test_what_is_not_in_the_index_is_refused_by_name_or_left_out(searched: HybridRetriever) -> None:
    questions = [
        LabelledQuestion("one", "q0", (Relevant("d00"),)),
        LabelledQuestion("two", "q1", (Relevant("gone.pdf"),)),
        LabelledQuestion("three", "q2", (Relevant("d01"), Relevant("d02", 99))),
    ]
    with pytest.raises(InputError, match=r"2 of 3 questions .*two: gone\.pdf; three: d02 page 99") as error:
        collect(searched, questions)
    assert "--skip-missing" in str(error.value)
    seen: list[tuple[int, int]] = []
    judged, skipped = collect(searched, questions, skip_missing=True, progress=lambda *at: seen.append(at))
    assert [question.question.id for question in judged] == ["one", "three"]
    assert skipped == ["two"]
    assert seen == [(1, 2), (2, 2)]
    assert judged[1].ideal.tolist() == [1.0]


def test_an_empty_index_finds_nothing() -> None:
    store = MemoryStore(MODEL)
    retriever = HybridRetriever(Drawn({}), store)
    assert collect(retriever, [LabelledQuestion("q", "q", (Relevant("d"),))], skip_missing=True) == ([], ["q"])


def test_a_cut_off_beyond_all_candidates_costs_no_memory(searched: HybridRetriever) -> None:
    (judged, *_), _ = collect(searched, asked(searched, "document"))
    tracemalloc.start()
    found = judged.values(as_rows(WEIGHTS), "recall@999999")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert found.tolist() == judged.values(as_rows(WEIGHTS), "recall@1000").tolist()
