"""nDCG@10 of a model's modes on real sets, beside BM25, as a Markdown table.

    python benchmarks/quality.py [--data ../shared/data] [--model mini] [--sets xquad/mono/de scifact]
        [--cache FILE] [--write]

Every passage is scored in every leg (brute force), so the table shows the model and not a store.
Texts longer than the model takes are split, and score by their best chunk; BM25 has them whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import m3rag.encoder
from m3rag._version import __version__
from m3rag.bm25 import encoder_tokenizer, is_stemming
from m3rag.encoder.protocol import Encoder
from m3rag.errors import M3RagError
from m3rag.evaluation.datasets import RetrievalSet, load_beir
from m3rag.evaluation.run import Passages, evaluate, evaluate_bm25
from m3rag.retrieval.mode import M3_MODES
from m3rag.scoring import Weights

REPOSITORY = Path(__file__).parents[1]
DEFAULT_SETS = (
    *(f"xquad/mono/{language}" for language in ("en", "de", "es", "ru", "ar", "zh")),
    *(f"xquad/to-en/{language}" for language in ("de", "zh", "ru", "ar")),
    "scifact",
)
MORE_SETS = (*(f"xquad-r/mono/{language}" for language in ("en", "de", "zh")), "kazqad-val", "long/squad-articles")
METRIC = "ndcg@10"
COLUMNS = ("bm25", *(mode.value for mode in M3_MODES))


def main(argv: Sequence[str] | None = None, *, encoder: Encoder | None = None) -> int:
    """Run the benchmark; `encoder` replaces the model that `--model` names."""
    options = _options(argv)
    try:
        weights = Weights.parse(options.weights)
        sets = [load_beir(options.data / "retrieval" / name, name=name) for name in options.sets]
        started = time.perf_counter()
        with _cached(encoder or _encoder(options.model), options.cache) as used:
            rows = measure(used, sets, weights=weights)
    except M3RagError as error:
        print(f"quality.py: {error}", file=sys.stderr)
        return 2
    result = {
        "schema": 1,
        "model": options.model if encoder is None else encoder.info.name,
        "m3rag": __version__,
        "cpus": os.cpu_count(),
        "seconds": round(time.perf_counter() - started, 1),
        "metric": METRIC,
        "weights": options.weights,
        "bm25_stemming": is_stemming(),
        "rows": rows,
    }
    table = markdown(result)
    print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.write:
        options.write.write_text(f"# Retrieval quality\n\n{table}\n", encoding="utf-8")
    return 0


def measure(encoder: Encoder, sets: Sequence[RetrievalSet], *, weights: Weights) -> list[dict[str, Any]]:
    """One row a set; sets that follow each other with the same corpus share its encoding."""
    rows: list[dict[str, Any]] = []
    passages: dict[int, Passages] = {}
    for position, dataset in enumerate(sets):
        started = time.perf_counter()
        key = next((k for k, known in passages.items() if known.texts == dataset.corpus), position)
        if key not in passages:
            passages[key] = Passages.encode(encoder, dataset.corpus, progress=_progress(dataset.name))
        chinese = _is_chinese(dataset.name)
        bm25 = evaluate_bm25(dataset, tokenize=encoder_tokenizer(encoder) if chinese else None, metrics=[METRIC])
        table = evaluate(encoder, dataset, passages=passages[key], weights=weights, metrics=[METRIC])
        values = {"bm25": bm25[METRIC], **{mode: metrics[METRIC] for mode, metrics in table.items()}}
        rows.append(
            {
                "set": dataset.name,
                "queries": len(dataset.queries),
                "passages": len(dataset.corpus),
                "bm25_tokens": "encoder" if chinese else "english",
                "seconds": round(time.perf_counter() - started, 1),
                METRIC: values,
            }
        )
        print(f"{dataset.name}: {rows[-1]['seconds']} s", file=sys.stderr)
        # A corpus no later set asks for is let go.
        passages = {k: p for k, p in passages.items() if any(p.texts == later.corpus for later in sets[position + 1 :])}
    return rows


def markdown(result: dict[str, Any]) -> str:
    """The table with what made it; the best value of a row is bold."""
    machine = f"{result['cpus']} CPUs, {result['seconds']} s in all"
    stemming = "with" if result["bm25_stemming"] else "without"
    lines = [
        f"nDCG@10 x 100. Model `{result['model']}`, m3rag {result['m3rag']}, weights {result['weights']}, {machine}.",
        "",
        "| set | queries | passages | " + " | ".join(COLUMNS) + " |",
        "|---|--:|--:|" + "--:|" * len(COLUMNS),
    ]
    for row in result["rows"]:
        shown = {column: f"{100 * row[METRIC][column]:.1f}" for column in COLUMNS}
        best = max(shown.values(), key=float)
        cells = [f"**{value}**" if value == best else value for value in shown.values()]
        if row["bm25_tokens"] == "encoder":
            cells[0] += " †"
        lines.append(f"| {row['set']} | {row['queries']} | {row['passages']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"BM25: bm25s, English pipeline {stemming} stemming; † with the encoder's own tokens.",
        "Exhaustive scores, no index; texts longer than the model takes are split, and score by their best chunk.",
    ]
    return "\n".join(lines)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="nDCG@10 of a model's modes on real sets, beside BM25.")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="folder of the data")
    parser.add_argument("--model", default="mini", help="mini, a hub id or a checkpoint folder")
    parser.add_argument("--weights", default="miracl", help="a preset, or dense/lexical/colbert such as 1/0.3/1")
    known = ", ".join((*DEFAULT_SETS, *MORE_SETS))
    parser.add_argument(
        "--sets", nargs="+", default=list(DEFAULT_SETS), metavar="SET", help=f"folders under retrieval/: {known}"
    )
    parser.add_argument("--cache", type=Path, metavar="FILE", help="keep encoded texts there")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as JSON")
    parser.add_argument(
        "--write",
        type=Path,
        nargs="?",
        const=REPOSITORY / "benchmarks" / "quality.md",
        metavar="OUT",
        help="write the table, to benchmarks/quality.md by default",
    )
    return parser.parse_args(argv)


def _encoder(model: str) -> Encoder:
    # The attribute loads torch, which a test with another encoder does not wait for.
    return m3rag.encoder.M3Encoder(model)


@contextmanager
def _cached(encoder: Encoder, file: Path | None) -> Iterator[Encoder]:
    if file is None:
        yield encoder
        return
    with m3rag.encoder.DiskCache(file, max_bytes=50 * 2**30) as cache:
        yield m3rag.encoder.CachedEncoder(encoder, cache)


def _is_chinese(name: str) -> bool:
    """Chinese passages, whose words bm25s cannot tell apart."""
    return name.endswith("mono/zh")


def _progress(name: str) -> Any:
    return lambda done, total: print(f"{name}: {done} of {total} chunks encoded", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
