"""Recall, size, build time and latency of kinds of index on dense vectors, as a Markdown table.

    OMP_NUM_THREADS=1 python benchmarks/index_kinds.py [--n 100000] [--data ../shared/data] [--model mini]

Passages of the sets are encoded; where there are fewer than `--n`, further vectors are made of three
real ones each, a + spread * (b - c) at unit length: they have the real ones' directions and spread,
but are no texts. Questions are real. Recall is against FAISS's exact scan of float32. Needs faiss-cpu.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import qdrant_edge as qdrant

import m3rag.encoder
from m3rag.encoder.protocol import Encoder
from m3rag.errors import M3RagError
from m3rag.evaluation.datasets import load_beir

REPOSITORY = Path(__file__).parents[1]
DEFAULT_SETS = (
    "xquad/mono/en", "xquad/mono/de", "xquad/mono/zh", "xquad-r/mono/en", "xquad-r/mono/de", "xquad-r/mono/zh",
    "kazqad-val", "scifact",
)  # fmt: skip
SPREAD = 0.3
"""Of made vectors: the nearest neighbour of a made one is about as near as that of a real one."""

RESCORED = 10  # times k: how many of the bits' best are scored again

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Search = Callable[[Floats, int], Ids]  # one query (1, d) and k to ids (k,)


@dataclass(frozen=True)
class Built:
    """An index: its size, what building took, and how to search it with each of its settings."""

    name: str
    bytes: int
    build_s: float
    searches: tuple[tuple[str, Search], ...]


@dataclass(frozen=True)
class Row:
    """A line of the table; seconds and bytes are the index's, whatever the setting of the search."""

    kind: str
    setting: str
    recall_10: float
    recall_100: float
    bytes_a_vector: float
    build_s: float
    p50_ms: float


