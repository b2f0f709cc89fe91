"""The file of a leg: kept through kills, shared by processes, refused or replaced when it is not ours."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from m3rag.bm25 import BM25Leg, Tokenizer, encoder_tokenizer, english_tokenizer
from m3rag.bm25.file import FORMAT
from m3rag.errors import ConfigurationError, IndexMismatchError, InputError, StoreError
from m3rag.store import MemoryStore
from m3rag.testing import HashEncoder
from m3rag.testing.data import MODEL, random_output
from m3rag.types import Chunk


def store_of(*texts: str) -> MemoryStore:
    store = MemoryStore(MODEL)
    chunks = [Chunk(f"c{i:04}", f"d{i % 7}", text, 0, len(text), metadata={"n": i}) for i, text in enumerate(texts)]
    store.upsert(chunks, random_output(np.random.default_rng(0), len(chunks)))
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bm25.sqlite3"


@pytest.fixture
def filled(path: Path) -> Path:
    BM25Leg(path).sync(store_of("duck", "duck swan", "goose"))
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_looking_makes_no_file(path: Path) -> None:
    BM25Leg(path)
    assert not path.exists()


def test_an_empty_store_is_remembered_too(path: Path) -> None:
    BM25Leg(path).sync(MemoryStore(MODEL))
    assert BM25Leg(path).candidates("duck", k=1) == []


def test_the_formula_may_change_from_one_use_to_the_next(filled: Path) -> None:
    fresh = BM25Leg(k1=0.6, b=0.2, method="okapi", backend="rank-bm25")
    fresh.sync(store_of("duck", "duck swan", "goose"))
    again = BM25Leg(filled, k1=0.6, b=0.2, method="okapi", backend="rank-bm25")
    assert again.candidates("duck goose", k=5) == fresh.candidates("duck goose", k=5)


def test_another_tokenizer_is_refused(filled: Path) -> None:
    for tokenize in (english_tokenizer(), encoder_tokenizer(HashEncoder()), Tokenizer("mine-2", str.split)):
        with pytest.raises(IndexMismatchError, match=r"of the tokenizer 'words-1.*give that tokenizer, or delete"):
            BM25Leg(filled, tokenize=tokenize)
    with pytest.raises(ConfigurationError, match=r"need a name: wrap the function as Tokenizer\("):
        BM25Leg(filled, tokenize=str.split)


def test_the_tokenizer_of_another_python_is_no_other_tokenizer(
    filled: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of("duck", "duck swan", "goose")
    before = BM25Leg(filled)
    expected = before.candidates("duck swan", k=5)
    monkeypatch.setattr(unicodedata, "unidata_version", "99.0.0")
    leg = BM25Leg(filled)
    assert "unicode-99.0.0: it is made again from the store" in caplog.text
    leg.sync(store)
    assert leg.candidates("duck swan", k=5) == BM25Leg(filled).candidates("duck swan", k=5) == expected
    before.sync(store_of("duck", "duck swan", "goose", "duck duck"))  # the other Python still has it open
    assert len(before) == 4
    assert caplog.text.count("it is made again") == 2


def test_a_newer_format_is_refused(filled: Path) -> None:
    change(filled, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(IndexMismatchError, match=f"format {FORMAT + 1}.*pip install -U m3rag"):
        BM25Leg(filled)


def test_a_file_of_something_else_is_neither_used_nor_touched(tmp_path: Path, path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        BM25Leg(tmp_path)
    path.write_text("my notes, long enough to be taken for a page" * 50, encoding="utf-8")
    with pytest.raises(InputError, match="is not a BM25 file"):
        BM25Leg(path)
    assert path.read_text(encoding="utf-8").startswith("my notes")
    path.unlink()
    change(path, "CREATE TABLE birds (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="is not a BM25 file"):
        BM25Leg(path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be used"):
        BM25Leg(tmp_path / "file" / "bm25").sync(store_of("duck"))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        lambda path: change(path, "UPDATE vocabulary SET token = 'swan2' WHERE token = 'swan'"),
        lambda path: change(path, "UPDATE chunks SET bag = x'0000000001000000' WHERE id = 'c0001'"),
        lambda path: change(path, "UPDATE chunks SET id = 'other' WHERE id = 'c0001'"),
        lambda path: change(path, "UPDATE chunks SET bag = 'text' WHERE id = 'c0001'"),
        lambda path: change(path, """UPDATE owners SET metadata = '{"n": 9}' WHERE document_id = 'd1'"""),
        lambda path: change(path, "DELETE FROM vocabulary WHERE token = 'duck'"),
        lambda path: change(path, "DELETE FROM owners"),
        lambda path: change(path, "DELETE FROM chunks WHERE id = 'c0002'"),
        lambda path: change(path, "DELETE FROM about"),
        lambda path: change(path, "DROP TABLE chunks"),
    ],
)
def test_a_damaged_file_is_named_and_made_again(
    filled: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of("duck", "duck swan", "goose")
    expected = BM25Leg(filled).candidates("duck swan", k=5)
    damage(filled)
    with caplog.at_level(logging.WARNING):
        leg = BM25Leg(filled)
    assert f"{filled} is damaged" in caplog.text
    with pytest.raises(InputError, match=r"call sync\(store\)"):
        leg.candidates("duck", k=5)
    leg.sync(store)
    assert leg.candidates("duck swan", k=5) == BM25Leg(filled).candidates("duck swan", k=5) == expected


def test_flipped_bits_are_found(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_of("duck", "duck swan", "goose")
    expected = BM25Leg(filled).candidates("duck swan goose", k=5)
    whole = filled.read_bytes()
    rng = np.random.default_rng(7)
    for position in rng.integers(100, len(whole), 300).tolist():
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(rng.integers(8))
        filled.write_bytes(flipped)
        try:
            leg = BM25Leg(filled)
            leg.sync(store)
        except (InputError, StoreError):  # an identity that is not ours any more is refused, not overwritten
            continue
        assert leg.candidates("duck swan goose", k=5) == expected, position


def test_damage_that_comes_while_it_is_open(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    leg = BM25Leg(filled)
    _cut(filled)
    leg.sync(store_of("duck", "duck swan", "goose", "duck duck"))
    assert "is damaged" in caplog.text
    assert len(leg) == len(BM25Leg(filled)) == 4


def test_a_deleted_file_is_made_again(filled: Path) -> None:
    leg = BM25Leg(filled)
    filled.unlink()
    leg.sync(store_of("duck"))
    assert len(BM25Leg(filled)) == len(leg) == 1


def test_two_legs_share_a_file(filled: Path) -> None:
    one, other = BM25Leg(filled), BM25Leg(filled)
    store = store_of("duck", "pond pond", "goose", "heron")
    one.sync(store)
    other.sync(store)
    larger = store_of("duck", "pond pond", "goose", "heron", "lake", "reed")
    other.sync(larger)
    one.sync(larger)
    for query in ("pond", "lake", "duck reed heron", "swan"):
        assert one.candidates(query, k=9) == other.candidates(query, k=9) == BM25Leg(filled).candidates(query, k=9)


def test_words_of_what_was_removed_are_let_go(filled: Path) -> None:
    other = BM25Leg(filled)
    leg = BM25Leg(filled)
    for i in range(20):
        leg.sync(store_of("duck", " ".join(f"secret{i}x{j}" for j in range(50)), "goose pond"))
    leg.sync(store_of("duck", "heron swan", "goose pond"))
    other.sync(store_of("duck", "heron swan", "goose pond"))
    assert b"secret" not in filled.read_bytes()
    for query in ("duck", "pond swan goose", "heron", "secret3x4"):
        fresh = BM25Leg()
        fresh.sync(store_of("duck", "heron swan", "goose pond"))
        expected = fresh.candidates(query, k=9)
        assert leg.candidates(query, k=9) == other.candidates(query, k=9) == expected
        assert BM25Leg(filled).candidates(query, k=9) == expected
    leg.sync(MemoryStore(MODEL))
    assert b"heron" not in filled.read_bytes()
    leg.sync(store_of("heron"))
    assert [id_ for id_, _ in BM25Leg(filled).candidates("heron", k=9)] == ["c0000"]


def _follow_many(path: Path, first: int) -> None:
    texts = [f"duck number{i}" for i in range(60)]
    leg = BM25Leg(path)
    for i in range(first, 60, 2):
        leg.sync(store_of(*texts[: i + 1]))
    leg.sync(store_of(*texts))


def test_two_processes_at_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_follow_many, args=(path, first)) for first in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    leg = BM25Leg(path)
    assert len(leg) == 60
    assert [id_ for id_, _ in leg.candidates("number17", k=3)] == ["c0017"]


WRITER = """
import sys, pathlib
sys.path[:0] = sys.argv[2:]
from test_file import store_of
from m3rag.bm25 import BM25Leg
leg = BM25Leg(sys.argv[1])
i = 0
while True:
    i += 1
    leg.sync(store_of(*(f"duck word{j} round{i}" for j in range(200))))
    print(i, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("delay", [0.0, 0.004, 0.011, 0.023])
def test_a_kill_leaves_the_state_before_or_after(path: Path, delay: float) -> None:
    command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(2):
            assert writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        done = 2 + len(writer.stdout.readlines())
    leg = BM25Leg(path)
    rounds = {i for i in (done, done + 1) if leg.candidates(f"round{i}", k=500)}
    assert len(rounds) == 1
    assert len(leg.candidates(f"round{rounds.pop()}", k=500)) == len(leg) == 200
    leg.sync(store_of("swan"))
    assert len(BM25Leg(path)) == 1
