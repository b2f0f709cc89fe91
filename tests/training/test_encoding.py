from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from m3rag.encoder.batching import plan_batches
from m3rag.training.data import Example
from m3rag.training.encoding import FrozenEncoding, LiveEncoding, encode, token_states
from m3rag.training.loss import m3_loss
from m3rag.training.representation import Texts, leg_scores
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainee import Trainee, load_trainee

WHOLE = 100_000


def loaded(checkpoint: Path, **options: Any) -> Trainee:
    torch.manual_seed(0)
    trainee = load_trainee(str(checkpoint), TrainingSettings(**options), device=torch.device("cpu"))
    trainee.network.train()
    return trainee


def gradients(trainee: Trainee, queries: Texts, passages: Texts) -> dict[str, torch.Tensor]:
    targets = torch.arange(len(queries.lengths))
    trainee.network.zero_grad()
    m3_loss(leg_scores(queries, passages).scaled(0.1), targets).backward()
    return {name: p.grad.clone() for name, p in trainee.trained.items() if p.grad is not None}


@pytest.fixture(scope="module")
def texts(examples: list[Example]) -> tuple[list[str], list[str]]:
    chosen = examples[::9]
    return [e.query for e in chosen], [*(e.positives[0] for e in chosen), *(e.negatives[1] for e in chosen)]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("tokens", [1, 25])
def test_sub_batches_give_the_gradients_of_the_whole(
    small_checkpoint: Path, texts: tuple[list[str], list[str]], method: str, tokens: int
) -> None:
    trainee = loaded(small_checkpoint, method=method)
    found = [
        gradients(
            trainee,
            encode(trainee, texts[0], "query", sub_batch_tokens=most),
            encode(trainee, texts[1], "document", sub_batch_tokens=most),
        )
        for most in (WHOLE, tokens)
    ]
    assert found[0].keys() == found[1].keys() == trainee.trained.keys()
    assert max(float(g.abs().max()) for g in found[0].values()) > 0.01
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-5), name


def test_a_sub_batch_computed_again_has_the_same_dropout(
    small_checkpoint: Path, texts: tuple[list[str], list[str]]
) -> None:
    trainee = loaded(small_checkpoint, dropout=0.3)

    def kept_in_memory() -> list[Texts]:
        """The same sub-batches without computing anything twice."""
        found = []
        for part, role in zip(texts, ("query", "document"), strict=True):
            packed = trainee.pack(part, role)  # type: ignore[arg-type]
            plan = plan_batches(packed.lengths, batch_tokens=25)
            order = torch.tensor([int(i) for rows in plan for i in rows]).argsort()
            found.append(Texts.concatenate([trainee.represent(packed.take(rows)) for rows in plan]).take(order))
        return found

    def again() -> list[Texts]:
        return [
            encode(trainee, part, role, sub_batch_tokens=25)  # type: ignore[arg-type]
            for part, role in zip(texts, ("query", "document"), strict=True)
        ]

    found = []
    for compute in (kept_in_memory, again):
        torch.manual_seed(5)
        found.append(gradients(trainee, *compute()))
    torch.manual_seed(6)
    other = gradients(trainee, *again())
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])
    assert not all(torch.allclose(found[0][name], other[name], atol=1e-5) for name in found[0])


def test_kept_token_states_give_what_the_network_gives(small_mini: Path, texts: tuple[list[str], list[str]]) -> None:
    trainee = loaded(small_mini, method="heads")
    states = [
        token_states(trainee, part, role, batch_tokens=25)  # type: ignore[arg-type]
        for part, role in zip(texts, ("query", "document"), strict=True)
    ]
    frozen, live = FrozenEncoding(trainee, *states), LiveEncoding(trainee, *texts, sub_batch_tokens=WHOLE)
    rows = [5, 0, 3]
    for one, other in ((frozen.queries(rows), live.queries(rows)), (frozen.passages(rows), live.passages(rows))):
        for kept, computed in zip(one, other, strict=True):
            # Token states are kept in float16.
            assert torch.allclose(kept.float(), computed.float(), atol=2e-2)


def test_progress_counts_every_text(small_checkpoint: Path, texts: tuple[list[str], list[str]]) -> None:
    told: list[int] = []
    token_states(loaded(small_checkpoint), texts[1], "document", batch_tokens=40, progress=told.append)
    assert len(told) > 1
    assert sum(told) == len(texts[1])