def main(argv: Sequence[str] | None = None, *, encoder: Encoder | None = None) -> int:
    """Run the benchmark; `encoder` replaces the model that `--model` names."""
    options = _options(argv)
    faiss.omp_set_num_threads(1)
    try:
        real, queries = encode(encoder or m3rag.encoder.M3Encoder(options.model), options.data, options.sets)
    except M3RagError as error:
        print(f"index_kinds.py: {error}", file=sys.stderr)
        return 2
    rng = np.random.default_rng(0)
    vectors = grown(real, options.n, rng)
    queries = queries[rng.permutation(len(queries))[: options.queries]]
    result = {
        "n": len(vectors),
        "real": min(len(real), len(vectors)),
        "dim": vectors.shape[1],
        "queries": len(queries),
        "cpus": os.cpu_count(),
        "rows": [asdict(row) for row in measure(vectors, queries)],
    }
    print(markdown(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def encode(encoder: Encoder, data: Path, names: Sequence[str]) -> tuple[Floats, Floats]:
    """Dense vectors of all different passages, and of all questions, of some sets."""
    sets = [load_beir(data / "retrieval" / name, name=name) for name in names]
    passages = list(dict.fromkeys(text for one in sets for text in one.corpus.values()))
    questions = list(dict.fromkeys(text for one in sets for text in one.queries.values()))
    return encoder.encode_documents(passages).dense, encoder.encode_queries(questions).dense


def grown(real: Floats, n: int, rng: np.random.Generator) -> Floats:
    """The first `n` real vectors, and made ones where there are not as many."""
    more = max(0, n - len(real))
    a, b = rng.integers(0, len(real), (2, more))
    c = b + rng.integers(1, max(2, len(real)), more)  # never b itself, which would make a copy of a
    made = real[a] + np.float32(SPREAD) * (real[b] - real[c % len(real)])
    made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)
    return np.ascontiguousarray(np.concatenate([real[:n], made]), np.float32)


def measure(vectors: Floats, queries: Floats) -> Iterator[Row]:
    """One row for each index and each setting of its search."""
    k = min(100, len(vectors))
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    truth: Ids = exact.search(queries, k)[1]
    for built in indexes(vectors):
        for setting, search in built.searches:
            found, elapsed = [], []
            for query in queries:
                started = time.perf_counter()
                found.append(search(query[None], k))
                elapsed.append(time.perf_counter() - started)
            row = Row(
                kind=built.name,
                setting=setting,
                recall_10=_recall(truth, found, 10),
                recall_100=_recall(truth, found, 100),
                bytes_a_vector=round(built.bytes / len(vectors), 1),
                build_s=round(built.build_s, 2),
                p50_ms=round(1e3 * float(np.median(elapsed)), 3),
            )
            print(row, file=sys.stderr)
            yield row


def indexes(vectors: Floats) -> Iterator[Built]:
    """Every kind of index, one at a time, since each holds all vectors."""
    n, dim = vectors.shape
    for name, factory in (("flat float32", "Flat"), ("flat float16", "SQfp16"), ("flat int8", "SQ8")):
        yield _faiss(f"FAISS {name}", factory, vectors, "", [{}])
    yield _binary(vectors)
    for m in (16, 32):
        for ef_construct in (100, 200):
            grid = [{"efSearch": ef} for ef in (32, 128, 512)]
            yield _faiss("FAISS HNSW", f"HNSW{m},Flat", vectors, f"efConstruction={ef_construct}", grid)
    # FAISS's own advice: 4 to 16 times the root of n, with at least 39 vectors a list to learn from.
    lists = max(1, min(int(4 * n**0.5), n // 39))
    probes = [{"nprobe": min(p, lists)} for p in (8, 32, 128)]
    yield _faiss("FAISS IVF", f"IVF{lists},Flat", vectors, "", probes)
    if n >= 10_000 and dim % 8 == 0:  # 256 centroids of each part want 39 vectors each
        yield _faiss("FAISS IVF-PQ", f"IVF{lists},PQ{dim // 8}", vectors, "", probes)
        refined = [{**probe, "k_factor_rf": 4} for probe in probes]
        yield _faiss("FAISS IVF-PQ, best 4 k rescored", f"IVF{lists},PQ{dim // 8},Refine(SQfp16)", vectors, "", refined)
    for m, ef_construct in ((0, 4), (16, 100), (16, 200), (32, 200)):
        yield from _edge(vectors, m=m, ef_construct=ef_construct)


def _faiss(name: str, factory: str, vectors: Floats, build: str, grid: Sequence[dict[str, int]]) -> Built:
    started = time.process_time()
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    space = faiss.ParameterSpace()
    if build:
        space.set_index_parameters(index, build)
    index.train(vectors)
    index.add(vectors)
    seconds = time.process_time() - started

    def searcher(settings: dict[str, int]) -> Search:
        def search(query: Floats, k: int) -> Ids:
            ids: Ids = index.search(query, k)[1][0]
            return ids

        return lambda query, k: (_apply(space, index, settings), search(query, k))[1]

    label = f"{name} ({', '.join(part for part in (factory, build) if part)})"
    searches = tuple((", ".join(f"{key}={value}" for key, value in one.items()), searcher(one)) for one in grid)
    return Built(label, len(faiss.serialize_index(index)), seconds, searches)


def _apply(space: Any, index: Any, settings: dict[str, int]) -> None:
    if settings:
        space.set_index_parameters(index, ",".join(f"{key}={value}" for key, value in settings.items()))


def _binary(vectors: Floats) -> Built:
    started = time.process_time()
    index = faiss.IndexBinaryFlat(-(-vectors.shape[1] // 8) * 8)
    index.add(np.packbits(vectors > 0, axis=1))
    fine = vectors.astype(np.float16)
    seconds = time.process_time() - started

    def search(query: Floats, k: int) -> Ids:
        ids: Ids = index.search(np.packbits(query > 0, axis=1), min(RESCORED * k, len(vectors)))[1][0]
        best: Ids = ids[np.argsort(-(fine[ids].astype(np.float32) @ query[0]), kind="stable")[:k]]
        return best

    name = f"FAISS flat binary, best {RESCORED} k rescored by float16"
    return Built(name, vectors.size // 8 + 2 * vectors.size, seconds, (("", search),))


def _edge(vectors: Floats, *, m: int, ef_construct: int) -> Iterator[Built]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        parameters = qdrant.EdgeVectorParams(
            vectors.shape[1],
            qdrant.Distance.Dot,
            hnsw_config=qdrant.HnswIndexConfig(m=m, ef_construct=ef_construct, full_scan_threshold=1),
        )
        # A graph at once for m > 0, and none whatever the size for m = 0.
        optimizers = qdrant.EdgeOptimizersConfig(indexing_threshold=1 if m else 10**9)
        shard = qdrant.EdgeShard.create(folder, qdrant.EdgeConfig(vectors={"": parameters}, optimizers=optimizers))
        try:
            for start in range(0, len(vectors), 1000):
                block = vectors[start : start + 1000].tolist()
                points = [qdrant.Point(start + i, vector, {}) for i, vector in enumerate(block)]
                shard.update(qdrant.UpdateOperation.upsert_points(points))
            shard.optimize()
            shard.flush()
            seconds = time.process_time() - started
            # Blocks, since the engine's files are sparse.
            size = sum(512 * path.stat().st_blocks for path in Path(folder, "segments").rglob("*") if path.is_file())
            name = f"Qdrant Edge HNSW (m={m}, ef_construct={ef_construct})" if m else "Qdrant Edge, exact scan"
            searches = [("exact", _edge_search(shard, None))]
            if m:
                searches = [(f"ef={ef}", _edge_search(shard, ef)) for ef in (32, 128, 512)]
            yield Built(name, size, seconds, tuple(searches))
        finally:
            shard.close()


def _edge_search(shard: qdrant.EdgeShard, ef: int | None) -> Search:
    parameters = qdrant.SearchParams(exact=True) if ef is None else qdrant.SearchParams(hnsw_ef=ef)

    def search(query: Floats, k: int) -> Ids:
        nearest = qdrant.Query.Nearest(query[0].tolist(), using="")
        found = shard.query(qdrant.QueryRequest(limit=k, query=nearest, params=parameters))
        return np.array([point.id for point in found], np.int64)

    return search


def _recall(truth: Ids, found: Sequence[Ids], k: int) -> float:
    shares = [len(np.intersect1d(true[:k], ids[:k])) / len(true[:k]) for true, ids in zip(truth, found, strict=True)]
    return round(float(np.mean(shares)), 4)


def markdown(result: dict[str, Any]) -> str:
    """The table with what made it."""
    made = f"{result['n']:,} vectors of {result['dim']} dimensions, {result['real']:,} of real passages"
    asked = f"{result['queries']} real questions, k = 100"
    lines = [
        f"{made}; {asked}; {result['cpus']} CPUs, FAISS on one thread. Build: CPU seconds.",
        "",
        "| index | search | recall@10 | recall@100 | bytes a vector | build s | p50 ms |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['kind']} | {row['setting'] or '-'} | {row['recall_10']:.3f} | {row['recall_100']:.3f} | "
            f"{row['bytes_a_vector']:,.0f} | {row['build_s']:.1f} | {row['p50_ms']:.2f} |"
        )
    return "\n".join(lines)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Recall, size, build time and latency of kinds of index.")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="folder of the data")
    parser.add_argument("--model", default="mini", help="mini, a hub id or a checkpoint folder")
    parser.add_argument("--sets", nargs="+", default=list(DEFAULT_SETS), metavar="SET", help="folders under retrieval/")
    parser.add_argument("--n", type=int, default=20_000, help="vectors in the index")
    parser.add_argument("--queries", type=int, default=200, help="most questions")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
