from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3rag.errors import ModelError
from m3rag.reranking.pairs import Pair
from m3rag.reranking.scorer import PairScorer, relevance

CPU = torch.device("cpu")
LENGTHS = [5, 9, 3, 9, 30, 1, 7, 2]
PAIRS = [Pair(np.full(n, n), np.zeros(n, np.int64)) for n in LENGTHS]


class Scarce:
    """Scores a pair by its length, and has memory for so many pairs."""

    max_length = 100
    labels = 1
    words = 100

    def __init__(self, room: int) -> None:
        self.room = room
        self.computed: list[int] = []

    def __call__(self, pairs: Sequence[Pair]) -> torch.Tensor:
        if len(pairs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.computed += [len(pair.ids) for pair in pairs]
        return torch.tensor([[float(len(pair.ids))] for pair in pairs])


def scores_of(scorer: PairScorer) -> list[float]:
    scores = np.full(len(PAIRS), np.nan)
    for rows, found in scorer.run(PAIRS):
        assert np.isnan(scores[rows]).all()
        scores[rows] = found
    found_scores: list[float] = scores.tolist()
    return found_scores


@pytest.mark.parametrize("room", [1, 2, 3, 99])
def test_only_the_batch_that_did_not_fit_is_computed_again(room: int) -> None:
    scarce = Scarce(room)
    assert scores_of(PairScorer(scarce, device=CPU, batch_tokens=40)) == LENGTHS
    assert scarce.computed == sorted(LENGTHS, reverse=True)


def test_one_pair_too_large_for_memory_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ModelError, match="one pair of 30 tokens does not fit in the memory of cpu: lower max_length"):
        scores_of(PairScorer(Scarce(0), device=CPU, batch_tokens=40))


def test_other_errors_are_not_swallowed() -> None:
    class Broken(Scarce):
        def __call__(self, pairs: Sequence[Pair]) -> Any:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        scores_of(PairScorer(Broken(9), device=CPU, batch_tokens=40))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_child_does_not_wait_for_threads_of_its_parent(xlmr: Path) -> None:
    code = """
import os, signal, sys, warnings
import torch
from m3rag.reranking import CrossEncoderReranker
from m3rag.errors import ModelError
warnings.simplefilter("ignore")
torch.set_num_threads(2)
reranker = CrossEncoderReranker(sys.argv[1], device="cpu")
pairs = [("who quacks?", "a duck " * 100)] * 20
assert len(reranker.compute_score(pairs)) == 20
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    try:
        reranker.compute_score(pairs)
        os._exit(1)
    except ModelError as error:
        if "start processes by spawn" not in str(error):
            os._exit(2)
    torch.set_num_threads(1)
    os._exit(0 if len(reranker.compute_score(pairs)) == 20 else 3)
status = os.waitpid(pid, 0)[1]
assert status == 0, status
"""
    arguments = [sys.executable, "-c", code, str(xlmr)]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr


def test_one_label_is_the_score_and_of_two_the_log_odds() -> None:
    logits = torch.tensor([[1.0, 4.0], [0.5, -2.0]])
    assert relevance(logits[:, :1]).tolist() == [1.0, 0.5]
    assert relevance(logits).tolist() == [3.0, -2.5]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_error(value: float) -> None:
    with pytest.raises(ModelError, match="float32"):
        relevance(torch.tensor([[1.0], [value]]))
