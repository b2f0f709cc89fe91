"""What each way to keep ColBERT and dense vectors costs and loses on real sets, as Markdown tables.

    OMP_NUM_THREADS=1 python benchmarks/codecs.py [--data ../shared/data] [--model mini] [--sets ...] [--queries 400]

As in a search, ColBERT scores the best `--depth` passages by dense + lexical; losses are against the
vectors as encoded, in points of nDCG@10. Latencies are CPU time, which other work on the machine
disturbs less; those of searching dense vectors are in benchmarks/index_kinds.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import m3rag.encoder
from m3rag._version import __version__
from m3rag.encoder.protocol import Encoder
from m3rag.errors import M3RagError
from m3rag.evaluation.datasets import RetrievalSet, load_beir
from m3rag.evaluation.metrics import aggregate
from m3rag.output import M3Output
from m3rag.scoring import Weights, dense_scores, lexical_scores
from m3rag.store.codec import CODECS, Codec
from m3rag.token_pooling import pool_tokens

REPOSITORY = Path(__file__).parents[1]
DEFAULT_SETS = (
    "xquad/mono/en", "xquad/to-en/de", "xquad/to-en/zh", "xquad/to-en/ar",
    "xquad-r/mono/en", "xquad-r/mono/zh", "kazqad-val", "scifact",
)  # fmt: skip
METRIC = "ndcg@10"
POOLED = ((1, tuple(CODECS)), (2, ("float16", "int8", "int4", "binary")), (3, ("float16", "int8")), (4, ("float16",)))
RESCORED = 100  # passages whose true dense score is looked up after a scan of bits
LATENCY_CANDIDATES, LATENCY_QUERIES = 200, 30

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """A set with its vectors and what of its scores no variant changes."""

    dataset: RetrievalSet
    queries: M3Output
    passages: M3Output
    dense: Floats
    lexical: Floats
    candidates: npt.NDArray[np.int64]  # (queries, depth)


def main(argv: Sequence[str] | None = None, *, encoder: Encoder | None = None) -> int:
    """Run the benchmark; `encoder` replaces the model that `--model` names."""
    options = _options(argv)
    try:
        sets = [load_beir(options.data / "retrieval" / name, name=name) for name in options.sets]
        encoded = encode(encoder or m3rag.encoder.M3Encoder(options.model), sets, options.queries, options.depth)
        colbert = [row for factor, names in POOLED for row in colbert_rows(encoded, factor, names)]
        dense = dense_rows(encoded)
    except M3RagError as error:
        print(f"codecs.py: {error}", file=sys.stderr)
        return 2
    result = {
        "schema": 1,
        "model": options.model,
        "m3rag": __version__,
        "cpus": os.cpu_count(),
        "sets": {one.dataset.name: [len(one.queries), len(one.passages)] for one in encoded},
        "colbert": colbert,
        "dense": dense,
    }
    table = markdown(result)
    print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.write:
        options.write.write_text(table + "\n", encoding="utf-8")
    return 0


def encode(encoder: Encoder, sets: Sequence[RetrievalSet], most: int, depth: int) -> list[Encoded]:
    """All sets with at most so many questions each, evenly taken; sets with one corpus share its vectors."""
    found: list[Encoded] = []
    for dataset in sets:
        step = -(-len(dataset.queries) // most)
        kept = dict(list(dataset.queries.items())[::step])
        part = replace(dataset, queries=kept, qrels={key: dataset.qrels[key] for key in kept})
        known = next((one.passages for one in found if one.dataset.corpus == dataset.corpus), None)
        passages = known or encoder.encode_documents(list(dataset.corpus.values()))
        queries = encoder.encode_queries(list(kept.values()))
        dense, lexical = dense_scores(queries, passages), lexical_scores(queries, passages)
        first = dense + Weights().lexical * lexical
        candidates = np.argsort(-first, axis=1, kind="stable")[:, :depth]
        found.append(Encoded(part, queries, passages, dense, lexical, candidates))
        print(f"{dataset.name}: encoded", file=sys.stderr)
    return found


def colbert_rows(encoded: Sequence[Encoded], factor: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a codec, all on passages pooled by a factor."""
    pooled: dict[int, M3Output] = {}
    for one in encoded:
        if id(one.passages) not in pooled:
            pooled[id(one.passages)] = pool_tokens(one.passages, factor)
    rows = []
    for name in names:
        codec, values = CODECS[name], {}
        for one in encoded:
            passages = pooled[id(one.passages)]
            dim = passages.colbert.shape[1]
            kept = replace(passages, colbert=codec.decode(codec.encode(passages.colbert), dim=dim))
            values[one.dataset.name] = _quality(one, one.dense, _rerank(one, kept))
        largest = max(pooled.values(), key=len)
        tokens = sum(len(output.colbert) for output in pooled.values()) / sum(map(len, pooled.values()))
        rows.append(
            {
                "name": name + (f", pooled by {factor}" if factor > 1 else ""),
                "bytes": round(tokens * codec.width(largest.colbert.shape[1])),
                "ms": _latency(encoded[0].queries, largest, codec),
                METRIC: values,
            }
        )
        print(f"colbert {rows[-1]['name']}: done", file=sys.stderr)
    return rows


