from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from m3rag.encoder import M3Encoder
from m3rag.errors import InputError
from m3rag.scoring import LEG_SCORES
from m3rag.training.data import load_examples
from m3rag.training.heads import Heads, HeadTraining, batches, leg_scores, main, train_heads
from m3rag.training.loss import LegScores, contrastive_loss, distillation_loss, m3_loss
from m3rag.training.states import token_states

QUERIES = ["where do ducks swim", "what do swans eat", "ducks"]
PASSAGES = ["Ducks swim on ponds. Ducks!", "Swans eat grass and weeds", "", "The pond is deep <unk> and cold"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for source in ("birds", "fish"):
        rows = [
            {"query": f"{source} question {i}", "pos": [f"{source} {i} is here"], "neg": [f"{source} {i + 1}", "none"]}
            for i in range(12)
        ]
        (folder / f"{source}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def test_scores_in_training_are_the_scores_of_the_encoder(tiny_checkpoint: Path) -> None:
    encoder = M3Encoder(str(tiny_checkpoint), device="cpu", colbert_dtype="float32")
    queries, passages = token_states(encoder, QUERIES, "query"), token_states(encoder, PASSAGES, "document")
    heads = Heads(passages.states, 64, seed=0)
    heads.colbert_linear, heads.sparse_linear = encoder.network.colbert_linear, encoder.network.sparse_linear
    with torch.no_grad():
        found = leg_scores(heads, queries, torch.arange(3), passages, torch.arange(4))
    q, p = encoder.encode_queries(QUERIES), encoder.encode_documents(PASSAGES)
    for leg, score in LEG_SCORES.items():
        # token states are kept in float16
        assert np.abs(getattr(found, leg).numpy() - score(q, p)).max() <= 2e-2, leg


def test_losses_follow_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = LegScores(*(torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(3)))
    targets = torch.tensor([0, 2, 5, 2])
    ensemble = scores.dense + 0.3 * scores.lexical + scores.colbert

    def infonce(scores: torch.Tensor) -> float:
        s = scores.numpy()
        return float(np.mean([-np.log(np.exp(s[i, t]) / np.exp(s[i]).sum()) for i, t in enumerate(targets)]))

    def distilled(scores: torch.Tensor) -> float:
        s, e = scores.numpy(), ensemble.numpy()
        teacher = np.exp(e) / np.exp(e).sum(1, keepdims=True)
        return float(np.mean((-teacher * np.log(np.exp(s) / np.exp(s).sum(1, keepdims=True))).sum(1)))

    plain = (infonce(scores.dense) + 0.1 * infonce(scores.lexical) + infonce(scores.colbert) + infonce(ensemble)) / 4
    taught = (distilled(scores.dense) + 0.1 * distilled(scores.lexical) + distilled(scores.colbert)) / 3
    assert contrastive_loss(scores, targets).item() == pytest.approx(plain)
    assert distillation_loss(scores).item() == pytest.approx(taught)
    assert m3_loss(scores, targets).item() == pytest.approx((plain + taught) / 2)
    assert m3_loss(scores, targets, distill=False).item() == pytest.approx(plain)


def test_the_teacher_learns_nothing_from_its_pupils() -> None:
    dense = torch.randn(2, 3, requires_grad=True)
    scores = LegScores(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
    teacher_only = distillation_loss(LegScores(dense.detach(), *scores[1:]))
    assert not teacher_only.requires_grad


def test_batches_are_of_one_source_and_hold_each_example_once(data: Path) -> None:
    examples = load_examples(data, per_source=100, negatives=1, seed=0)
    found = list(batches(examples, batch_size=5, rng=np.random.default_rng(0)))
    assert sorted(i for b in found for i in b) == list(range(len(examples)))
    assert all(len({examples[i].source for i in b}) == 1 for b in found)


def test_examples_are_drawn_evenly_and_repeatably(data: Path) -> None:
    drawn = load_examples(data, per_source=5, negatives=1, seed=3)
    assert drawn == load_examples(data, per_source=5, negatives=1, seed=3)
    assert drawn != load_examples(data, per_source=5, negatives=1, seed=4)
    assert [e.source for e in drawn] == ["birds"] * 5 + ["fish"] * 5
    assert all(len(e.negatives) == 1 for e in drawn)


def test_a_bad_line_is_named(data: Path) -> None:
    with (data / "fish.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"query": "no passages"}\n')
    with pytest.raises(InputError, match=r"fish\.jsonl:13"):
        load_examples(data, per_source=5, negatives=1, seed=0)
    with pytest.raises(InputError, match=r"holds no \.jsonl"):
        load_examples(data / "nothing", per_source=5, negatives=1, seed=0)


def test_training_lowers_the_loss(tiny_checkpoint: Path, data: Path) -> None:
    encoder = M3Encoder(str(tiny_checkpoint), device="cpu")
    examples = load_examples(data, per_source=12, negatives=1, seed=0)
    texts = list(dict.fromkeys(p for e in examples for p in (e.positive, *e.negatives)))
    queries = token_states(encoder, [e.query for e in examples], "query")
    passages = token_states(encoder, texts, "document")
    index = {text: i for i, text in enumerate(texts)}

    def loss(heads: Heads) -> float:
        with torch.no_grad():
            scores = leg_scores(heads, queries, torch.arange(24), passages, torch.arange(len(texts)))
            targets = torch.tensor([index[e.positive] for e in examples])
            return float(m3_loss(LegScores(*(s / 0.02 for s in scores)), targets))

    before = train_heads(examples, queries, passages, index, HeadTraining(colbert_dim=16, epochs=0))
    after = train_heads(examples, queries, passages, index, HeadTraining(colbert_dim=16, epochs=10, batch_size=8))
    assert loss(after) < loss(before)


def test_the_command_writes_heads_that_load(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    from m3rag.encoder.checkpoint import Checkpoint
    from m3rag.encoder.model import load_heads

    out = tmp_path / "out"
    main([str(data), "--out", str(out), "--base", str(tiny_checkpoint), "--colbert-dim", "16", "--epochs", "1"])
    (out / "config.json").write_bytes((tiny_checkpoint / "config.json").read_bytes())
    sparse, colbert = load_heads(Checkpoint("trained", out, Checkpoint.find(str(tiny_checkpoint)).recipe), hidden=64)
    assert (sparse.out_features, colbert.out_features) == (1, 16)
    assert json.loads((out / "training.json").read_text())["settings"]["epochs"] == 1
