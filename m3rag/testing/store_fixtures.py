"""What the tests of the store suite share: fixtures, and comparison with the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from m3rag.output import M3Output
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import Store
from m3rag.testing.data import MODEL, Example, random_document
from m3rag.types import LEGS, Chunk, Leg, ModelInfo

# float16 token vectors; the other two legs are kept in float32.
TOLERANCE: dict[Leg, float] = {"dense": 1e-5, "lexical": 1e-5, "colbert": 2e-3}


class Interrupted(Exception):
    """What the parts of a document raise in the tests of atomicity."""


class StoreFixtures:
    """A store to test, three random documents, and the oracle that holds the same."""

    persistent = False
    second_handle: Literal["refused", "shared"] | None = None

    def make_store(self, path: Path, model: ModelInfo) -> Store:
        """An empty store at a path that does not exist yet."""
        raise NotImplementedError("implement make_store in the class that inherits from StoreSuite")

    def reopen_store(self, path: Path, model: ModelInfo) -> Store:
        """The store at a path where one was made and closed."""
        raise NotImplementedError("implement reopen_store, or leave persistent = False")

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where the store of a test lies."""
        return tmp_path / "store"

    @pytest.fixture
    def store(self, path: Path) -> Iterator[Store]:
        """An empty store."""
        store = self.make_store(path, MODEL)
        yield store
        store.close()

    @pytest.fixture
    def rng(self) -> np.random.Generator:
        """The same random numbers in every run."""
        return np.random.default_rng(20)

    @pytest.fixture
    def corpus(self, rng: np.random.Generator) -> list[Example]:
        """Three documents; ids with a folder and in another script."""
        return [
            random_document(rng, "a.md", chunks=17),
            random_document(rng, "b.md", chunks=40, metadata={"document_id": "a.md", "id": "x", "kind": "document"}),
            random_document(rng, "日本/c.md", chunks=5),
        ]

    @pytest.fixture
    def filled(self, store: Store, corpus: list[Example]) -> Store:
        """The store with the three documents."""
        for example in corpus:
            store.put_document(example.record, example.parts())
        return store

    @pytest.fixture
    def oracle(self, corpus: list[Example]) -> MemoryStore:
        """The reference with the three documents."""
        oracle = MemoryStore(MODEL)
        for example in corpus:
            oracle.put_document(example.record, example.parts())
        return oracle

    def _only_if_persistent(self) -> None:
        if not self.persistent:
            pytest.skip("this store does not outlive its process")

    def _as_made_and_reopened(self, store: Store, path: Path, model: ModelInfo) -> Iterator[Store]:
        """A store, then (where it outlives its process) what is opened after it was closed."""
        yield store
        if self.persistent:
            yield self.reopen_store(path, model)

    def _broken(self, example: Example, error: type[BaseException]) -> Iterator[tuple[Sequence[Chunk], M3Output]]:
        yield from example.parts()[:2]
        raise error

    def _oracle_of(self, examples: Sequence[Example]) -> MemoryStore:
        oracle = MemoryStore(MODEL)
        for example in examples:
            oracle.put_document(example.record, example.parts())
        return oracle

    def _unchanged(self, store: Store, corpus: Sequence[Example], half: Example | None) -> None:
        assert store.documents() == [example.record for example in corpus]
        assert store.count() == sum(len(example.chunks) for example in corpus)
        for example in corpus:
            assert store.get([chunk.id for chunk in example.chunks]) == list(example.chunks)
        if half is not None:
            assert store.get([chunk.id for chunk in half.chunks]) == []

    def _same_candidates(self, store: Store, oracle: MemoryStore, query: M3Output) -> None:
        for leg in LEGS:
            self._same(store.candidates(query, leg, k=1000), oracle.candidates(query, leg, k=1000), leg)

    def _same(self, found: list[tuple[str, float]], expected: list[tuple[str, float]], leg: Leg) -> None:
        assert len(found) == len(expected)
        assert found == sorted(found, key=lambda pair: (-pair[1], pair[0])), "not best first, ties by id"
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=TOLERANCE[leg])
        # Neighbours closer than the tolerance may stand in either order, also across the k-th place.
        floor = expected[-1][1] + TOLERANCE[leg] if expected else 0.0
        reference = dict(expected)
        for id_, score in found:
            assert id_ in reference or score <= floor, f"{id_} is not among the best"
            assert id_ not in reference or score == pytest.approx(reference[id_], abs=TOLERANCE[leg])
