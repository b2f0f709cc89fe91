"""The part of the store suite about documents: whole or absent, exact, durable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3rag.errors import IndexMismatchError, InputError, StoreError
from m3rag.output import M3Output
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import Store
from m3rag.testing.data import MODEL, Example, random_document, random_query
from m3rag.testing.store_fixtures import Interrupted, StoreFixtures
from m3rag.types import LEGS, Chunk


class StoreDocumentTests(StoreFixtures):
    """Documents go in and come out whole, or not at all."""

    # Documents

    def test_an_empty_store(self, store: Store, rng: np.random.Generator) -> None:
        assert store.documents() == []
        assert store.document("a.md") is None
        assert store.get(["a"]) == []
        assert store.count() == 0
        assert store.delete_documents(["a.md"]) == 0
        assert len(store.representations([])) == 0
        for leg in LEGS:
            assert store.candidates(random_query(rng), leg, k=5) == []
            assert store.score(random_query(rng), leg, ["a"]) == {}

    def test_the_manifest_names_the_model(self, store: Store) -> None:
        assert store.manifest.model == MODEL

    def test_documents_and_chunks_come_back_as_given(self, filled: Store, corpus: list[Example]) -> None:
        assert filled.documents() == [example.record for example in corpus]
        for example in corpus:
            assert filled.document(example.record.id) == example.record
            assert filled.get([chunk.id for chunk in example.chunks]) == list(example.chunks)
        assert filled.count() == sum(len(example.chunks) for example in corpus)

    def test_get_keeps_the_order_asked_for(self, filled: Store, corpus: list[Example]) -> None:
        chunks = [corpus[1].chunks[30], corpus[0].chunks[2], corpus[1].chunks[3], corpus[0].chunks[2]]
        asked = [chunks[0].id, "absent", chunks[1].id, chunks[2].id, "\ud800", chunks[3].id]
        assert filled.get(asked) == chunks

    def test_chunks_of_a_document_come_in_order(self, filled: Store, rng: np.random.Generator) -> None:
        example = random_document(rng, "new.md", chunks=30)
        order = [int(i) for i in rng.permutation(30)]
        filled.put_document(example.record, [([example.chunks[i] for i in order], example.output[order])])
        assert filled.chunks_of("new.md") == list(example.chunks)
        for absent in ("absent", "\udcff"):
            assert filled.chunks_of(absent) == []
            assert filled.document(absent) is None
            assert filled.delete_documents([absent]) == 0

    def test_a_new_version_replaces_the_old(self, filled: Store, corpus: list[Example], rng: Any) -> None:
        new = random_document(rng, "b.md", chunks=7, version="v2")
        filled.put_document(new.record, new.parts())
        assert filled.document("b.md") == new.record
        assert filled.get([chunk.id for chunk in corpus[1].chunks]) == []
        assert filled.get([chunk.id for chunk in new.chunks]) == list(new.chunks)
        assert filled.chunks_of("b.md") == list(new.chunks)
        assert filled.count() == 17 + 7 + 5
        self._same_candidates(filled, self._oracle_of([corpus[0], new, corpus[2]]), random_query(rng))

    def test_the_same_version_again_changes_nothing(self, filled: Store, corpus: list[Example]) -> None:
        filled.put_document(corpus[0].record, corpus[0].parts(size=100))
        assert filled.documents() == [example.record for example in corpus]
        assert filled.count() == 17 + 40 + 5

    def test_a_document_without_chunks(self, store: Store, rng: np.random.Generator) -> None:
        example = random_document(rng, "empty.md", chunks=0)
        store.put_document(example.record, [])
        assert store.documents() == [example.record]
        assert store.count() == 0
        assert store.delete_documents(["empty.md"]) == 1

    def test_delete(self, filled: Store, corpus: list[Example], rng: np.random.Generator) -> None:
        assert filled.delete_documents(["b.md", "absent", "b.md"]) == 1
        assert [record.id for record in filled.documents()] == ["a.md", "日本/c.md"]
        assert filled.count() == 17 + 5
        assert filled.get([corpus[1].chunks[0].id]) == []
        self._same_candidates(filled, self._oracle_of([corpus[0], corpus[2]]), random_query(rng))
        assert filled.delete_documents(["b.md"]) == 0

    def test_unicode_and_odd_ids(self, store: Store, rng: np.random.Generator) -> None:
        for name in ["ü/ä ö.md", "鸭子", "🦆", "a\nb", "e\u0301", "\u00e9", "\\xe9", "'; --", "x" * 3000]:
            example = random_document(rng, name, chunks=2)
            store.put_document(example.record, example.parts())
            assert store.document(name) == example.record
            assert store.get([chunk.id for chunk in example.chunks]) == list(example.chunks)
            assert store.count(filter={"document_id": name}) == 2
        assert store.count() == 18

    def test_metadata_come_back_exactly(self, store: Store, rng: np.random.Generator) -> None:
        metadata = {
            "big text": "é" * 1_000_000,
            "big number": 2**80,
            "float": 1.0,
            "deep": {"a": [1, {"b": None}], "": True},
            "document_id": "other",
        }
        example = random_document(rng, "a.md", chunks=1, metadata=metadata)
        store.put_document(example.record, example.parts())
        (chunk,) = store.get([example.chunks[0].id])
        assert chunk == example.chunks[0]
        assert isinstance(chunk.metadata["float"], float)
        assert store.document("a.md") == example.record
        assert store.count(filter={"big text": "é" * 1_000_000, "big number": 2**80}) == 1
        assert store.count(filter={"big text": "é" * 999_999}) == 0
        assert store.count(filter={"document_id": "other"}) == 0

    # Atomicity

    def test_parts_that_raise_leave_the_older_version(self, filled: Store, corpus: list[Example], rng: Any) -> None:
        new = random_document(rng, "b.md", chunks=9, version="v2")
        for error in (Interrupted, KeyboardInterrupt):
            with pytest.raises(error):
                filled.put_document(new.record, self._broken(new, error))
            self._unchanged(filled, corpus, new)
        self._same_candidates(filled, self._oracle_of(corpus), random_query(rng))
        filled.put_document(new.record, new.parts())
        assert filled.document("b.md") == new.record

    def test_parts_that_raise_leave_nothing_of_a_new_document(
        self, filled: Store, corpus: list[Example], rng: Any
    ) -> None:
        new = random_document(rng, "new.md", chunks=9)
        with pytest.raises(Interrupted):
            filled.put_document(new.record, self._broken(new, Interrupted))
        self._unchanged(filled, corpus, new)

    def test_the_same_version_interrupted_stays_whole(self, filled: Store, corpus: list[Example]) -> None:
        with pytest.raises(Interrupted):
            filled.put_document(corpus[1].record, self._broken(corpus[1], Interrupted))
        self._unchanged(filled, corpus, None)

    def test_half_a_document_is_not_seen(self, filled: Store, corpus: list[Example], rng: Any) -> None:
        new = random_document(rng, "b.md", chunks=9, version="v2")
        query = random_query(rng)
        oracle = self._oracle_of(corpus)

        def watched() -> Iterator[tuple[Sequence[Chunk], M3Output]]:
            for part in new.parts():
                yield part
                self._unchanged(filled, corpus, new)
                self._same_candidates(filled, oracle, query)
                assert filled.score(query, "dense", [new.chunks[0].id]) == {}
                with pytest.raises(InputError):
                    filled.representations([new.chunks[0].id])

        filled.put_document(new.record, watched())
        assert filled.document("b.md") == new.record

    def test_parts_that_break_their_promise_are_refused(self, filled: Store, corpus: list[Example], rng: Any) -> None:
        new = random_document(rng, "b.md", chunks=6, version="v2")
        other = random_document(rng, "x.md", chunks=3, model=replace(MODEL, dense_dim=25))
        taken = tuple(replace(chunk, document_id="b.md") for chunk in corpus[0].chunks[:6])
        surrogate = replace(new.chunks[0], text="\ud800")
        not_json = replace(new.chunks[0], metadata={"when": object()})
        refused: list[tuple[Any, str]] = [
            (new.parts()[:1], "6 chunks, 3 were given"),
            ([*new.parts(), *new.parts()], "ids must be unique"),
            ([(new.chunks[:3], new.output[:2])], "3 chunks"),
            ([(corpus[0].chunks[:6], new.output)], "a.md"),
            ([(other.chunks, other.output)], "dimensions"),
            ([(taken, new.output)], "already stored"),
            ([((surrogate, *new.chunks[1:]), new.output)], "Unicode"),
            ([((not_json, *new.chunks[1:]), new.output)], "JSON"),
        ]
        for parts, message in refused:
            with pytest.raises(InputError, match=message):
                filled.put_document(new.record, parts)
            self._unchanged(filled, corpus, new)
        for record in (replace(new.record, id="\udcff.md"), replace(new.record, source="/\udcff/b.md")):
            with pytest.raises(InputError, match="Unicode"):
                filled.put_document(record, new.parts())
            self._unchanged(filled, corpus, new)

    def test_the_revision_changes_with_every_change(self, filled: Store, rng: np.random.Generator) -> None:
        if filled.revision is None:
            pytest.skip("this store does not tell its revision")
        seen = [filled.revision]
        filled.candidates(random_query(rng), "dense", k=3)
        assert filled.documents()
        assert filled.revision == seen[0]
        new = random_document(rng, "a.md", chunks=2, version="v2")
        extra = random_document(rng, "extra.md", chunks=2)
        changes: list[Callable[[], object]] = [
            lambda: filled.put_document(new.record, new.parts()),
            lambda: filled.upsert(extra.chunks, extra.output),
            lambda: filled.upsert(extra.chunks[:1], extra.output[1]),
            lambda: filled.delete_chunks([extra.chunks[0].id]),
            lambda: filled.delete({"year": 2001}),
            lambda: filled.delete_documents(["b.md"]),
        ]
        for change in changes:
            change()
            assert filled.revision not in seen
            seen.append(filled.revision)

    # Life

    def test_a_closed_store_says_so(self, path: Path, rng: np.random.Generator) -> None:
        store = self.make_store(path, MODEL)
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.count()
        with pytest.raises(StoreError, match="closed"):
            store.candidates(random_query(rng), "dense", k=1)

    def test_what_was_put_is_there_after_reopening(
        self, path: Path, corpus: list[Example], oracle: MemoryStore, rng: np.random.Generator
    ) -> None:
        self._only_if_persistent()
        store = self.make_store(path, MODEL)
        for example in corpus:
            store.put_document(example.record, example.parts())
        new = random_document(rng, "new.md", chunks=9)
        with pytest.raises(Interrupted):
            store.put_document(new.record, self._broken(new, Interrupted))
        store.close()
        again = self.reopen_store(path, MODEL)
        assert again.manifest.model == MODEL
        self._unchanged(again, corpus, new)
        self._same_candidates(again, oracle, random_query(rng))
        again.close()

    def test_another_model_is_refused(self, path: Path) -> None:
        self._only_if_persistent()
        self.make_store(path, MODEL).close()
        with pytest.raises(IndexMismatchError, match=r"'random'.*'other'.*m3rag rebuild"):
            self.reopen_store(path, replace(MODEL, name="other", fingerprint="other-1"))
        self.reopen_store(path, MODEL).close()
