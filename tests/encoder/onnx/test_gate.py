"""The gate lets through what ranks as float32 does, and nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch

from m3rag.encoder import M3Encoder
from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.model import M3Model
from m3rag.encoder.onnx import gate, smooth
from m3rag.encoder.onnx.builder import GRAPH_FILE, WEIGHT_FILE
from m3rag.encoder.onnx.export import cached_export
from m3rag.encoder.onnx.load import _attempt, export_int8, load_onnx
from m3rag.encoder.onnx.session import OnnxNetwork
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.testing import HashEncoder

CPU = torch.device("cpu")

GOOD = gate.Figures(
    texts=200,
    tokens=9000,
    questions=300,
    dense_cosine_min=0.998,
    dense_cosine_mean=0.999,
    token_cosine_mean=0.999,
    lexical_top5=0.97,
    lexical_top5_texts=0.85,
    colbert_ndcg=90.0,
    colbert_ndcg_loss=0.1,
)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("dense_cosine_min", 0.9949),
        ("lexical_top5", 0.949),
        ("colbert_ndcg_loss", 0.51),
        ("dense_cosine_min", math.nan),
        ("lexical_top5", math.nan),
        ("colbert_ndcg_loss", math.nan),
    ],
)
def test_each_bound_refuses_alone(figure: str, value: float) -> None:
    changed: dict[str, Any] = {figure: value}
    assert GOOD.misses() == []
    (miss,) = replace(GOOD, **changed).misses()
    assert miss.startswith(f"{figure} ")


def test_figures_outlive_the_process(tmp_path: Path) -> None:
    GOOD.write(tmp_path)
    assert gate.Figures.read(tmp_path) == GOOD


def test_a_trial_asks_for_pieces_of_its_texts() -> None:
    texts = ["short", *(f"{number} " * 200 for number in range(120))]
    trial = gate.Trial.of(texts)
    assert trial.passages == texts
    assert len(trial.questions) == 240
    for question, answer in zip(trial.questions, trial.answers, strict=True):
        assert len(question) == gate.QUESTION_CHARACTERS
        assert question in texts[answer]


def test_too_few_texts_measure_nothing() -> None:
    with pytest.raises(InputError, match="--texts"):
        gate.Trial.of(["a text " * 100] * 5)


def test_an_encoder_beside_itself_loses_nothing() -> None:
    encoder = HashEncoder()
    trial = gate.Trial.of([f"passage {i} on {i * 7} " * 20 for i in range(120)])
    encoded = gate.encode(encoder, trial)
    figures = gate.compare(encoded, encoded, answers=trial.answers)
    assert figures.dense_cosine_min == pytest.approx(1)
    assert figures.token_cosine_mean == pytest.approx(1, abs=1e-3)
    assert (figures.lexical_top5, figures.lexical_top5_texts, figures.colbert_ndcg_loss) == (1, 1, 0)
    assert (figures.texts, figures.questions) == (120, 240)


def test_worse_representations_lose() -> None:
    encoder = HashEncoder()
    trial = gate.Trial.of([f"passage {i} on {i * 7} " * 20 for i in range(120)])
    exact = gate.encode(encoder, trial)
    shifted = exact.passages[np.roll(np.arange(120), 1)]
    figures = gate.compare(exact, exact._replace(passages=shifted), answers=trial.answers)
    assert len(figures.misses()) == 3


@pytest.fixture(scope="module")
def xquad(shared_data: Path) -> gate.Trial:
    """A hundred real passages and the real questions that they answer."""
    folder = shared_data / "retrieval" / "xquad" / "mono" / "en"

    def rows(name: str) -> dict[str, str]:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        return {row["_id"]: row["text"] for row in map(json.loads, lines)}

    passages, queries = dict(list(rows("corpus.jsonl").items())[:100]), rows("queries.jsonl")
    judged = [line.split("\t") for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]]
    asked = [(queries[q], list(passages).index(p)) for q, p, _ in judged if p in passages]
    return gate.Trial(list(passages.values()), [q for q, _ in asked], [p for _, p in asked])


def float_encoder(folder: Path) -> M3Encoder:
    return M3Encoder(str(folder), device="cpu", dtype="float32", colbert_dtype="float32")


def test_int8_of_mini_is_good_and_is_what_the_encoder_then_uses(
    cache: Path, mini_folder: Path, xquad: gate.Trial
) -> None:
    checkpoint = Checkpoint.find(str(mini_folder))
    with pytest.raises(ConfigurationError, match=r"no int8 export.*m3rag export .* --int8"):
        load_onnx(checkpoint, device=CPU, int8=True)
    figures = export_int8(checkpoint, float_encoder(mini_folder), xquad)
    assert figures.misses() == []
    assert not figures.smoothed
    assert figures.texts == 100
    assert figures.questions > 400
    assert figures.dense_cosine_min >= 0.999
    assert figures.token_cosine_mean >= 0.998
    assert figures.colbert_ndcg >= 96
    assert isinstance(load_onnx(checkpoint, device=CPU, int8=True), OnnxNetwork)
    with pytest.raises(ConfigurationError, match=r"int8 is for CPUs"):
        load_onnx(checkpoint, device=torch.device("cuda"), int8=True)


@pytest.fixture(scope="module")
def uneven_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a channel so large that bytes have no steps left for the others."""
    from safetensors.torch import load_file, save_file

    folder = copytree(tiny_checkpoint, tmp_path_factory.mktemp("uneven") / "checkpoint")
    state = load_file(folder / "model.safetensors")
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        state[f"{layer}.attention.output.LayerNorm.weight"][3] *= 1000
        state[f"{layer}.intermediate.dense.weight"][:, 3] /= 1000
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_channels_of_which_one_is_large_are_made_even(
    cache: Path, uneven_checkpoint: Path, xquad: gate.Trial, tmp_path: Path
) -> None:
    checkpoint, encoder = Checkpoint.find(str(uneven_checkpoint)), float_encoder(uneven_checkpoint)
    exact = gate.encode(encoder, xquad)
    plain = _attempt(checkpoint, encoder, xquad, exact, work=tmp_path)
    figures = export_int8(checkpoint, encoder, xquad)
    assert figures.smoothed
    assert not plain.smoothed
    assert plain.dense_cosine_min < 0.995 <= figures.dense_cosine_min
    assert plain.lexical_top5 < figures.lexical_top5
    # The encoder compared with is as it was.
    assert isinstance(encoder.network, M3Model)
    assert np.array_equal(gate.encode(encoder, xquad).passages.dense, exact.passages.dense)


