"""An export appears whole, once, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from shutil import copytree

import pytest

from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.onnx.builder import ALIGNMENT, GRAPH_FILE, WEIGHT_FILE
from m3rag.encoder.onnx.export import appearing, cached_export, ensure_export
from m3rag.errors import ConfigurationError, ModelError

EXPORT = (
    "import sys; from m3rag.encoder.checkpoint import Checkpoint; from m3rag.encoder.onnx.export import ensure_export;"
    "print('ready', flush=True); print(ensure_export(Checkpoint.find(sys.argv[1])))"
)


def shown(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def start(checkpoint: Path, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", before + EXPORT, str(checkpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_exports_once(cache: Path, tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.find(str(tiny_checkpoint))
    folder = ensure_export(checkpoint)
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(path.name for path in written) == [GRAPH_FILE, WEIGHT_FILE]
    assert ensure_export(checkpoint) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    assert shown(cache / "onnx") == [folder.name]


def test_weights_lie_outside_the_graph_on_pages_of_their_own(cache: Path, tiny_checkpoint: Path) -> None:
    import onnx

    folder = ensure_export(Checkpoint.find(str(tiny_checkpoint)))
    graph = onnx.load(folder / GRAPH_FILE, load_external_data=False).graph
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in graph.initializer]
    offsets = sorted((int(place["offset"]), int(place["length"])) for place in places if place)
    assert all(start % ALIGNMENT == 0 for start, _ in offsets)
    assert all(a + length <= b for (a, length), (b, _) in pairwise(offsets))
    assert sum(length for _, length in offsets) > 250_002 * 64 * 4
    assert (folder / GRAPH_FILE).stat().st_size < 200_000
    onnx.checker.check_model(folder / GRAPH_FILE, skip_opset_compatibility_check=True)


def test_another_checkpoint_is_another_export(cache: Path, tiny_checkpoint: Path, mini_folder: Path) -> None:
    checkpoints = [Checkpoint.find(str(folder)) for folder in (tiny_checkpoint, mini_folder)]
    places = {cached_export(checkpoint, int8=int8) for checkpoint in checkpoints for int8 in (False, True)}
    assert len(places) == 4


def test_two_processes_agree(cache: Path, mini_folder: Path) -> None:
    both = [start(mini_folder) for _ in range(2)]
    folders = {process.communicate(timeout=240)[0].split()[-1] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1
    assert shown(cache / "onnx") == [Path(folder).name for folder in folders]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_export_is_not_taken_for_a_whole_one(cache: Path, mini_folder: Path) -> None:
    checkpoint = Checkpoint.find(str(mini_folder))
    folder = cached_export(checkpoint, int8=False)
    weights = folder.with_name(f".{folder.name}.partial") / WEIGHT_FILE
    with start(mini_folder) as process:
        deadline = time.monotonic() + 120
        while not (weights.is_file() and weights.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert weights.is_file()
    assert not folder.exists()
    assert ensure_export(checkpoint) == folder
    assert sorted(path.name for path in folder.iterdir()) == [GRAPH_FILE, WEIGHT_FILE]
    assert not weights.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_full_disk_leaves_nothing(cache: Path, tiny_checkpoint: Path) -> None:
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
    process = start(tiny_checkpoint, limit)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "ModelError: cannot write an exported model" in errors
    assert "M3RAG_CACHE" in errors
    assert shown(cache / "onnx") == []
    assert not list((cache / "onnx").glob(".*.partial"))


def test_what_fails_half_way_keeps_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    with appearing(folder) as work:
        (work / "a").write_text("first")

    def fail_half_way() -> None:
        with appearing(folder) as work:
            (work / "a").write_text("second")
            raise ConfigurationError("half-way")

    with pytest.raises(ConfigurationError, match="half-way"):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (folder / "a").read_text() == "first"


def test_a_cache_that_is_a_file(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint.find(str(tiny_checkpoint))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("M3RAG_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="M3RAG_CACHE"):
        ensure_export(checkpoint)


def test_weights_that_do_not_fit_the_config(cache: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = copytree(tiny_checkpoint, tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(
        ModelError, match=r"encoder.layer.0.intermediate.dense.weight is \(128, 64\), must be \(96, 64\)"
    ):
        ensure_export(Checkpoint.find(str(folder)))
    assert shown(cache / "onnx") == []


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_names_the_remedy(
    cache: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    import torch

    from m3rag.encoder.onnx.load import load_onnx

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package}.*pip install "m3rag\[onnx\]"'):
        load_onnx(Checkpoint.find(str(tiny_checkpoint)), device=torch.device("cpu"))
    assert not list((cache / "onnx").glob(".*.partial"))
