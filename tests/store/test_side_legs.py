"""The side store: packing is exact, views equal brute force whatever came and went, readers see one moment."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3rag.errors import IndexMismatchError, StoreError
from m3rag.output import M3Output
from m3rag.scoring import dense_scores, lexical_scores
from m3rag.store.codec import CODECS, Codec
from m3rag.store.protocol import FORMAT, DocumentRecord
from m3rag.store.side_legs import SideLegs
from m3rag.store.side_legs_read import find_record
from m3rag.store.side_legs_rows import pack, unpack
from m3rag.store.view import Segment, View, near_best
from m3rag.testing.data import DENSE_ONLY, MODEL, random_document, random_output, random_query
from m3rag.types import ModelInfo


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "side.sqlite3"


@pytest.mark.parametrize("model", [MODEL, DENSE_ONLY], ids=["three legs", "one leg"])
@pytest.mark.parametrize("n", [0, 1, 40])
@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_representations_come_back_from_bytes(codec: Codec, model: ModelInfo, n: int) -> None:
    output = random_output(np.random.default_rng(1), n, model=model)
    found = unpack(list(pack(output, codec)), model, codec)
    assert np.array_equal(found.dense, output.dense)
    assert np.array_equal(found.lexical.toarray(), output.lexical.toarray())
    kept = codec.decode(codec.encode(output.colbert), dim=model.colbert_dim) if len(output.colbert) else output.colbert
    assert np.array_equal(found.colbert, kept)
    assert np.array_equal(found.offsets, output.offsets)


# Each step: how many chunks come, and which share of those alive goes.
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.1, 0.7, 1.0])), max_size=12))
def test_a_view_equals_brute_force(steps: list[tuple[int, float]]) -> None:
    rng = np.random.default_rng(len(steps))
    view, rows = View.of([]), 0
    held: dict[str, M3Output] = {}
    for count, share in steps:
        alive = np.flatnonzero(view.alive)
        removed = alive[rng.random(len(alive)) < share]
        for id_ in view.ids(removed):
            del held[id_]
        output = random_output(rng, count)
        names = [f"c{rows + i}" for i in range(count)]
        added = Segment.of(np.arange(rows, rows + count), names, output.dense, output.lexical.tocsc())
        view = view.changed(removed=removed, added=added)
        rows += count
        held.update(zip(names, output, strict=True))
    alive = np.flatnonzero(view.alive)
    assert len(view) == len(held) == len(alive)
    assert view.ids(alive) == list(held)
    assert list(view.find([*held, "absent"]).items()) == list(zip(held, alive.tolist(), strict=True))
    assert list(view.rows) == sorted(view.rows)
    assert sum(len(segment.ids) for segment in view.segments) <= 2 * len(held)
    sizes = [len(segment.ids) for segment in view.segments]
    assert all(2 * later <= earlier for earlier, later in pairwise(sizes))
    if not held:
        return
    query, everything = random_query(rng), M3Output.concatenate(list(held.values()))
    assert view.dense_scores(query, alive) == pytest.approx(dense_scores(query, everything)[0], abs=1e-6)
    assert view.lexical_scores(query, alive) == pytest.approx(lexical_scores(query, everything)[0], abs=1e-6)
    assert np.array_equal(view.dense_at(alive), everything.dense)
    few = alive[::7]
    best = view.best_dense(query, few, 2)
    assert set(best) >= set(few[np.argsort(-view.dense_scores(query, few), kind="stable")[:2]])


def test_the_nearly_best_are_kept_with_all_ties() -> None:
    scores = np.array([0.1, 0.5, 0.5, 0.9, 0.5, 0.2])
    assert near_best(scores, 1).tolist() == [3]
    assert near_best(scores, 2).tolist() == [1, 2, 3, 4]
    assert near_best(scores, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert near_best(scores[:0], 3).tolist() == []


def test_the_same_vector_has_the_same_score_anywhere() -> None:
    rng = np.random.default_rng(2)
    output = random_output(rng, 333)
    same = M3Output.concatenate([output, output[[5] * 50], random_output(rng, 17), output[[5]]])
    ids = [str(i) for i in range(len(same))]
    view = View.of([Segment.of(np.arange(len(same)), ids, same.dense, same.lexical.tocsc())])
    places = np.array([5, *range(333, 383), 400])
    for _ in range(5):
        query = random_query(rng)
        assert len(set(view.dense_scores(query, places).tolist())) == 1
        assert len(set(view.lexical_scores(query, places).tolist())) == 1


def put(side: SideLegs, name: str, *, version: str = "v1") -> None:
    example = random_document(np.random.default_rng(1), name, chunks=4, version=version)
    side.stage(example.chunks, example.output)
    with side.reading() as (view, _):
        old = view.find(f"{name}@v1#{i}" for i in range(4)) if version != "v1" else {}
    side.commit(removed=np.array(sorted(old.values()), np.int64), put=example.record)


def test_a_reader_sees_one_moment(path: Path) -> None:
    SideLegs.create(path, MODEL, {})
    side = SideLegs(path)
    put(side, "a.md")
    with side.reading() as (view, connection):
        put(side, "a.md", version="v2")
        assert view.ids(np.flatnonzero(view.alive)) == [f"a.md@v1#{i}" for i in range(4)]
        record = find_record(connection, "a.md")
        assert record is not None
        assert record.version == "v1"
    with side.reading() as (view, connection):
        assert view.ids(np.flatnonzero(view.alive)) == [f"a.md@v2#{i}" for i in range(4)]
    side.close()


def test_what_is_staged_is_marked_and_gone_at_the_next_open(path: Path) -> None:
    SideLegs.create(path, MODEL, {})
    side = SideLegs(path)
    put(side, "a.md")
    example = random_document(np.random.default_rng(1), "b.md", chunks=3)
    side.stage(example.chunks, example.output)
    side.close()
    side.close()
    side = SideLegs(path)
    assert side.marked == {chunk.id for chunk in example.chunks}
    with side.reading() as (view, connection):
        assert len(view) == 4
        assert connection.execute("SELECT count(*) FROM legs").fetchone() == (4,)
    side.unmark()
    side.close()
    side = SideLegs(path)
    assert side.marked == frozenset()
    side.close()


def test_counts_follow_the_chunks(path: Path) -> None:
    SideLegs.create(path, MODEL, {})
    side = SideLegs(path)
    put(side, "a.md")
    loose = [
        replace(chunk, document_id="b") for chunk in random_document(np.random.default_rng(1), "b", chunks=2).chunks
    ]
    side.stage(loose, random_output(np.random.default_rng(1), 2))
    side.commit(removed=np.array([0]))
    with side.reading() as (_, connection):
        record = find_record(connection, "a.md")
        assert record is not None
        assert (record.chunks, record.version) == (3, "v1")
        assert find_record(connection, "b") == DocumentRecord(id="b", title="b", version="", chunks=2)
    side.commit(removed=np.array([1, 2, 3, 4, 5]))
    with side.reading() as (_, connection):
        record = find_record(connection, "a.md")
        assert record is not None
        assert record.chunks == 0
        assert find_record(connection, "b") is None
    side.close()


def test_a_newer_format_is_refused(path: Path) -> None:
    SideLegs.create(path, MODEL, {})
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"""UPDATE meta SET value = '{{"format": {FORMAT + 1}}}' WHERE key = 'manifest'""")
    connection.close()
    with pytest.raises(IndexMismatchError, match="upgrade"):
        SideLegs(path)


@pytest.mark.parametrize("what", ["no database", "another's", "empty", "manifest"])
def test_what_is_no_side_file_is_named(path: Path, what: str) -> None:
    if what == "no database":
        path.write_bytes(b"years of work " * 1000)
    elif what == "empty":
        path.touch()
    elif what == "another's":
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("CREATE TABLE thesis (chapter TEXT)")
        connection.close()
    else:
        SideLegs.create(path, MODEL, {"manifest": "{"})
    with pytest.raises(StoreError, match=r"side\.sqlite3"):
        SideLegs(path)


def test_a_file_that_vanished_is_not_made_anew(path: Path) -> None:
    with pytest.raises(StoreError, match=r"side\.sqlite3"):
        SideLegs(path)
    assert not path.exists()


def test_a_file_that_cannot_be_written_is_named(path: Path) -> None:
    missing = path.parent / "missing" / "side.sqlite3"
    with pytest.raises(StoreError, match=r"no index can be made at .*side.sqlite3 \(unable to open database file\)"):
        SideLegs.create(missing, MODEL, {})
