"""Token vectors beside the engine: on disk before a point names them, there while one does, gone some time after."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m3rag.store.edge_tokens as module
from m3rag.errors import InputError, StoreError
from m3rag.store import MemoryStore, QdrantEdgeStore
from m3rag.store.codec import CODECS
from m3rag.store.edge_engine import EdgeEngine
from m3rag.store.edge_folder import SHARD
from m3rag.store.edge_seal import SEAL
from m3rag.store.edge_tokens import TOKENS, EdgeTokens
from m3rag.store.sqlite_file import SqliteFile
from m3rag.store.token_rows import TokenRows
from m3rag.testing.data import DENSE_ONLY, MODEL, random_document, random_output, random_query
from m3rag.types import LEGS, Chunk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docs.index"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def rows_in(path: Path) -> set[int]:
    """The rows of the file of an open index, as another reader sees them: what is on disk."""
    connection = sqlite3.connect(path / SHARD / TOKENS)
    found = {row for (row,) in connection.execute("SELECT row FROM legs")}
    connection.close()
    return found


def named(store: QdrantEdgeStore) -> set[int]:
    """The rows that points name."""
    pages = store._engine.records(payload=["row"], vectors=[], page=100)
    return {point.payload["row"] for page in pages for point in page if point.payload}


def test_no_point_is_written_before_its_token_vectors_nor_outlives_them(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNNAMED_AT_LEAST", 0)
    update, keep, seen = EdgeEngine.update, EdgeTokens.keep, list[str]()

    def checked(engine: EdgeEngine, operation: Any) -> None:
        update(engine, operation)
        assert named(store) <= rows_in(path)
        seen.append("update")

    def kept(tokens: EdgeTokens, rows: Any) -> None:
        keep(tokens, rows)
        assert named(store) == rows_in(path)
        seen.append("keep")

    monkeypatch.setattr(EdgeEngine, "update", checked)
    monkeypatch.setattr(EdgeTokens, "keep", kept)
    oracle = MemoryStore(MODEL, codec="int8")
    with QdrantEdgeStore.create(path, MODEL) as store:
        for version in "1234":
            for name in ("a.md", "b.md"):
                example = random_document(rng, name, chunks=90, version=version)
                for target in (store, oracle):
                    target.put_document(example.record, example.parts(size=40))
                    target.upsert(example.chunks[:70], random_output(np.random.default_rng(1), 70))
                    target.delete_chunks([chunk.id for chunk in example.chunks[5:9]])
        assert seen.count("update") > 40
        assert seen.count("keep") > 4
        query, ids = random_query(rng), [chunk.id for chunk in oracle.scan(limit=1000)[0]]
        assert len(ids) == 172
        assert store.score(query, "colbert", ids) == pytest.approx(oracle.score(query, "colbert", ids), abs=2e-3)
        np.testing.assert_array_equal(store.representations(ids).colbert, oracle.representations(ids).colbert)


def test_what_nothing_names_is_few_and_the_disk_gets_its_room_back(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNNAMED_AT_LEAST", 10)
    wide = replace(MODEL, colbert_dim=256)
    with QdrantEdgeStore.create(path, wide) as store:
        example = random_document(rng, "a.md", chunks=20, model=wide)
        for _ in range(30):
            store.upsert(example.chunks, example.output)
            assert len(rows_in(path)) <= 20 + 10 + 20
        large = [Chunk(f"large {i}", "large.md", "text", 0, 4) for i in range(300)]
        output = random_output(rng, 300, model=wide)
        store.upsert(large, output)
        ids = [chunk.id for chunk in large]
        store.delete_chunks(ids[10:])
        assert len(rows_in(path)) <= 20 + 10 + 10
    small = (path / SHARD / TOKENS).stat().st_size
    with QdrantEdgeStore.open(path) as store:
        store.upsert(large, output)
    assert (path / SHARD / TOKENS).stat().st_size > 2 * small


def test_a_crash_leaves_rows_that_the_next_tidying_removes(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = random_document(rng, "a.md", chunks=20)
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.upsert(example.chunks, example.output)
        before = named(store)
        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(EdgeEngine, "update", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    store.upsert(example.chunks, example.output)
        assert (named(store), len(rows_in(path))) == (before, 80)
    monkeypatch.setattr(module, "UNNAMED_AT_LEAST", 0)
    with QdrantEdgeStore.open(path) as store:
        store.delete_chunks([example.chunks[0].id])
        assert named(store) == rows_in(path)
        assert len(rows_in(path)) == 19


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_reading_sees_its_moment_whatever_is_removed_meanwhile(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNNAMED_AT_LEAST", 0)
    old, new = (random_document(rng, "a.md", chunks=20, version=version) for version in "12")
    query, ids = random_query(rng), [chunk.id for chunk in old.chunks]
    scores = TokenRows.scores

    def meanwhile(tokens: TokenRows, question: Any, rows: Sequence[int]) -> Any:
        writer = threading.Thread(target=lambda: store.put_document(new.record, new.parts()))
        writer.start()  # on a thread: a search must not hold what writers need
        writer.join(60)
        assert not writer.is_alive()
        assert not rows_in(path) & set(rows), "nothing was removed, the test tests nothing"
        return scores(tokens, question, rows)

    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(old.record, old.parts())
        expected = store.score(query, "colbert", ids)
        with monkeypatch.context() as patch:
            patch.setattr(TokenRows, "scores", meanwhile)
            assert store.score(query, "colbert", ids) == expected
        assert store.score(query, "colbert", ids) == {}
        assert len(store.score(query, "colbert", [chunk.id for chunk in new.chunks])) == 20


def test_closed_while_it_is_read_it_opens_again(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = random_document(rng, "a.md", chunks=20)
    query, ids = random_query(rng), [chunk.id for chunk in example.chunks]
    scores = TokenRows.scores

    def meanwhile(tokens: TokenRows, question: Any, rows: Sequence[int]) -> Any:
        store.close()
        return scores(tokens, question, rows)

    store = QdrantEdgeStore.create(path, MODEL)
    store.put_document(example.record, example.parts())
    expected = store.score(query, "colbert", ids)
    with monkeypatch.context() as patch:
        patch.setattr(TokenRows, "scores", meanwhile)
        assert store.score(query, "colbert", ids) == expected
    with QdrantEdgeStore.open(path) as again:
        assert again.score(query, "colbert", ids) == expected


def test_scores_are_the_same_for_the_same_tokens_anywhere(path: Path, rng: np.random.Generator) -> None:
    output = random_output(rng, 40)
    output = output[np.flatnonzero(np.diff(output.offsets) > 1)]
    same = output[[0] * 3 + list(range(len(output))) + [0] * 300]
    chunks = [Chunk(f"{i:03}", f"{i % 5}.md", "text", 0, 4) for i in range(len(same))]
    query = random_query(rng)
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.upsert(chunks, same)
        found = store.score(query, "colbert", [chunk.id for chunk in chunks])
        alone = store.score(query, "colbert", ["000"])["000"]
        assert {found[f"{i:03}"] for i in (0, 1, 2, 3, len(same) - 300, len(same) - 1)} == {alone}
        codec = CODECS["int8"]
        assert alone == codec.colbert_scores(query.colbert, codec.encode(output[0].colbert), output[0].offsets)[0]
        best = [id_ for id_, score in store.candidates(query, "colbert", k=len(same)) if score == alone]
        assert best == sorted(best)
        assert len(best) == 304


def test_filters_and_half_written_documents_hold_for_colbert_too(path: Path, rng: np.random.Generator) -> None:
    old, new = (random_document(rng, "a.md", chunks=60, version=version) for version in "12")
    oracle, query = MemoryStore(MODEL, codec="int8"), random_query(rng)
    oracle.put_document(old.record, old.parts())
    found = list[Any]()

    def parts() -> Iterator[Any]:
        for part in new.parts(size=20):
            yield part
            found.append(store.candidates(query, "colbert", k=9, filter={"lang": "de"}))
            assert store.score(query, "colbert", [chunk.id for chunk in part[0]]) == {}

    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(old.record, old.parts())
        store.put_document(new.record, parts())
        expected = oracle.candidates(query, "colbert", k=9, filter={"lang": "de"})
        assert len(found) == 3
        for one in found:
            assert [id_ for id_, _ in one] == [id_ for id_, _ in expected]
            assert [score for _, score in one] == pytest.approx([score for _, score in expected], abs=2e-3)


def test_a_flipped_bit_is_named_by_the_first_search_that_reads_it(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=20)
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts())
    file = path / SHARD / TOKENS
    connection = sqlite3.connect(file)
    (row,) = connection.execute("SELECT row FROM legs WHERE length(colbert) > 20 LIMIT 1").fetchone()
    with connection:
        connection.execute("UPDATE legs SET colbert = CAST(zeroblob(length(colbert)) AS BLOB) WHERE row = ?", (row,))
    connection.close()
    (path / SEAL).unlink()
    query, ids = random_query(rng), [chunk.id for chunk in example.chunks]
    with QdrantEdgeStore.open(path) as store:
        wrong = rf"{TOKENS} is damaged \(the token vectors of row {row} are not what was written\): restore"
        for _ in range(2):
            with pytest.raises(StoreError, match=wrong):
                store.score(query, "colbert", ids)
            with pytest.raises(StoreError, match=wrong):
                store.representations(ids)
        assert store.candidates(query, "dense", k=5)
        with sqlite3.connect(file) as other:
            other.execute("DELETE FROM legs WHERE row = ?", (row,))
        other.close()
        with pytest.raises(StoreError, match=f"the token vectors of row {row} are not there"):
            store.score(query, "colbert", ids)


def test_a_file_that_is_missing_is_named_and_not_made_anew(path: Path) -> None:
    QdrantEdgeStore.create(path, MODEL).close()
    (path / SEAL).unlink()
    (path / SHARD / TOKENS).unlink()
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"{TOKENS} is missing: restore the index's folder from a backup"):
            QdrantEdgeStore.open(path)


def test_token_vectors_too_long_for_the_codec_change_nothing(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=100)
    output = random_output(rng, 100)
    output.colbert[-1] = 60_000
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts())
        before = store.representations([chunk.id for chunk in example.chunks])
        with pytest.raises(InputError, match="longer than 65,504"):
            store.upsert(example.chunks, output)
        after = store.representations([chunk.id for chunk in example.chunks])
        assert np.array_equal(before.dense, after.dense)


def test_a_model_without_colbert_has_rows_without_bytes(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=20, model=DENSE_ONLY)
    with QdrantEdgeStore.create(path, DENSE_ONLY) as store:
        store.put_document(example.record, example.parts())
        kept = store.representations([chunk.id for chunk in example.chunks])
        assert np.array_equal(kept.dense, example.output.dense)
        assert kept.colbert.shape == (0, 0)
        assert len(rows_in(path)) == 20


def test_an_index_opens_beside_a_reader_of_the_file(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether of another program, or a search in a store that was closed: what it needs stays in SQLite's log."""
    example = random_document(rng, "a.md", chunks=40)
    query, ids = random_query(rng), [chunk.id for chunk in example.chunks]
    QdrantEdgeStore.create(path, MODEL).close()
    with QdrantEdgeStore.open(path) as store:
        reader = sqlite3.connect(path / SHARD / TOKENS)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM legs").fetchall()
        store.put_document(example.record, example.parts())
        expected = store.score(query, "colbert", ids)
    monkeypatch.setattr("m3rag.store.sqlite_file.BUSY", 250_000)  # beyond the test's own limit, did it wait
    for _ in range(2):
        with QdrantEdgeStore.open(path) as store:
            assert store.score(query, "colbert", ids) == expected
    reader.close()
    with QdrantEdgeStore.open(path) as store:
        assert store.score(query, "colbert", ids) == expected