def dense_rows(encoded: Sequence[Encoded]) -> list[dict[str, Any]]:
    """One row a way to keep the dense vectors; ColBERT as encoded."""
    colbert = {one.dataset.name: _rerank(one, one.passages) for one in encoded}
    rows = []
    for name, (size, approximate) in _dense_variants(encoded[0].passages.dense.shape[1]).items():
        values = {}
        for one in encoded:
            scores = approximate(one.passages.dense)(one.queries.dense)
            values[one.dataset.name] = _quality(one, scores, colbert[one.dataset.name], leg="dense")
        rows.append({"name": name, "bytes": size, METRIC: values})
    return rows


Scorer = Callable[[Floats], Floats]


def _dense_variants(dim: int) -> dict[str, tuple[int, Callable[[Floats], Scorer]]]:
    """Name to bytes a vector and what makes, of passages `(n, dim)`, a scorer of queries `(q, dim)`."""
    variants: dict[str, tuple[int, Callable[[Floats], Scorer]]] = {
        "float32": (4 * dim, lambda vectors: lambda queries: queries @ vectors.T),
        "float16": (2 * dim, _coded("float16")),
        **{name: (CODECS[name].width(dim), _coded(name)) for name in ("int8", "int4", "binary")},
        f"binary, best {RESCORED} rescored by int8": (
            CODECS["binary"].width(dim) + CODECS["int8"].width(dim),
            _rescored,
        ),
    }
    for part in (dim * 2 // 3, dim // 2, dim // 3):
        variants[f"truncate_dim {part}, float16"] = (2 * part, _shortened(part, pca=False))
        variants[f"PCA {part}, float16"] = (2 * part, _shortened(part, pca=True))
    return variants


def _coded(name: str) -> Callable[[Floats], Scorer]:
    def keep(vectors: Floats) -> Scorer:
        codec = CODECS[name]
        decoded = codec.decode(codec.encode(vectors), dim=vectors.shape[1]).astype(np.float32)
        return lambda queries: queries @ decoded.T

    return keep


def _rescored(vectors: Floats) -> Scorer:
    rough, fine = _coded("binary")(vectors), _coded("int8")(vectors)

    def score(queries: Floats) -> Floats:
        scores, true = rough(queries), fine(queries)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :RESCORED]
        rescored = np.take_along_axis(true, best, axis=1)
        # Those not rescored stay below those that are.
        scores = np.minimum(scores, rescored.min(axis=1, keepdims=True) - 1e-3)
        np.put_along_axis(scores, best, rescored, axis=1)
        return scores

    return score


def _shortened(part: int, *, pca: bool) -> Callable[[Floats], Scorer]:
    def keep(vectors: Floats) -> Scorer:
        # Not centred, as only then inner products are those that the components keep the most of.
        basis = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, :part] if pca else np.eye(vectors.shape[1])[:, :part]
        basis = basis.astype(np.float32)
        kept = _unit(vectors @ basis).astype(np.float16).astype(np.float32)
        return lambda queries: _unit(queries @ basis) @ kept.T

    return keep


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _rerank(one: Encoded, passages: M3Output) -> Floats:
    """The ColBERT scores `(queries, depth)` of the candidates."""
    return np.stack(
        [
            CODECS["float16"].colbert_scores(one.queries.colbert_of(i), *_gathered(passages.colbert, passages, rows))
            for i, rows in enumerate(one.candidates)
        ]
    )


