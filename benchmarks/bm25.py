"""BM25: nDCG@10 of each tokenizer on real sets, and both backends at several sizes, as Markdown tables.

    python benchmarks/bm25.py --model mini
    python benchmarks/bm25.py --sizes 1000 10000 100000

The chunks of the second table are real texts, repeated with a word of their own each time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, get_args

from m3rag.bm25 import Backend, BM25Leg, Tokenizer, encoder_tokenizer, english_tokenizer, word_tokenizer
from m3rag.encoder.protocol import Encoder
from m3rag.evaluation import evaluate_bm25, load_beir
from m3rag.types import Chunk

DATA = Path(__file__).parents[2] / "shared" / "data"
SETS = (
    *(f"xquad/mono/{language}" for language in ("en", "de", "ru", "ar", "zh")),
    *(f"xquad-r/mono/{language}" for language in ("en", "de", "zh")),
    "kazqad-val",
    "scifact",
)
REPEATED = ("scifact", "xquad/mono/en", "xquad/mono/de", "xquad-r/mono/en")
FILTERS: dict[str, dict[str, Any] | None] = {"none": None, "50 %": {"half": True}, "1 %": {"percent": 7}}
K = 1000


class Chunks:
    """As much of a store as a leg follows."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks
        self.revision = str(len(chunks))

    def scan(self, *, limit: int, cursor: str | None = None) -> tuple[list[Chunk], str | None]:
        start = int(cursor or 0)
        end = start + limit
        return self.chunks[start:end], str(end) if end < len(self.chunks) else None


def quality(sets: Sequence[str], data: Path, encoder: Encoder | None) -> Iterator[str]:
    tokenizers: dict[str, Tokenizer] = {"english": english_tokenizer(), "words": word_tokenizer()}
    if encoder is not None:
        tokenizers["encoder"] = encoder_tokenizer(encoder)
    yield f"| nDCG@10 x 100 | {' | '.join(tokenizers)} |"
    yield "|---" * (len(tokenizers) + 1) + "|"
    for name in sets:
        dataset = load_beir(data / "retrieval" / name)
        values = (evaluate_bm25(dataset, tokenize=one, metrics=["ndcg@10"])["ndcg@10"] for one in tokenizers.values())
        yield f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |"


def speed(sizes: Sequence[int], data: Path, queries: int) -> Iterator[str]:
    texts = [text for name in REPEATED for text in load_beir(data / "retrieval" / name).corpus.values()]
    questions = list(load_beir(data / "retrieval" / "scifact").queries.values())[:queries]
    yield (
        "| chunks | backend | first sync s | file MB | sync +1 s | open s | prepare s | "
        + " | ".join(f"filter {name}: p50 / p95 ms" for name in FILTERS)
        + " |"
    )
    yield "|---" * (7 + len(FILTERS)) + "|"
    for size in sizes:
        chunks = [_chunk(i, text, i // len(texts)) for i, text in enumerate(islice(cycle(texts), size))]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bm25.sqlite3"
            leg = BM25Leg(path)
            first = _seconds(lambda leg=leg, chunks=chunks: leg.sync(Chunks(chunks)))
            more = [*chunks, _chunk(size, "something new", 0)]
            again = _seconds(lambda leg=leg, more=more: leg.sync(Chunks(more)))
            for backend in get_args(Backend):
                cells = [f"{size:,}", backend, f"{first:.1f}", f"{path.stat().st_size / 1e6:.0f}", f"{again:.2f}"]
                yield f"| {' | '.join([*cells, *_searched(path, backend, questions)])} |"


def _searched(path: Path, backend: Backend, questions: Sequence[str]) -> list[str]:
    legs: list[BM25Leg] = []
    cells = [f"{_seconds(lambda: legs.append(BM25Leg(path, backend=backend))):.2f}"]
    cells.append(f"{_seconds(lambda: legs[0].candidates(questions[0], k=K)):.2f}")
    for filter in FILTERS.values():
        times = [1e3 * _seconds(lambda q=q, f=filter: legs[0].candidates(q, k=K, filter=f)) for q in questions]
        cells.append(f"{statistics.median(times):.1f} / {statistics.quantiles(times, n=20)[-1]:.1f}")
    return cells


def _chunk(i: int, text: str, round: int) -> Chunk:
    document = i // 50
    metadata = {"half": document % 2 == 0, "percent": document % 100}
    return Chunk(f"d{document}#{i}", f"d{document}", f"{text} round{round}", 0, len(text), metadata=metadata)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None, *, encoder: Encoder | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--model", help="also measure the tokens of this model's tokenizer")
    parser.add_argument("--sizes", nargs="+", type=int, default=[], help="measure speed at these sizes instead")
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args(arguments)
    if options.model and encoder is None:
        from m3rag.encoder import M3Encoder

        encoder = M3Encoder(options.model)
    lines = (
        speed(options.sizes, options.data, options.queries)
        if options.sizes
        else quality(options.sets, options.data, encoder)
    )
    for line in lines:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
