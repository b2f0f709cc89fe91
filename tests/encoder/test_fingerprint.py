"""Two models whose numbers differ have two fingerprints, whichever of their tensors differ."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from m3rag.encoder.fingerprint import _blocks, fingerprint
from m3rag.errors import ModelError

HIDDEN, HEADS = 512, 16
Tensors = dict[str, torch.Tensor]


def _save_old(tensors: Tensors, path: Path) -> None:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


SAVE: dict[str, Callable[[Tensors, Path], Any]] = {
    "model.safetensors": save_file,
    "pytorch_model.bin": torch.save,
    "old.bin": _save_old,
}


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """6 MB of them, so that not all is read."""
    made = {"words.weight": torch.rand(1500, HIDDEN)}
    for name in ("query", "value", "out"):
        made |= {f"{name}.weight": torch.rand(HIDDEN, HIDDEN), f"{name}.bias": torch.rand(HIDDEN)}
    return made


def _of(path: Path) -> str:
    return fingerprint({}, folder=path.parent, files=[path])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_each_tensor_counts(tmp_path: Path, tensors: Tensors, name: str) -> None:
    found = set()
    for changed in (None, *tensors):
        moved = {key: value + 0.1 if key == changed else value for key, value in tensors.items()}
        SAVE[name](moved, tmp_path / name)
        found.add(_of(tmp_path / name))
    assert len(found) == 1 + len(tensors)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_each_attention_head_counts(tmp_path: Path, tensors: Tensors, name: str) -> None:
    found = set()
    for head in range(HEADS):
        moved = tensors["query.weight"].clone()
        moved[head * HIDDEN // HEADS : (head + 1) * HIDDEN // HEADS] += 0.1
        SAVE[name](tensors | {"query.weight": moved}, tmp_path / name)
        found.add(_of(tmp_path / name))
    assert len(found) == HEADS


def test_an_archive_without_checksums_is_read_as_well(tmp_path: Path, tensors: Tensors) -> None:
    found = set()
    torch.serialization.set_crc32_options(False)
    try:
        for step in (0.0, 0.1):
            torch.save(tensors | {"out.weight": tensors["out.weight"] + step}, tmp_path / "pytorch_model.bin")
            found.add(_of(tmp_path / "pytorch_model.bin"))
    finally:
        torch.serialization.set_crc32_options(True)
    assert len(found) == 2


@pytest.mark.parametrize("name", SAVE)
def test_the_place_does_not_count(tmp_path: Path, tensors: Tensors, name: str) -> None:
    found = set()
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        SAVE[name](tensors, tmp_path / folder / name)
        found.add(_of(tmp_path / folder / name))
    assert len(found) == 1


def _damage(contents: bytes) -> list[bytes]:
    """A safetensors file with headers that say other things than where tensors are."""
    headers: list[object] = [[], 5, {}, {"a": 5}, {"a": {"data_offsets": None}}, {"a": {"data_offsets": ["x"]}}]
    headers += [{"a": {"data_offsets": [0, end]}} for end in (1.5, -(10**6), 10**30)]
    told = [json.dumps(header).encode() for header in headers]
    told += [b"[" * 100_000, b"{\xff", b"", pickle.dumps({})]
    return [len(header).to_bytes(8, "little") + header + contents for header in told] + [b"\xff" * 8 + contents]


def test_damaged_files_have_a_fingerprint(tmp_path: Path, tensors: Tensors) -> None:
    random = np.random.default_rng(0)
    whole = random.bytes(5_000_000)
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path)
    archive = path.read_bytes()
    cut = [archive[: len(archive) // 2], archive[len(archive) // 2 :], archive[:-10]]
    for at in random.integers(len(archive) - 600, len(archive), 50).tolist():
        cut.append(archive[:at] + b"\xff" + archive[at + 1 :])
    for damaged in (*_damage(whole), *cut):
        path.write_bytes(damaged)
        assert len(_of(path)) == 16


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.safetensors cannot be read: No such file"):
        _of(tmp_path / "gone.safetensors")


def test_of_gigabytes_little_is_read(tmp_path: Path) -> None:
    """The tensors of BGE-M3, as holes of a file."""
    hidden, inner = 1024, 4096
    layer = [hidden * hidden, hidden] * 4 + [hidden * inner, inner, inner * hidden, hidden] + [hidden] * 4
    header: dict[str, object] = {}
    end = 0
    for i, size in enumerate([250_002 * hidden, 8194 * hidden, *[hidden] * 3, *layer * 24]):
        start, end = end, end + 4 * size
        header[str(i)] = {"dtype": "F32", "shape": [size], "data_offsets": [start, end]}
    told = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    with path.open("wb") as written:
        written.write(len(told).to_bytes(8, "little") + told)
        written.truncate(8 + len(told) + end)
    with path.open("rb", buffering=0) as file:
        blocks = [len(block) for block in _blocks(file, path.stat().st_size)]
    assert end > 2_200_000_000
    assert len(blocks) < 3_000
    assert sum(blocks) < 13_000_000
