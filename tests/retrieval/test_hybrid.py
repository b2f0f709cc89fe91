"""The retriever against an exhaustive weighted sum over all chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from m3rag.errors import ConfigurationError, IndexMismatchError, InputError
from m3rag.output import M3Output
from m3rag.retrieval import Fusion, HybridRetriever, Mode
from m3rag.retrieval.fusion import ranks_of
from m3rag.retrieval.mode import M3_MODES
from m3rag.scoring import LEG_SCORES, PRESETS, Weights, fuse
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.testing.data import DENSE_ONLY, MODEL, Example, random_document, random_output, random_query
from m3rag.types import LEGS, Chunk, Hit, Leg


class NoEncoder(HashEncoder):
    """An encoder of the random model, which the tests never ask to encode."""

    @property
    def info(self) -> Any:
        return MODEL

    def encode_queries(self, texts: Any) -> M3Output:
        raise AssertionError("the encoder was asked to encode")


@pytest.fixture
def corpus() -> list[Example]:
    rng = np.random.default_rng(5)
    return [random_document(rng, f"d{i}.md", chunks=20) for i in range(6)]


@pytest.fixture
def store(corpus: list[Example]) -> MemoryStore:
    store = MemoryStore(MODEL)
    for example in corpus:
        store.put_document(example.record, example.parts())
    return store


def exact(query: M3Output, corpus: list[Example], legs: tuple[Leg, ...] = LEGS) -> tuple[list[str], dict[Leg, Any]]:
    output = M3Output.concatenate([example.output for example in corpus])
    ids = [chunk.id for example in corpus for chunk in example.chunks]
    return ids, {leg: LEG_SCORES[leg](query, output)[0] for leg in legs}


def same(hits: list[Hit], ids: list[str], fused: Any, k: int) -> None:
    order = sorted(range(len(ids)), key=lambda i: (-fused[i], ids[i]))[:k]
    assert [hit.chunk.id for hit in hits] == [ids[i] for i in order]
    assert [hit.score for hit in hits] == pytest.approx([fused[i] for i in order], abs=1e-6)


@pytest.mark.parametrize("mode", [Mode.DENSE, Mode.DENSE_LEXICAL, Mode.ALL])
@pytest.mark.parametrize("weights", ["miracl", "mldr", "1/0/2", "0.3/2/0"])
def test_with_enough_candidates_it_is_the_exhaustive_weighted_sum(
    store: MemoryStore, corpus: list[Example], mode: Mode, weights: str
) -> None:
    retriever = HybridRetriever(NoEncoder(), store, weights=weights, rerank_depth=120, candidates=120)
    rng = np.random.default_rng(1)
    for _ in range(5):
        query = random_query(rng)
        ids, scores = exact(query, corpus, mode.model_legs)
        fused = fuse(scores, Weights.parse(weights, legs=mode.legs))
        for k in (1, 10, 500):
            same(retriever.search_output(query, k=k, mode=mode), ids, fused, k)


def test_every_hit_carries_exact_scores_and_ranks_of_the_modes_legs(store: MemoryStore, corpus: list[Example]) -> None:
    query = random_query(np.random.default_rng(2))
    ids, scores = exact(query, corpus)
    small = HybridRetriever(NoEncoder(), store, candidates=9, rerank_depth=12, exhaustive_limit=0)
    for mode in M3_MODES:
        hits = small.search_output(query, k=8, mode=mode)
        assert len(hits) == 8 or mode is Mode.LEXICAL
        for hit in hits:
            row = ids.index(hit.chunk.id)
            for leg in LEGS:
                score, rank = getattr(hit.scores, leg), getattr(hit.ranks, leg)
                if leg in mode.legs:
                    assert score == pytest.approx(float(scores[leg][row]), abs=1e-6)
                    assert rank >= 1
                else:
                    assert (score, rank) == (None, None)


def test_ranks_are_among_all_candidates_of_a_leg(store: MemoryStore, corpus: list[Example]) -> None:
    query = random_query(np.random.default_rng(4))
    _, scores = exact(query, corpus)
    ids, _ = exact(query, corpus, ())
    hits = HybridRetriever(NoEncoder(), store, rerank_depth=15).search_output(query, k=15)
    for leg in ("dense", "lexical"):
        ranks = ranks_of(scores[leg], ids)
        assert [getattr(hit.ranks, leg) for hit in hits] == [ranks[hit.chunk.id] for hit in hits]
    assert sorted(hit.ranks.colbert or 0 for hit in hits) == list(range(1, 16))


def test_all_reranks_the_best_of_the_cheap_legs(store: MemoryStore, corpus: list[Example]) -> None:
    query = random_query(np.random.default_rng(6))
    ids, scores = exact(query, corpus)
    weights = PRESETS["miracl"]
    cheap = fuse({leg: scores[leg] for leg in ("dense", "lexical")}, weights)
    kept = sorted(range(len(ids)), key=lambda i: (-cheap[i], ids[i]))[:10]
    hits = HybridRetriever(NoEncoder(), store, rerank_depth=10).search_output(query, k=10)
    same(hits, [ids[i] for i in kept], fuse(scores, weights)[kept], 10)
    everything = HybridRetriever(NoEncoder(), store, rerank_depth=120).search_output(query, k=10)
    assert hits != everything, "the depth made no difference: this test shows nothing"


def test_by_default_the_depth_grows_with_k() -> None:
    rng = np.random.default_rng(21)
    store = MemoryStore(MODEL)
    example = random_document(rng, "a.md", chunks=600)
    store.put_document(example.record, example.parts(100))
    query = random_query(rng)
    for options, k, depth in (({}, 2, 100), ({}, 30, 300), ({"rerank_depth": 7}, 2, 7), ({"rerank_depth": 7}, 9, 9)):
        (hit, *_) = HybridRetriever(NoEncoder(), store, weights="0.01/0/1", **options).search_output(query, k=k)  # type: ignore[arg-type]
        dense = store.candidates(query, "dense", k=depth)
        colbert = store.score(query, "colbert", [key for key, _ in dense])
        assert hit.chunk.id == max(dense, key=lambda pair: 0.01 * pair[1] + colbert[pair[0]])[0]


def test_depths_that_do_not_grow_hold_whatever_is_asked_for(store: MemoryStore, corpus: list[Example]) -> None:
    query = random_query(np.random.default_rng(6))
    ids, scores = exact(query, corpus)
    cheap = fuse({leg: scores[leg] for leg in ("dense", "lexical")}, PRESETS["miracl"])
    kept = sorted(range(len(ids)), key=lambda i: (-cheap[i], ids[i]))[:12]
    held = HybridRetriever(NoEncoder(), store, rerank_depth=12, grows=False)
    same(held.search_output(query, k=50), [ids[i] for i in kept], fuse(scores, PRESETS["miracl"])[kept], 50)
    documents = [hit.chunk.document_id for hit in held.search_output(query, k=50, group_by_document=1)]
    assert sorted(documents) == sorted({ids[i].partition("@")[0] for i in kept}), "it does not look a second time"

    union = {key for leg in ("dense", "lexical") for key, _ in store.candidates(query, leg, k=9)}  # type: ignore[arg-type]
    few = HybridRetriever(NoEncoder(), store, candidates=9, grows=False)
    assert {hit.chunk.id for hit in few.search_output(query, k=50, mode="dense+lexical")} == union
    assert len(few.search_output(query, k=50, mode="dense")) == 50, "a leg alone has no first stage"
    plain = HybridRetriever(NoEncoder(), store)
    assert HybridRetriever(NoEncoder(), store, grows=False).search_output(query, k=50) == plain.search_output(
        query, k=50
    )


def test_only_what_no_leg_brought_is_scored_again(corpus: list[Example]) -> None:
    class Counting(MemoryStore):
        asked: list[tuple[str, int]]

        def score(self, query: M3Output, leg: Leg, chunk_ids: Any) -> dict[str, float]:
            self.asked.append((leg, len(chunk_ids)))
            return super().score(query, leg, chunk_ids)

    store = Counting(MODEL)
    store.asked = []
    for example in corpus:
        store.put_document(example.record, example.parts())
    query = random_query(np.random.default_rng(2))
    # Where the legs bring everything there is, nothing is left to ask for but ColBERT.
    HybridRetriever(NoEncoder(), store, rerank_depth=30).search_output(query)
    assert store.asked == [("colbert", 30)]
    store.asked.clear()
    HybridRetriever(NoEncoder(), store, candidates=10).search_output(query, k=1, mode="dense+lexical")
    assert [leg for leg, _ in store.asked] == ["dense", "lexical"]
    assert all(n < 10 for _, n in store.asked)


def test_a_chunk_that_one_leg_missed_still_has_its_score_there(store: MemoryStore, corpus: list[Example]) -> None:
    query = random_query(np.random.default_rng(8))
    dense = {key for key, _ in store.candidates(query, "dense", k=3)}
    lexical = {key for key, _ in store.candidates(query, "lexical", k=3)}
    assert lexical - dense
    hits = HybridRetriever(NoEncoder(), store, candidates=3).search_output(query, k=3, mode="dense+lexical")
    ids, scores = exact(query, corpus)
    union = [i for i, key in enumerate(ids) if key in dense | lexical]
    fused = fuse({leg: scores[leg] for leg in ("dense", "lexical")}, PRESETS["miracl"])
    same(hits, [ids[i] for i in union], fused[union], 3)


def test_colbert_is_exhaustive_in_small_stores_and_reranks_in_large_ones(
    store: MemoryStore, corpus: list[Example]
) -> None:
    query = random_query(np.random.default_rng(9))
    ids, scores = exact(query, corpus, ("colbert",))
    filled = [i for i, n in enumerate(np.diff(M3Output.concatenate([e.output for e in corpus]).offsets)) if n]
    exhaustive = HybridRetriever(NoEncoder(), store, exhaustive_limit=120).search_output(query, mode="colbert")
    same(exhaustive, [ids[i] for i in filled], scores["colbert"][filled], 10)

    union = {key for leg in ("dense", "lexical") for key, _ in store.candidates(query, leg, k=12)}  # type: ignore[arg-type]
    rows = [i for i, key in enumerate(ids) if key in union]
    large = HybridRetriever(NoEncoder(), store, exhaustive_limit=119, candidates=12)
    same(large.search_output(query, mode="colbert"), [ids[i] for i in rows], scores["colbert"][rows], 10)
    wide = HybridRetriever(NoEncoder(), store, exhaustive_limit=119, candidates=120)
    same(wide.search_output(query, mode="colbert", k=120), [ids[i] for i in filled], scores["colbert"][filled], 120)
    wordless = replace(query, colbert=query.colbert[:0], offsets=np.zeros(2, np.int64))
    assert wide.search_output(wordless, mode="colbert") == []
    # Of the chunks that pass the filter, not of all that are stored.
    one = {"document_id": "d1.md"}
    rows = [i for i in filled if ids[i].startswith("d1.md")]
    hits = large.search_output(query, mode="colbert", filter=one, k=20)
    same(hits, [ids[i] for i in rows], scores["colbert"][rows], 20)


def test_weights_of_colbert_alone(store: MemoryStore, corpus: list[Example]) -> None:
    query = random_query(np.random.default_rng(9))
    ids, scores = exact(query, corpus, ("colbert",))
    retriever = HybridRetriever(NoEncoder(), store, weights="0/0/1", rerank_depth=120)
    same(retriever.search_output(query), ids, scores["colbert"], 10)


@pytest.mark.parametrize("mode", ["dense+lexical", "all"])
def test_rrf_is_the_sum_over_the_ranks_shown(store: MemoryStore, mode: str) -> None:
    query = random_query(np.random.default_rng(10))
    retriever = HybridRetriever(NoEncoder(), store, fusion="rrf", weights="1/0.5/2", rerank_depth=20)
    hits = retriever.search_output(query, k=20, mode=mode)
    assert len(hits) == 20
    for hit in hits:
        score = 1 / (60 + (hit.ranks.dense or 0))
        if hit.scores.lexical:
            score += 0.5 / (60 + (hit.ranks.lexical or 0))
        if mode == "all":
            score += 2 / (60 + (hit.ranks.colbert or 0))
        assert hit.score == pytest.approx(score, abs=1e-12)
    order = [(-hit.score, hit.chunk.id) for hit in hits]
    assert order == sorted(order)
    weighted = HybridRetriever(NoEncoder(), store, weights="1/0.5/2", rerank_depth=20)
    assert weighted.search_output(query, k=20, mode=mode, fusion="rrf") == hits
    assert weighted.search_output(query, k=20, mode=mode) != hits


def test_weights_of_one_search(store: MemoryStore) -> None:
    query = random_query(np.random.default_rng(11))
    mldr = HybridRetriever(NoEncoder(), store, weights="mldr")
    miracl = HybridRetriever(NoEncoder(), store)
    assert miracl.search_output(query, weights="mldr") == mldr.search_output(query)
    assert miracl.search_output(query) != mldr.search_output(query)
    assert mldr.search_output(query, weights=Weights()) == miracl.search_output(query)


@pytest.mark.parametrize("fusion", get_args(Fusion))
def test_default_weights_that_leave_a_leg_out_leave_it_by_itself(store: MemoryStore, fusion: Fusion) -> None:
    query = random_query(np.random.default_rng(5))
    for mode, weights in (("dense", "0/1/1"), ("lexical", "1/0/1"), ("colbert", "1/1/0")):
        found = HybridRetriever(NoEncoder(), store, weights=weights).search_output(query, mode=mode, fusion=fusion)
        even = HybridRetriever(NoEncoder(), store, weights="1/1/1")
        assert found == even.search_output(query, mode=mode, fusion=fusion) != []


def test_equal_chunks_go_by_id() -> None:
    rng = np.random.default_rng(12)
    example = random_document(rng, "a.md", chunks=12)
    output = M3Output.concatenate([random_query(rng)] * 12)
    order = [int(i) for i in rng.permutation(12)]
    store = MemoryStore(MODEL)
    store.put_document(example.record, [([example.chunks[i] for i in order], output)])
    for mode in M3_MODES:
        hits = HybridRetriever(NoEncoder(), store).search_output(output[0], k=12, mode=mode)
        assert [hit.chunk.id for hit in hits] == sorted(chunk.id for chunk in example.chunks)


def test_filters_hold_in_every_mode(store: MemoryStore) -> None:
    query = random_query(np.random.default_rng(13))
    retriever = HybridRetriever(NoEncoder(), store)
    for mode in M3_MODES:
        hits = retriever.search_output(query, k=100, mode=mode, filter={"lang": "de"})
        assert hits
        assert {hit.chunk.metadata["lang"] for hit in hits} == {"de"}
        assert retriever.search_output(query, mode=mode, filter={"lang": "fr"}) == []


def test_a_chunk_deleted_during_a_search_is_no_hit(corpus: list[Example]) -> None:
    class Leaky(MemoryStore):
        """A document is deleted as soon as the first leg has found its candidates."""

        def candidates(self, *args: Any, **options: Any) -> list[tuple[str, float]]:
            found = super().candidates(*args, **options)
            self.delete_documents(["d0.md"])
            return found

    query = random_query(np.random.default_rng(14))
    for mode in M3_MODES:
        store = Leaky(MODEL)
        for example in corpus:
            store.put_document(example.record, example.parts())
        hits = HybridRetriever(NoEncoder(), store).search_output(query, k=120, mode=mode)
        assert hits
        assert not [hit for hit in hits if hit.chunk.document_id == "d0.md"]


def hashed(texts: list[str]) -> tuple[HashEncoder, MemoryStore]:
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    chunks = [Chunk(id=f"{i}", document_id="d", text=text, start=0, end=len(text)) for i, text in enumerate(texts)]
    record = DocumentRecord(id="d", title="", version="1", chunks=len(texts))
    store.put_document(record, [(chunks, encoder.encode_documents(texts))])
    return encoder, store


def test_search_encodes_the_question() -> None:
    encoder, store = hashed(["Geese fly south in autumn.", "Ducks swim in ponds.", "A swan is white."])
    retriever = HybridRetriever(encoder, store)
    for mode in M3_MODES:
        hits = retriever.search("Where do ducks swim?", mode=mode, k=2)
        assert hits[0].chunk.text == "Ducks swim in ponds."
        assert hits == retriever.search_output(encoder.encode_queries(["Where do ducks swim?"]), mode=mode, k=2)
    assert retriever.search("penguins", mode="lexical") == []


def test_an_empty_store_gives_no_hits() -> None:
    retriever = HybridRetriever(NoEncoder(), MemoryStore(MODEL))
    for mode in M3_MODES:
        for fusion in ("weighted", "rrf"):
            assert retriever.search_output(random_query(np.random.default_rng(0)), mode=mode, fusion=fusion) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"query": " \n\t"}, InputError, "ask a question"),
        ({"k": 0}, InputError, "at least 1, got 0"),
        ({"k": -3}, InputError, "at least 1, got -3"),
        ({"k": True}, InputError, "whole number, got True"),
        ({"k": 10**20}, InputError, "k must be at most 2,147,483,647"),
        ({"score_threshold": "0.5"}, InputError, "score_threshold must be a number, got '0.5'"),
        ({"diversity": "0.5"}, InputError, "diversity must be a number, got '0.5'"),
        ({"rrf_k": "60"}, InputError, "rrf_k must be a number, got '60'"),
        ({"alpha": [0.5], "mode": "dense+lexical"}, InputError, r"alpha must be a number, got \[0.5\]"),
        ({"reranker": "colbert"}, InputError, "reranker is 'colbert', must be an m3rag.reranking.Reranker"),
        ({"weights": "1e308/1e308/1"}, ConfigurationError, "finite, as their sum"),
        ({"rrf_k": float("inf")}, ConfigurationError, "must be finite"),
        ({"mode": "sparse"}, ConfigurationError, "'sparse'.*choose one of"),
        ({"weights": "heavy"}, ConfigurationError, "'heavy'"),
        ({"mode": "lexical", "weights": "1/0/1"}, ConfigurationError, "'lexical'.*choose another mode"),
        ({"mode": "dense+lexical", "weights": "0/0/1"}, ConfigurationError, "dense and lexical"),
    ],
)
def test_what_cannot_be_searched_is_said_before_encoding(
    store: MemoryStore, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        HybridRetriever(NoEncoder(), store).search(**{"query": "ducks", **options})


def test_a_model_of_one_leg() -> None:
    class NoDenseEncoder(NoEncoder):
        @property
        def info(self) -> Any:
            return DENSE_ONLY

    rng = np.random.default_rng(3)
    example, query = random_document(rng, "a.md", chunks=30, model=DENSE_ONLY), random_query(rng, model=DENSE_ONLY)
    store = MemoryStore(DENSE_ONLY)
    store.put_document(example.record, example.parts())
    retriever = HybridRetriever(NoDenseEncoder(), store)
    ids, scores = exact(query, [example], ("dense",))
    same(retriever.search_output(query, mode="dense"), ids, scores["dense"], 10)
    for mode in M3_MODES:
        if mode is not Mode.DENSE:
            with pytest.raises(ConfigurationError, match=r"which the model random-dense does not give"):
                retriever.search("ducks", mode=mode)
            with pytest.raises(ConfigurationError, match=r"choose mode='dense'"):
                retriever.search_output(query, mode=mode)


def test_what_cannot_be_searched_is_said_for_outputs_too(store: MemoryStore) -> None:
    retriever = HybridRetriever(NoEncoder(), store)
    query = random_query(np.random.default_rng(0))
    with pytest.raises(InputError, match="got 2"):
        retriever.search_output(random_output(np.random.default_rng(0), 2))
    with pytest.raises(InputError, match="k must be"):
        retriever.search_output(query, k=0)
    with pytest.raises(ConfigurationError, match="unknown fusion 'sum'"):
        retriever.search_output(query, fusion="sum")  # type: ignore[arg-type]


def test_the_options_are_checked(store: MemoryStore) -> None:
    for options in (
        {"candidates": 0},
        {"candidates": "400"},
        {"candidates": 2.5},
        {"rerank_depth": 0},
        {"exhaustive_limit": -1},
        {"weights": "x"},
    ):
        with pytest.raises(ConfigurationError):
            HybridRetriever(NoEncoder(), store, **options)  # type: ignore[arg-type]


def test_a_store_of_another_model_is_refused() -> None:
    other = MemoryStore(replace(MODEL, name="other", fingerprint="other-1"))
    with pytest.raises(IndexMismatchError, match=r"'other'.*'random'.*m3rag rebuild"):
        HybridRetriever(NoEncoder(), other)
