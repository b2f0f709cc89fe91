from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from m3rag.encoder import M3Encoder
from m3rag.scoring import LEG_SCORES
from m3rag.training import representation
from m3rag.training.representation import Texts, leg_scores
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainee import Trainee, load_trainee

QUERIES = ["where do ducks swim", "what do swans eat", "ducks"]
PASSAGES = [
    "Ducks swim on ponds. Ducks!",
    "Swans eat grass and weeds",
    "",
    "The pond is deep <unk> and cold",
    "鸭子在池塘里",
]


def loaded(checkpoint: Path) -> Trainee:
    return load_trainee(str(checkpoint), TrainingSettings(), device=torch.device("cpu"))


def test_the_numbers_in_training_are_those_of_the_encoder(tiny_checkpoint: Path) -> None:
    encoder, trainee = M3Encoder(str(tiny_checkpoint), device="cpu", colbert_dtype="float32"), loaded(tiny_checkpoint)
    output = encoder.encode_documents(PASSAGES)
    with torch.no_grad():
        found = trainee.represent(trainee.pack(PASSAGES, "document"))
        queries = trainee.represent(trainee.pack(QUERIES, "query"))
    assert np.abs(found.dense.numpy() - output.dense).max() <= 1e-4
    assert np.abs(found.colbert.numpy() - output.colbert).max() <= 1e-4
    assert found.lengths.tolist() == np.diff(output.offsets).tolist()
    scores = leg_scores(queries, found)
    for leg, score in LEG_SCORES.items():
        expected = score(encoder.encode_queries(QUERIES), output)
        assert np.abs(getattr(scores, leg).numpy() - expected).max() <= 1e-4, leg


def test_prefixes_and_pooling_are_those_of_the_recipe(small_mini: Path) -> None:
    encoder, trainee = M3Encoder(str(small_mini), device="cpu", colbert_dtype="float32"), loaded(small_mini)
    texts = ["where lives the duck", "the pond " * 40]
    for role, output in (("query", encoder.encode_queries(texts)), ("document", encoder.encode_documents(texts))):
        with torch.no_grad():
            found = trainee.represent(trainee.pack(texts, role))  # type: ignore[arg-type]
        assert np.abs(found.dense.numpy() - output.dense).max() <= 1e-4
        assert np.abs(found.colbert.numpy() - output.colbert).max() <= 1e-4


def random_texts(seed: int, lengths: list[int]) -> Texts:
    rng = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    return Texts(
        dense=representation.unit(torch.randn(len(lengths), 8, generator=rng)),
        colbert=representation.unit(torch.randn(tokens, 4, generator=rng)).requires_grad_(),
        lexical=torch.rand(tokens, generator=rng),
        ids=torch.randint(5, 20, (tokens,), generator=rng),
        lengths=torch.tensor(lengths),
    )


def test_blocks_change_neither_scores_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for most in (1 << 26, 40, 1):
        monkeypatch.setattr(representation, "SIMILARITIES", most)
        queries, passages = random_texts(0, [3, 1, 4]), random_texts(1, [5, 1, 7, 2, 2])
        scores = leg_scores(queries, passages).colbert
        scores.square().sum().backward()
        assert queries.colbert.grad is not None
        assert passages.colbert.grad is not None
        found.append((scores.detach(), queries.colbert.grad, passages.colbert.grad))
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert torch.allclose(one, same, atol=1e-6)


def test_texts_are_taken_with_their_tokens() -> None:
    texts = random_texts(0, [2, 3, 1])
    taken = texts.take(torch.tensor([2, 0]))
    assert taken.ids.tolist() == [*texts.ids[5:].tolist(), *texts.ids[:2].tolist()]
    assert taken.owners.tolist() == [0, 1, 1]
    both = Texts.concatenate([texts, taken])
    assert both.lengths.tolist() == [2, 3, 1, 1, 2]
