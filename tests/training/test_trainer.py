from __future__ import annotations

import json
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from m3rag.encoder import M3Encoder
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.training.data import Example
from m3rag.training.run import Report
from m3rag.training.schedule import rate_share
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainer import train

QUICK: dict[str, Any] = {"batch_size": 10, "epochs": 2, "learning_rate": 3e-3, "sub_batch_tokens": 120}
TEXTS = ["where lives the red duck", "the pond", "", "a heron is not in the marsh passage:"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = load_file(folder / "model.safetensors")
    for name in ("sparse_linear", "colbert_linear"):
        state = torch.load(folder / f"{name}.pt", weights_only=True)
        found |= {f"{name}.{key}": value for key, value in state.items()}
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if torch.equal(one[name].float(), other[name].float())}


@pytest.mark.parametrize("method", ["heads", "lora", "full"])
def test_each_method_moves_what_it_says_and_learns(
    method: Any, small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    reports: list[Report] = []
    options = QUICK if method == "full" else {**QUICK, "learning_rate": 1e-2}
    settings = TrainingSettings(method=method, held_out=10, evaluate_every=9, **options)
    out = train(examples, small_checkpoint, tmp_path / "m", settings=settings, device="cpu", on_progress=reports.append)
    steps = reports[-1].steps
    assert [r.step for r in reports] == list(range(steps + 1))
    assert [r.step for r in reports if r.held_out] == sorted({0, 9, steps})
    first, last = reports[0].held_out, reports[-1].held_out
    assert first is not None
    assert last is not None
    assert last["colbert"] > first["colbert"] + 0.05
    assert reports[-1].loss is not None
    assert reports[-1].loss.keys() == {"total", "dense", "lexical", "colbert", "ensemble"}

    kept = same(weights(out), {k: v for k, v in weights(small_checkpoint).items() if "pooler" not in k})
    moved = weights(out).keys() - kept
    heads = {f"{n}_linear.{p}" for n in ("sparse", "colbert") for p in ("weight", "bias")}
    if method == "heads":
        assert moved == heads
    elif method == "lora":
        assert moved - heads == {k for k in weights(out) if "layer." in k and "Norm" not in k and "weight" in k}
    else:
        assert {"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"} < moved
        assert len(moved) > 30
    record = json.loads((out / "training.json").read_text())
    assert (record["examples"], record["held_out_examples"], record["steps"]) == (70, 10, steps)
    assert record["settings"]["method"] == method
    assert not (tmp_path / "m.training").exists()
    assert len({file.stat().st_mode for file in out.iterdir()}) == 1, "whoever may read one file may read all"


def test_deltas_on_the_last_layer_alone_move_no_other(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    layers = json.loads((small_checkpoint / "config.json").read_text())["num_hidden_layers"]
    assert layers > 1
    settings = TrainingSettings(method="lora", lora_layers=1, **{**QUICK, "learning_rate": 1e-2})
    out = train(examples[:20], str(small_checkpoint), tmp_path / "m", settings=settings, device="cpu")
    moved = {name for name in weights(out).keys() - same(weights(out), weights(small_checkpoint)) if "layer." in name}
    assert moved
    assert all(f"layer.{layers - 1}." in name for name in moved)
    settings = TrainingSettings(method="lora", lora_layers=layers + 1, **QUICK)
    with pytest.raises(ConfigurationError, match=rf"lora_layers is {layers + 1}, must be at most the model's {layers}"):
        train(examples[:20], str(small_checkpoint), tmp_path / "n", settings=settings, device="cpu")


def test_a_merged_backbone_lies_between_the_base_and_the_trained_one(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    quick = {**QUICK, "learning_rate": 1e-2}
    found = {
        merge: weights(
            train(
                examples[:20],
                str(small_checkpoint),
                tmp_path / str(merge),
                settings=TrainingSettings(method="lora", merge=merge, **quick),
                device="cpu",
            )
        )
        for merge in (0.25, 1.0)
    }
    base, moved = weights(small_checkpoint), 0
    for name, trained in found[1.0].items():
        if "layer." in name:
            expected = base[name].float() + 0.25 * (trained.float() - base[name].float())
            torch.testing.assert_close(found[0.25][name].float(), expected, atol=1e-6, rtol=1e-5)
            moved += not torch.equal(found[0.25][name].float(), base[name].float())
        elif "linear" in name:  # heads are as they were trained
            assert torch.equal(found[0.25][name], trained)
    assert moved


@pytest.mark.parametrize(("base", "method"), [("tiny_checkpoint", "lora"), ("small_checkpoint", "full")])
def test_the_result_loads_in_flag_embedding_and_here_alike(
    base: str, method: Any, request: pytest.FixtureRequest, examples: list[Example], tmp_path: Path
) -> None:
    checkpoint: Path = request.getfixturevalue(base)
    settings = TrainingSettings(method=method, batch_size=8, learning_rate=1e-2)
    out = train(examples[:16], str(checkpoint), tmp_path / "m", settings=settings, device="cpu")
    ours = M3Encoder(str(out), device="cpu", colbert_dtype="float32").encode_documents(TEXTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding import BGEM3FlagModel

        theirs = BGEM3FlagModel(str(out), use_fp16=False, devices="cpu").encode(
            TEXTS, return_dense=True, return_sparse=True, return_colbert_vecs=True
        )
    assert np.abs(ours.dense - theirs["dense_vecs"]).max() <= 1e-5
    for i, lexical in enumerate(ours.lexical_dicts()):
        assert lexical == pytest.approx({k: float(v) for k, v in theirs["lexical_weights"][i].items()}, abs=1e-5)
        assert np.abs(ours.colbert_of(i) - theirs["colbert_vecs"][i]).max() <= 1e-5
    before = M3Encoder(str(checkpoint), device="cpu").encode_documents(TEXTS)
    assert np.abs(ours.dense - before.dense).max() > 1e-3


def test_a_model_like_mini_keeps_its_recipe_and_its_kind_of_heads(
    small_mini: Path, examples: list[Example], tmp_path: Path
) -> None:
    settings = TrainingSettings(method="heads", colbert_dim=12, **QUICK)
    out = train(examples, str(small_mini), tmp_path / "m", settings=settings, device="cpu")
    names = {path.name for path in out.iterdir()}
    assert {"heads.safetensors", "m3rag.json", "config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not any(name.endswith(".pt") for name in names)
    assert {t.dtype for t in load_file(out / "heads.safetensors").values()} == {torch.float16}
    trained, base = M3Encoder(str(out), device="cpu"), M3Encoder(str(small_mini), device="cpu")
    assert trained.recipe == base.recipe
    assert trained.info.colbert_dim == 12
    assert np.array_equal(trained.encode_queries(TEXTS).dense, base.encode_queries(TEXTS).dense)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from m3rag.training.trainer import train
from m3rag.training.settings import TrainingSettings

data, base, out, settings = sys.argv[1:]
def die(report):
    if report.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
train(Path(data), base, Path(out), settings=TrainingSettings(**json.loads(settings)), device="cpu", on_progress=die)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_to_the_same_weights(data: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    options = {**QUICK, "dropout": 0.2, "save_every": 5, "method": "lora", "held_out": 4}
    arguments = [str(data), str(small_checkpoint), str(tmp_path / "killed"), json.dumps(options)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / "killed.training" / "state.pt").is_file()

    steps: dict[str, list[int]] = {"killed": [], "whole": []}
    for name, seen in steps.items():
        train(
            str(data),
            str(small_checkpoint),
            str(tmp_path / name),
            settings=TrainingSettings(**options),
            device="cpu",
            on_progress=lambda report, seen=seen: seen.append(report.step),  # type: ignore[misc]
        )
    assert steps["whole"][0] == 0
    assert steps["killed"] == steps["whole"][6:]  # on from step 5
    assert len(steps["killed"]) > 5
    one, other = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert same(one, other) == one.keys()
    assert {p.name for p in tmp_path.iterdir()} == {"data", "killed", "whole"}


class StoppedError(Exception):
    pass


def stopped_at(step: int) -> Any:
    def stop(report: Report) -> None:
        if report.step == step:
            raise StoppedError

    return stop


def test_another_run_is_not_taken_up(small_checkpoint: Path, examples: list[Example], tmp_path: Path) -> None:
    def start(chosen: list[Example], on_progress: Any = None, **changes: Any) -> Path:
        settings = TrainingSettings(**{**QUICK, "save_every": 2, **changes})
        out = tmp_path / "m"
        return train(chosen, str(small_checkpoint), out, settings=settings, device="cpu", on_progress=on_progress)

    with pytest.raises(StoppedError):
        start(examples, stopped_at(3))
    with pytest.raises(ConfigurationError, match=r"m\.training holds .* another run \(temperature 0\.02, now 0\.05\)"):
        start(examples, temperature=0.05)
    with pytest.raises(ConfigurationError, match=r"another run \(data "):
        start(examples[1:])
    first: list[int] = []
    start(examples, lambda report: first.append(report.step), save_every=50)
    assert first[0] == 3
    with pytest.raises(InputError, match=r"m is there already"):
        start(examples)


def test_parts_of_a_step_are_of_the_run_where_there_is_dropout(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    def start(name: str, on_progress: Any = None, **changes: Any) -> Path:
        settings = TrainingSettings(**{**QUICK, "save_every": 2, **changes})
        out = tmp_path / name
        return train(examples, small_checkpoint, out, settings=settings, device="cpu", on_progress=on_progress)

    for name, dropout in (("with", 0.2), ("without", 0.0)):
        with pytest.raises(StoppedError):
            start(name, stopped_at(3), dropout=dropout)
    with pytest.raises(ConfigurationError, match=r"another run \(sub_batch_tokens 120, now 999\)"):
        start("with", dropout=0.2, sub_batch_tokens=999)
    assert start("without", sub_batch_tokens=999).is_dir()


def test_a_step_of_one_question_without_negatives_is_joined_to_another(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    def losses(name: str, chosen: list[Example], **changes: Any) -> list[float]:
        reports: list[Report] = []
        settings = TrainingSettings(**{**QUICK, "epochs": 1, **changes})
        train(
            chosen, small_checkpoint, tmp_path / name, settings=settings, device="cpu", on_progress=reports.append
        )  # fmt: skip
        return [report.loss["total"] for report in reports if report.loss]

    bare = [replace(example, negatives=()) for example in examples[:9]]
    assert all(loss > 0 for loss in losses("a", bare, batch_size=4))
    found = losses("b", bare, max_batch_tokens=1)
    assert all(loss > 0 for loss in found)
    assert len(found) == 4
    assert all(loss > 0 for loss in losses("c", examples[:9], max_batch_tokens=1, negatives=0))
    assert len(losses("d", examples[:9], max_batch_tokens=1)) == 9, "with negatives a question learns alone"


def test_a_teacher_does_not_judge_what_is_hidden(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    judged = [
        replace(e, positives=(*e.positives, "an answer"), negatives=("an answer", *e.negatives),
                positive_scores=(4.0, 3.0), negative_scores=(3.0, 1.0, -2.0))
        for e in examples[:20]
    ]  # fmt: skip
    reports: list[Report] = []
    settings = TrainingSettings(**{**QUICK, "teacher": True})
    train(judged, small_checkpoint, tmp_path / "m", settings=settings, device="cpu", on_progress=reports.append)
    assert all(report.loss["total"] < 1000 for report in reports if report.loss)


def test_two_runs_do_not_train_to_one_folder(small_checkpoint: Path, examples: list[Example], tmp_path: Path) -> None:
    refused: list[int] = []

    def begin_another(report: Report) -> None:
        with pytest.raises(InputError, match=r"m\.training is being written by another run: .* give another --out"):
            start(None)
        refused.append(report.step)

    def start(on_progress: Any) -> Path:
        settings = TrainingSettings(**QUICK)
        where = tmp_path / "m"
        return train(examples, str(small_checkpoint), where, settings=settings, device="cpu", on_progress=on_progress)

    assert (start(begin_another) / "training.json").is_file()
    assert refused
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_run_killed_while_it_wrote_the_model_writes_it_again(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> list[Report]:
        reports: list[Report] = []
        settings = TrainingSettings(**{**QUICK, "held_out": 4, "save_every": 1})
        train(
            examples, str(small_checkpoint), tmp_path / "m", settings=settings, device="cpu",
            on_progress=reports.append,
        )  # fmt: skip
        return reports

    def fail(*_: object, **__: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr("m3rag.training.saving._write_heads", fail)
        with pytest.raises(StoppedError):
            start()
    assert {p.name for p in tmp_path.iterdir()} == {"m.training"}
    (report,) = start()
    assert report.step == report.steps
    assert report.held_out is not None
    assert {p.name for p in tmp_path.iterdir()} == {"m"}
    assert json.loads((tmp_path / "m" / "training.json").read_text())["last_loss"]["total"] > 0
    assert M3Encoder(str(tmp_path / "m"), device="cpu").encode_queries(["duck"]).dense.shape == (1, 16)


def test_a_damaged_state_is_named(small_checkpoint: Path, examples: list[Example], tmp_path: Path) -> None:
    (tmp_path / "m.training").mkdir()
    (tmp_path / "m.training" / "state.pt").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ModelError, match=r"state\.pt is damaged .*remove .*m\.training"):
        train(examples, str(small_checkpoint), tmp_path / "m", settings=TrainingSettings(**QUICK), device="cpu")


def test_bfloat16_leaves_the_weights_in_float32(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3rag.encoder.device.NATIVE_ON_CPU", {})  # slow here, and right
    losses = {}
    for precision in ("float32", "bfloat16"):
        reports: list[Report] = []
        settings = TrainingSettings(precision=precision, **QUICK)  # type: ignore[arg-type]
        out = train(
            examples[:20], str(small_checkpoint), tmp_path / precision, settings=settings, on_progress=reports.append,
            device="cpu",
        )  # fmt: skip
        assert reports[1].loss is not None
        losses[precision] = reports[1].loss["total"]
        trained = load_file(out / "model.safetensors")
        assert {tensor.dtype for name, tensor in trained.items() if "layer" in name} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "qlora"}, "method is 'qlora', must be one of full, lora, heads"),
        ({"batch_size": 1}, "batch_size is 1, must be at least 2"),
        ({"epochs": 1.5}, "epochs is 1.5, must be at least 1, and a whole number"),
        ({"seed": True}, "seed is True, must be at least 0, and a whole number"),
        ({"colbert_dim": 8.0}, "colbert_dim is 8.0, must be at least 1, and a whole number"),
        ({"temperature": 0.0}, "temperature is 0.0, must be above 0"),
        ({"learning_rate": float("inf")}, "learning_rate is inf, must be above 0, and finite"),
        ({"weight_decay": float("nan")}, "weight_decay is nan, must be at least 0"),
        ({"merge": 0.0}, "merge is 0.0, must be above 0 and at most 1"),
        ({"merge": 0.5, "method": "heads"}, "merge has no part in the method heads"),
        ({"dropout": 0.1, "method": "heads"}, "dropout has no part in the method heads"),
        ({"evaluate_every": 5}, "evaluate_every has no part where nothing is held out"),
        ({"seed": 2**64}, "seed is 18446744073709551616, must be below 2\\^64"),
        ({"lora_layers": 2}, "lora_layers has no part in the method full"),
        ({"dropout": 1.0}, "dropout is 1.0, must be at least 0 and below 1"),
        ({"query_length": 2}, "query_length is 2, must be at least 3"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        TrainingSettings(**changes)


def test_a_loss_that_is_no_number_ends_the_run_and_saves_nothing(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    settings = TrainingSettings(**{**QUICK, "learning_rate": 1e30, "warmup": 0.0})
    with pytest.raises(ConfigurationError, match=r"nothing is learned; lower the learning rate \(1e\+30\)"):
        train(examples, small_checkpoint, tmp_path / "m", settings=settings, device="cpu")
    assert not (tmp_path / "m").exists()


def test_what_does_not_fit_the_model_or_the_data_is_refused(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    for options, told in (({"colbert_dim": 99}, "colbert_dim is 99"), ({"query_length": 65}, "length 65")):
        settings = TrainingSettings(**{**QUICK, "method": "heads", **options})
        with pytest.raises(ConfigurationError, match=told):
            train(
                examples, str(small_checkpoint), tmp_path / "m", settings=settings, device="cpu",
                on_prepare=lambda *_: pytest.fail("the backbone was run"),
            )  # fmt: skip
    with pytest.raises(InputError, match=r"no pos_scores and neg_scores of the question 'where lives the red duck'"):
        train(examples, str(small_checkpoint), tmp_path / "m", settings=TrainingSettings(teacher=True), device="cpu")
    for data, told in (
        (examples[:1], "1 examples are too few"),
        ([examples[0], ("q", "a")], "example 1 is a tuple, must be an m3rag.training.Example"),
        (None, "data is a NoneType, must be a .jsonl file"),
        (str(tmp_path / "no.jsonl"), "no.jsonl holds no .jsonl training files"),
    ):
        with pytest.raises(InputError, match=told):
            train(data, str(small_checkpoint), tmp_path / "m", device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"query_length": 3}, {"passage_length": 3}])
def test_a_length_that_holds_the_prefix_alone_is_refused(
    small_mini: Path, examples: list[Example], tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = TrainingSettings(**{**QUICK, **changes})
    with pytest.raises(ConfigurationError, match="length 3 is out of range: choose 4 to 64, prefix and specials"):
        train(examples, small_mini, tmp_path / "m", settings=settings, device="cpu")
    shortest = TrainingSettings(**{**QUICK, **dict.fromkeys(changes, 4)})
    assert train(examples, small_mini, tmp_path / "m", settings=shortest, device="cpu").is_dir()


def test_an_output_that_cannot_be_written_is_refused_before_a_step(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for here in (".", "sub/.."):
        with pytest.raises(InputError, match="give --out the name of a new one"):
            train(examples, small_checkpoint, Path(here), device="cpu", on_progress=stopped_at(0))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: give another folder"):
        train(examples, small_checkpoint, tmp_path / "file" / "m", device="cpu", on_progress=stopped_at(0))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of a file's size")
@pytest.mark.parametrize("save_every", [1, 100])
def test_a_full_disk_is_named(data: Path, small_checkpoint: Path, tmp_path: Path, save_every: int) -> None:
    options = json.dumps({**QUICK, "save_every": save_every})
    code = (
        "import json, resource, sys; from pathlib import Path\n"
        "from m3rag.errors import InputError\n"
        "from m3rag.training import TrainingSettings, train\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "data, base, out, options = sys.argv[1:]\n"
        "try:\n"
        "    train(Path(data), base, Path(out), settings=TrainingSettings(**json.loads(options)), device='cpu')\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    arguments = [str(data), str(small_checkpoint), str(tmp_path / "m"), options]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=200, capture_output=True)
    told = done.stdout.decode()
    assert "m.training" in told, done.stderr
    assert "cannot be written" in told
    assert "make room on its disk and start again" in told
    assert not (tmp_path / "m").exists()


def test_lora_without_peft_names_the_extra(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    settings = TrainingSettings(method="lora", **QUICK)
    with pytest.raises(ImportError, match=r'pip install "m3rag\[train\]"'):
        train(examples, str(small_checkpoint), tmp_path / "m", settings=settings, device="cpu")


@pytest.mark.parametrize("changes", [{"loss": "mnr"}, {"loss": "triplet"}, {"teacher": True}, {"distill": False}])
def test_every_loss_trains(
    changes: dict[str, Any], small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    judged = [replace(e, positive_scores=(4.0,), negative_scores=(1.0, -2.0)) for e in examples]
    reports: list[Report] = []
    settings = TrainingSettings(**{**QUICK, "epochs": 3, "method": "heads", "learning_rate": 1e-2, **changes})
    train(judged, str(small_checkpoint), tmp_path / "m", settings=settings, device="cpu", on_progress=reports.append)
    # Of ColBERT, since the dense leg stands still.
    losses = [report.loss["colbert"] for report in reports if report.loss]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_share(step, 100, warmup=0.1) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert max(rates) == 1
    assert all(a > b for a, b in pairwise(rates[9:]))
    assert 0 < rates[-1] < 0.01
    assert rate_share(1, 1, warmup=0) > 0
