"""How much of an exhaustive weighted sum the retriever finds, in a store of any size.

    python benchmarks/fusion_recall.py [--data ../shared/data] [--model mini] [--chunks 100000] [--questions 50]
    python benchmarks/fusion_recall.py --pairs FOLDER --dtype bfloat16

With `--pairs` (a folder of FlagEmbedding's jsonl, such as the unpacked training pairs) each chunk is a sentence of its
passages, and the questions are its own.

Without, each chunk is made of two real passages of XQuAD that the model encoded: token vectors in a row from both,
tokens of both with their lexical weights, and the dense vector between theirs, all in one proportion drawn at random,
with a little noise. So the legs agree as they do on real texts, and the best 100 are hard to tell apart. A chunk has
`--tokens` token vectors, which bounds the disk: tokens x dimensions x 2 bytes.

The oracle scores every chunk in every leg in numpy while it is written (nothing of the size of the corpus is held in
memory), the retriever searches the default store.

Beside the recall of the retriever stands that of a fusion without exact completion, in which a
chunk that only one leg found gets 0 in the other.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from m3rag.encoder import M3Encoder
from m3rag.evaluation.datasets import load_beir
from m3rag.output import M3Output
from m3rag.retrieval import HybridRetriever, Mode
from m3rag.scoring import LEG_SCORES, Weights, fuse, order_of
from m3rag.sentences import sentence_spans
from m3rag.store import DocumentRecord, QdrantEdgeStore
from m3rag.types import LEGS, Chunk

TOP = 100
BLOCK = 1000


def main() -> None:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--languages", nargs="+", default=["en", "de"], help="of the real passages and questions")
    parser.add_argument("--pairs", type=Path, help="folder of jsonl with query, pos and neg: real chunks")
    parser.add_argument("--dtype", default="float32", help="of the model's numbers")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=32, help="most token vectors of a chunk")
    parser.add_argument("--noise", type=float, default=0.1, help="length of the noise, the vectors having 1")
    parser.add_argument("--weights", default="miracl")
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--rerank-depths", type=int, nargs="+", default=[], help="more rows of mode all")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()

    encoder = M3Encoder(options.model, dtype=options.dtype)
    if options.pairs is None:
        sets = [load_beir(options.data / "retrieval/xquad/mono" / language) for language in options.languages]
        passages = encoder.encode_documents([text for one in sets for text in one.corpus.values()])
        asked = [text for texts in zip(*(one.queries.values() for one in sets), strict=False) for text in texts]
        blocks = varied(passages, options.chunks, tokens=options.tokens, noise=options.noise)
    else:
        asked, sentences = read_pairs(options.pairs, options.chunks)
        asked = asked[:: max(1, len(asked) // options.questions)]
        blocks = (encoder.encode_documents(sentences[a : a + BLOCK]) for a in range(0, len(sentences), BLOCK))
    questions = encoder.encode_queries(asked[: options.questions])
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with QdrantEdgeStore.create(Path(folder) / "index", encoder.info) as store:
            ids, exact = filled(store, blocks, questions)
            built = time.perf_counter() - started
            rows = []
            for mode, depth in ((Mode.DENSE_LEXICAL, None), *((Mode.ALL, d) for d in (None, *options.rerank_depths))):
                more: dict[str, Any] = {"weights": options.weights, "candidates": options.candidates}
                retriever = HybridRetriever(encoder, store, rerank_depth=depth, **more)
                rows.append(measured(retriever, questions, mode, ids, exact, depth=depth))
    figures = {"chunks": len(ids), "questions": len(questions), "build_seconds": round(built, 1), "rows": rows}
    print(f"{len(ids)} chunks, {len(questions)} questions, {options.weights}, built in {built:.0f} s\n")
    print("| mode | recall@10 | recall@100 | worst question | recall@100 without exact completion | p50 ms | p95 ms |")
    print("|---" * 7 + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def read_pairs(folder: Path, n: int) -> tuple[list[str], list[str]]:
    """All questions, and `n` different sentences spread over all passages, of every jsonl of a folder."""
    asked: list[str] = []
    passages: dict[str, None] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            pair = json.loads(line)
            asked.append(pair["query"])
            passages.update(dict.fromkeys([*pair["pos"], *pair["neg"]]))
    sentences = list(dict.fromkeys(text[a:b] for text in passages for a, b in sentence_spans(text)))
    return asked, [sentences[int(i)] for i in np.linspace(0, len(sentences) - 1, min(n, len(sentences)))]


def varied(passages: M3Output, n: int, *, tokens: int, noise: float) -> Iterator[M3Output]:
    """`n` outputs in blocks, each made of a part of one passage and the rest of another."""
    rng = np.random.default_rng(0)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        one, two = rng.integers(0, len(passages), (2, size))
        part = rng.uniform(0.0, 0.5, size)  # of the second passage
        dense = passages.dense[one] * (1 - part)[:, None] + passages.dense[two] * part[:, None]
        colbert, counts = [], []
        for i in range(size):
            last = round(tokens * part[i])
            pieces = [piece(rng, passages, one[i], tokens - last), piece(rng, passages, two[i], last)]
            colbert += pieces
            counts.append(sum(map(len, pieces)))
        yield M3Output(
            dense=noisy(rng, dense / np.linalg.norm(dense, axis=1, keepdims=True), noise),
            lexical=mixed(rng, csr_array(passages.lexical[one]), csr_array(passages.lexical[two]), part, noise),
            colbert=noisy(rng, np.concatenate(colbert), noise).astype(np.float16),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )


def piece(rng: np.random.Generator, passages: M3Output, row: int, n: int) -> Any:
    """At most `n` neighbouring token vectors of a passage, from anywhere in it."""
    vectors = passages.colbert_of(row)
    start = int(rng.integers(0, max(1, len(vectors) - n + 1)))
    return vectors[start : start + n]


def noisy(rng: np.random.Generator, vectors: Any, noise: float) -> Any:
    """Unit vectors with noise of the given length added, of unit length again."""
    n, d = vectors.shape
    moved = vectors.astype(np.float32) + rng.standard_normal((n, d), np.float32) * np.float32(noise / np.sqrt(d))
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def mixed(rng: np.random.Generator, one: csr_array, two: csr_array, part: Any, noise: float) -> csr_array:
    """Each token of the second text with the probability `part` `(n,)`, of the first with the rest of 1."""
    a, b = coo_array(one), coo_array(two)
    keep, take = rng.random(a.nnz) >= part[a.row], rng.random(b.nnz) < part[b.row]
    weights, rows, columns = (
        np.concatenate([x[keep], y[take]]) for x, y in ((a.data, b.data), (a.row, b.row), (a.col, b.col))
    )
    weights = (weights * np.exp(rng.standard_normal(len(weights)) * noise)).astype(np.float32)
    return csr_array(coo_array((weights, (rows, columns)), shape=one.shape))


def filled(store: QdrantEdgeStore, blocks: Iterator[M3Output], questions: M3Output) -> tuple[list[str], dict[Any, Any]]:
    """Write every block as a document; the ids, and for each leg the exact scores `(questions, chunks)`."""
    ids: list[str] = []
    exact: dict[Any, list[Any]] = {leg: [] for leg in LEGS}
    for number, output in enumerate(blocks):
        name = f"block-{number:04}"
        chunks = [
            Chunk(id=f"{name}#{i}", document_id=name, text=str(i), start=i, end=i + 1) for i in range(len(output))
        ]
        store.put_document(DocumentRecord(id=name, title="", version="1", chunks=len(chunks)), [(chunks, output)])
        ids += [chunk.id for chunk in chunks]
        for leg in LEGS:
            exact[leg].append(LEG_SCORES[leg](questions, output))
    return ids, {leg: np.concatenate(parts, axis=1) for leg, parts in exact.items()}


def measured(
    retriever: HybridRetriever, questions: M3Output, mode: Mode, ids: list[str], exact: Any, *, depth: int | None
) -> dict[str, Any]:
    """Recall of a mode against the exhaustive weighted sum, and what a search for 100 takes."""
    weights = Weights.parse(retriever.weights, legs=mode.legs)
    recalls: dict[int, list[float]] = {10: [], TOP: []}
    naives, times = [], []
    for i, question in enumerate(questions):
        scores = {leg: exact[leg][i] for leg in mode.model_legs}
        best = [ids[row] for row in order_of(fuse(scores, weights), ids)[:TOP]]
        for k, recall in recalls.items():
            started = time.perf_counter()
            hits = retriever.search_output(question, k=k, mode=mode)
            times.append((time.perf_counter() - started) * 1000)
            recall.append(len(set(best[:k]) & {hit.chunk.id for hit in hits}) / k)
        naives.append(len(set(best) & naive(retriever, question, mode, weights)) / TOP)
    return {
        "mode": mode.value if depth is None else f"{mode.value}, rerank_depth={depth}",
        "recall@10": round(float(np.mean(recalls[10])), 4),
        "recall@100": round(float(np.mean(recalls[TOP])), 4),
        "worst@100": min(recalls[TOP]),
        "without": round(float(np.mean(naives)), 4),
        "p50": round(float(np.percentile(times[1::2], 50)), 1),
        "p95": round(float(np.percentile(times[1::2], 95)), 1),
    }


def naive(retriever: HybridRetriever, question: M3Output, mode: Mode, weights: Weights) -> set[str]:
    """The best chunks where each leg's score counts only for the chunks that the leg found."""
    fused: dict[str, float] = {}
    for leg in mode.model_legs:
        k = 200 if leg == "colbert" else retriever.candidates
        for key, score in retriever.store.candidates(question, leg, k=k):
            fused[key] = fused.get(key, 0.0) + weights.of(leg) * score
    return set(sorted(fused, key=lambda key: (-fused[key], key))[:TOP])


if __name__ == "__main__":
    main()
