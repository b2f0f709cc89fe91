"""What the embedding cache costs and saves: SQLite against LMDB, then the encoder against the cache.

    python benchmarks/cache.py [--data ../shared/data] [--model mini] [--values 1000] [--texts 100] [--rounds 5]

LMDB is not a dependency: `pip install lmdb` for the first table, which is left out without it. Its side
is the least that could serve (put and get, no budget, no checksum, no note of uses), with the same
promise for a power failure (a commit may be lost, the file is never damaged). Each figure is the
median of the rounds, both engines in turn within each; cold means that the file's pages were dropped
from memory and the file was opened anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import numpy as np

from m3rag.encoder import M3Encoder
from m3rag.encoder.cache import MemoryCache
from m3rag.encoder.cached import CachedEncoder
from m3rag.encoder.disk_cache import DiskCache
from m3rag.output import M3Output

BATCH = 100  # values of one put
VALUE_BYTES = 40_000  # about 150 tokens of mini, 20 of BGE-M3


class Lmdb:
    """The least LMDB that could serve as a cache."""

    def __init__(self, path: Path) -> None:
        import lmdb

        self.environment = lmdb.open(str(path), map_size=4 * 2**30, subdir=False, metasync=False)

    def put(self, values: Mapping[bytes, bytes]) -> None:
        with self.environment.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key, value)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        with self.environment.begin() as transaction:
            return {key: value for key in keys if (value := transaction.get(key)) is not None}

    def __enter__(self) -> Lmdb:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.environment.close()


ENGINES: dict[str, Callable[[Path], AbstractContextManager[Any]]] = {"SQLite": DiskCache, "LMDB": Lmdb}


def random_values(n: int, *, seed: int) -> dict[bytes, bytes]:
    """Values of 40 KB on average, as little compressible as vectors are."""
    random = np.random.default_rng(seed)
    sizes = random.normal(VALUE_BYTES, VALUE_BYTES / 4, n).clip(2_000).astype(int)
    return {random.bytes(32): random.bytes(int(size)) for size in sizes}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def put_all(cache: Any, values: Mapping[bytes, bytes]) -> None:
    items = list(values.items())
    for start in range(0, len(items), BATCH):
        cache.put(dict(items[start : start + BATCH]))


def get_all(cache: Any, values: Mapping[bytes, bytes]) -> None:
    keys = list(values)
    for start in range(0, len(keys), BATCH):
        assert len(cache.get(keys[start : start + BATCH])) == len(keys[start : start + BATCH])


def write_beside_another(engine: str, path: Path, values: Mapping[bytes, bytes], ready: Any, times: Any) -> None:
    """One of two processes: wait for the other, then write."""
    with ENGINES[engine](path) as cache:
        ready.wait()
        times.put(seconds(lambda: put_all(cache, values)))


def drop_from_memory(folder: Path) -> None:
    """Write the pages of all files to disk and forget them."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_engine(engine: str, folder: Path, values: Mapping[bytes, bytes]) -> dict[str, float]:
    """Seconds of each job on a new file."""
    path, opened, found = folder / "cache", ENGINES[engine], {}
    with opened(path) as cache:
        found["put"] = seconds(lambda: put_all(cache, values))
        found["get, warm"] = seconds(lambda: get_all(cache, values))
    drop_from_memory(folder)
    with opened(path) as cache:
        found["get, cold"] = seconds(lambda: get_all(cache, values))
        found["get of one, warm"] = seconds(lambda: [cache.get([key]) for key in values]) / len(values)
    context = multiprocessing.get_context("spawn")
    ready, times = context.Barrier(2), context.Queue()
    writers = [
        context.Process(
            target=write_beside_another,
            args=(engine, path, random_values(len(values) // 2, seed=seed), ready, times),
        )
        for seed in (1, 2)
    ]
    for writer in writers:
        writer.start()
    found["put by two processes at once, half each"] = max(times.get(timeout=300) for _ in writers)
    for writer in writers:
        writer.join()
    return found


def compare_engines(n: int, rounds: int) -> None:
    values = random_values(n, seed=0)
    runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for _ in range(rounds):
        for engine, of_engine in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                of_engine.append(measure_engine(engine, Path(folder), values))
    print(f"| {n} values of 40 KB, seconds | {' | '.join(ENGINES)} | ratio |\n|---|--:|--:|--:|")
    for job in runs["SQLite"][0]:
        sqlite, lmdb = (median(run[job] for run in runs[engine]) for engine in ENGINES)
        digits = 6 if sqlite < 0.001 else 3
        print(f"| {job} | {sqlite:.{digits}f} | {lmdb:.{digits}f} | {sqlite / lmdb:.1f} |")


class Replay:
    """An encoder that takes no time, so that what is left is the cache's own work."""

    def __init__(self, encoder: M3Encoder, output: M3Output) -> None:
        self.info, self.max_length, self._output = encoder.info, encoder.max_length, output

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        return self._output[: len(texts)]

    encode_queries = encode_documents


def measure_cache(through: CachedEncoder, texts: Sequence[str]) -> list[float]:
    """Seconds of a call in which nothing is held, of one in which all is, and of one call a text."""
    return [
        seconds(lambda: through.encode_documents(texts)),
        seconds(lambda: through.encode_documents(texts)),
        seconds(lambda: [through.encode_documents([text]) for text in texts]),
    ]


def compare_encoder(model: str, texts: Sequence[str], rounds: int) -> None:
    """The encoder alone, then what the cache adds when nothing is held, and what it takes when all is."""
    encoder = M3Encoder(model)
    encoder.encode_documents(texts[:10])
    start = time.perf_counter()
    output = encoder.encode_documents(texts)
    alone = time.perf_counter() - start
    replay: Any = Replay(encoder, output)
    on_disk, in_memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds):
            with DiskCache(Path(folder) / str(i)) as disk:
                on_disk.append(measure_cache(CachedEncoder(replay, disk), texts))
                held = disk.stats()
            in_memory.append(measure_cache(CachedEncoder(replay, MemoryCache(max_bytes=2**31)), texts))
    size = held.bytes / held.entries / 1000
    print(f"\n| {len(texts)} passages with {model}, {size:.0f} KB each, ms | on disk | in memory |\n|---|--:|--:|")
    print(f"| the encoder alone | {1000 * alone:.0f} | {1000 * alone:.0f} |")
    for i, job in enumerate(("nothing held: what the cache adds", "all held", "all held, one call a passage")):
        took = [median(run[i] for run in runs) for runs in (on_disk, in_memory)]
        print(f"| {job} | " + " | ".join(f"{1000 * t:.1f} (1/{alone / t:,.0f})" for t in took) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--values", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if importlib.util.find_spec("lmdb"):
        compare_engines(options.values, options.rounds)
    else:
        print("lmdb is not installed: its table is left out (pip install lmdb)", file=sys.stderr)
    corpus = options.data / "retrieval/xquad/mono/en/corpus.jsonl"
    with corpus.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][: options.texts]
    compare_encoder(options.model, texts, options.rounds)


if __name__ == "__main__":
    main()
