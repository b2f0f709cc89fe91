"""Retrieval quality by chunking strategy and size on long articles, as a Markdown table.

    python benchmarks/chunking.py [--data ../shared/data] [--model mini] [--articles 48] [--sizes 128 256 512]
        [--strategies structure small-to-big] [--cache FOLDER] [--json OUT]

Articles: nDCG@10 and recall@5, an article having the score of its best chunk. Answers, for the questions whose
paragraph is known: the share of questions whose short answer stands in the first 5 passages, and in as many as
have 1,000 tokens together, which treats small chunks and large ones alike. A passage is what an answer is made
from: the parent where a chunk has one. Every chunk is scored in every leg (brute force).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m3rag.chunking import Chunker, late_parts, widened
from m3rag.encoder.cached import CachedEncoder
from m3rag.encoder.disk_cache import DiskCache
from m3rag.encoder.encoder import M3Encoder
from m3rag.evaluation.datasets import load_beir, load_questions, records, string
from m3rag.evaluation.metrics import aggregate
from m3rag.evaluation.run import rankings, score_all
from m3rag.output import M3Output
from m3rag.retrieval.mode import Mode
from m3rag.scoring import Weights
from m3rag.types import Chunk, Document, Hit

REPOSITORY = Path(__file__).parents[1]
STRATEGIES = ("fixed", "structure", "semantic", "small-to-big", "sentence-window", "late", "late-all")
MODES = (Mode.DENSE, Mode.ALL)
BUDGET = 1000
"""Tokens that a language model is given to read."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Benchmark:
    """Articles by id, questions by id, the article of each, and where in it the short answer stands."""

    articles: Mapping[str, str]
    questions: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    answers: Mapping[str, list[Span]]

    @classmethod
    def load(cls, data: Path, *, articles: int) -> Benchmark:
        """Every n-th article, so that so many are left."""
        beir = load_beir(data / "retrieval" / "long" / "squad-articles")
        chosen = list(beir.corpus)[:: max(len(beir.corpus) // articles, 1)][:articles]
        held = {key: beir.corpus[key] for key in chosen}
        questions = {q: text for q, text in beir.queries.items() if beir.qrels[q].keys() & held.keys()}
        qrels = {q: beir.qrels[q] for q in questions}
        rag = data / "rag" / "squad-v2.0-dev"
        paragraphs = {
            string(where, record, "_id"): string(where, record, "text")
            for where, record in records(rag / "corpus.jsonl")
        }
        answers = {}
        for question in load_questions(rag / "en.jsonl"):
            if question.id in questions and question.answers:
                article = held[next(iter(qrels[question.id]))]
                spans = [
                    span for key in question.gold_ids for span in _places(article, paragraphs[key], question.answers)
                ]
                if spans:
                    answers[question.id] = spans
        return cls(held, questions, qrels, answers)


def _places(article: str, paragraph: str, answers: Sequence[str]) -> list[Span]:
    """Where the longest of the answers stands in the paragraph, as spans of the article."""
    start, answer = article.find(paragraph), max(answers, key=len)
    if start < 0:
        return []
    found, at = [], paragraph.find(answer)
    while at >= 0:
        found.append((start + at, start + at + len(answer)))
        at = paragraph.find(answer, at + 1)
    return found


def measure(
    benchmark: Benchmark, encoder: M3Encoder, cached: CachedEncoder, strategy: str, size: int
) -> dict[str, Any]:
    """One row: a strategy and a size in all modes."""
    started = time.perf_counter()
    late = strategy.startswith("late")
    chunker = Chunker(
        strategy="structure" if late else strategy, chunk_tokens=size, overlap_tokens=size // 8, late=late
    )
    of_document: dict[str, list[Chunk]] = {}
    outputs = []
    for key, text in benchmark.articles.items():
        chunks = chunker.split(Document(key, text, "-"), cached)
        of_document[key] = chunks
        outputs.append(_encode(strategy, text, chunks, encoder, cached))
    chunks = [chunk for several in of_document.values() for chunk in several]
    passages = M3Output.concatenate(outputs)
    row: dict[str, Any] = {"strategy": strategy, "size": size, "chunks": len(chunks)}
    row["seconds"] = round(time.perf_counter() - started, 1)
    queries = cached.encode_queries(list(benchmark.questions.values()))
    scores = score_all(queries, passages)
    by_id = {chunk.id: chunk for chunk in chunks}
    for mode in MODES:
        weights = Weights.parse("miracl", legs=mode.legs) if mode is Mode.ALL else Weights(1, 1, 1)
        ranked = rankings(scores, mode, weights, list(by_id), depth=len(by_id))
        hits = {
            q: [Hit(by_id[i], score) for i, score in run.items()]
            for q, run in zip(benchmark.questions, ranked, strict=True)
        }
        row[mode.value] = _figures(benchmark, hits, of_document, encoder)
    return row


def _encode(strategy: str, text: str, chunks: list[Chunk], encoder: M3Encoder, cached: CachedEncoder) -> M3Output:
    if strategy == "late-all":  # all three representations from the long pass
        return encoder.encode_spans(text, [(c.start, c.end) for c in chunks])
    output = cached.encode_documents([chunk.encoded_text for chunk in chunks])
    if strategy != "late":
        return output
    dense = np.concatenate([part.dense for _, part in late_parts(chunks, _Late(encoder, cached))])
    return M3Output(dense, output.lexical, output.colbert, output.offsets)


class _Late:
    """The encoder, with the cache for all but the late pass."""

    def __init__(self, encoder: M3Encoder, cached: CachedEncoder) -> None:
        self.info = encoder.info
        self.encode_spans = encoder.encode_spans
        self.encode_documents = cached.encode_documents


def _figures(
    benchmark: Benchmark, hits: Mapping[str, list[Hit]], of_document: Mapping[str, list[Chunk]], encoder: M3Encoder
) -> dict[str, float]:
    run: dict[str, dict[str, float]] = {}
    for question, found in hits.items():
        best: dict[str, float] = {}
        for hit in found:
            best.setdefault(hit.chunk.document_id, hit.score)
        run[question] = best
    figures = aggregate(run, benchmark.qrels, ["ndcg@10", "recall@5"])
    in_five, in_budget, read = [], [], []
    for question, spans in benchmark.answers.items():
        article = next(iter(benchmark.qrels[question]))
        passages = [hit.chunk for hit in widened(hits[question][:60], of_document.__getitem__)]
        costs = np.cumsum([len(encoder.word_spans(p.text)) for p in passages[:60]])
        within = passages[: int(np.searchsorted(costs, BUDGET, "right"))]
        in_five.append(_holds(passages[:5], article, spans))
        in_budget.append(_holds(within, article, spans))
        read.append(int(costs[min(5, len(costs)) - 1]))
    figures |= {
        "answer@5": float(np.mean(in_five)),
        f"answer@{BUDGET}tokens": float(np.mean(in_budget)),
        "tokens@5": float(np.mean(read)),
    }
    return figures


def _holds(passages: Sequence[Chunk], article: str, spans: Sequence[Span]) -> bool:
    return any(p.document_id == article and p.start <= a and b <= p.end for p in passages for a, b in spans)


def markdown(result: Mapping[str, Any]) -> str:
    """The table with what made it."""
    lines = [
        f"{result['articles']} articles, {result['questions']} questions, {result['answers']} with a known paragraph.",
        f"Figures x 100, dense / all. Model `{result['model']}`, {result['cpus']} CPUs.",
        "",
        "| strategy | tokens | chunks | nDCG@10 | recall@5 | answer in 5 | answer in 1,000 tokens | tokens of 5 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    names = ("ndcg@10", "recall@5", "answer@5", f"answer@{BUDGET}tokens")
    for row in result["rows"]:
        cells = [" / ".join(f"{100 * row[mode.value][name]:.1f}" for mode in MODES) for name in names]
        lines.append(
            f"| {row['strategy']} | {row['size']} | {row['chunks']} | {' | '.join(cells)} "
            f"| {row[Mode.ALL.value]['tokens@5']:.0f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Retrieval quality by chunking strategy and size.")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="folder of the data")
    parser.add_argument("--model", default="mini", help="mini, a hub id or a checkpoint folder")
    parser.add_argument("--articles", type=int, default=48, help="how many of the 48")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".chunking-cache", help="folder of encoded texts")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as JSON")
    options = parser.parse_args(argv)
    benchmark = Benchmark.load(options.data, articles=options.articles)
    encoder = M3Encoder(options.model)
    rows = []
    with DiskCache(options.cache) as cache:
        cached = CachedEncoder(encoder, cache)
        for size in options.sizes:
            for strategy in options.strategies:
                # Heading path, specials and prefix come on top of a chunk's own tokens.
                fitting = min(size, encoder.max_length - 12)
                rows.append(measure(benchmark, encoder, cached, strategy, fitting))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    result = {
        "schema": 1,
        "model": options.model,
        "cpus": os.cpu_count(),
        "articles": len(benchmark.articles),
        "questions": len(benchmark.questions),
        "answers": len(benchmark.answers),
        "rows": rows,
    }
    print(markdown(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
