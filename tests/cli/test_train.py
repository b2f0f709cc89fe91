"""`m3rag train` as a user would type it, on a model of a few words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import XLMRobertaConfig, XLMRobertaModel
from typer.testing import CliRunner, Result

from m3rag.cli.train import train
from m3rag.encoder import M3Encoder
from m3rag.reranking import CrossEncoderReranker

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "where", "is", "the", "duck", "swan", "pond", "river", *"abcdefgh"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=34, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    for name, outputs in (("sparse_linear.pt", 1), ("colbert_linear.pt", 8)):
        torch.save(torch.nn.Linear(8, outputs).state_dict(), folder / name)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in WORDS[:4]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"query": f"where is the {bird} {x}", "pos": [f"the {bird} {x} is a {place}"], "neg": [f"the {bird} b"]}
        for x in "abcdefgh"
        for bird, place in (("duck", "pond"), ("swan", "river"))
    ]
    path = tmp_path / "birds.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_train_says_what_it_learned_and_the_model_loads(data: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    options = ("--held-out", 4, "--batch-size", 4, "--epochs", 2, "--learning-rate", 0.01, "--device", "cpu")
    result = run(data, "--base", base, "--out", out, "--lora", *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["nDCG@10", "held", "out", "dense", "lexical", "colbert", "all"]
    assert [line.split()[:2] for line in lines[1:3]] == [["step", "0"], ["step", "6"]]
    assert lines[-1] == f"the model is in {out}: use it with --model {out}"
    assert "step 0/6" in result.stderr
    assert "loss: total" in result.stderr
    assert M3Encoder(str(out), device="cpu").encode_queries(["the duck"]).dense.shape == (1, 8)


def test_json_is_one_object_on_stdout_and_nothing_else(data: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = run(data, "--base", base, "--out", out, "--heads-only", "--colbert-dim", 4, "--held-out", 2, "--json")
    shown = json.loads(result.stdout)
    assert (shown["schema"], shown["model"]) == ("m3rag.train/1", str(out))
    assert [row["step"] for row in shown["held_out_ndcg@10"]] == [0, 1]
    assert result.stderr == ""
    assert M3Encoder(str(out), device="cpu").info.colbert_dim == 4


def test_a_reranker_says_what_it_learned_and_loads(data: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "reranker"
    options = ("--held-out", 4, "--batch-size", 4, "--epochs", 2, "--learning-rate", 0.01, "--device", "cpu")
    result = run(data, "--reranker", "--base", base, "--out", out, "--lora", "--max-length", 20, *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["nDCG@10", "held", "out", "rerank"]
    assert [line.split()[:2] for line in lines[1:3]] == [["step", "0"], ["step", "6"]]
    assert lines[-1] == f"the model is in {out}: use it with --reranker {out}"
    assert "loss: total" in result.stderr
    record = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert (record["settings"]["max_length"], record["settings"]["negatives"]) == (20, 7)
    scores = CrossEncoderReranker(str(out), device="cpu", max_length=20).compute_score([("where is the duck", "pond")])
    assert scores.shape == (1,)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_several_workers_train_one_model_and_one_of_them_tells(data: Path, base: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "m3rag"]
    command = [*launcher, "train", str(data), "--base", str(base), "--out", str(tmp_path / "m"), "--json"]
    options = ["--device", "cpu", "--batch-size", "8"]
    done = subprocess.run([*command, *options], check=False, timeout=250, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == str(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "training.json").read_text(encoding="utf-8"))["workers"] == 2


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--heads-only", "--reranker"), 2, "--heads-only and --reranker: give one of them at most"),
        (("--reranker", "--temperature", "0.1"), 2, "--temperature has no part in a reranker: leave it out"),
        (("--reranker", "--no-distill"), 2, "--distill has no part in a reranker"),
        (("--lora-rank", "4"), 2, "--lora-rank has no part without --lora: leave it out"),
        (("--heads-only", "--dropout", "0.1"), 3, "dropout has no part in the method heads"),
        (("--evaluate-every", "2"), 3, "evaluate_every has no part where nothing is held out"),
        (("--seed", str(10**22)), 3, "must be below 2^64"),
        (("--max-length", "9"), 2, "--max-length is of a reranker alone"),
        (("--reranker", "--negatives", "0"), 3, "negatives is 0, must be at least 1"),
        (("--reranker", "--base", "no such model"), 5, "unknown model"),
        (("--heads-only", "--lora"), 2, "give one of them at most"),
        (("--temperature", "0"), 3, "temperature is 0.0, must be above 0"),
        (("--loss", "hinge"), 3, "must be one of infonce, mnr, triplet"),
        (("--base", "no such model"), 5, "unknown model"),
    ],
)
def test_what_is_wrong_is_said(options: tuple[str, ...], code: int, told: str, data: Path, tmp_path: Path) -> None:
    result = run(data, "--out", tmp_path / "m", *options)
    assert result.exit_code == code
    assert told in result.stderr
    assert result.stdout == ""


def test_bad_data_and_a_full_folder_are_named(data: Path, base: Path, tmp_path: Path) -> None:
    result = run(data, "--base", base, "--out", tmp_path)
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    data.write_text('{"query": "q"}', encoding="utf-8")
    result = run(data, "--base", base, "--out", tmp_path / "m")
    assert result.exit_code == 2
    assert "birds.jsonl:1" in result.stderr


INTERRUPTED = """
import os, signal, sys
import typer
from m3rag.cli import train_progress as module
from m3rag.cli.train import train
shown = module.line_of
def line_of(report):
    if report.step == 5:
        os.kill(os.getpid(), signal.SIGINT)
    return shown(report)
module.line_of = line_of
app = typer.Typer()
app.command()(train)
app(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to oneself")
def test_ctrl_c_ends_with_130_and_the_run_goes_on(data: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    options = ["--base", base, "--out", out, "--batch-size", 4, "--epochs", 2, "--save-every", 2, "--device", "cpu"]
    arguments = [str(a) for a in (data, *options)]
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments], check=False, timeout=200, capture_output=True, text=True
    )
    assert ended.returncode == 130, ended.stderr
    assert "interrupted" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not out.exists()
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "step 5/8" in result.stderr
    assert "step 4/8" not in result.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"birds.jsonl", "model"}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
