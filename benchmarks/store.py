"""A store at size: how long each mode takes, with and without filters, and what a chunk costs.

    python benchmarks/store.py [--chunks 10000 100000] [--queries 100] [--contenders m3rag raw chroma bm25s bgem3index]

Every contender runs in a process of its own over the same made-up chunks (`synthetic.py`): 1024
dimensions dense, about 120 lexical weights, about 140 token vectors. Questions are encoded beforehand:
what is timed is the search alone, from the representations to hits with their texts. Times are medians
and 95th percentiles over the questions, after ten to warm up.

- `m3rag`: the default store with `HybridRetriever`, in every mode, once the first stage is in memory (`read s`);
  filters let 1 % and 50 % pass.
- `raw`: the calls of Qdrant Edge that the store makes, without the store: dense and lexical top-k with
  payload. The ratio is what the store adds.
- `chroma`: dense vectors alone in Chroma's PersistentClient, top 10, the same filters.
- `bm25s`: the tokens alone in bm25s, top 10.
- `bgem3index`: the search of LlamaIndex's BGEM3Index (its own code and FlagEmbedding's scoring), on the
  same representations in memory. Not beyond 10,000 chunks: it compares with every chunk in Python.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import Corpus

from m3rag.output import M3Output

FILTERS: Mapping[str, dict[str, Any] | None] = {"no filter": None, "50 %": {"half": 0}, "1 %": {"hundred": 7}}
WARM_UP = 10


def timed(calls: Sequence[Callable[[], object]]) -> tuple[float, float]:
    """The median and the 95th percentile, in milliseconds, of calls made one after the other."""
    for call in calls[:WARM_UP]:
        call()
    taken = []
    for call in calls:
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    return float(np.median(taken)), float(np.percentile(taken, 95))


def memory_mb() -> float:
    """What this process holds in memory now, files it has mapped included."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def size_of(folder: Path) -> int:
    """Bytes on disk: blocks, not lengths, since engines preallocate sparse files."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


class Prepared:
    """Stands where a retriever wants an encoder; the questions come encoded."""

    def __init__(self, corpus: Corpus) -> None:
        self.info = corpus.model


def recalls(corpus: Corpus, retriever: Any, queries: Sequence[M3Output]) -> dict[str, float]:
    """The share of the best 100 by an exhaustive weighted sum (numpy, every chunk, every leg) that a search gives."""
    from m3rag.scoring import LEG_SCORES, Weights, fuse

    asked = M3Output.concatenate(queries)
    legs = {"dense+lexical": ("dense", "lexical"), "all": ("dense", "lexical", "colbert")}
    best: dict[str, list[list[tuple[float, str]]]] = {mode: [[] for _ in queries] for mode in legs}
    for chunks, output in corpus.parts():
        scores = {leg: LEG_SCORES[leg](asked, output) for leg in LEG_SCORES}
        for mode, used in legs.items():
            fused = fuse({leg: scores[leg] for leg in used}, Weights.parse("miracl", legs=used))
            for one, row in zip(best[mode], fused, strict=True):
                one += [(-row[i], chunks[i].id) for i in np.argsort(-row)[:100]]
                one[:] = sorted(one)[:100]
    found = {}
    for mode, exact in best.items():
        hits = [{hit.chunk.id for hit in retriever.search_output(q, k=100, mode=mode)} for q in queries]
        shares = [len(got & {id_ for _, id_ in one}) / 100 for got, one in zip(hits, exact, strict=True)]
        found[f"recall@100, {mode}"] = float(np.mean(shares))
    return found


def run_m3rag(corpus: Corpus, folder: Path, queries: list[M3Output]) -> dict[str, Any]:
    from m3rag.retrieval import HybridRetriever, Mode
    from m3rag.store import DocumentRecord, QdrantEdgeStore

    path = folder / "m3rag"
    if not path.exists():
        store = QdrantEdgeStore.create(path, corpus.model)
        start = time.perf_counter()
        for chunks, output in corpus.parts():
            for a in range(0, len(chunks), 100):
                own = chunks[a : a + 100]
                record = DocumentRecord(own[0].document_id, own[0].document_id, "1", len(own))
                store.put_document(record, [(own, output[a : a + 100])])
        build = time.perf_counter() - start
        store.close()
    else:
        build = float("nan")
    start = time.perf_counter()
    store = QdrantEdgeStore.open(path)
    reopened = time.perf_counter() - start
    retriever = HybridRetriever(Prepared(corpus), store)  # type: ignore[arg-type]
    for query in queries[:2]:  # the second has the first stage read into memory
        store.candidates(query, "dense", k=10)
    start = time.perf_counter()
    store._view.wait()
    read = time.perf_counter() - start
    rows = {}
    for mode in (Mode.DENSE, Mode.LEXICAL, Mode.DENSE_LEXICAL, Mode.ALL):
        for name, filter in FILTERS.items():
            calls = [lambda q=q, f=filter, m=mode: retriever.search_output(q, k=10, mode=m, filter=f) for q in queries]
            rows[f"{mode.value}, {name}"] = timed(calls)
    ids = [[id_ for id_, _ in store.candidates(q, "dense", k=200)] for q in queries]
    legs = {
        "dense top 100": [lambda q=q: store.candidates(q, "dense", k=100) for q in queries],
        "lexical top 100": [lambda q=q: store.candidates(q, "lexical", k=100) for q in queries],
        "ColBERT of 200": [lambda q=q, i=i: store.score(q, "colbert", i) for q, i in zip(queries, ids, strict=True)],
    }
    rows |= {name: timed(calls) for name, calls in legs.items()}
    memory = memory_mb()
    recall = recalls(corpus, retriever, queries[:20])
    store.close()
    return {
        "build": build,
        "reopen": reopened,
        "read": read,
        "bytes": size_of(path) / corpus.chunks,
        "memory": memory,
        "rows": rows,
    } | recall


def run_raw(corpus: Corpus, folder: Path, queries: list[M3Output]) -> dict[str, Any]:
    import qdrant_edge as qdrant

    from m3rag.store.edge_folder import load_shard
    from m3rag.store.edge_points import EXACT_UP_TO, query_vector
    from m3rag.store.manifest import read_manifest

    start = time.perf_counter()
    shard, _ = load_shard(folder / "m3rag", read_manifest(folder / "m3rag"))
    reopened = time.perf_counter() - start
    chunk = qdrant.Filter(must=[qdrant.FieldCondition("kind", match=qdrant.MatchAny(["chunk"]))])

    def search(query: M3Output, leg: Any, k: int, only: Any) -> list[Any]:
        vector = query_vector(query, leg)
        how = qdrant.SearchParams(
            exact=leg != "dense" or corpus.chunks <= EXACT_UP_TO,
            hnsw_ef=max(256, 2 * k),
            quantization=qdrant.QuantizationSearchParams(rescore=True, oversampling=2),
        )
        nearest = qdrant.Query.Nearest(vector, leg)
        return shard.query(qdrant.QueryRequest(limit=k, query=nearest, filter=only, params=how, with_payload=["id"]))

    rows = {
        "dense top 100": timed([lambda q=q: search(q, "dense", 100, chunk) for q in queries]),
        "lexical top 100": timed([lambda q=q: search(q, "lexical", 100, chunk) for q in queries]),
    }
    shard.close()
    return {"reopen": reopened, "memory": memory_mb(), "rows": rows}


def run_chroma(corpus: Corpus, folder: Path, queries: list[M3Output]) -> dict[str, Any]:
    import chromadb
    from chromadb.config import Settings

    path = folder / "chroma"
    settings = Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(str(path), settings)
    collection = client.get_or_create_collection("chunks", configuration={"hnsw": {"space": "ip"}})
    there = collection.count() > 0
    start = time.perf_counter()
    for chunks, output in () if there else corpus.parts():
        collection.add(
            ids=[chunk.id for chunk in chunks],
            embeddings=output.dense,
            documents=[chunk.text for chunk in chunks],
            metadatas=[dict(chunk.metadata) for chunk in chunks],
        )
    build = float("nan") if there else time.perf_counter() - start
    rows = {}
    for name, filter in FILTERS.items():
        calls = [lambda q=q, f=filter: collection.query(q.dense, n_results=10, where=f) for q in queries]
        rows[f"dense, {name}"] = timed(calls)
    return {"build": build, "bytes": size_of(path) / corpus.chunks, "memory": memory_mb(), "rows": rows}


def run_bm25s(corpus: Corpus, folder: Path, queries: list[M3Output]) -> dict[str, Any]:
    import bm25s

    start = time.perf_counter()
    tokens = [
        [str(i) for i in output[row].lexical.indices] for _, output in corpus.parts() for row in range(len(output))
    ]
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    build = time.perf_counter() - start
    asked = [[str(i) for i in query.lexical.indices] for query in queries]
    calls = [lambda t=t: index.retrieve([t], k=10, show_progress=False) for t in asked]
    return {"build": build, "memory": memory_mb(), "rows": {"lexical, no filter": timed(calls)}}


def run_bgem3index(corpus: Corpus, folder: Path, queries: list[M3Output]) -> dict[str, Any]:
    from FlagEmbedding import BGEM3FlagModel
    from llama_index.core.schema import TextNode
    from llama_index.indices.managed.bge_m3 import BGEM3Index

    class Encoded(BGEM3FlagModel):
        """FlagEmbedding's scoring; what it would encode is already encoded."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.outputs: dict[str, Any] = {}

        def encode(self, sentences: Any, **kwargs: Any) -> Any:
            return self.outputs[sentences]

        def stop_self_pool(self) -> None:
            pass

    def weights(output: M3Output, row: int) -> dict[str, float]:
        one = output[row].lexical
        return {str(i): float(w) for i, w in zip(one.indices, one.data, strict=True)}

    parts = list(corpus.parts())
    chunks = [chunk for part, _ in parts for chunk in part]
    output = M3Output.concatenate([output for _, output in parts])
    index = BGEM3Index.__new__(BGEM3Index)
    index.model = Encoded()
    index.batch_size, index.query_maxlen, index.weights_for_different_modes = 32, 8192, [1.0, 0.3, 1.0]
    index._multi_embed_store = {
        "dense_vecs": output.dense,
        "lexical_weights": [weights(output, row) for row in range(len(output))],
        "colbert_vecs": [output.colbert_of(row).astype(np.float32) for row in range(len(output))],
    }
    index._docs_pos_to_node_id = {i: chunk.id for i, chunk in enumerate(chunks)}
    from llama_index.core.storage.docstore import SimpleDocumentStore

    docstore = SimpleDocumentStore()
    docstore.add_documents([TextNode(id_=chunk.id, text=chunk.text) for chunk in chunks])
    index._docstore = docstore
    for number, query in enumerate(queries):
        index.model.outputs[str(number)] = {
            "dense_vecs": query.dense[0],
            "lexical_weights": weights(query, 0),
            "colbert_vecs": query.colbert.astype(np.float32),
        }
    calls = [lambda n=n: index.query(str(n), top_k=10) for n in range(len(queries))]
    return {"memory": memory_mb(), "rows": {"all, no filter": timed(calls)}}