def test_a_copy_that_lost_the_log_gives_no_other_chunks_vectors(path: Path, rng: np.random.Generator) -> None:
    old, new = (random_document(rng, f"{version}.md", chunks=30) for version in "12")
    copy = path.with_name("copy.index")
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(old.record, old.parts())
        store._engine.flush()
        shutil.copytree(path, copy)
    for file in (copy / SHARD).glob(f"{TOKENS}-*"):
        file.unlink()
    with QdrantEdgeStore.open(copy) as store:
        store.put_document(new.record, new.parts())
        query = random_query(rng)
        with pytest.raises(
            StoreError, match=r"the token vectors of row \d+ are not there\): restore the index's folder"
        ):
            store.score(query, "colbert", [chunk.id for chunk in old.chunks])
        assert len(store.score(query, "colbert", [chunk.id for chunk in new.chunks])) == 30


def test_what_cannot_be_removed_is_no_error_of_the_change(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "UNNAMED_AT_LEAST", 5)
    example = random_document(rng, "a.md", chunks=20)
    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts())
        before = rows_in(path)
        with monkeypatch.context() as patch:
            patch.setattr(module.TokenFile, "shrink", fails)
            store.delete_chunks([chunk.id for chunk in example.chunks[:9]])
        assert "not all removed: the disk is full" in caplog.text
        assert rows_in(path) < before
        with monkeypatch.context() as patch:
            patch.setattr(EdgeTokens, "keep", fails)
            store.delete_chunks([chunk.id for chunk in example.chunks[9:15]])
        assert len(rows_in(path)) == 11
        store.update_settings({"a": 1})
        assert len(rows_in(path)) == store.count() == 5


