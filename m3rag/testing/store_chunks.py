"""The part of the store suite about single chunks: upsert, deletion, paging, settings, two handles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3rag.errors import IndexLockedError, InputError, StoreError
from m3rag.output import M3Output
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord, Filter, Store
from m3rag.testing.data import MODEL, Example, random_document, random_output, random_query, spoilt_outputs
from m3rag.testing.store_fixtures import StoreFixtures
from m3rag.types import LEGS, Chunk


class StoreChunkTests(StoreFixtures):
    """Single chunks come, change and go, and the documents' records count them."""

    # Upsert

    def test_upserted_chunks_come_back(self, store: Store, rng: np.random.Generator) -> None:
        loose = [random_document(rng, name, chunks=n) for name, n in (("x.md", 70), ("日本/y.md", 3))]
        oracle = MemoryStore(MODEL)
        for example in loose:
            for target in (store, oracle):
                target.upsert(example.chunks, example.output)
        assert store.documents() == [
            DocumentRecord(id=example.record.id, title=example.record.id, version="", chunks=len(example.chunks))
            for example in loose
        ]
        assert store.chunks_of("日本/y.md") == list(loose[1].chunks)
        found = store.representations([chunk.id for chunk in loose[0].chunks])
        assert np.array_equal(found.dense, loose[0].output.dense)
        assert np.array_equal(found.offsets, loose[0].output.offsets)
        self._equal(store, oracle, rng)

    def test_upsert_replaces_by_id(self, filled: Store, oracle: MemoryStore, rng: np.random.Generator) -> None:
        old = filled.get(["a.md@v1#3", "b.md@v1#0"])
        new = [
            replace(chunk, text=f"new {i}", start=7, page=9, headings=("New",), metadata={"lang": "xx"})
            for i, chunk in enumerate(old)
        ]
        output = random_output(rng, 2)
        for target in (filled, oracle):
            target.upsert(new, output)
        assert filled.get([chunk.id for chunk in old]) == new
        assert filled.count() == 62
        assert filled.count(filter={"lang": "xx"}) == 2
        assert np.array_equal(filled.representations([chunk.id for chunk in new]).dense, output.dense)
        self._equal(filled, oracle, rng)

    def test_upsert_joins_a_document_until_its_next_whole_write(
        self, filled: Store, corpus: list[Example], oracle: MemoryStore, rng: np.random.Generator
    ) -> None:
        extra = [_chunk(f"extra {i}", "a.md") for i in range(4)]
        output = random_output(rng, 4)
        for target in (filled, oracle):
            target.upsert(extra, output)
        assert filled.document("a.md") == replace(corpus[0].record, chunks=21)
        assert len(filled.chunks_of("a.md")) == 21
        self._equal(filled, oracle, rng)
        for example in (corpus[0], random_document(rng, "a.md", chunks=2, version="v2")):
            for target in (filled, oracle):
                target.upsert(extra, output)
                target.put_document(example.record, example.parts())
            assert filled.document("a.md") == example.record
            assert filled.chunks_of("a.md") == list(example.chunks)
            self._equal(filled, oracle, rng)

    def test_a_chunk_may_move_to_another_document(
        self, filled: Store, oracle: MemoryStore, rng: np.random.Generator
    ) -> None:
        for document_id in ("new.md", "b.md", "other.md"):
            moved = [replace(chunk, document_id=document_id) for chunk in filled.get(["a.md@v1#0", "日本/c.md@v1#1"])]
            output = random_output(rng, 2)
            for target in (filled, oracle):
                target.upsert(moved, output)
            self._equal(filled, oracle, rng)
        assert filled.document("new.md") is None
        assert [record.chunks for record in filled.documents()] == [16, 40, 2, 4]

    def test_upserts_that_make_no_sense_change_nothing(self, filled: Store, corpus: list[Example], rng: Any) -> None:
        many = [_chunk(f"new {i}", "new.md") for i in range(150)]
        output = random_output(rng, 150)
        refused: list[tuple[list[Chunk], Any, str]] = [
            (many[:3], output[:2], "3 chunks"),
            ([*many[:-1], many[0]], output, "ids must be unique"),
            (many, random_output(rng, 150, model=replace(MODEL, dense_dim=25)), "dimensions"),
            ([*many[:-1], replace(many[-1], id="\udcff")], output, "Unicode"),
            ([*many[:-1], replace(many[-1], document_id="\udcff")], output, "Unicode"),
            ([*many[:-1], replace(many[-1], metadata={"when": object()})], output, "JSON"),
            ([*many[:-1], replace(many[-1], metadata={"nan": float("nan")})], output, "JSON"),
            ([*many[:-1], replace(many[-1], metadata={1: "one"})], output, "strings"),  # type: ignore[dict-item]
        ]
        for chunks, given, message in refused:
            with pytest.raises(InputError, match=message):
                filled.upsert(chunks, given)
            self._unchanged(filled, corpus, None)
        filled.upsert([], output[:0])
        self._unchanged(filled, corpus, None)

    def test_numbers_that_cannot_be_compared_are_refused(
        self, filled: Store, corpus: list[Example], rng: np.random.Generator
    ) -> None:
        good = random_document(rng, "new.md", chunks=4)
        last = M3Output.concatenate([good.output[:3], random_query(rng)])
        for leg, spoilt in spoilt_outputs(last):
            with pytest.raises(InputError, match=f"chunk 'new.md@v1#3': the {leg} .* hold a NaN"):
                filled.upsert(good.chunks, spoilt)
            with pytest.raises(InputError, match=f"chunk 'new.md@v1#3': the {leg} .* hold a NaN"):
                filled.put_document(good.record, replace(good, output=spoilt).parts())
            self._unchanged(filled, corpus, good)

    def test_ids_and_metadata_of_any_form(self, store: Store, rng: np.random.Generator) -> None:
        ids = ["", " ", "ü/ä ö", "鸭子🦆", "a\nb\0c", "e\u0301", "\u00e9", "'; --", "x" * 3000, "1", "../..", "null"]
        chunks = [
            replace(_chunk(id_, id_), metadata={id_: id_, "big": "é" * 1_000_000 if i == 3 else i})
            for i, id_ in enumerate(ids)
        ]
        store.upsert(chunks, random_output(rng, len(ids)))
        assert store.get(ids) == chunks
        assert {record.id for record in store.documents()} == set(ids)
        for chunk in chunks:
            assert store.count(filter={"document_id": chunk.id}) == 1
            assert store.count(filter={chunk.id: {"$eq": chunk.id}}) == 1
        assert store.count(filter={"big": "é" * 1_000_000}) == 1
        assert sorted(chunk.id for chunk in _all_pages(store, None, 5)) == sorted(ids)
        assert store.delete_chunks(ids) == len(ids)
        assert store.documents() == []

    def test_ids_may_come_one_by_one(self, filled: Store, rng: np.random.Generator) -> None:
        ids = ["b.md@v1#3", "a.md@v1#0"]

        def one_by_one() -> Any:
            return iter(ids)

        query = random_query(rng)
        assert [chunk.id for chunk in filled.get(one_by_one())] == ids
        assert np.array_equal(filled.representations(one_by_one()).dense, filled.representations(ids).dense)
        for leg in LEGS:
            assert filled.score(query, leg, one_by_one()) == filled.score(query, leg, ids)
        assert filled.delete_chunks(one_by_one()) == 2

    # Deletion

    def test_delete_chunks(self, filled: Store, oracle: MemoryStore, rng: np.random.Generator) -> None:
        gone = ["a.md@v1#1", "absent", "b.md@v1#39", "a.md@v1#1", "\udcff"]
        for target in (filled, oracle):
            assert target.delete_chunks(gone) == 2
            assert target.delete_chunks(gone) == 0
            assert target.delete_chunks([]) == 0
        assert [record.chunks for record in filled.documents()] == [16, 39, 5]
        self._equal(filled, oracle, rng)

    def test_a_document_goes_with_its_last_chunk_only_if_it_was_made_of_chunks(
        self, filled: Store, corpus: list[Example], rng: np.random.Generator
    ) -> None:
        loose = [_chunk(f"loose {i}", "loose.md") for i in range(2)]
        filled.upsert(loose, random_output(rng, 2))
        assert filled.delete_chunks(["loose 0"]) == 1
        assert filled.document("loose.md") == DocumentRecord("loose.md", "loose.md", "", 1)
        assert filled.delete_chunks(["loose 1"]) == 1
        assert filled.document("loose.md") is None
        assert filled.delete({"document_id": "日本/c.md"}) == 5
        assert filled.document("日本/c.md") == replace(corpus[2].record, chunks=0)
        assert filled.delete_documents(["日本/c.md", "loose.md"]) == 1

    def test_delete_by_filter(self, filled: Store, oracle: MemoryStore, rng: np.random.Generator) -> None:
        filters: list[Filter] = [{"lang": "de", "year": {"$gte": 2002}}, {"no such key": 1}, {"draft": {"$ne": True}}]
        for one in filters:
            assert filled.delete(one) == oracle.delete(one)
            assert filled.count(filter=one) == 0
            self._equal(filled, oracle, rng)
        nothing: list[Any] = [{}, {"$and": []}, {"$and": [{}]}]
        for empty in nothing:
            with pytest.raises(InputError, match="delete_documents"):
                filled.delete(empty)
        with pytest.raises(InputError, match="lang"):
            filled.delete({"lang": None})
        self._equal(filled, oracle, rng)

    # Paging

    @pytest.mark.parametrize("limit", [1, 7, 62, 1000])
    def test_pages_have_every_chunk_once(self, filled: Store, oracle: MemoryStore, limit: int) -> None:
        filters: list[Filter | None] = [None, {"lang": ["de", "zh"]}, {"year": {"$lt": 2002}}, {"lang": "absent"}]
        for one in filters:
            pages = list(_pages(filled, one, limit))
            found = [chunk for page in pages for chunk in page]
            assert all(len(page) == limit for page in pages[:-1])
            assert len({chunk.id for chunk in found}) == len(found)
            assert _by_id(found) == _by_id(_all_pages(oracle, one, 100))
            assert [chunk for page in _pages(filled, one, limit) for chunk in page] == found

    def test_what_stays_is_neither_missed_nor_doubled(self, filled: Store, rng: np.random.Generator) -> None:
        everything = {chunk.id for chunk in _all_pages(filled, None, 100)}
        page, cursor = filled.scan(limit=10)
        following, _ = filled.scan(limit=3, cursor=cursor)
        gone = {page[-1].id, following[0].id, following[1].id}
        assert filled.delete_chunks(sorted(gone)) == 3
        filled.upsert([_chunk(f"late {i}", "late.md") for i in range(20)], random_output(rng, 20))
        rest = []
        while cursor is not None:
            more, cursor = filled.scan(limit=10, cursor=cursor)
            rest += [chunk.id for chunk in more]
        seen = [id_ for id_ in [*(chunk.id for chunk in page), *rest] if not id_.startswith("late")]
        assert len(set(seen)) == len(seen)
        assert set(seen) - gone == everything - gone

    def test_pages_end_and_have_no_chunk_twice_while_chunks_are_replaced(
        self, filled: Store, corpus: list[Example], rng: np.random.Generator
    ) -> None:
        replaced = {chunk.id: chunk for chunk in [*corpus[0].chunks, *corpus[2].chunks]}
        stay = {chunk.id for chunk in corpus[1].chunks}
        for filter in (None, {"draft": [True, False]}):
            page, cursor = filled.scan(limit=7, filter=filter)
            seen = [chunk.id for chunk in page]
            while cursor is not None:
                assert len(seen) < 200, "the pages have no end"
                filled.upsert(list(replaced.values()), random_output(rng, len(replaced)))
                page, cursor = filled.scan(limit=7, filter=filter, cursor=cursor)
                seen += [chunk.id for chunk in page]
            assert len(set(seen)) == len(seen)
            assert stay <= set(seen)

    def test_cursors_of_nobody_are_refused(self, filled: Store) -> None:
        for cursor in ("zzz", "", "-1", "1.5", "9" * 5000, "\udcff", "a.md@v1#0", 5, b"x"):
            with pytest.raises(InputError, match="cursor"):
                filled.scan(cursor=cursor)  # type: ignore[arg-type]

    def test_pages_of_less_than_one_chunk_are_refused(self, filled: Store) -> None:
        for limit in (0, -1, 1.5, "2", None):
            with pytest.raises(InputError, match="limit must be"):
                filled.scan(limit=limit)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="lang"):
            filled.scan(filter={"lang": None})

    # Settings

    def test_settings(self, store: Store) -> None:
        assert dict(store.settings) == {}
        store.update_settings({"weights": [1.0, 0.3, 0.5], "名": {"a": None}, "big": "é" * 100_000})
        store.update_settings({"weights": "1/1/1", "big": None, "absent": None})
        assert dict(store.settings) == {"weights": "1/1/1", "名": {"a": None}}
        nested: list[Any] = []
        for _ in range(100_000):
            nested = [nested]
        refused: list[Any] = [{"x": object()}, {"x": float("nan")}, {1: "x"}, {"y": 1, "x": {1, 2}}, {"x": nested}]
        for one in refused:
            with pytest.raises(InputError, match="settings"):
                store.update_settings(one)
        assert dict(store.settings) == {"weights": "1/1/1", "名": {"a": None}}
        held: Any = store.settings
        held["名"]["a"] = 1
        assert store.settings["名"] == {"a": None}
        assert store.count() == 0
        assert store.documents() == []

    # Life

    def test_changes_are_there_after_reopening(
        self, path: Path, corpus: list[Example], oracle: MemoryStore, rng: np.random.Generator
    ) -> None:
        self._only_if_persistent()
        store: Store = self.make_store(path, MODEL)
        for example in corpus:
            store.put_document(example.record, example.parts())
        loose = random_document(rng, "loose.md", chunks=9)
        for target in (store, oracle):
            target.upsert(loose.chunks, loose.output)
            target.delete_chunks(["loose.md@v1#2", "b.md@v1#7"])
            target.delete({"lang": "zh"})
            target.update_settings({"weights": "1/0.3/1"})
        store.close()
        again = self.reopen_store(path, MODEL)
        self._equal(again, oracle, rng)
        assert dict(again.settings) == {"weights": "1/0.3/1"}
        again.close()

    def test_two_handles(self, path: Path, corpus: list[Example], rng: np.random.Generator) -> None:
        if self.second_handle is None:
            pytest.skip("this store does not say what a second handle does")
        first = self.make_store(path, MODEL)
        first.put_document(corpus[0].record, corpus[0].parts())
        if self.second_handle == "refused":
            with pytest.raises(IndexLockedError):
                self.reopen_store(path, MODEL)
            first.close()
            second = self.reopen_store(path, MODEL)
        else:
            second = self.reopen_store(path, MODEL)
            second.upsert([_chunk("of the second", "x.md")], random_output(rng, 1))
            assert [chunk.id for chunk in first.get(["of the second"])] == ["of the second"]
            assert first.count() == second.count() == 18
            first.close()
        assert second.chunks_of("a.md") == list(corpus[0].chunks)
        second.close()

    def test_a_closed_store_takes_no_chunks(self, path: Path, rng: np.random.Generator) -> None:
        store = self.make_store(path, MODEL)
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.upsert([_chunk("x", "x.md")], random_output(rng, 1))
        calls: list[Callable[[], Any]] = [
            store.scan,
            store.count,
            lambda: store.upsert([], random_output(rng, 0)),
            lambda: store.get([]),
            lambda: store.settings,
            lambda: store.revision,
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()

    def _equal(self, store: Store, oracle: MemoryStore, rng: np.random.Generator) -> None:
        assert store.documents() == oracle.documents()
        assert store.count() == oracle.count()
        assert _by_id(_all_pages(store, None, 50)) == _by_id(_all_pages(oracle, None, 50))
        query = random_query(rng)
        self._same_candidates(store, oracle, query)
        ids = [chunk.id for chunk in _all_pages(oracle, None, 50)]
        for leg in LEGS:
            assert store.score(query, leg, ids) == pytest.approx(oracle.score(query, leg, ids), abs=2e-3)


def _chunk(id: str, document_id: str) -> Chunk:
    return Chunk(id=id, document_id=document_id, text=f"text of {id}", start=0, end=8 + len(id), metadata={"n": 1})


def _pages(store: Store, filter: Filter | None, limit: int) -> Iterator[list[Chunk]]:
    page, cursor = store.scan(filter=filter, limit=limit)
    yield page
    while cursor is not None:
        page, cursor = store.scan(filter=filter, limit=limit, cursor=cursor)
        yield page


def _all_pages(store: Store, filter: Filter | None, limit: int) -> list[Chunk]:
    return [chunk for page in _pages(store, filter, limit) for chunk in page]


def _by_id(chunks: list[Chunk]) -> dict[str, Chunk]:
    return {chunk.id: chunk for chunk in chunks}