CONTENDERS = {
    "m3rag": run_m3rag,
    "raw": run_raw,
    "chroma": run_chroma,
    "bm25s": run_bm25s,
    "bgem3index": run_bgem3index,
}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| contender | search | p50 ms | p95 ms |", "|---|---|--:|--:|"]
    for name, result in results.items():
        lines += [f"| {name} | {row} | {p50:.2f} | {p95:.2f} |" for row, (p50, p95) in result["rows"].items()]
    lines += ["", "| contender | build s | reopen s | read s | bytes a chunk | memory MB |"]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    for name, result in results.items():
        cells = (f"{result[key]:,.{digits}f}" if key in result else "" for key, digits in COLUMNS.items())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [f"\n{name}: {key} {share:.4f}" for name, r in results.items() for key, share in r.items() if "@" in key]
    return "\n".join(lines)


COLUMNS = {"build": 0, "reopen": 2, "read": 1, "bytes": 0, "memory": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--colbert-dim", type=int, default=128)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, help="keep the stores here, and use those that lie here already")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for chunks in arguments.chunks:
        corpus = Corpus(chunks, colbert_dim=arguments.colbert_dim)
        if arguments.one:
            result = CONTENDERS[arguments.one](corpus, arguments.folder, corpus.queries(arguments.queries))
            print(json.dumps(result))
            continue
        folder = arguments.folder or Path(tempfile.mkdtemp(prefix="store-"))
        home = folder / str(chunks)
        home.mkdir(parents=True, exist_ok=True)
        results = {}
        for name in arguments.contenders:
            if name == "bgem3index" and chunks > 10_000:
                continue
            command = [sys.executable, __file__, "--one", name, "--chunks", str(chunks), "--folder", str(home)]
            command += ["--queries", str(arguments.queries), "--colbert-dim", str(arguments.colbert_dim)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results[name] = json.loads(done.stdout.splitlines()[-1])
            print(f"{chunks:,} chunks: {name} done", file=sys.stderr, flush=True)
        print(f"\n{chunks:,} chunks, {arguments.queries} questions\n\n{table(results)}", flush=True)
        if arguments.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
