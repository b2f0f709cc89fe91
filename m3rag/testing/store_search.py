"""The part of the store suite about search: candidates, scores, threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from m3rag.errors import ConfigurationError, InputError
from m3rag.output import M3Output
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import Store
from m3rag.testing.data import (
    DENSE_ONLY,
    MODEL,
    Example,
    random_document,
    random_output,
    random_query,
    spoilt_outputs,
)
from m3rag.testing.store_fixtures import TOLERANCE, StoreFixtures
from m3rag.types import LEGS, Chunk, Leg


class StoreSearchTests(StoreFixtures):
    """Candidates and scores are those of the oracle."""

    # Search

    @pytest.mark.parametrize("leg", LEGS)
    def test_candidates_equal_the_oracle(
        self, filled: Store, oracle: MemoryStore, rng: np.random.Generator, leg: Leg
    ) -> None:
        for k in (1, 7, 1000) * 5:
            query = random_query(rng)
            self._same(filled.candidates(query, leg, k=k), oracle.candidates(query, leg, k=k), leg)

    @pytest.mark.parametrize("leg", LEGS)
    def test_scores_are_exact(
        self, filled: Store, oracle: MemoryStore, corpus: list[Example], rng: np.random.Generator, leg: Leg
    ) -> None:
        ids = [chunk.id for example in corpus for chunk in example.chunks]
        asked = [str(id_) for id_ in rng.permutation(ids)[:40]]
        for _ in range(5):
            query = random_query(rng)
            expected = oracle.score(query, leg, asked)
            found = filled.score(query, leg, [*asked, "absent", asked[0]])
            assert found.keys() == set(asked)
            assert found == pytest.approx(expected, abs=TOLERANCE[leg])
        assert filled.score(query, leg, []) == {}

    def test_a_query_without_tokens(self, filled: Store, corpus: list[Example], rng: np.random.Generator) -> None:
        empty = replace(
            random_query(rng),
            lexical=csr_array(np.zeros((1, MODEL.vocab_size), np.float32)),
            colbert=np.zeros((0, MODEL.colbert_dim), np.float16),
            offsets=np.zeros(2, np.int64),
        )
        ids = [chunk.id for chunk in corpus[0].chunks]
        legs: tuple[Leg, ...] = ("lexical", "colbert")
        for leg in legs:
            assert filled.candidates(empty, leg, k=5) == []
            assert filled.score(empty, leg, ids) == dict.fromkeys(ids, 0.0)
        assert len(filled.candidates(empty, "dense", k=5)) == 5

    def test_ties_are_broken_by_id(self, store: Store, rng: np.random.Generator) -> None:
        example = random_document(rng, "a.md", chunks=20)
        same = M3Output.concatenate([random_query(rng)] * 20)
        order = [int(i) for i in rng.permutation(20)]
        store.put_document(example.record, [([example.chunks[i] for i in order], same)])
        for leg in LEGS:
            found = [id_ for id_, _ in store.candidates(same[0], leg, k=20)]
            assert found == sorted(chunk.id for chunk in example.chunks)

    @pytest.mark.parametrize("leg", LEGS)
    def test_ties_are_broken_by_id_where_k_cuts_them(self, store: Store, leg: Leg) -> None:
        # 3 chunks are better than 40 that tie and 3 that are worse; written in no order of their ids.
        grades = {f"c{i:02}": 1.0 if i >= 43 else 0.5 if i >= 3 else 0.25 for i in range(46)}
        ids = [f"c{17 * i % 46:02}" for i in range(46)]
        chunks = [Chunk(id=id_, document_id="a.md", text="x", start=0, end=1, metadata={"n": 1}) for id_ in ids]
        store.upsert(chunks, _graded([grades[id_] for id_ in ids]))
        expected = sorted(grades, key=lambda id_: (-grades[id_], id_))
        for filter in (None, {"n": 1}):
            for k in (1, 3, 4, 5, 30, 42, 43, 44, 46, 47, 1000):
                found = [id_ for id_, _ in store.candidates(_graded([1.0]), leg, k=k, filter=filter)]
                assert found == expected[:k]

    def test_bad_queries_are_refused(self, filled: Store, rng: np.random.Generator) -> None:
        query = random_query(rng)
        other = random_query(rng, model=replace(MODEL, colbert_dim=9))
        for k in (0, -1, 1.5, 2.0, "3", None):
            for leg in LEGS:
                with pytest.raises(InputError, match="k must be"):
                    filled.candidates(query, leg, k=k)  # type: ignore[arg-type]
        refused: list[tuple[M3Output, Any]] = [(query, "sparse"), (random_output(rng, 2), "dense"), (other, "colbert")]
        for bad, leg in refused:
            with pytest.raises(InputError):
                filled.candidates(bad, leg, k=3)
            with pytest.raises(InputError):
                filled.score(bad, leg, ["a"])
        for leg, spoilt in spoilt_outputs(query):
            with pytest.raises(InputError, match=f"the query: the {leg}"):
                filled.candidates(spoilt, leg, k=3)
            with pytest.raises(InputError, match=f"the query: the {leg}"):
                filled.score(spoilt, leg, ["a"])

    def test_representations_come_back(self, filled: Store, corpus: list[Example], rng: np.random.Generator) -> None:
        all_chunks = [chunk.id for example in corpus for chunk in example.chunks]
        all_output = M3Output.concatenate([example.output for example in corpus])
        rows = [*rng.permutation(len(all_chunks))[:30].tolist(), 3, 3]
        found, expected = filled.representations([all_chunks[row] for row in rows]), all_output[rows]
        assert np.array_equal(found.dense, expected.dense)
        assert np.array_equal(found.lexical.toarray(), expected.lexical.toarray())
        assert np.array_equal(found.offsets, expected.offsets)
        assert np.abs(found.colbert.astype(np.float32) - expected.colbert).max() <= TOLERANCE["colbert"]
        with pytest.raises(InputError, match="absent"):
            filled.representations([all_chunks[0], "absent"])

    def test_a_model_of_one_leg(self, path: Path, rng: np.random.Generator) -> None:
        examples = [random_document(rng, f"{n}.md", chunks=n, model=DENSE_ONLY) for n in (7, 30)]
        store, oracle = self.make_store(path, DENSE_ONLY), MemoryStore(DENSE_ONLY)
        for example in examples:
            store.put_document(example.record, example.parts())
            oracle.put_document(example.record, example.parts())
        for held in self._as_made_and_reopened(store, path, DENSE_ONLY):
            assert held.manifest.model.legs == ("dense",)
            assert held.documents() == sorted((e.record for e in examples), key=lambda record: record.id)
            chunks = [chunk for example in examples for chunk in example.chunks]
            ids = [chunk.id for chunk in chunks]
            assert held.get(ids) == chunks
            query = random_query(rng, model=DENSE_ONLY)
            self._same(held.candidates(query, "dense", k=20), oracle.candidates(query, "dense", k=20), "dense")
            expected = oracle.score(query, "dense", ids)
            assert held.score(query, "dense", ids) == pytest.approx(expected, abs=TOLERANCE["dense"])
            output = held.representations(ids)
            assert np.array_equal(output.dense, np.concatenate([example.output.dense for example in examples]))
            assert (output.lexical.shape, output.colbert.shape) == ((37, 0), (0, 0))
            legs: tuple[Leg, ...] = ("lexical", "colbert")
            for leg in legs:
                with pytest.raises(ConfigurationError, match=rf"leg {leg}, which the model random-dense does not"):
                    held.candidates(query, leg, k=3)
                with pytest.raises(ConfigurationError, match=rf"leg {leg}, which"):
                    held.score(query, leg, ids)
            with pytest.raises(InputError, match="dimensions"):
                held.candidates(random_query(rng), "dense", k=3)
            wrong = random_document(rng, "wrong.md", chunks=3)
            with pytest.raises(InputError, match="dimensions"):
                held.put_document(wrong.record, wrong.parts())
            assert held.document("wrong.md") is None
            held.close()

    def test_threads(self, filled: Store, corpus: list[Example], rng: np.random.Generator) -> None:
        queries = [random_query(rng) for _ in range(20)]
        versions = [random_document(rng, "b.md", chunks=6, version=f"v{i}") for i in range(2, 8)]
        others = [random_document(rng, f"t{i}.md", chunks=4) for i in range(6)]
        allowed = {40, *(len(example.chunks) for example in versions)}

        def search(query: M3Output) -> None:
            for leg in LEGS:
                ids = [id_ for id_, _ in filled.candidates(query, leg, k=500, filter={"document_id": "b.md"})]
                assert len({id_.split("#")[0] for id_ in ids}) <= 1, "two versions of a document in one result"
            assert filled.count(filter={"document_id": "b.md"}) in allowed

        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(filled.put_document, e.record, e.parts()) for e in [*versions, *others]]
            jobs += [pool.submit(search, query) for query in queries * 3]
            for job in jobs:
                job.result()
        assert len(filled.documents()) == 3 + 6
        assert filled.count() == 17 + 6 + 5 + 24


def _graded(grades: Sequence[float]) -> M3Output:
    """Texts whose score in each leg with that of grade 1 is the grade, exactly, in whatever order an engine sums."""
    n = len(grades)
    column = np.array(grades, np.float32)[:, None]
    return M3Output(
        dense=np.pad(column, ((0, 0), (0, MODEL.dense_dim - 1))),
        lexical=csr_array(np.pad(column, ((0, 0), (5, MODEL.vocab_size - 6)))),
        colbert=np.pad(column, ((0, 0), (0, MODEL.colbert_dim - 1))).astype(np.float16),
        offsets=np.arange(n + 1, dtype=np.int64),
    )
