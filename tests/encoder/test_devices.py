"""Real worker processes on a small checkpoint; every wait is bounded."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from m3rag.encoder.batching import Batch
from m3rag.encoder.devices import plan_shards
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.workers.block import MEMORY, Block
from m3rag.encoder.workers.process import Failure, WorkerTraceback
from m3rag.errors import ConfigurationError, ModelError
from m3rag.output import M3Output

DEVICES = ["cpu", "cpu"]
PATIENCE = 60
"""Seconds that anything may take on a busy machine; it is a bound, not a measure."""

LINUX = pytest.mark.skipif(not MEMORY.is_dir(), reason="looks into /proc and /dev/shm")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def single(tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu", batch_tokens=512, colbert_dtype="float32")


@pytest.fixture(scope="module")
def pool(tiny_checkpoint: Path) -> Iterator[M3Encoder]:
    with M3Encoder(str(tiny_checkpoint), device=DEVICES, batch_tokens=512, colbert_dtype="float32") as encoder:
        yield encoder


def workers() -> list[int]:
    return sorted(p.pid or 0 for p in multiprocessing.active_children() if p.name.startswith("m3rag"))


def segments(pid: int) -> list[str]:
    return [path.name for path in MEMORY.glob(f"m3rag-{pid}-*")]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def assert_equal(found: M3Output, expected: M3Output) -> None:
    assert np.array_equal(found.offsets, expected.offsets)
    assert np.abs(found.dense - expected.dense).max() <= 1e-5
    assert abs(found.lexical - expected.lexical).max() <= 1e-5
    assert np.array_equal(np.diff(found.lexical.indptr), np.diff(expected.lexical.indptr))
    assert np.abs(found.colbert - expected.colbert).max() <= 1e-5


def test_several_devices_give_what_one_gives(pool: M3Encoder, single: M3Encoder, multilingual_texts: list[str]) -> None:
    texts = [*multilingual_texts, "", " ", "🦆", "ducks " * 3000]
    done: list[int] = []
    assert_equal(pool.encode_documents(texts, progress=done.append), single.encode_documents(texts))
    assert sum(done) == len(texts)
    assert len(done) > 10
    assert_equal(pool.encode_queries(texts[:20]), single.encode_queries(texts[:20]))
    dense = pool.encode_dense(texts, role="query")
    assert np.abs(dense - single.encode_dense(texts, role="query")).max() <= 1e-5
    assert np.abs(pool.token_weights("ducks swim") - single.token_weights("ducks swim")).max() <= 1e-5
    assert pool.info == single.info


def test_options_and_half_precision_reach_the_workers(tiny_checkpoint: Path, multilingual_texts: list[str]) -> None:
    options = {"truncate_dim": 16, "normalize": False, "mcls": True, "query_instruction": "ducks:"}
    one = M3Encoder(str(tiny_checkpoint), device="cpu", **options)  # type: ignore[arg-type]
    with M3Encoder(str(tiny_checkpoint), device=DEVICES, **options) as two:  # type: ignore[arg-type]
        found, expected = two.encode_queries(multilingual_texts[:30]), one.encode_queries(multilingual_texts[:30])
    assert found.colbert.dtype == np.float16
    assert found.dense.shape == (30, 16)
    assert np.abs(found.dense - expected.dense).max() <= 1e-4
    assert np.allclose(found.colbert, expected.colbert, rtol=1e-2, atol=1e-2)
    assert two.info == one.info


def test_no_texts_start_no_worker(tiny_checkpoint: Path) -> None:
    before = workers()
    encoder = M3Encoder(str(tiny_checkpoint), device=DEVICES)
    assert encoder.encode_documents([]).dense.shape == (0, 64)
    assert workers() == before


@LINUX
def test_memory_is_reused_whatever_the_number_of_texts(
    pool: M3Encoder, single: M3Encoder, multilingual_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool.engine, "batch_tokens", 32)  # shards of a sentence or two, hundreds of them
    done: list[int] = []
    assert_equal(
        pool.encode_documents(multilingual_texts, progress=done.append), single.encode_documents(multilingual_texts)
    )
    assert len(done) > 40
    for pid in workers():
        mapped = {line.split()[5] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "m3rag-" in line}
        assert 1 <= len(mapped) <= 2
    assert not segments(os.getpid())  # no names: nothing could be left behind


def test_threads_share_the_workers(pool: M3Encoder, single: M3Encoder, multilingual_texts: list[str]) -> None:
    parts = [multilingual_texts[i::4] for i in range(4)]
    before = workers()
    with ThreadPoolExecutor(4) as threads:
        for found, part in zip(threads.map(pool.encode_documents, parts), parts, strict=True):
            assert_equal(found, single.encode_documents(part))
    assert workers() == before or not before


def test_a_caller_may_leave_early_or_call_in_between(pool: M3Encoder, multilingual_texts: list[str]) -> None:
    expected = pool.encode_documents(multilingual_texts)
    before = workers()

    def fail(_: int) -> None:
        raise ValueError("the caller's own")

    def ask(_: int) -> None:
        assert np.abs(pool.encode_queries(multilingual_texts[:1]).dense - expected.dense[0]).max() <= 1e-5

    with pytest.raises(ValueError, match="the caller's own"):
        pool.encode_documents(multilingual_texts, progress=fail)
    assert_equal(pool.encode_documents(multilingual_texts, progress=ask), expected)
    left = pool.engine.run(pool.pack(multilingual_texts, role="document"))
    next(left)  # and never again
    assert_equal(pool.encode_documents(multilingual_texts), expected)
    assert workers() == before


def test_a_killed_worker_ends_the_call(pool: M3Encoder, multilingual_texts: list[str]) -> None:
    expected = pool.encode_documents(multilingual_texts)
    before = workers()
    assert len(before) == 2
    told = r"worker on cpu was killed by SIGKILL.*lower batch_tokens or use fewer devices"
    doomed = before[:1]

    def kill_once(_: int) -> None:
        if doomed:
            os.kill(doomed.pop(), signal.SIGKILL)

    with pytest.raises(ModelError, match=told):
        pool.encode_documents(multilingual_texts * 5, progress=kill_once)
    wait_until(lambda: not set(workers()) & set(before))
    assert_equal(pool.encode_documents(multilingual_texts), expected)
    idle = workers()
    os.kill(idle[1], signal.SIGKILL)
    wait_until(lambda: idle[1] not in workers())
    assert_equal(pool.encode_documents(multilingual_texts), expected)
    assert not set(workers()) & set(idle)


def test_a_killed_worker_ends_the_calls_of_all_threads(pool: M3Encoder, multilingual_texts: list[str]) -> None:
    pool.encode_documents(multilingual_texts[:2])
    begun = [threading.Event(), threading.Event()]

    def encode(event: threading.Event) -> None:
        pool.encode_documents(multilingual_texts * 20, progress=lambda _: event.set())

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(encode, event) for event in begun]
        assert all(event.wait(PATIENCE) for event in begun)
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        for call in calls:
            with pytest.raises(ModelError, match="killed by SIG"):
                call.result(PATIENCE)


def test_an_exception_in_a_worker_is_raised_here(pool: M3Encoder, single: M3Encoder) -> None:
    no_token = Batch(np.array([0, 10**6, 2]), np.array([3]), np.array([False, True, True]), np.ones(3, np.float32))
    with pytest.raises(ModelError, match="the worker on cpu failed: IndexError: index out of range") as caught:
        list(pool.engine.run(no_token))
    assert isinstance(caught.value.__cause__, WorkerTraceback)
    assert "transformer.py" in str(caught.value.__cause__)
    assert_equal(pool.encode_documents(["ducks swim"]), single.encode_documents(["ducks swim"]))


def test_an_error_of_ours_keeps_its_class() -> None:
    failure = Failure.of(ConfigurationError("no such thing"), torch.device("cuda:1"))
    assert isinstance(failure.error(), ConfigurationError)
    assert str(failure.error()) == "the worker on cuda:1 failed: no such thing"


def test_a_model_that_does_not_load_says_why(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    encoder = M3Encoder(str(folder), device=DEVICES)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(ModelError, match=r"the worker on cpu failed: .*model\.safetensors is damaged"):
        encoder.encode_queries(["ducks"])
    (folder / "model.safetensors").write_bytes(weights)
    assert encoder.encode_queries(["ducks"]).dense.shape == (1, 64)
    encoder.close()


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], "device is an empty list"),
        ((), "device is an empty list"),
        ([0.5, "cpu"], "device is 0.5, must be a name"),
        ([97, 98], "'cuda:97' cannot be used on this machine, which has [0-9]+ CUDA devices"),
        (["cpu", "abacus"], "'abacus' cannot be used .*device='cpu'"),
        (["cuda:98", "cuda:99"], "'cuda:98' cannot be used on this machine, which has [0-9]+ CUDA devices"),
        (["cpu", "meta"], "device 'meta' cannot be used"),
    ],
)
def test_bad_devices_are_named(tiny_checkpoint: Path, devices: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        M3Encoder(str(tiny_checkpoint), device=devices)


def test_a_list_of_one_device_is_that_device(tiny_checkpoint: Path) -> None:
    assert M3Encoder(str(tiny_checkpoint), device=["cpu"]).network.colbert_dim == 64


def test_the_network_is_not_here(pool: M3Encoder) -> None:
    with pytest.raises(ConfigurationError, match=r"not in this process.*2 devices.*take one device"):
        _ = pool.network


def test_workers_end_with_their_encoder(tiny_checkpoint: Path) -> None:
    others = set(workers())

    def own() -> set[int]:
        return set(workers()) - others

    with M3Encoder(str(tiny_checkpoint), device=DEVICES) as encoder:
        encoder.encode_queries(["ducks"])
        assert len(own()) == 2
    assert not own()
    encoder.encode_queries(["ducks"])
    assert len(own()) == 2
    del encoder
    gc.collect()
    assert not own()


def test_shards_hold_each_text_once_and_grow_small_at_the_end() -> None:
    lengths = np.random.default_rng(0).integers(3, 200, 3000)
    shards = plan_shards(lengths, batch_tokens=2048, workers=2)
    assert sorted(np.concatenate(shards).tolist()) == list(range(3000))
    tokens = [int(lengths[rows].sum()) for rows in shards]
    assert max(tokens) <= 4 * 2048
    assert max(tokens[-4:]) <= 2048
    few = plan_shards(np.full(8, 10), batch_tokens=2048, workers=2)
    assert [len(rows) for rows in few] == [4, 4]  # a small call too is shared
    assert plan_shards(np.zeros(0, np.int64), batch_tokens=2048, workers=2) == []


@LINUX
def test_too_little_shared_memory_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ModelError, match=r"no room for .* bytes of shared memory .*--shm-size"):
        Block.create(1 << 42)
    assert not segments(os.getpid())


SCRIPT = """
import multiprocessing
import sys
import torch
from m3rag.encoder.encoder import M3Encoder