def fails(*_: Any) -> None:
    raise StoreError("the disk is full")


def test_others_search_while_rows_are_removed(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNNAMED_AT_LEAST", 0)
    a, b = (random_document(rng, name, chunks=20) for name in ("a.md", "b.md"))
    query, ids = random_query(rng), [chunk.id for chunk in b.chunks]
    found, waiting = list[Any](), list[bool]()
    keep = EdgeTokens.keep

    def meanwhile(tokens: EdgeTokens, named: Any) -> None:
        searcher = threading.Thread(target=lambda: found.append(store.score(query, "colbert", ids)))
        searcher.start()
        searcher.join(60)
        waiting.append(searcher.is_alive())
        keep(tokens, named)

    with QdrantEdgeStore.create(path, MODEL) as store:
        for example in (a, b):
            store.put_document(example.record, example.parts())
        monkeypatch.setattr(EdgeTokens, "keep", meanwhile)
        store.delete_documents(["a.md"])
        assert waiting == [False]
        assert found == [store.score(query, "colbert", ids)]
        assert len(rows_in(path)) == 20


def test_the_log_is_emptied_once_its_readers_end(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers that follow one another without a gap would else let it grow for ever."""
    wide = replace(MODEL, colbert_dim=256)
    example = random_document(rng, "a.md", chunks=60, model=wide)
    log, checkpoint = path / SHARD / f"{TOKENS}-wal", SqliteFile.checkpoint
    monkeypatch.setattr(module, "LOG_BYTES", 1 << 20)
    monkeypatch.setattr(module, "READERS_END", 60.0)
    waited = list[float]()

    def watched(file: SqliteFile, *, wait: float = 0) -> bool:
        waited.append(wait)
        if wait:
            ends.set()
        return checkpoint(file, wait=wait)

    with QdrantEdgeStore.create(path, wide) as store:
        monkeypatch.setattr(SqliteFile, "checkpoint", watched)
        for round in range(1, 3):
            begun, ends = threading.Event(), threading.Event()

            def read(begun: threading.Event = begun, ends: threading.Event = ends) -> None:
                with store._engine.tokens.reading():
                    begun.set()
                    ends.wait(60)

            reader = threading.Thread(target=read)
            reader.start()
            assert begun.wait(60)
            while not ends.is_set():
                before = log.stat().st_size
                store.upsert(example.chunks, example.output)
            reader.join()
            assert before > 1 << 19
            assert log.stat().st_size == 0
            assert [wait for wait in waited if wait] == [60.0] * round


def test_a_reader_that_does_not_end_is_not_waited_for_again_and_again(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 1 << 16)
    monkeypatch.setattr(module, "READERS_END", 0.001)
    example, tried = random_document(rng, "a.md", chunks=60), list[float]()
    checkpoint = SqliteFile.checkpoint

    def watched(file: SqliteFile, *, wait: float = 0) -> bool:
        tried.extend([wait] if wait else [])
        return checkpoint(file, wait=wait)

    monkeypatch.setattr(SqliteFile, "checkpoint", watched)
    with QdrantEdgeStore.create(path, MODEL) as store, store._engine.tokens.reading():
        while not tried:
            store.upsert(example.chunks, example.output)
        for i in range(9):
            store.update_settings({"i": i})
        assert len(tried) == 1
        while len(tried) == 1:
            store.upsert(example.chunks, example.output)


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreError])
def test_an_error_that_is_kept_keeps_no_old_moment(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """As a notebook keeps the last one, with all its frames."""
    monkeypatch.setattr(module, "UNNAMED_AT_LEAST", 0)
    old, new = (random_document(rng, "a.md", chunks=20, version=version) for version in "12")
    query = random_query(rng)

    def broken(*_: Any) -> None:
        raise error("now")

    with QdrantEdgeStore.create(path, MODEL) as store:
        store.put_document(old.record, old.parts())
        with monkeypatch.context() as patch:
            patch.setattr("m3rag.store.token_rows.check_codes", broken)
            with pytest.raises(error) as kept:
                store.score(query, "colbert", [chunk.id for chunk in old.chunks])
        store.put_document(new.record, new.parts())
        assert len(store.score(query, "colbert", [chunk.id for chunk in new.chunks])) == 20
        assert kept.value.__traceback__ is not None


def test_a_handler_that_closes_the_store_in_a_write_is_told_so(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=20)
    store = QdrantEdgeStore.create(path, MODEL)

    def write() -> None:
        with store._engine.tokens._file.writing() as connection:
            store.close()
            connection.execute("SELECT 1")

    with pytest.raises(StoreError, match=r"tokens.sqlite is closed: open it again"):
        write()
    with QdrantEdgeStore.open(path) as again:
        again.put_document(example.record, example.parts())


def test_a_closed_store_answers_no_search(path: Path, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=20)
    store = QdrantEdgeStore.create(path, MODEL)
    store.put_document(example.record, example.parts())
    query = random_query(rng)
    for _ in range(3):
        store.candidates(query, "dense", k=3)
    store._view.wait()
    store.close()
    for leg in LEGS:
        with pytest.raises(StoreError, match="is closed: open it again"):
            store.candidates(query, leg, k=3)
        with pytest.raises(StoreError, match="is closed: open it again"):
            store.score(query, leg, [example.chunks[0].id])


@pytest.mark.parametrize("codec", CODECS)
def test_arrays_in_any_order_are_scored_alike(codec: str) -> None:
    rng, of = np.random.default_rng(1), CODECS[codec]
    codes, query = of.encode(rng.standard_normal((30, 24))), rng.standard_normal((5, 24)).astype(np.float32)
    offsets = np.array([0, 7, 30])
    expected = of.colbert_scores(query, codes, offsets)
    for other in (np.asfortranarray(query), query[::-1]):
        np.testing.assert_allclose(of.colbert_scores(other, codes, offsets), expected, rtol=1e-5)
    found = of.colbert_scores(query, np.asfortranarray(codes), offsets)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
