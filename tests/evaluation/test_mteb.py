"""Our models in MTEB itself, on tasks made here, against our own figures."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mteb = pytest.importorskip("mteb", reason="needs the extra mteb")

from datasets import Dataset  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.sts import AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol  # noqa: E402

from m3rag.errors import ConfigurationError, InputError  # noqa: E402
from m3rag.evaluation import RetrievalSet, evaluate  # noqa: E402
from m3rag.evaluation.mteb import MTEBEncoder, MTEBSearch  # noqa: E402
from m3rag.testing import HashEncoder  # noqa: E402

WORDS = ("duck", "goose", "swan", "pond", "river", "bread", "train", "noon", "fever", "snow", "court", "thief")
# A word of its own for each: MTEB breaks ties in another way than a search does.
CORPUS = {f"d{i:02}": " ".join([*(WORDS[(i * j) % 12] for j in range(1, 4 + i % 5)), f"own{i}"]) for i in range(24)}
QUERIES = {f"q{i}": f"{WORDS[i]} {WORDS[(5 * i + 1) % 12]}" for i in range(12)}
QRELS = {f"q{i}": {f"d{(2 * i) % 24:02}": 1, f"d{(7 * i + 3) % 24:02}": 2} for i in range(12)}


def described(kind: str, score: str) -> TaskMetadata:
    """A task that is nobody's but this test's."""
    return TaskMetadata(
        name=f"M3RagTest{kind}",
        description="words",
        reference=None,
        dataset={"path": "none", "revision": "1"},
        type=kind,
        modalities=["text"],
        category="t2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
        date=("2026-01-01", "2026-01-02"),
        domains=[],
        task_subtypes=[],
        license="mit",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )


class Words(AbsTaskRetrieval):
    """A retrieval task over made-up passages."""

    metadata = described("Retrieval", "ndcg_at_10")

    def load_data(self, **_: Any) -> None:
        corpus = [{"id": key, "text": text, "title": ""} for key, text in CORPUS.items()]
        queries = [{"id": key, "text": text} for key, text in QUERIES.items()]
        split = {
            "corpus": Dataset.from_list(corpus),
            "queries": Dataset.from_list(queries),
            "relevant_docs": QRELS,
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class Pairs(AbsTaskSTS):
    """A similarity task whose scores are the encoder's own, so that its correlation is 1."""

    metadata = described("STS", "cosine_pearson")
    min_score = 0
    max_score = 1

    def load_data(self, **_: Any) -> None:
        texts = list(CORPUS.values())
        first, second = texts[:12], texts[12:]
        vectors = [HashEncoder().encode_queries(side).dense for side in (first, second)]
        scores = (vectors[0] * vectors[1]).sum(axis=1).tolist()
        self.dataset = {"test": Dataset.from_dict({"sentence1": first, "sentence2": second, "score": scores})}
        self.data_loaded = True


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No results of other runs, no hub, and no settings of this machine."""
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def score_of(model: Any, task: Any) -> dict[str, Any]:
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    scores: dict[str, Any] = result.task_results[0].scores["test"][0]
    return scores


def test_mteb_gives_our_own_figures_dense_and_hybrid() -> None:
    encoder = HashEncoder()
    metrics = ["ndcg@10", "recall@10", "map@10"]
    ours = evaluate(encoder, RetrievalSet("words", CORPUS, QUERIES, QRELS), metrics=metrics)
    models = {
        "dense": (MTEBEncoder(encoder), MTEBSearch(encoder, mode="dense")),
        "all": (MTEBSearch(encoder, rerank_depth=100),),
        "dense+lexical": (MTEBSearch(encoder, mode="dense+lexical", weights="1/0.3/1"),),
    }
    for mode, of_mode in models.items():
        for model in of_mode:
            scores = score_of(model, Words())
            found = [scores[name] for name in ("ndcg_at_10", "recall_at_10", "map_at_10")]
            # MTEB rounds to five digits.
            assert found == pytest.approx([ours[mode][metric] for metric in metrics], abs=1e-5), (mode, model)
    assert ours["all"] != ours["dense"]


def test_what_is_temporary_goes_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    search = MTEBSearch(HashEncoder())
    for _ in range(2):
        search.index([{"id": "a", "text": "duck"}])
        assert len(list(tmp_path.glob("m3rag-mteb-*"))) == 1
    del search
    gc.collect()
    assert not list(tmp_path.glob("m3rag-mteb-*"))


def test_other_tasks_get_the_dense_vectors() -> None:
    assert score_of(MTEBEncoder(HashEncoder()), Pairs())["cosine_pearson"] == pytest.approx(1.0)


class Sides(HashEncoder):
    """Tells questions from passages."""

    def encode_queries(self, texts: Any) -> Any:
        return super().encode_documents([f"query {text}" for text in texts])


def test_passages_are_encoded_as_passages_and_all_else_as_questions() -> None:
    encoder = Sides()
    model, batches = MTEBEncoder(encoder), [{"text": ["a b", "c"]}, {"text": ["d"]}]
    as_passages = encoder.encode_documents(["a b", "c", "d"]).dense
    as_queries = encoder.encode_queries(["a b", "c", "d"]).dense
    assert np.array_equal(model.encode(batches, prompt_type=mteb.types.PromptType.document), as_passages)
    assert np.array_equal(model.encode(batches, prompt_type=mteb.types.PromptType.query), as_queries)
    assert np.array_equal(model.encode(batches), as_queries)
    assert np.allclose(model.similarity(as_queries, as_passages), as_queries @ as_passages.T)
    assert np.allclose(model.similarity_pairwise(as_queries, as_queries), 1.0)


def test_they_are_what_mteb_asks_for() -> None:
    encoder, search = MTEBEncoder(HashEncoder()), MTEBSearch(HashEncoder(), mode="lexical")
    assert isinstance(encoder, EncoderProtocol)
    assert isinstance(search, SearchProtocol)
    assert (encoder.mteb_model_meta.name, encoder.mteb_model_meta.embed_dim) == ("m3rag/hash", 32)
    assert encoder.mteb_model_meta.revision == HashEncoder().info.fingerprint
    kwargs = search.mteb_model_meta.experiment_kwargs
    assert kwargs == {"mode": "lexical", "weights": "miracl"}


def test_reranking_looks_at_the_documents_named_alone(tmp_path: Path) -> None:
    search = MTEBSearch(HashEncoder(), cache=tmp_path / "cache")
    rows = [{"id": key, "text": text, "title": "swan"} for key, text in CORPUS.items()]
    queries = [{"id": "a", "text": "duck"}, {"id": "b", "text": "goose"}]
    search.index(rows)
    found = search.search(queries, top_k=5, top_ranked={"a": ["d03", "d07"]})
    assert (set(found["a"]), found["b"]) == ({"d03", "d07"}, {})
    assert search.search([*queries, {"id": "blank", "text": " "}], top_k=5)["blank"] == {}
    first = search.search(queries, top_k=3)
    assert {key: len(units) for key, units in first.items()} == {"a": 3, "b": 3}
    search.close()
    assert len(list((tmp_path / "cache").iterdir())) == 1, "the corpus is kept"
    search.index(rows)
    assert search.search(queries, top_k=3) == first
    search.close()


def test_what_cannot_be_done_is_said() -> None:
    search = MTEBSearch(HashEncoder())
    with pytest.raises(InputError, match="call index"):
        search.search([], top_k=1)
    with pytest.raises(InputError, match="the document 'x' has no text but list"):
        search.index([{"id": "x", "text": [{"role": "user"}]}])
    with pytest.raises(InputError, match="the id 'x' is there twice, with two texts"):
        search.index([{"id": "x", "text": "a"}, {"id": "x", "text": "b"}])
    with pytest.raises(InputError, match="corpus is empty"):
        search.index([])
    search.close()
    with pytest.raises(ConfigurationError, match="unknown mode"):
        MTEBSearch(HashEncoder(), mode="sparse")
    with pytest.raises(ConfigurationError, match="BM25"):
        MTEBSearch(HashEncoder(), mode="bm25")
    for options, message in (
        ({"weights": "heavy"}, "unknown weights 'heavy'"),
        ({"weights": "0/0/1", "mode": "dense+lexical"}, "of weight 0"),
        ({"candidates": "400"}, "candidates must be a whole number"),
        ({"rerank_depth": 0}, "rerank_depth must be at least 1"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            MTEBSearch(HashEncoder(), **options)  # type: ignore[arg-type]


def test_without_mteb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mteb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ImportError, match=r"m3rag\[mteb\]"):
        MTEBEncoder(HashEncoder())
