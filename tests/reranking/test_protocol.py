from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import m3rag.reranking
from m3rag.reranking.order import reordered
from m3rag.types import Chunk, Hit


def test_importing_the_package_loads_no_torch() -> None:
    program = "import m3rag.reranking, sys; m3rag.reranking.Reranker; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_every_name_is_there() -> None:
    for name in m3rag.reranking.__all__:
        assert getattr(m3rag.reranking, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        m3rag.reranking.Nothing  # noqa: B018


def test_a_hit_that_was_not_looked_at_never_stands_above_one_that_was() -> None:
    hits = [Hit(Chunk(key, "d", "", 0, 0), score) for key, score in (("a", 9.0), ("b", 8.0), ("c", 7.0))]
    found = reordered(hits, np.array([-5, -2], np.float32), k=None)
    assert [(hit.chunk.id, hit.score, hit.scores.rerank) for hit in found] == [
        ("b", -2.0, -2.0),
        ("a", -5.0, -5.0),
        ("c", 7.0, None),
    ]
    assert [hit.score for hit in hits] == [9.0, 8.0, 7.0]
