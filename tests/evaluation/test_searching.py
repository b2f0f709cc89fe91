"""Runs of an index against a brute-force evaluation, and what is ranked for each kind of label."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from m3rag.bm25 import BM25Leg
from m3rag.collection import Collection
from m3rag.errors import ConfigurationError, InputError
from m3rag.evaluation import RetrievalSet, aggregate, evaluate
from m3rag.evaluation.corpus import take_corpus
from m3rag.evaluation.labelled import LabelledQuestion, Relevant
from m3rag.evaluation.questions import EvalQuestion, questions_of
from m3rag.evaluation.searching import SearchRun, System, search_all
from m3rag.evaluation.tune_candidates import collect
from m3rag.evaluation.tune_search import as_rows
from m3rag.reranking import ColbertReranker
from m3rag.retrieval import HybridRetriever, Mode
from m3rag.retrieval.mode import M3_MODES
from m3rag.scoring import Weights
from m3rag.settings import Settings
from m3rag.store import DocumentRecord
from m3rag.store.memory import MemoryStore
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Hit

WORDS = [
    "duck",
    "goose",
    "swan",
    "pond",
    "river",
    "bread",
    "train",
    "noon",
    "fever",
    "snow",
    "court",
    "thief",
    "bell",
    "tower",
    "garden",
    "stone",
]
# With words of its own in each part: parts of the same words differ by rounding alone, so that their order is chance.
CORPUS = {f"d{i:02}": " ".join(f"{WORDS[(i * j) % 16]} own{i}" for j in range(1, 4 + i % 5)) for i in range(40)}
SET = RetrievalSet(
    name="words",
    corpus=CORPUS,
    queries={f"q{i}": f"{WORDS[i]} {WORDS[(3 * i) % 16]}" for i in range(12)},
    qrels={f"q{i}": {f"d{(2 * i) % 40:02}": 1, f"d{(7 * i) % 40:02}": 2} for i in range(12)},
)


class LimitedEncoder(HashEncoder):
    """Takes few tokens, so that most passages are split."""

    @property
    def max_length(self) -> int:
        return 12


@pytest.mark.parametrize("encoder", [HashEncoder(), LimitedEncoder()], ids=["whole", "split"])
def test_an_index_measures_what_brute_force_does(encoder: HashEncoder) -> None:
    with Collection(":memory:", encoder=encoder, settings=Settings()) as collection:
        take_corpus(collection, CORPUS)
        retriever = HybridRetriever(encoder, collection.store, rerank_depth=1000)
        run = search_all(retriever, questions_of(SET), [System.of(mode) for mode in M3_MODES])
    assert (collection.manifest is None, run.skipped) == (True, [])
    assert run.qrels == SET.qrels
    table = evaluate(encoder, SET)
    for mode in M3_MODES:
        assert aggregate(run.runs[mode.value], run.qrels) == pytest.approx(table[mode.value], abs=1e-6), mode
        assert all(0 < seconds < 60 for seconds in run.seconds[mode.value].values())
        assert run.seconds[mode.value].keys() == SET.qrels.keys()


def paged() -> tuple[HashEncoder, MemoryStore]:
    """Two documents of two pages, each page of two chunks."""
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    for name, words in (
        ("one", ["duck", "duck pond", "goose", "swan"]),
        ("two", ["bread", "duck duck", "train", "noon"]),
    ):
        chunks, at = [], 0
        for i, text in enumerate(words):
            chunks.append(Chunk(f"{name}-{i}", name, text, at, at + len(text), page=1 + i // 2))
            at += len(text)
        starts = (0, chunks[2].start)
        record = DocumentRecord(id=name, title=name, version="1", chunks=4, page_starts=starts)
        store.put_document(record, [(chunks, encoder.encode_documents(words))])
    return encoder, store


def asked(key: str, query: str, *relevant: Relevant) -> EvalQuestion:
    return EvalQuestion(key, query, relevant)


def test_documents_pages_and_chunks_are_ranked_by_their_best_chunk() -> None:
    encoder, store = paged()
    questions = [
        asked("document", "duck", Relevant("one")),
        asked("page", "duck", Relevant("two", page=1)),
        asked("chunk", "duck", Relevant("two-1", gain=3)),
        asked("nothing", "duck"),
    ]
    run = search_all(HybridRetriever(encoder, store), questions, [System.of("lexical")])
    found = run.runs["lexical"]
    assert list(found["document"]) == ["one", "two"]
    assert list(found["page"]) == ["one#page=1", "two#page=1"]
    assert set(found["chunk"]) == {"one-0", "one-1", "two-1"}
    assert run.qrels == {"document": {"one": 1}, "page": {"two#page=1": 1}, "chunk": {"two-1": 3}}
    shallow = search_all(HybridRetriever(encoder, store), questions, [System.of("lexical")], depth=1)
    assert {key: len(units) for key, units in shallow.runs["lexical"].items()} == {"document": 1, "page": 1, "chunk": 1}


class Backwards:
    """A reranker that turns the order round."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
        self.given.append(len(hits))
        return list(reversed(hits))[:k]


