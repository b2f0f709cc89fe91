"""Cross-encoders are trained, killed, taken up again, and load here and in transformers alike."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.reranking import CrossEncoderReranker
from m3rag.training.data import Example
from m3rag.training.reranker import train_reranker
from m3rag.training.run import Report
from m3rag.training.settings import RerankerSettings

QUICK: dict[str, Any] = {"batch_size": 10, "epochs": 2, "learning_rate": 3e-3, "sub_batch_tokens": 150, "negatives": 2}
PAIRS = [
    ("where lives the red duck", "the red duck does swim in the pond"),
    ("where lives the red duck", ""),
    ("", "a heron is not in the marsh"),
    ("which colour", "the colour of the spring " * 20),
]


def start(examples: list[Example], base: Path, out: Path, **changes: Any) -> list[Report]:
    reports: list[Report] = []
    settings = RerankerSettings(**{**QUICK, **changes})
    train_reranker(examples, base, out, settings=settings, device="cpu", on_progress=reports.append)
    return reports


def transformers_scores(folder: Path, pairs: list[tuple[str, str]]) -> np.ndarray[Any, Any]:
    """The logits of transformers alone on the tokens that our tokenizer gives, pair by pair."""
    from transformers import AutoModelForSequenceClassification

    from m3rag.reranking.pairs import PairTokenizer

    model, told = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    length = 64
    tokens = PairTokenizer(folder / "tokenizer.json").encode(pairs, query_max_length=48, max_length=length).pairs
    with torch.inference_mode():
        found = [
            model.eval()(input_ids=torch.tensor(p.ids[None]), token_type_ids=torch.tensor(p.types[None])).logits[0]
            for p in tokens
        ]
    assert {len(logits) for logits in found} == {1}
    return torch.cat(found).numpy()


@pytest.fixture(scope="module", params=["xlm-roberta", "bert", "bert without a pooler", "bert reranker"])
def base(request: pytest.FixtureRequest) -> Path:
    names = {"xlm-roberta": "small_checkpoint", "bert": "small_bert", "bert without a pooler": "small_bert_bare"}
    found: Path = request.getfixturevalue(names.get(request.param, "small_bert_reranker"))
    return found


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_result_loads_in_transformers_and_here_alike(
    method: Any, base: Path, examples: list[Example], tmp_path: Path
) -> None:
    out = tmp_path / "m"
    start(examples[:20], base, out, method=method, learning_rate=1e-2)
    ours = CrossEncoderReranker(str(out), device="cpu", max_length=64, query_max_length=48).compute_score(PAIRS)
    assert np.abs(ours - transformers_scores(out, PAIRS)).max() <= 1e-5
    assert np.ptp(ours) > 1e-2
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert not (out / "m3rag.json").exists()
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    backbone = {
        name.split(".", 1)[1]: tensor for name, tensor in after.items() if "embeddings" in name or "layer." in name
    }
    plain = {name.removeprefix("bert."): tensor for name, tensor in before.items()}
    moved = {name for name, tensor in backbone.items() if not torch.equal(tensor, plain[name])}
    if method == "lora":
        assert moved == {n for n in backbone if "layer." in n and "Norm" not in n and n.endswith("weight")}
    else:
        assert {"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"} < moved
        assert len(moved) > 30


def test_from_a_base_that_does_not_say_what_its_tokenizer_is(
    small_bert_bare: Path, examples: list[Example], tmp_path: Path
) -> None:
    """As `mini`: XLM-RoBERTa's vocabulary in a model of the type bert, and no `tokenizer_config.json`."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base, out = tmp_path / "base", tmp_path / "m"
    shutil.copytree(small_bert_bare, base)
    (base / "tokenizer_config.json").unlink()
    start(examples[:20], base, out)
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForSequenceClassification.from_pretrained(out)
    assert tokenizer.model_max_length == 64
    questions, passages = zip(*PAIRS, strict=True)
    with torch.inference_mode():
        tokens = tokenizer(questions, passages, padding=True, truncation="only_second", return_tensors="pt")
        theirs = model.eval()(**tokens).logits[:, 0].numpy()
    ours = CrossEncoderReranker(str(out), device="cpu", max_length=64, query_max_length=48).compute_score(PAIRS)
    assert np.abs(ours - theirs).max() <= 1e-5


