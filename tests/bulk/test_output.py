"""What is written is read back bit by bit; what is damaged, missing or another's is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from m3rag.bulk.manifest import EncodedManifest, replacing
from m3rag.bulk.output import COLUMNS, is_finished, read_encoded, shard_path, write_shard
from m3rag.errors import ConfigurationError, InputError
from m3rag.output import M3Output
from m3rag.testing import HashEncoder

TEXTS = ["Ducks swim.", "", "Les canards nagent, les canards volent.", "🦆 duck"]
IDS = ["a", "b/1", "ü", "d"]


@pytest.fixture
def output() -> M3Output:
    return HashEncoder().encode_documents(TEXTS)


@pytest.fixture
def folder(tmp_path: Path, output: M3Output) -> Path:
    """A finished job of three shards, the second of them empty."""
    for number, rows in enumerate((slice(0, 3), slice(0, 0), slice(3, 4))):
        write_shard(shard_path(tmp_path, number), IDS[rows], output[rows], digest=f"digest{number}")
    manifest().write(tmp_path)
    return tmp_path


def manifest() -> EncodedManifest:
    return EncodedManifest(
        model=HashEncoder().info,
        dtype="float32",
        role="document",
        max_length=8,
        input_digest="0" * 64,
        shard_rows=(3, 0, 1),
    )


def damage(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0xFF
    path.write_bytes(content)


def test_a_folder_reads_back_as_it_was_written(folder: Path, output: M3Output) -> None:
    parts = list(read_encoded(folder))
    assert [ids for ids, _ in parts] == [IDS[:3], [], IDS[3:]]
    found = M3Output.concatenate([part for _, part in parts])
    assert found.dense.dtype == np.float32
    assert np.array_equal(found.dense, output.dense)
    assert found.lexical.shape == output.lexical.shape
    assert (found.lexical != output.lexical).nnz == 0
    assert found.lexical.dtype == np.float32
    assert found.colbert.dtype == np.float16
    assert np.array_equal(found.colbert, output.colbert.astype(np.float16))
    assert np.array_equal(found.offsets, output.offsets)
    assert found.offsets.dtype == np.int64


def test_a_shard_is_plain_parquet(folder: Path, output: M3Output) -> None:
    table = pq.read_table(shard_path(folder, 0))
    assert tuple(table.schema.names) == COLUMNS
    row = table.to_pylist()[2]
    start, end = output.lexical.indptr[2:4]
    assert row["lexical_ids"] == output.lexical.indices[start:end].tolist()
    assert row["lexical_weights"] == output.lexical.data[start:end].tolist()
    assert row["dense"] == output.dense[2].tolist()
    vectors = np.frombuffer(row["colbert"], "<f2").reshape(row["tokens"], -1)
    assert np.array_equal(vectors, output.colbert_of(2).astype(np.float16))
    assert pq.read_schema(shard_path(folder, 1)).equals(table.schema)


def test_a_finished_shard_is_known_by_its_rows_and_digest(folder: Path) -> None:
    path = shard_path(folder, 0)
    assert is_finished(path, rows=3, digest="digest0")
    assert not is_finished(path, rows=2, digest="digest0")
    assert not is_finished(path, rows=3, digest="digest1")
    assert not is_finished(folder / "nothing.parquet", rows=3, digest="digest0")
    path.write_bytes(path.read_bytes()[:-20])
    assert not is_finished(path, rows=3, digest="digest0")


@pytest.mark.parametrize("at", [0.2, 0.5, 0.999])
def test_a_damaged_shard_is_named(folder: Path, at: float) -> None:
    damage(shard_path(folder, 2), at)
    with pytest.raises(InputError, match=r"part-000002\.parquet cannot be read as Parquet .*: delete it and run"):
        list(read_encoded(folder))


def test_an_unfinished_folder_is_refused(folder: Path) -> None:
    shard_path(folder, 2).unlink()
    with pytest.raises(InputError, match=r"unfinished: 1 of 3 shards are missing \(part-000002\.parquet first\)"):
        next(read_encoded(folder))


def test_a_shard_of_another_folder_is_refused(folder: Path) -> None:
    shard_path(folder, 2).write_bytes(shard_path(folder, 0).read_bytes())
    with pytest.raises(InputError, match=r"part-000002\.parquet is no shard of this folder"):
        list(read_encoded(folder))


def test_a_manifest_reads_back(folder: Path) -> None:
    assert EncodedManifest.read(folder) == manifest()
    content = json.loads((folder / "manifest.json").read_text())
    assert content["rows"] == 4
    assert content["m3rag_version"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "holds no encoded texts"),
        ("{", "damaged"),
        ('{"format": 1}', "damaged"),
        ("[]", "damaged"),
        ('{"format": 9, "m3rag_version": "7.0"}', r"of format 9, by m3rag 7\.0"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(folder: Path, change: str | None, message: str) -> None:
    if change is None:
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text(change)
    with pytest.raises(InputError, match=message):
        next(read_encoded(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": replace(HashEncoder().info, fingerprint="other")}, "model .*, now other"),
        ({"dtype": "bfloat16"}, "dtype float32, now bfloat16"),
        ({"role": "query"}, "role document, now query"),
        ({"max_length": 9}, "max_length 8, now 9"),
        ({"input_digest": "1" * 64}, "input 0+, now 1+"),
        ({"shard_rows": (4,)}, "number of shards 3, now 1"),
        ({"shard_rows": (1, 2, 1)}, "shards of another size"),
    ],
)
def test_another_jobs_folder_is_refused_with_the_difference(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replace(manifest(), **change).require_same(manifest(), Path("out"))  # type: ignore[arg-type]


def test_the_models_name_makes_no_difference() -> None:
    renamed = replace(manifest(), model=replace(HashEncoder().info, name="/elsewhere"))
    renamed.require_same(manifest(), Path("out"))


def test_a_file_appears_wholly_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
