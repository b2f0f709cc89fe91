"""A corpus through a real Ray session: the numbers of M3Encoder, and no kill that loses or repeats a shard."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from m3rag._alone import LOCK
from m3rag.bulk import EncodeReport, encode_corpus, read_encoded
from m3rag.bulk.encode import ATTEMPTS, _attempt
from m3rag.bulk.output import shard_path
from m3rag.bulk.session import import_ray
from m3rag.encoder import M3Encoder
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.output import M3Output

SHARD_BYTES = 4000

ENCODE = """
import sys
from m3rag.bulk import encode_corpus
source, out, model = sys.argv[1:]
encode_corpus(source, out, model=model, shard_bytes=1, progress=lambda done, texts: print(done, flush=True))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """One Ray session for the whole module, of two CPUs; gives its address."""
    ray = import_ray()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            num_cpus=2,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield str(ray.get_runtime_context().gcs_address)
        ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, multilingual_texts: list[str]) -> Path:
    """Real texts in six languages and an empty one, in a JSONL and a Parquet file."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = [(f"d{i}", text) for i, text in enumerate(["", *multilingual_texts[::3]])]
    half = len(rows) // 2
    lines = [json.dumps({"_id": id, "body": text}) for id, text in rows[:half]]
    (folder / "1.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pq.write_table(
        pa.table({"_id": [id for id, _ in rows[half:]], "body": [text for _, text in rows[half:]]}),
        folder / "2.parquet",
        row_group_size=20,
    )
    return folder


@pytest.fixture(scope="module")
def texts(multilingual_texts: list[str]) -> list[str]:
    return ["", *multilingual_texts[::3]]


def write_corpus(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)))
    return path


def encode(source: Path, out: Path, model: Path | str, **options: Any) -> EncodeReport:
    return encode_corpus(source, out, **{"model": str(model), "shard_bytes": SHARD_BYTES, **options})


def read_all(out: Path) -> tuple[list[str], M3Output]:
    parts = list(read_encoded(out))
    return [id for ids, _ in parts for id in ids], M3Output.concatenate([output for _, output in parts])


def assert_same(found: M3Output, expected: M3Output) -> None:
    assert np.abs(found.dense - expected.dense).max() <= 1e-5
    assert abs(found.lexical - expected.lexical).max() <= 1e-5
    assert np.array_equal(found.offsets, expected.offsets)
    assert np.abs(found.colbert.astype(np.float32) - expected.colbert.astype(np.float32)).max() <= 1e-3


@pytest.mark.usefixtures("cluster")
def test_a_corpus_has_the_encoders_numbers_and_only_damaged_shards_are_redone(
    tmp_path: Path, corpus: Path, texts: list[str], tiny_checkpoint: Path
) -> None:
    out = tmp_path / "out"
    told: list[tuple[int, int]] = []
    options = {
        "id_field": "_id",
        "text_field": "body",
        "max_length": 48,
        "concurrency": 2,
        "progress": lambda *count: told.append(count),
    }
    report = encode(corpus, out, tiny_checkpoint, **options)
    n = len(texts)
    assert report.texts == n
    assert report.shards > 4
    assert report.kept == 0
    assert 0 < report.cut < n
    assert told[0] == (0, n)
    assert told[-1] == (n, n)
    assert len(told) == report.shards + 1

    ids, found = read_all(out)
    assert ids == [f"d{i}" for i in range(n)]
    expected = M3Encoder(str(tiny_checkpoint), device="cpu").encode_documents(texts, max_length=48)
    assert_same(found, expected)

    written = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(written) == report.shards
    cut, lost = shard_path(out, 1), shard_path(out, 3)
    cut.write_bytes(cut.read_bytes()[:-100])
    lost.unlink()
    (out / f"{lost.name}.0123.partial").write_bytes(b"left by a kill")
    again = encode(corpus, out, tiny_checkpoint, **options)
    assert again == replace(report, kept=report.shards - 2, cut=again.cut)
    assert 0 < again.cut < report.cut
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert kept.keys() == written.keys()
    assert {name for name in kept if kept[name] != written[name]} == {cut.name, lost.name}
    assert_same(read_all(out)[1], expected)

    with pytest.raises(ConfigurationError, match="role document, now query"):
        encode(corpus, out, tiny_checkpoint, **options, role="query")


def test_a_killed_run_is_finished_by_the_next(
    tmp_path: Path, cluster: str, texts: list[str], tiny_checkpoint: Path
) -> None:
    source, out = write_corpus(tmp_path / "in.jsonl", texts), tmp_path / "out"
    killed = subprocess.Popen(
        [sys.executable, "-c", ENCODE, str(source), str(out), str(tiny_checkpoint)],
        env={**os.environ, "RAY_ADDRESS": cluster},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    with killed, killed.stdout as progress:
        assert int(progress.readline()) == 0
        assert int(progress.readline()) > 0
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(InputError, match="unfinished"):
        next(read_encoded(out))
    report = encode(source, out, tiny_checkpoint, shard_bytes=1)
    assert 1 <= report.kept < report.shards
    ids, found = read_all(out)
    assert ids == [str(i) for i in range(len(texts))]
    assert_same(found, M3Encoder(str(tiny_checkpoint), device="cpu").encode_documents(texts))
    assert not list(out.glob("*.partial"))


@pytest.mark.usefixtures("cluster")
def test_no_texts_give_an_empty_output_with_its_columns(tmp_path: Path, tiny_checkpoint: Path) -> None:
    source, out = write_corpus(tmp_path / "in.jsonl", []), tmp_path / "out"
    report = encode(source, out, tiny_checkpoint, encoder_options={"truncate_dim": 16})
    assert report == EncodeReport(texts=0, shards=1, kept=0, cut=0)
    ids, found = read_all(out)
    assert ids == []
    assert (found.dense.shape, found.colbert.shape) == ((0, 16), (0, 64))
    assert pq.read_schema(shard_path(out, 0)).field("dense").type.list_size == 16


@pytest.mark.usefixtures("cluster")
def test_what_fails_in_a_worker_is_told_as_it_is_elsewhere(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "in.jsonl", ["text"])
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match=r"has no config\.json") as caught:
        encode(source, tmp_path / "out", tmp_path / "model")
    assert "ray::" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigurationError, match=r"concurrency 3 .* Ray's 2 CPUs"):
        encode(source, tmp_path / "out", tmp_path / "model", concurrency=3)
    with pytest.raises(TypeError, match="pool"):
        encode(source, tmp_path / "out", tmp_path / "model", encoder_options={"pool": "cls"})


@pytest.mark.usefixtures("cluster")
def test_what_fails_at_a_shard_is_told_and_the_rest_can_be_done_later(
    tmp_path: Path, texts: list[str], tiny_checkpoint: Path
) -> None:
    source, out = write_corpus(tmp_path / "in.jsonl", texts), tmp_path / "out"

    def change(done: int, texts: int) -> None:
        if 0 < done < texts:
            write_corpus(source, ["other text"])

    with pytest.raises(InputError, match=r"in\.jsonl changed while being encoded"):
        encode(source, out, tiny_checkpoint, shard_bytes=1, progress=change)
    write_corpus(source, texts)
    report = encode(source, out, tiny_checkpoint, shard_bytes=1)
    assert 1 <= report.kept < report.shards
    assert read_all(out)[0] == [str(i) for i in range(len(texts))]


@pytest.mark.usefixtures("cluster")
def test_folders_that_are_anothers_are_left_alone(tmp_path: Path, tiny_checkpoint: Path) -> None:
    source, out = write_corpus(tmp_path / "in.jsonl", ["text"]), tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match=r"holds other files \(diary\.txt\)"):
        encode(source, out, tiny_checkpoint)
    assert [path.name for path in out.iterdir()] == ["diary.txt"]
    (out / "diary.txt").unlink()
    with FileLock(out / LOCK), pytest.raises(InputError, match="being written by another run"):
        encode(source, out, tiny_checkpoint)
    with pytest.raises(InputError, match="cannot be written"):
        encode(source, source, tiny_checkpoint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_bytes": 0}, "shard_bytes"),
        ({"role": "passage"}, "must be query or document"),
        ({"encoder_options": {"dtype": "float32", "colbert_dtype": "float32"}}, "cannot set colbert_dtype"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, InputError), match=message):
        encode(tmp_path / "in.jsonl", tmp_path / "out", "mini", **options)


def test_an_output_inside_the_input_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "in.jsonl", ["text"])
    with pytest.raises(InputError, match="lies in the input"):
        encode(tmp_path, tmp_path / "out", "mini")


def test_a_shard_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    program = (
        "import os, sys; from pathlib import Path; from m3rag.bulk.encode import _attempt\n"
        "with _attempt(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    for _ in range(ATTEMPTS):
        assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -signal.SIGKILL
    with pytest.raises(ModelError, match=r"3 workers died over part-000000\.parquet"), _attempt(path):
        pytest.fail("the shard was begun once more")
    other = shard_path(tmp_path, 1)
    for _ in range(ATTEMPTS + 1):
        with _attempt(other):
            pass