def test_a_reranker_learns_and_what_it_says_of_itself_is_right(
    small_bert: Path, examples: list[Example], tmp_path: Path
) -> None:
    out = tmp_path / "m"
    reports = start(
        examples, small_bert, out, method="lora", epochs=6, learning_rate=1e-2, held_out=10, evaluate_every=9
    )
    steps = reports[-1].steps
    assert [r.step for r in reports] == list(range(steps + 1))
    assert [r.step for r in reports if r.held_out] == sorted({0, *range(9, steps, 9), steps})
    first, last = reports[0].held_out, reports[-1].held_out
    assert first is not None
    assert last is not None
    assert last["rerank"] > first["rerank"] + 0.2
    losses = [r.loss["total"] for r in reports if r.loss]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    record = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert (record["examples"], record["held_out_examples"], record["steps"]) == (70, 10, steps)
    assert (record["settings"]["method"], record["settings"]["lora_rank"]) == ("lora", 8)
    assert record["held_out_ndcg@10"] == last
    assert record["without_negatives"] == 0
    assert not (tmp_path / "m.training").exists()


def test_a_reranker_is_trained_on_from_its_own_head(
    small_bert_reranker: Path, examples: list[Example], tmp_path: Path
) -> None:
    out = tmp_path / "m"
    start(examples[:4], small_bert_reranker, out, method="lora", epochs=1, learning_rate=1e-7)
    scores = [
        CrossEncoderReranker(str(folder), device="cpu", max_length=64).compute_score(PAIRS)
        for folder in (small_bert_reranker, out)
    ]
    assert np.abs(scores[0] - scores[1]).max() < 1e-4
    assert np.ptp(scores[0]) > 1e-2