def test_filler_and_channels_of_nothing_divide_nothing(uneven_checkpoint: Path) -> None:
    checkpoint, encoder = Checkpoint.find(str(uneven_checkpoint)), float_encoder(uneven_checkpoint)
    backbone = encoder.network.backbone
    rows_for = backbone.rows_for
    found = smooth.divisors(checkpoint, encoder, ["a duck"])
    backbone.rows_for = lambda tokens: tokens + 1000  # whose rows are of another token
    assert all(
        np.array_equal(found[site], other) for site, other in smooth.divisors(checkpoint, encoder, ["a duck"]).items()
    )
    assert backbone.rows_for(1) == 1001
    backbone.rows_for = rows_for
    assert len(found) == 4 * len(backbone.layers)
    for each in found.values():
        assert np.isfinite(each).all()
        assert each.max() / each.min() <= 1 / smooth.LEAST
    with torch.no_grad():
        backbone.layers[0].get_submodule("out").bias.zero_()  # and all that the site is given
        backbone.layers[0].get_submodule("qkv").bias.zero_()
        backbone.words.weight.zero_()
        backbone.positions.weight.zero_()
        backbone.norm.bias.zero_()
    assert "layers.0.qkv" not in smooth.divisors(checkpoint, encoder, ["a duck"])


def test_a_failure_leaves_the_export_that_was_there(
    cache: Path, mini_folder: Path, xquad: gate.Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, encoder = Checkpoint.find(str(mini_folder)), float_encoder(mini_folder)
    export_int8(checkpoint, encoder, xquad)
    before = {path: path.stat().st_ino for path in cached_export(checkpoint, int8=True).iterdir()}
    monkeypatch.setitem(gate.AT_LEAST, "dense_cosine_min", 0.99999)  # so that a second attempt is made

    def fails(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("m3rag.encoder.onnx.load.divisors", fails)
    with pytest.raises(ModelError, match="No space left"):
        export_int8(checkpoint, encoder, xquad)
    folder = cached_export(checkpoint, int8=True)
    assert {path: path.stat().st_ino for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".partial")] == []


def test_a_model_that_int8_ruins_is_refused(
    cache: Path, tiny_checkpoint: Path, xquad: gate.Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gate.AT_LEAST, "dense_cosine_min", 0.99999)  # finer than bytes are
    checkpoint = Checkpoint.find(str(tiny_checkpoint))
    figures = export_int8(checkpoint, float_encoder(tiny_checkpoint), xquad)
    assert figures.smoothed  # which did not help
    assert any(miss.startswith("dense_cosine_min") for miss in figures.misses())
    kept = {path.name for path in cached_export(checkpoint, int8=True).iterdir()}
    assert not kept & {GRAPH_FILE, WEIGHT_FILE}
    with pytest.raises(ConfigurationError, match=r"loses too much: dense_cosine_min 0\.99\d+ < 0.99999.*--texts"):
        load_onnx(checkpoint, device=CPU, int8=True)