def _gathered(vectors: Any, passages: M3Output, rows: npt.NDArray[np.int64]) -> tuple[Any, npt.NDArray[np.int64]]:
    starts, ends = passages.offsets[rows], passages.offsets[rows + 1]
    picked = np.concatenate([vectors[a:b] for a, b in zip(starts, ends, strict=True)])
    codes = picked if picked.dtype == np.uint8 else np.ascontiguousarray(picked, "<f2").view(np.uint8)
    return codes, np.cumsum([0, *(ends - starts)])


def _quality(one: Encoded, dense: Floats, colbert: Floats, *, leg: str = "colbert") -> dict[str, float]:
    """nDCG@10 of the leg alone (dense among all passages) and of all three, in points."""
    at, weights = one.candidates, Weights()
    first = [np.take_along_axis(scores, at, axis=1) for scores in (dense, one.lexical)]
    fused = weights.dense * first[0] + weights.lexical * first[1] + weights.colbert * colbert
    best = np.argsort(-dense, axis=1, kind="stable")[:, :100]
    alone = (at, colbert) if leg == "colbert" else (best, np.take_along_axis(dense, best, axis=1))
    ids = np.array(list(one.dataset.corpus))
    values = {}
    for name, (rows, scores) in ((leg, alone), ("all", (at, fused))):
        run = {
            query: dict(zip(ids[found].tolist(), row.tolist(), strict=True))
            for query, found, row in zip(one.dataset.queries, rows, scores, strict=True)
        }
        values[name] = 100 * aggregate(run, one.dataset.qrels, [METRIC])[METRIC]
    return values


def _latency(queries: M3Output, passages: M3Output, codec: Codec) -> float:
    """Median milliseconds to score 200 passages' codes, already in memory, for one query."""
    rng = np.random.default_rng(0)
    codes, elapsed = codec.encode(passages.colbert), []
    for i in range(LATENCY_QUERIES):
        rows = rng.choice(len(passages), min(LATENCY_CANDIDATES, len(passages)), replace=False)
        picked, offsets = _gathered(codes, passages, rows)
        started = time.process_time()
        codec.colbert_scores(queries.colbert_of(i % len(queries)), picked, offsets)
        elapsed.append(time.process_time() - started)
    return round(1e3 * float(np.median(elapsed)), 1)


def markdown(result: Mapping[str, Any]) -> str:
    """Both tables, with what made them."""
    sizes = ", ".join(f"{name} ({q} questions, {p} passages)" for name, (q, p) in result["sets"].items())
    return "\n".join(
        [
            (
                f"Points of nDCG@10. Model `{result['model']}`, m3rag {result['m3rag']}, {result['cpus']} CPUs. "
                f"Sets: {sizes}. ms: CPU time to score {LATENCY_CANDIDATES} passages of the largest set, from memory."
            ),
            "",
            *_table(result["colbert"], "colbert"),
            "",
            *_table(result["dense"], "dense"),
        ]
    )


def _table(rows: Sequence[Mapping[str, Any]], leg: str) -> list[str]:
    lines = [
        f"| {leg} kept as | bytes a chunk | ms | {leg} | mean loss | worst loss | all | mean loss | worst loss |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    base = rows[0][METRIC]
    for row in rows:
        cells = [row["name"], f"{row['bytes']:,}", str(row.get("ms", ""))]
        for mode in (leg, "all"):
            losses = {name: base[name][mode] - values[mode] for name, values in row[METRIC].items()}
            worst = max(losses, key=lambda name: losses[name])
            mean = np.mean([values[mode] for values in row[METRIC].values()])
            place = f" ({worst})" if losses[worst] > 0.005 else ""
            cells += [f"{mean:.2f}", f"{np.mean(list(losses.values())):.2f}", f"{losses[worst]:.2f}{place}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Bytes, latency and nDCG@10 of each way to keep vectors.")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="folder of the data")
    parser.add_argument("--model", default="mini", help="mini, a hub id or a checkpoint folder")
    parser.add_argument("--sets", nargs="+", default=list(DEFAULT_SETS), metavar="SET", help="folders under retrieval/")
    parser.add_argument("--queries", type=int, default=400, help="most questions of a set")
    parser.add_argument("--depth", type=int, default=200, help="passages of a question that get a ColBERT score")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as JSON")
    parser.add_argument("--write", type=Path, metavar="OUT", help="write the tables")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