def main():
    torch.set_num_threads(1)
    encoder = M3Encoder(sys.argv[1], device=["cpu", "cpu"], batch_tokens=256)
    told = []
    def tell(_):
        if not told:
            told.append(True)
            print(*(p.pid for p in multiprocessing.active_children()), flush=True)
    encoder.encode_documents(["ducks that swim on ponds " * 20] * 100_000, progress=tell)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def encoding(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A script in the midst of a long call, and the ids of its workers."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script), str(tiny_checkpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, [int(pid) for pid in process.stdout.readline().split()]
        finally:
            process.kill()


@LINUX
def test_ctrl_c_ends_script_and_workers(encoding: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, pids = encoding
    assert len(pids) == 2
    os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert errors.count("KeyboardInterrupt") == 1
    assert "resource_tracker" not in errors
    wait_until(lambda: all(map(is_gone, pids)))
    assert not segments(process.pid)


@LINUX
def test_workers_do_not_outlive_a_killed_parent(encoding: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, pids = encoding
    assert len(pids) == 2
    process.kill()
    _, errors = process.communicate(timeout=PATIENCE)  # stderr ends with the last process that has it open
    assert errors == ""
    wait_until(lambda: all(map(is_gone, pids)))
    assert not segments(process.pid)


def test_a_script_without_a_guard_is_told_so(tiny_checkpoint: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script), str(tiny_checkpoint)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("m3rag.errors.ConfigurationError: the worker on cpu ended with exit code 1")
    assert 'a file with what it does under `if __name__ == "__main__":`' in last