@pytest.mark.parametrize("level", ["document", "page", "chunk"])
def test_hits_of_one_score_are_judged_in_the_order_of_the_search(level: str) -> None:
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    # Chunk ids run against those of the documents: a search goes by the chunks'.
    chunks = [Chunk(f"c{9 - i}", f"d{i}", "ducks swim", 0, 10, page=1) for i in range(3)]
    for chunk in chunks:
        record = DocumentRecord(chunk.document_id, chunk.document_id, "1", 1, page_starts=(0,))
        store.put_document(record, [([chunk], encoder.encode_documents([chunk.text]))])
    retriever = HybridRetriever(encoder, store)
    hits = retriever.search("ducks", k=3)
    assert [hit.chunk.id for hit in hits] == ["c7", "c8", "c9"]
    assert len({hit.score for hit in hits}) == 1
    best = {"document": Relevant("d2"), "page": Relevant("d2", page=1), "chunk": Relevant("c7")}[level]
    systems = [System.of("all"), System(name="kept", mode=Mode.ALL, reranker=Kept())]
    run = search_all(retriever, [asked("q", "ducks", best)], systems)
    for system in systems:
        assert aggregate(run.runs[system.name], run.qrels, ["hit@1"]) == {"hit@1": 1.0}, system.name
    (labelled,), _ = collect(retriever, [LabelledQuestion("q", "ducks", (best,))])
    assert labelled.values(as_rows([Weights()]), "hit@1").tolist() == [1.0], "tune judges as eval does"


class Kept:
    """A reranker that changes nothing."""

    def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
        return list(hits)[:k]


def test_a_reranker_orders_the_best_and_the_rest_follow() -> None:
    encoder, store = paged()
    reranker = Backwards()
    systems = [
        System.of("dense"),
        System(name="again", mode=Mode.DENSE, reranker=reranker, rerank_top=3),
        System(name="colbert again", mode=Mode.DENSE, reranker=ColbertReranker(encoder, store)),
    ]
    run = search_all(HybridRetriever(encoder, store), [asked("a", "duck", Relevant("one-0"))], systems, depth=6)
    first, again = list(run.runs["dense"]["a"]), list(run.runs["again"]["a"])
    assert again == [*reversed(first[:3]), *first[3:]]
    assert list(run.runs["again"]["a"].values()) == [6, 5, 4, 3, 2, 1]
    assert set(reranker.given) == {1, 3}, "once to warm up, once for the question"
    assert next(iter(run.runs["colbert again"]["a"])) == "one-0"


def test_words_alone_are_searched_for_without_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = HashEncoder()
    with Collection(":memory:", encoder=encoder, settings=Settings()) as collection:
        take_corpus(collection, CORPUS)
        retriever = HybridRetriever(encoder, collection.store, bm25=BM25Leg())
        beside = search_all(retriever, questions_of(SET), [System.of("bm25"), System.of("dense")])
        monkeypatch.setattr(HashEncoder, "encode_queries", lambda *_: pytest.fail("encoded"))
        alone = search_all(retriever, questions_of(SET), [System.of("bm25")])
    assert alone.runs == {"bm25": beside.runs["bm25"]}
    assert all(alone.runs["bm25"].values())


def test_what_is_not_in_the_index_is_refused_or_left_out() -> None:
    encoder, store = paged()
    retriever = HybridRetriever(encoder, store)
    questions = [
        asked("gone", "duck", Relevant("three")),
        asked("half", "duck", Relevant("one"), Relevant("four")),
    ]
    with pytest.raises(InputError, match=r"2 of 2 questions .*gone: three; half: four.*--corpus"):
        search_all(retriever, questions, [System.of("dense")])
    run = search_all(retriever, questions, [System.of("dense")], skip_missing=True)
    assert (run.skipped, list(run.qrels)) == (["gone"], ["half"])


def test_interrupted_it_has_whole_questions() -> None:
    encoder, store = paged()
    run = SearchRun()

    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    questions = [asked(str(i), "duck", Relevant("one")) for i in range(5)]
    systems = [System.of("dense"), System.of("bm25")]
    with pytest.raises(KeyboardInterrupt):
        search_all(HybridRetriever(encoder, store, bm25=BM25Leg()), questions, systems, into=run, progress=stop)
    assert list(run.qrels) == list(run.runs["dense"]) == list(run.runs["bm25"]) == ["0", "1"]


def test_no_questions_and_a_leg_that_is_not_there() -> None:
    encoder, store = paged()
    assert search_all(HybridRetriever(encoder, store), [], [System.of("dense")]).runs == {"dense": {}}
    with pytest.raises(ConfigurationError, match="needs the BM25 leg"):
        search_all(HybridRetriever(encoder, store), [asked("a", "duck", Relevant("one"))], [System.of("bm25")])
