"""What a search does with its scored candidates: BM25, rerankers, thresholds, groups, diversity."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pytest

from m3rag.bm25 import BM25Leg
from m3rag.errors import ConfigurationError, InputError
from m3rag.retrieval import HybridRetriever, Mode, group_by_document
from m3rag.retrieval.fusion import minmax, zscore
from m3rag.scoring import Weights
from m3rag.store.filters import MAX_DEPTH
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.types import Chunk, Hit, LegRanks

from .legs import ByLength, WordLeg

TEXTS = {
    "a": ["ducks swim in ponds", "ducks swim in ponds .", "ducks eat grass and swim", "a swan is white"],
    "b": ["geese fly south in autumn", "ponds freeze in winter", "ducks fly in autumn"],
    "c": ["zebras have stripes", "ducks ducks ducks"],
}
QUESTION = "where do ducks swim in winter"


@pytest.fixture
def retriever() -> HybridRetriever:
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    for id_, texts in TEXTS.items():
        chunks = [
            Chunk(id=f"{id_}{i}", document_id=id_, text=text, start=0, end=len(text), metadata={"n": i})
            for i, text in enumerate(texts)
        ]
        record = DocumentRecord(id=id_, title="", version="1", chunks=len(texts))
        store.put_document(record, [(chunks, encoder.encode_documents(texts))])
    return HybridRetriever(encoder, store, bm25=WordLeg())


def ids(hits: list[Hit]) -> list[str]:
    return [hit.chunk.id for hit in hits]


# BM25


def test_bm25_alone_encodes_nothing(retriever: HybridRetriever) -> None:
    class Refusing(HashEncoder):
        def encode_queries(self, texts: Any) -> Any:
            raise AssertionError("asked to encode")

    alone = HybridRetriever(Refusing(), retriever.store, bm25=WordLeg())
    hits = alone.search(QUESTION, mode="bm25", filter={"n": [0, 1]})
    leg = WordLeg()
    leg.sync(retriever.store)
    assert [(hit.chunk.id, hit.score) for hit in hits] == leg.candidates(QUESTION, k=10, filter={"n": [0, 1]})
    assert {hit.found_by for hit in hits} == {("bm25",)}
    assert (hits[0].scores.bm25, hits[0].ranks.bm25, hits[0].scores.lexical) == (hits[0].score, 1, None)
    assert "b1" in ids(hits)
    assert "c0" not in ids(hits)


@pytest.mark.parametrize("fusion", ["minmax", "zscore", "rrf"])
@pytest.mark.parametrize("candidates", [2, 1000])
def test_dense_and_bm25_are_fused_over_the_union(retriever: HybridRetriever, fusion: Any, candidates: int) -> None:
    retriever = HybridRetriever(retriever.encoder, retriever.store, bm25=retriever.bm25, candidates=candidates)
    hits = retriever.search(QUESTION, mode="dense+bm25", k=9 if candidates > 9 else 1, fusion=fusion)
    leg = WordLeg()
    leg.sync(retriever.store)
    query = retriever.encoder.encode_queries([QUESTION])
    depth = max(candidates, 1)
    found = {
        "dense": dict(retriever.store.candidates(query, "dense", k=depth)),
        "bm25": dict(leg.candidates(QUESTION, k=depth)),
    }
    union = sorted(found["dense"] | found["bm25"])
    dense = retriever.store.score(query, "dense", union)
    bm25 = leg.score(QUESTION, union)
    columns = np.array([[dense[id_] for id_ in union], [bm25[id_] for id_ in union]])
    if fusion == "rrf":
        order = [sorted(range(len(union)), key=lambda i, c=column: (-c[i], union[i])) for column in columns]  # type: ignore[misc]
        scaled = np.array([[1 / (60 + 1 + o.index(i)) for i in range(len(union))] for o in order])
        scaled[1, columns[1] == 0] = 0
        expected = scaled[0] + 0.3 * scaled[1]
    else:
        scale = minmax if fusion == "minmax" else zscore
        expected = (scale(columns[0], columns[0]) + 0.3 * scale(columns[1], columns[1])) / 1.3
    best = sorted(range(len(union)), key=lambda i: (-expected[i], union[i]))[: len(hits)]
    assert ids(hits) == [union[i] for i in best]
    assert [hit.score for hit in hits] == pytest.approx([expected[i] for i in best], abs=1e-9)
    for hit in hits:
        assert hit.scores.bm25 == pytest.approx(bm25[hit.chunk.id])
        assert hit.found_by == tuple(leg for leg in ("dense", "bm25") if hit.chunk.id in found[leg])
    if fusion == "minmax":
        assert hits == retriever.search(QUESTION, mode="dense+bm25", k=len(hits)), "minmax is the default there"


def test_the_only_hit_passes_a_threshold(retriever: HybridRetriever) -> None:
    only = {"$and": [{"document_id": "a"}, {"n": 0}]}
    (hit,) = retriever.search(QUESTION, mode="dense+bm25", filter=only, score_threshold=0.5)
    assert (hit.chunk.id, hit.score) == ("a0", pytest.approx(1))


def test_bm25_follows_the_store(retriever: HybridRetriever) -> None:
    assert "b1" in ids(retriever.search("winter", mode="bm25"))
    retriever.store.delete_documents(["b"])
    assert retriever.search("winter", mode="bm25") == []


def test_the_librarys_own_leg_finds_as_the_formula(retriever: HybridRetriever) -> None:
    words = BM25Leg(tokenize=lambda text: text.casefold().split())
    own = HybridRetriever(retriever.encoder, retriever.store, bm25=words)
    for mode in ("bm25", "dense+bm25"):
        hits, expected = own.search(QUESTION, mode=mode, k=9), retriever.search(QUESTION, mode=mode, k=9)
        assert ids(hits) == ids(expected)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], rel=1e-4)


def test_what_bm25_cannot_do_is_said(retriever: HybridRetriever) -> None:
    without = HybridRetriever(retriever.encoder, retriever.store)
    for mode in ("bm25", "dense+bm25"):
        with pytest.raises(ConfigurationError, match=r"needs the BM25 leg.*bm25=BM25Leg"):
            without.search(QUESTION, mode=mode)
    with pytest.raises(ConfigurationError, match=r"those of BM25 have no bound.*'minmax', 'zscore' or 'rrf'"):
        retriever.search(QUESTION, mode="dense+bm25", fusion="weighted")
    with pytest.raises(InputError, match="text=question"):
        retriever.search_output(retriever.encoder.encode_queries([QUESTION]), mode="bm25")


# alpha


def test_alpha_weighs_normalised_scores(retriever: HybridRetriever) -> None:
    for mode in ("dense+lexical", "dense+bm25"):
        hits = retriever.search(QUESTION, mode=mode, alpha=0.7, k=9)
        assert hits == retriever.search(QUESTION, mode=mode, weights=Weights(0.7, 1 - 0.7, 0), fusion="minmax", k=9)
        dense = [h.scores.dense for h in retriever.search(QUESTION, mode=mode, alpha=1, k=9)]
        assert dense == sorted(dense, reverse=True)  # type: ignore[type-var]
    # A retriever's own fusion is not what alpha means to those who know it; one that is asked for is.
    weighted = HybridRetriever(retriever.encoder, retriever.store, fusion="weighted")
    plain = retriever.search(QUESTION, mode="dense+lexical", alpha=0.7)
    assert weighted.search(QUESTION, mode="dense+lexical", alpha=0.7) == plain
    raw = weighted.search(QUESTION, mode="dense+lexical", alpha=0.7, fusion="weighted")
    assert raw[0].score == pytest.approx(0.7 * (raw[0].scores.dense or 0) + 0.3 * (raw[0].scores.lexical or 0))


# What is found by whom


def test_a_hit_tells_which_leg_found_it(retriever: HybridRetriever) -> None:
    retriever = HybridRetriever(retriever.encoder, retriever.store, candidates=3)
    query = retriever.encoder.encode_queries([QUESTION])
    for mode in (Mode.ALL, Mode.DENSE_LEXICAL):
        by = {
            leg: {id_ for id_, _ in retriever.store.candidates(query, leg, k=3)}  # type: ignore[arg-type]
            for leg in ("dense", "lexical")
        }
        hits = retriever.search(QUESTION, mode=mode, k=3)
        for hit in hits:
            assert hit.found_by == tuple(leg for leg in ("dense", "lexical") if hit.chunk.id in by[leg])
            assert hit.found_by
    assert retriever.search(QUESTION, mode="colbert", k=1)[0].found_by == ("colbert",)


# Rerankers


def test_a_reranker_orders_the_best_of_the_fused_order(retriever: HybridRetriever) -> None:
    plain = retriever.search(QUESTION, k=9)
    reranker = ByLength()
    hits = retriever.search(QUESTION, k=2, reranker=reranker, rerank_top=4)
    assert reranker.given == [4]
    assert ids(hits) == ids(sorted(plain[:4], key=lambda hit: (-len(hit.chunk.text), hit.chunk.id))[:2])
    for hit in hits:
        (before,) = [other for other in plain if other.chunk.id == hit.chunk.id]
        assert hit.score == hit.scores.rerank == len(hit.chunk.text)
        assert (hit.ranks, hit.scores.dense, hit.scores.colbert) == (
            before.ranks,
            before.scores.dense,
            before.scores.colbert,
        )
    # It is never given fewer than are to be returned.
    assert len(retriever.search(QUESTION, k=6, reranker=reranker, rerank_top=4)) == 6
    assert reranker.given[-1] == 6
    output = retriever.encoder.encode_queries([QUESTION])
    assert retriever.search_output(output, text=QUESTION, k=2, reranker=ByLength(), rerank_top=4) == hits
    with pytest.raises(InputError, match="text=question"):
        retriever.search_output(output, reranker=reranker)
    assert retriever.search("penguins", mode="lexical", reranker=reranker) == []


def test_a_threshold_holds_for_the_rerankers_score(retriever: HybridRetriever) -> None:
    everything = retriever.search(QUESTION, k=9, reranker=ByLength())
    kept = retriever.search(QUESTION, k=9, reranker=ByLength(), score_threshold=20)
    assert kept == [hit for hit in everything if len(hit.chunk.text) >= 20]
    assert 0 < len(kept) < 9
    # What the reranker did not look at has no score to compare.
    assert len(retriever.search(QUESTION, k=9, reranker=ByLength(top=3))) == 9
    assert len(retriever.search(QUESTION, k=9, reranker=ByLength(top=3), score_threshold=0)) == 3


# Thresholds and groups


@pytest.mark.parametrize("mode", ["dense", "dense+lexical", "all", "bm25"])
def test_a_threshold_cuts_the_same_order(retriever: HybridRetriever, mode: str) -> None:
    everything = retriever.search(QUESTION, k=9, mode=mode)
    for threshold in (everything[2].score, everything[0].score + 1, -5):
        kept = retriever.search(QUESTION, k=9, mode=mode, score_threshold=threshold)
        assert kept == [hit for hit in everything if hit.score >= threshold]


@pytest.mark.parametrize("mode", ["dense", "lexical", "colbert", "dense+lexical", "all", "bm25", "dense+bm25"])
def test_at_most_so_many_hits_of_a_document(retriever: HybridRetriever, mode: str) -> None:
    everything = retriever.search(QUESTION, k=9, mode=mode)
    for most in (1, 2):
        hits = retriever.search(QUESTION, k=3, mode=mode, group_by_document=most)
        naive: list[Hit] = []
        for hit in everything:
            if sum(other.chunk.document_id == hit.chunk.document_id for other in naive) < most:
                naive.append(hit)
        assert ids(hits) == ids(naive[:3])
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in naive[:3]])


@pytest.fixture
def crowded() -> HybridRetriever:
    """One document near the question with more chunks than get a ColBERT score, and twenty short ones."""
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    chunks = [Chunk(f"a{i:03}", "A", f"ducks swim in pond {i}", 0, 1) for i in range(150)]
    chunks += [Chunk(f"b{i:02}", f"B{i:02}", f"ducks number {i}", 0, 1, metadata={"n": i}) for i in range(20)]
    store.upsert(chunks, encoder.encode_documents([chunk.text for chunk in chunks]))
    return HybridRetriever(encoder, store, bm25=WordLeg(), candidates=120, exhaustive_limit=0)


@pytest.mark.parametrize("mode", ["dense", "lexical", "colbert", "dense+lexical", "all", "bm25", "dense+bm25"])
@pytest.mark.parametrize("fusion", ["weighted", "rrf"])
def test_a_document_does_not_crowd_the_others_out(crowded: HybridRetriever, mode: str, fusion: Any) -> None:
    if mode == "dense+bm25" and fusion == "weighted":
        fusion = "minmax"
    hits = crowded.search("ducks swim in pond", k=5, mode=mode, fusion=fusion, group_by_document=1)
    assert len({hit.chunk.document_id for hit in hits}) == len(hits) == 5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    of_b = {"document_id": {"$ne": "A"}}
    alone = {hit.chunk.id: hit for hit in crowded.search("ducks swim in pond", k=20, mode=mode, filter=of_b)}
    for hit in hits[1:]:
        assert hit.scores == alone[hit.chunk.id].scores
        for leg, rank in vars_of(hit.ranks).items():
            assert rank > vars_of(hits[0].ranks)[leg], "ranked among all that were scored"


def vars_of(ranks: LegRanks) -> dict[str, int]:
    return {leg: rank for leg, rank in asdict(ranks).items() if rank is not None}


def test_grouping_ends_where_there_is_no_more(crowded: HybridRetriever) -> None:
    search = partial(crowded.search, "ducks swim in pond", k=99, group_by_document=1)
    assert len(search()) == 21
    assert len(search(filter={"n": {"$lt": 7}})) == 7
    best = search()[0].score
    assert [hit.score for hit in search(score_threshold=best)] == [best]
    assert search(score_threshold=best + 1) == []


def test_grouping_takes_filters_as_deep_as_there_are(crowded: HybridRetriever) -> None:
    deepest: dict[str, Any] = {"n": {"$lt": 7}}
    for _ in range(MAX_DEPTH):
        deepest = {"$and": [deepest]}
    for filter in (deepest, {"n": {"$lt": 7}, "document_id": {"$ne": "B00"}}):
        hits = crowded.search("ducks swim in pond", k=99, filter=filter, group_by_document=1)
        assert len(hits) == 7 - ("document_id" in filter)


def test_a_reranker_is_not_given_one_document_alone(crowded: HybridRetriever) -> None:
    hits = crowded.search("ducks swim in pond", k=5, group_by_document=1, reranker=ByLength())
    assert len({hit.chunk.document_id for hit in hits}) == len(hits) == 5


@pytest.mark.parametrize("fusion", ["minmax", "zscore"])
def test_k_only_cuts_in_a_mode_of_one_leg(retriever: HybridRetriever, fusion: Any) -> None:
    everything = retriever.search(QUESTION, k=9, mode="dense", fusion=fusion)
    assert retriever.search(QUESTION, k=1, mode="dense", fusion=fusion) == everything[:1]
    threshold = everything[1].score
    assert retriever.search(QUESTION, k=2, mode="dense", fusion=fusion, score_threshold=threshold) == everything[:2]


def test_hits_by_document(retriever: HybridRetriever) -> None:
    hits = retriever.search(QUESTION, k=9)
    groups = group_by_document(hits)
    assert all(list(group.hits) == sorted(group.hits, key=hits.index) for group in groups)
    assert {group.document_id: set(ids(list(group.hits))) for group in groups} == {
        id_: {f"{id_}{i}" for i in range(len(texts))} for id_, texts in TEXTS.items()
    }
    assert [group.hits[0] for group in groups] == sorted((g.hits[0] for g in groups), key=hits.index)
    assert [group.score for group in groups] == [group.hits[0].score for group in groups]
    assert group_by_document([]) == []


# Diversity


def test_diversity_goes_from_none_to_all(retriever: HybridRetriever) -> None:
    plain = retriever.search(QUESTION, k=4)
    assert retriever.search(QUESTION, k=4, diversity=0) == plain
    diverse = retriever.search(QUESTION, k=4, diversity=0.7)
    assert diverse[0] == plain[0]
    assert set(ids(plain)) >= {"a0", "a1"}, "the twins should both be near the question"
    assert not set(ids(diverse)) >= {"a0", "a1"}
    scores = {hit.chunk.id: hit.score for hit in retriever.search(QUESTION, k=9)}
    assert {hit.chunk.id: hit.score for hit in diverse}.items() <= scores.items()
    assert {hit.chunk.document_id for hit in retriever.search(QUESTION, k=3, diversity=0.5, group_by_document=1)} == {
        "a",
        "b",
        "c",
    }


def test_a_chunk_deleted_before_diversity_is_no_hit(retriever: HybridRetriever) -> None:
    class Leaky(MemoryStore):
        """A document is deleted as soon as the hits were read."""

        def get(self, chunk_ids: Any) -> list[Chunk]:
            found = super().get(chunk_ids)
            self.delete_documents(["a"])
            return found

    store = Leaky(retriever.encoder.info)
    for id_, texts in TEXTS.items():
        chunks = [Chunk(id=f"{id_}{i}", document_id=id_, text=t, start=0, end=len(t)) for i, t in enumerate(texts)]
        record = DocumentRecord(id=id_, title="", version="1", chunks=len(texts))
        store.put_document(record, [(chunks, retriever.encoder.encode_documents(texts))])
    hits = HybridRetriever(retriever.encoder, store).search(QUESTION, diversity=0.5)
    assert {hit.chunk.document_id for hit in hits} == {"b", "c"}


# Options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"diversity": 1.5}, InputError, "diversity goes from 0"),
        ({"diversity": float("nan")}, InputError, "diversity goes from 0"),
        ({"score_threshold": float("nan")}, InputError, "score_threshold"),
        ({"group_by_document": 0}, InputError, "group_by_document must be at least 1, got 0"),
        ({"rerank_top": 0}, InputError, "rerank_top must be at least 1"),
        ({"rrf_k": -1}, ConfigurationError, "reciprocal rank"),
        ({"alpha": 0.5}, ConfigurationError, r"mode 'all' does not.*dense\+lexical"),
        ({"alpha": 2, "mode": "dense+lexical"}, ConfigurationError, "alpha is the part"),
        ({"alpha": 0.5, "weights": "mldr", "mode": "dense+lexical"}, ConfigurationError, "give one of them"),
        ({"fusion": "sum"}, ConfigurationError, "'sum'"),
        ({"topk": 3}, InputError, "unknown option topk: a search takes k, mode, filter, "),
    ],
)
def test_bad_options_are_refused(
    retriever: HybridRetriever, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        retriever.search(QUESTION, **options)
    with pytest.raises(error, match=message):
        retriever.why_empty(QUESTION, **options)


def test_a_preset_means_the_weights_of_the_mode(retriever: HybridRetriever) -> None:
    for mode, weights in (("dense+lexical", "0.2/0.8/0"), ("all", "0.15/0.5/0.35")):
        named = retriever.search(QUESTION, mode=mode, weights="mldr")
        assert named == retriever.search(QUESTION, mode=mode, weights=weights)
        assert named == HybridRetriever(retriever.encoder, retriever.store, weights="mldr").search(QUESTION, mode=mode)
    assert retriever.search(QUESTION, rrf_k=0, fusion="rrf") != retriever.search(QUESTION, fusion="rrf")
