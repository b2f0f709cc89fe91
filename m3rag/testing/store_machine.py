"""StoreMachine: any order of changes and reopenings, on a store and on the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import Store
from m3rag.testing.data import MODEL, Example, random_document, random_output, random_query
from m3rag.testing.store_fixtures import StoreFixtures
from m3rag.types import Chunk

DOCUMENTS = st.sampled_from(["a.md", "b.md", "日本/c.md"])
LOOSE = [f"loose {i}" for i in range(6)]


class StoreMachine(RuleBasedStateMachine):
    """Puts, upserts, deletes and reopens at random; after each step the store equals a `MemoryStore`.

    Args:
        make: Gives an empty store.
        reopen: Opens what was made again, once it is closed; None for a store that does not outlive
            its process.
    """

    def __init__(self, make: Callable[[], Store], reopen: Callable[[], Store] | None = None) -> None:
        super().__init__()
        self.store = make()
        self.oracle = MemoryStore(MODEL)
        self.reopen_store = reopen

    @rule(name=DOCUMENTS, version=st.sampled_from(["v1", "v2", "v3"]), chunks=st.integers(0, 5))
    def put_document(self, name: str, version: str, chunks: int) -> None:
        """A whole document, of a version there or not."""
        example = _example(name, f"{version}.{chunks}", chunks)
        self._both(lambda store: store.put_document(example.record, example.parts(size=2)))

    @rule(ids=st.lists(st.sampled_from(LOOSE), unique=True, max_size=4), name=DOCUMENTS, seed=st.integers(0, 99))
    def upsert_loose(self, ids: list[str], name: str, seed: int) -> None:
        """Chunks that are new, or move to another document."""
        chunks = [Chunk(id_, name, f"{id_} {seed}", 0, 7, metadata={"seed": seed, "lang": "xx"}) for id_ in ids]
        output = random_output(np.random.default_rng(seed), len(ids))
        self._both(lambda store: store.upsert(chunks, output))

    @rule(places=st.lists(st.integers(0, 30), max_size=3), seed=st.integers(0, 99))
    def upsert_stored(self, places: list[int], seed: int) -> None:
        """Other texts, metadata and representations for chunks that are there."""
        chunks = [replace(chunk, text=f"changed {seed}", metadata={"seed": seed}) for chunk in self._chosen(places)]
        output = random_output(np.random.default_rng(seed), len(chunks))
        self._both(lambda store: store.upsert(chunks, output))

    @rule(places=st.lists(st.integers(0, 30), max_size=3))
    def delete_chunks(self, places: list[int]) -> None:
        """Chunks that are there, and one that is not."""
        ids = [chunk.id for chunk in self._chosen(places)]
        self._both(lambda store: store.delete_chunks([*ids, "absent"]))

    @rule(filter=st.sampled_from([{"lang": "de"}, {"lang": {"$ne": "xx"}}, {"seed": {"$lt": 50}}, {"year": 2001}]))
    def delete_by_filter(self, filter: dict[str, Any]) -> None:
        """All chunks that pass a filter."""
        self._both(lambda store: store.delete(filter))

    @rule(names=st.lists(DOCUMENTS, max_size=2))
    def delete_documents(self, names: list[str]) -> None:
        """Whole documents."""
        self._both(lambda store: store.delete_documents(names))

    @rule(key=st.sampled_from(["x", "y"]), value=st.none() | st.integers() | st.text())
    def update_settings(self, key: str, value: object) -> None:
        """A setting, new, changed or forgotten."""
        self._both(lambda store: store.update_settings({key: value}))

    @precondition(lambda self: self.reopen_store is not None)
    @rule()
    def reopen(self) -> None:
        """The store closed and opened again."""
        self.store.close()
        assert self.reopen_store is not None
        self.store = self.reopen_store()

    @invariant()
    def equals_the_oracle(self) -> None:
        """Documents, chunks, settings and the dense order are those of the oracle."""
        assert self.store.documents() == self.oracle.documents()
        expected, _ = self.oracle.scan(limit=1000)
        found, following = self.store.scan(limit=1000)
        assert following is None
        assert sorted(found, key=lambda chunk: chunk.id) == expected
        assert dict(self.store.settings) == self.oracle.settings
        query = random_query(np.random.default_rng(0))
        scores = self.oracle.score(query, "dense", [chunk.id for chunk in expected])
        assert dict(self.store.candidates(query, "dense", k=1000)) == pytest.approx(scores, abs=1e-5)

    def teardown(self) -> None:
        """Close the store."""
        self.store.close()

    def _both(self, change: Callable[[Store], object]) -> None:
        assert change(self.store) == change(self.oracle)

    def _chosen(self, places: list[int]) -> list[Chunk]:
        stored, _ = self.oracle.scan(limit=1000)
        return list({place % len(stored): stored[place % len(stored)] for place in places}.values()) if stored else []


class StoreMachineTests(StoreFixtures):
    """The machine, run for some seconds."""

    def test_any_order_of_changes(self, tmp_path: Path) -> None:
        paths = (tmp_path / f"machine {n}" for n in range(1_000_000))

        def machine() -> StoreMachine:
            path = next(paths)
            reopen = (lambda: self.reopen_store(path, MODEL)) if self.persistent else None
            return StoreMachine(lambda: self.make_store(path, MODEL), reopen)

        few = settings(
            max_examples=8,
            stateful_step_count=20,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(cast(Any, machine), settings=few)  # it takes factories, its types do not say so


def _example(name: str, version: str, chunks: int) -> Example:
    # The same version is the same chunks, whenever it is written.
    return random_document(np.random.default_rng(chunks), name, chunks=chunks, version=version)
