"""Killed at random moments and run again, a sync ends where a clean run does."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import Settings
from m3rag.testing import HashEncoder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")

CHILD = """
import sys
from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
print("started", flush=True)
with KnowledgeBase(sys.argv[1], encoder=HashEncoder(), settings=Settings(chunk_tokens=16, overlap_tokens=0)) as kb:
    report = kb.sync(sys.argv[2], remove_most=True, on_result=lambda result: print(result.document_id, flush=True))
print("finished", report.counts, flush=True)
"""


def paragraphs(name: str, count: int) -> str:
    return "\n\n".join(f"{name} tells in paragraph {i} of ducks {i} and ponds {i} and rain." for i in range(count))


def make(root: Path, rng: random.Random) -> None:
    for i in range(240):
        path = root / f"{i % 7}" / f"{i:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(paragraphs(f"File {i}", 70 if i % 40 == 0 else rng.randint(1, 4)))


def change(root: Path, rng: random.Random) -> None:
    """Change, rename, remove and add some files."""
    files = sorted(path for path in root.rglob("*.txt"))
    for path in rng.sample(files, 12):
        kind = rng.choice(["change", "rename", "remove", "add"])
        if kind == "change":
            path.write_text(path.read_text() + f"\n\nAn afterthought {rng.random()} about the geese.")
        elif kind == "rename":
            path.rename(path.with_name(f"r{rng.randrange(10**9)}.txt"))
        elif kind == "remove":
            path.unlink()
        else:
            path.with_name(f"n{rng.randrange(10**9)}.txt").write_text(paragraphs("New", rng.randint(1, 3)))


def contents(kb: KnowledgeBase) -> dict[str, tuple[str, list[str]]]:
    found = {}
    for record in kb.documents():
        chunks = kb.store.chunks_of(record.id)
        assert len(chunks) == record.chunks
        held = kb.store.representations([chunk.id for chunk in chunks])
        expected = HashEncoder().encode_documents([chunk.encoded_text for chunk in chunks])
        np.testing.assert_allclose(held.dense, expected.dense, atol=1e-5)
        found[record.id] = (record.source, [chunk.text for chunk in chunks])
    assert kb.store.count() == sum(len(texts) for _, texts in found.values())
    return found


def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    rng = random.Random(7)
    root, index = tmp_path / "root", tmp_path / "index"
    make(root, rng)
    command = [sys.executable, "-c", CHILD, str(index), str(root)]
    kills = 0
    while kills < 10:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "started\n"
            time.sleep(rng.uniform(0.05, 1.2))
            child.send_signal(signal.SIGKILL)
            printed, errors = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL or "finished" in printed, errors
        kills += child.returncode == -signal.SIGKILL
        change(root, rng)
    settings = Settings(chunk_tokens=16, overlap_tokens=0)
    with KnowledgeBase(index, encoder=HashEncoder(), settings=settings) as kb:
        report = kb.sync(root, remove_most=True)
        assert report.count("failed") == 0
        survived = contents(kb)
        assert kb.sync(root).count("unchanged") == len(survived)
    with KnowledgeBase(tmp_path / "clean", encoder=HashEncoder(), settings=settings) as kb:
        kb.sync(root)
        assert contents(kb) == survived
    assert sorted(survived) == sorted(path.relative_to(root).as_posix() for path in root.rglob("*.txt"))


def test_what_was_printed_as_done_is_there(tmp_path: Path) -> None:
    root, index = tmp_path / "root", tmp_path / "index"
    make(root, random.Random(3))
    command = [sys.executable, "-c", CHILD, str(index), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        done = [child.stdout.readline().strip() for _ in range(80)]
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
    with KnowledgeBase(index, encoder=HashEncoder(), settings=Settings(chunk_tokens=16, overlap_tokens=0)) as kb:
        held = contents(kb)
    assert set(done) <= set(held)
    assert len(held) < 240