KILLED = """
import json, os, signal, sys
from pathlib import Path
from m3rag.training import RerankerSettings, train_reranker

data, base, out, settings = sys.argv[1:]
def die(report):
    if report.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
settings = RerankerSettings(**json.loads(settings))
train_reranker(Path(data), base, Path(out), settings=settings, device="cpu", on_progress=die)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_to_the_same_weights(data: Path, small_bert: Path, tmp_path: Path) -> None:
    options = {**QUICK, "dropout": 0.2, "save_every": 5, "method": "lora", "held_out": 4}
    arguments = [str(data), str(small_bert), str(tmp_path / "killed"), json.dumps(options)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    steps: dict[str, list[int]] = {"killed": [], "whole": []}
    for name, seen in steps.items():
        train_reranker(
            str(data), str(small_bert), str(tmp_path / name), settings=RerankerSettings(**options), device="cpu",
            on_progress=lambda report, seen=seen: seen.append(report.step),  # type: ignore[misc]
        )  # fmt: skip
    assert steps["whole"][0] == 0
    assert steps["killed"] == steps["whole"][6:]  # on from step 5
    assert len(steps["killed"]) > 5
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in steps)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {p.name for p in tmp_path.iterdir()} == {"data", "killed", "whole"}


def test_a_teacher_is_learned_from(small_bert: Path, examples: list[Example], tmp_path: Path) -> None:
    # One that thinks the opposite of the labels: were it not heard, the positive would win.
    judged = [replace(e, positive_scores=(-6.0,), negative_scores=(6.0, -6.0)) for e in examples[:20]]
    reports = start(judged, small_bert, tmp_path / "m", teacher=True, epochs=4, method="lora", learning_rate=1e-2)
    (losses,) = [r.loss for r in reports[-1:]]
    assert losses is not None
    assert losses.keys() == {"total", "labels", "teacher"}
    assert losses["total"] == pytest.approx(losses["labels"] + losses["teacher"], rel=1e-5)
    reranker = CrossEncoderReranker(str(tmp_path / "m"), device="cpu", max_length=64)
    rows = np.array([reranker.compute_score([(e.query, t) for t in (*e.positives, *e.negatives)]) for e in judged])
    # Cross-entropy with half a vote each for the first two, and none for the third.
    assert rows[:, :2].mean() > rows[:, 2].mean() + 0.5
    assert abs(rows[:, 0].mean() - rows[:, 1].mean()) < 1


def test_bfloat16_leaves_the_weights_in_float32(
    small_bert: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3rag.encoder.device.NATIVE_ON_CPU", {})  # slow here, and right
    losses = {}
    for precision in ("float32", "bfloat16"):
        reports = start(examples[:20], small_bert, tmp_path / precision, precision=precision, held_out=2)
        assert reports[1].loss is not None
        losses[precision] = reports[1].loss["total"]
        assert reports[-1].held_out is not None
        trained = load_file(tmp_path / precision / "model.safetensors")
        assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)


def test_examples_without_negatives_are_left_out_and_counted(
    small_bert: Path, examples: list[Example], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = [replace(e, negatives=()) for e in examples[:2]]
    # One whose negatives all answer it, in this row or in another, has none.
    bare.append(replace(examples[2], negatives=(*examples[2].positives, *examples[0].positives)))
    bare[0] = replace(bare[0], query=bare[2].query)
    start([*bare, *examples[3:9]], small_bert, tmp_path / "m", epochs=1)
    record = json.loads((tmp_path / "m" / "training.json").read_text(encoding="utf-8"))
    assert (record["examples"], record["without_negatives"]) == (6, 3)
    assert "3 of 9 examples have no negatives" in caplog.text
    with pytest.raises(InputError, match=r"no example has negatives.*m3rag mine"):
        start(bare, small_bert, tmp_path / "n")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "heads"}, "method is 'heads', must be one of full, lora"),
        ({"negatives": 0}, "negatives is 0, must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        RerankerSettings(**changes)


def test_what_does_not_fit_the_model_is_refused(
    small_bert: Path, small_two_labels: Path, examples: list[Example], tmp_path: Path
) -> None:
    for options, told in (
        ({"max_length": 65}, "max_length 65 is out of range .* at most 64"),
        ({"max_length": 20, "query_length": 17}, "leave no room for a passage"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            start(examples, small_bert, tmp_path / "m", **options)
    with pytest.raises(InputError, match="example 0 is a dict, must be an "):
        start([{"query": "q", "pos": ["a"]}], small_bert, tmp_path / "m")  # type: ignore[list-item]
    with pytest.raises(ModelError, match="has 2 labels"):
        start(examples, small_two_labels, tmp_path / "m")
    with pytest.raises(InputError, match="no pos_scores and neg_scores"):
        start(examples, small_bert, tmp_path / "m", teacher=True)
    (tmp_path / "m").write_text("mine")
    with pytest.raises(InputError, match="m is there already"):
        start(examples, small_bert, tmp_path / "m")


def test_another_run_is_not_taken_up(small_bert: Path, examples: list[Example], tmp_path: Path) -> None:
    def stop(report: Report) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    settings = RerankerSettings(**{**QUICK, "save_every": 2})
    with pytest.raises(KeyboardInterrupt):
        train_reranker(examples, str(small_bert), tmp_path / "m", settings=settings, device="cpu", on_progress=stop)
    with pytest.raises(ConfigurationError, match=r"another run \(max_length None, now 60\)"):
        start(examples, small_bert, tmp_path / "m", max_length=60)
    assert start(examples, small_bert, tmp_path / "m")[0].step == 3


def test_lora_without_peft_names_the_extra(
    small_bert: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "m3rag\[train\]"'):
        start(examples, small_bert, tmp_path / "m", method="lora")
