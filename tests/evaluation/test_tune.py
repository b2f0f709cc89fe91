"""tune on small indexes: what it learns, when it keeps the default, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from m3rag.errors import ConfigurationError, InputError
from m3rag.evaluation import tune_rerank
from m3rag.evaluation.labelled import LabelledQuestion, Relevant
from m3rag.evaluation.tune import LEAST_QUESTIONS, TuneResult, text_of, tune
from m3rag.evaluation.tune_candidates import Judged, collect
from m3rag.output import M3Output
from m3rag.retrieval import HybridRetriever
from m3rag.scoring import Weights
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.testing.data import DENSE_ONLY
from m3rag.types import Chunk, Hit

N = 60


class Misled(HashEncoder):
    """Its dense and ColBERT vectors are drawn, so that the lexical weights alone tell something."""

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        output = super().encode_documents(texts)
        rng = np.random.default_rng(len(texts) + len("".join(texts)))
        dense, colbert = (rng.standard_normal(a.shape, np.float32) for a in (output.dense, output.colbert))
        dense, colbert = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (dense, colbert))
        return replace(output, dense=dense, colbert=colbert.astype(np.float16))


def retriever_of(encoder: HashEncoder) -> HybridRetriever:
    """A document of two chunks for each question; the second chunk has a word of its own."""
    store = MemoryStore(encoder.info)
    for i in range(N):
        texts = [f"word{i % 7} word{i % 5} filler", f"word{i % 3} bird{i:02}"]
        chunks = [Chunk(id=f"d{i:02}#{j}", document_id=f"d{i:02}", text=t, start=j, end=j) for j, t in enumerate(texts)]
        record = DocumentRecord(id=f"d{i:02}", title="", version="1", chunks=2)
        store.put_document(record, [(chunks, encoder.encode_documents(texts))])
    return HybridRetriever(encoder, store)


def questions(n: int = N) -> list[LabelledQuestion]:
    return [LabelledQuestion(str(i), f"where is bird{i:02} word1", (Relevant(f"d{i:02}"),)) for i in range(n)]


@pytest.fixture(scope="module")
def learned() -> TuneResult:
    return tune(retriever_of(Misled()), questions())


def test_it_learns_the_leg_that_helps(learned: TuneResult) -> None:
    assert learned.verdict == "learned"
    assert learned.weights == learned.learned
    shares = np.array([learned.learned.dense, learned.learned.lexical, learned.learned.colbert])
    assert shares.argmax() == 1
    assert learned.gain.low > 0
    assert learned.gain.mean == pytest.approx(learned.score - learned.default_score)
    assert learned.default_score == pytest.approx(learned.baselines["miracl"])
    assert learned.score <= learned.learned_score
    assert learned.baselines["lexical"] > learned.baselines["dense"] + 0.2
    assert (learned.questions, learned.skipped, len(learned.folds)) == (N, (), 5)
    assert sum(fold.questions * fold.score for fold in learned.folds) / N == pytest.approx(learned.score)
    assert (learned.rerank, learned.rerank_gain) == (None, None)


def test_it_repeats(learned: TuneResult) -> None:
    assert tune(retriever_of(Misled()), list(questions())) == learned


def test_the_collection_remembers_it(learned: TuneResult) -> None:
    store = MemoryStore(HashEncoder().info)
    store.update_settings(learned.settings(date="2026-01-02T03:04:05+00:00"))
    kept = store.settings
    assert Weights.parse(kept["weights"]) == learned.learned
    assert kept["tuned"]["questions"] == N
    assert kept["tuned"]["gain"]["low"] == learned.gain.low
    assert "rerank" not in kept
    assert json.loads(json.dumps(kept)) == kept


def test_where_nothing_can_be_gained_the_default_stays() -> None:
    same = [replace(question, query=f"word{i % 3} bird{i:02}") for i, question in enumerate(questions())]
    easy = tune(retriever_of(HashEncoder()), same)
    assert (easy.verdict, easy.score, easy.default_score) == ("default", 1.0, 1.0)
    assert easy.weights == easy.default == Weights(1.0, 0.3, 1.0)
    assert easy.settings(date="now") == {}
    assert easy.settings(date="now", force=True)["weights"] == text_of(easy.learned) == "1/0.3/1"


def test_too_few_questions_to_tell_are_said_with_the_number_needed(
    drawn: Callable[..., list[Judged]], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = drawn(np.random.default_rng(2), 40, signal=(1, 1, 1))
    monkeypatch.setattr("m3rag.evaluation.tune.collect", lambda *_, **__: (noise, []))
    found = tune(retriever_of(HashEncoder()), questions(40))
    assert found.gain.low <= 0
    assert found.gain.high >= 0.02
    assert found.verdict == "too few"
    width = found.gain.high - found.gain.low
    assert found.needed == pytest.approx(40 * (width / 0.02) ** 2, abs=1)
    assert found.weights == found.default


def test_fewer_than_the_least_are_refused_with_the_number() -> None:
    retriever = retriever_of(HashEncoder())
    twice = [*questions(20), *questions(20)]
    with pytest.raises(InputError, match=rf"20 labelled questions are too few.*{LEAST_QUESTIONS} are needed"):
        tune(retriever, twice)
    lost = [replace(q, relevant=(Relevant("gone"),)) for q in questions(31)[29:]]
    with pytest.raises(InputError, match=r"29 labelled questions \(2 were left out"):
        tune(retriever, [*questions(29), *lost], skip_missing=True)
    with pytest.raises(InputError, match="2 of 31 questions"):
        tune(retriever, [*questions(29), *lost])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "ndcg"}, InputError, "unknown metric 'ndcg'"),
        ({"folds": 1}, ConfigurationError, "folds must be 2 to 30"),
        ({"folds": 31}, ConfigurationError, "folds must be 2 to 30"),
        ({"level": 1.0}, ConfigurationError, "level must lie"),
        ({"rerank_top_n": 0}, ConfigurationError, "rerank_top_n"),
        ({"rerank_top_n": 2.5}, ConfigurationError, "rerank_top_n must be a whole number"),
        ({"folds": "5"}, ConfigurationError, "folds must be a whole number, got '5'"),
        ({"seed": -1}, ConfigurationError, "seed must be at least 0"),
        ({"level": "0.9"}, ConfigurationError, "level must lie between 0 and 1, such as .95, got '0.9'"),
        ({"metric": None}, InputError, "unknown metric None"),
        ({"reranker": "colbert"}, InputError, "reranker is 'colbert', must be an m3rag.reranking.Reranker"),
        ({"default": "best"}, ConfigurationError, "unknown weights 'best'"),
    ],
)
def test_wrong_options_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], error: type[Exception], message: str
) -> None:
    encoder = HashEncoder()
    retriever = retriever_of(encoder)
    monkeypatch.setattr(encoder, "encode_queries", None)  # said before any question is encoded
    with pytest.raises(error, match=message):
        tune(retriever, questions(), **options)  # type: ignore[arg-type]


def test_a_model_of_one_leg_has_nothing_to_weigh() -> None:
    class DenseOnly(HashEncoder):
        info = DENSE_ONLY  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match="mode 'all'"):
        tune(HybridRetriever(DenseOnly(), MemoryStore(DENSE_ONLY)), questions())


class Oracle:
    """Puts the chunks of the document that a question is about first, or last."""

    def __init__(self, *, right: bool) -> None:
        self.right = right
        self.given: list[int] = []

    def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
        self.given.append(len(hits))
        marked = [replace(hit, score=float((hit.chunk.document_id == query[-3:]) == self.right)) for hit in hits]
        return sorted(marked, key=lambda hit: (-hit.score, hit.chunk.id))[:k]


@pytest.mark.parametrize("encoder", [Misled(), HashEncoder()])
def test_whether_to_rerank(encoder: HashEncoder) -> None:
    retriever = retriever_of(encoder)
    vague = [LabelledQuestion(str(i), f"word{i % 5} of d{i:02}", (Relevant(f"d{i:02}"),)) for i in range(N)]
    stages: list[tuple[str, int, int]] = []
    right = Oracle(right=True)
    good = tune(retriever, vague, reranker=right, rerank_top_n=40, progress=lambda *at: stages.append(at))
    assert good.rerank is True
    assert good.rerank_gain is not None
    assert good.rerank_gain.low > 0
    held_out = good.score if good.verdict == "learned" else good.default_score
    assert held_out + good.rerank_gain.mean <= 1 + 1e-9
    assert set(right.given) == {40}
    assert stages[N - 1] == ("questions", N, N)
    assert stages[-1] == ("reranked", N, N)
    kept = good.settings(date="now", reranker="oracle")["rerank"]
    assert (kept["helps"], kept["reranker"]) == (True, "oracle")

    bad = tune(retriever, vague, reranker=Oracle(right=False))
    assert bad.rerank is False
    assert bad.rerank_gain is not None
    assert bad.rerank_gain.high < 0
    assert bad.learned == good.learned


def test_a_reranker_that_changes_nothing_changes_no_value() -> None:
    class Same:
        def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
            return list(hits)[:k]

    retriever = retriever_of(Misled())
    judged, _ = collect(retriever, questions())
    default = Weights(1.0, 0.3, 1.0)
    after = tune_rerank.reranked(judged, [default] * N, Same(), retriever.store, metric="ndcg@10", top_n=5)
    before = [question.values(np.array([[1.0, 0.3, 1.0]]) / 2.3, "ndcg@10")[0] for question in judged]
    assert after.tolist() == pytest.approx(before)
    assert 0 < after.mean() < 1
