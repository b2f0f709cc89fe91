"""What a framework's door to an index costs beside the call that it stands for, and LlamaIndex's BGEM3Index.

    OMP_NUM_THREADS=1 python benchmarks/frameworks.py [--questions 300] [--chunks 10000] [--tokens 140]
        [--colbert-dim 128] [--data FOLDER]

Doors: every question goes through all of them in turn, in one process, beginning with another one each time; what
they find must be the same. What a door adds is the median of the differences to `KnowledgeBase.search` question by
question. Two tables: `mini` over real passages in three languages, each question encoded every time (`encoded`), and
kept from the time before (`cached`), where the noise of a forward pass does not hide the door.

BGEM3Index (`--chunks`, 0 for none): the same doors over the made-up chunks of `synthetic.py`, and BGEM3Index's own
search on the same representations in memory (from `store.py`), each in a process of its own; questions come encoded.

Heartbeat (on the made-up chunks too): how many beats of a 10 ms clock the event loop keeps while the asynchronous
doors are called without a pause.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import Corpus

from m3rag import KnowledgeBase
from m3rag.output import M3Output
from m3rag.settings import Settings

LANGUAGES = ("en", "de", "zh")
K = 10
DIRECT = "KnowledgeBase.search"
WARM_UP = 5
READING = 5.0  # seconds: the second search begins to read the first stage into memory, beside those that follow
BEAT = 0.010
PASSES = 5

Door = Callable[[str], list[str]]
AsyncDoor = Callable[[str], Awaitable[Any]]


def frameworks_over(kb: KnowledgeBase) -> tuple[Any, Any, Any, Any]:
    """LangChain's retriever and store, LlamaIndex's retriever and that of an index over its store."""
    from llama_index.core import VectorStoreIndex

    from m3rag import langchain as lc
    from m3rag import llama_index as li

    lc_retriever = lc.M3Retriever(knowledge_base=kb, k=K)
    lc_store = lc.M3VectorStore(collection=kb)
    li_retriever = li.M3Retriever(kb, similarity_top_k=K)
    li_store = li.M3VectorStore(kb)
    index = VectorStoreIndex.from_vector_store(li_store, embed_model=li_store.embed_model)
    li_index = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=K)
    return lc_retriever, lc_store, li_retriever, li_index


def doors_to(kb: KnowledgeBase) -> dict[str, Door]:
    """Each way to ask, from a question to the ids that were found."""
    lc_retriever, lc_store, li_retriever, li_index = frameworks_over(kb)
    return {
        DIRECT: lambda q: [hit.chunk.id for hit in kb.search(q, k=K)],
        "LangChain M3Retriever": lambda q: [str(d.id) for d in lc_retriever.invoke(q)],
        "LangChain M3VectorStore": lambda q: [str(d.id) for d in lc_store.similarity_search(q, k=K)],
        "LlamaIndex M3Retriever": lambda q: [n.node_id for n in li_retriever.retrieve(q)],
        "LlamaIndex M3VectorStore": lambda q: [n.node_id for n in li_index.retrieve(q)],
    }


def async_doors_to(kb: KnowledgeBase) -> dict[str, AsyncDoor]:
    """The same doors, for callers that must not be blocked."""
    lc_retriever, lc_store, li_retriever, li_index = frameworks_over(kb)
    return {
        "none: the clock alone": lambda _: asyncio.sleep(BEAT),
        "KnowledgeBase.asearch": lambda q: kb.asearch(q, k=K),
        "LangChain M3Retriever": lc_retriever.ainvoke,
        "LangChain M3VectorStore": lambda q: lc_store.asimilarity_search(q, k=K),
        "LlamaIndex M3Retriever": li_retriever.aretrieve,
        "LlamaIndex M3VectorStore": li_index.aretrieve,
    }


async def beats(door: AsyncDoor, questions: Sequence[str]) -> tuple[float, float]:
    """The share of a clock's beats that are kept while questions follow one another, and the longest gap in ms."""
    kept = [time.perf_counter()]

    async def clock() -> None:
        while True:
            await asyncio.sleep(BEAT)
            kept.append(time.perf_counter())

    beating = asyncio.create_task(clock())
    for question in questions:
        await door(question)
    beating.cancel()
    gaps = np.diff([*kept, time.perf_counter()])
    return (len(kept) - 1) * BEAT / float(gaps.sum()), 1000 * float(gaps.max())


async def heartbeats(doors: Mapping[str, AsyncDoor], questions: Sequence[str]) -> str:
    """Each door's share of beats in some passes, doors in turns."""
    for door in doors.values():
        await beats(door, questions[:WARM_UP])
    passes = [{name: await beats(door, questions) for name, door in doors.items()} for _ in range(PASSES)]
    lines = ["| asynchronous door | beats kept, median | least | longest gap, ms |", "|---|--:|--:|--:|"]
    for name in doors:
        shares, gaps = zip(*(one[name] for one in passes), strict=True)
        lines.append(f"| {name} | {np.median(shares):.0%} | {min(shares):.0%} | {max(gaps):.0f} |")
    return "\n".join(lines)


def in_turns(doors: Mapping[str, Door], questions: Sequence[str]) -> dict[str, list[float]]:
    """Milliseconds of each door for each question.

    Raises:
        SystemExit: If two doors find different chunks: what they cost could not be compared.
    """
    names = list(doors)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number, question in enumerate([*questions[:WARM_UP], *questions]):
        found = {}
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            start = time.perf_counter()
            found[name] = doors[name](question)
            if number >= WARM_UP:
                taken[name].append(1000 * (time.perf_counter() - start))
        for name, ids in found.items():
            if ids != found[DIRECT]:
                raise SystemExit(f"{question!r}: {name} found {ids}, {DIRECT} {found[DIRECT]}")
    return taken


def table(taken: Mapping[str, Sequence[float]], title: str) -> str:
    """Each door's median, and what it adds: the median of the differences and their quartiles."""
    lines = [f"| {title} | p50 ms | adds ms | quartiles |", "|---|--:|--:|--:|"]
    for name, times in taken.items():
        differences = np.subtract(times, taken[DIRECT])
        low, middle, high = np.percentile(differences, [25, 50, 75])
        added = "" if name == DIRECT else f"{middle:.2f} | {low:.2f} to {high:.2f}"
        lines.append(f"| {name} | {np.median(times):.2f} | {added or ' | '} |")
    return "\n".join(lines)


def texts(data: Path, name: str) -> list[tuple[str, str]]:
    """The ids and texts of a part of XQuAD, in all languages, one language after the other by turns."""
    parts = []
    for language in LANGUAGES:
        lines = (data / "retrieval" / "xquad" / "mono" / language / f"{name}.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in lines.splitlines()]
        parts.append([(f"{language}-{row['_id']}", row["text"]) for row in rows])
    return [row for rows in zip(*parts, strict=True) for row in rows]


def real(data: Path, questions: int) -> None:
    """The doors over real passages."""
    from m3rag import M3Encoder
    from m3rag.encoder import CachedEncoder, MemoryCache
    from m3rag.types import Chunk

    chunks = [Chunk(key, key, text, 0, len(text)) for key, text in texts(data, "corpus")]
    asked = [text for _, text in texts(data, "queries")[:questions]]
    encoder = M3Encoder("mini", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        for how, used in (("encoded", encoder), ("cached", CachedEncoder(encoder, MemoryCache()))):
            with KnowledgeBase(f"{folder}/index", encoder=used, settings=Settings()) as kb:
                if not kb.exists:
                    kb.upsert(chunks)
                if how == "cached":
                    used.encode_queries(asked)
                print(f"\n{len(chunks)} real chunks, {len(asked)} questions\n")
                print(table(in_turns(doors_to(kb), asked), how), flush=True)


class Prepared:
    """Stands where a knowledge base wants an encoder; the questions come encoded, by their numbers."""

    max_length = 8192

    def __init__(self, corpus: Corpus, queries: Sequence[M3Output]) -> None:
        self.info = corpus.model
        self.queries = {str(number): query for number, query in enumerate(queries)}

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        return M3Output.concatenate([self.queries[text] for text in texts])


def run_doors(corpus: Corpus, queries: list[M3Output]) -> str:
    """The doors over made-up chunks."""
    from m3rag.store import DocumentRecord, QdrantEdgeStore

    with tempfile.TemporaryDirectory() as folder:
        store = QdrantEdgeStore.create(Path(folder, "index"), corpus.model)
        for chunks, output in corpus.parts():
            for a in range(0, len(chunks), 100):
                own = chunks[a : a + 100]
                record = DocumentRecord(own[0].document_id, own[0].document_id, "1", len(own))
                store.put_document(record, [(own, output[a : a + 100])])
        store.close()
        encoder: Any = Prepared(corpus, queries)
        with KnowledgeBase(Path(folder, "index"), encoder=encoder, settings=Settings()) as kb:
            questions = list(encoder.queries)
            for question in questions[:2]:
                kb.search(question, k=K)
            time.sleep(READING)
            taken = table(in_turns(doors_to(kb), questions), "all")
            return f"{taken}\n\n{asyncio.run(heartbeats(async_doors_to(kb), questions))}"


def run_bgem3index(corpus: Corpus, queries: list[M3Output]) -> str:
    """BGEM3Index's own search, without its encoding."""
    import store

    ((median, high),) = store.run_bgem3index(corpus, Path(), queries)["rows"].values()
    return f"| BGEM3Index | p50 ms | p95 ms |\n|---|--:|--:|\n| query | {median:.2f} | {high:.2f} |"


CONTENDERS = {"doors": run_doors, "bgem3index": run_bgem3index}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=140, help="token vectors of a made-up chunk, about")
    parser.add_argument("--colbert-dim", type=int, default=128, help="their dimensions; BGE-M3's have 1,024")
    parser.add_argument("--queries", type=int, default=50, help="questions about the made-up chunks")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    corpus = Corpus(options.chunks, tokens=options.tokens, colbert_dim=options.colbert_dim)
    if options.one:
        print(CONTENDERS[options.one](corpus, corpus.queries(options.queries)))
        return
    real(options.data, options.questions)
    for one in CONTENDERS if options.chunks else ():
        command = [sys.executable, __file__, "--one", one, "--chunks", str(options.chunks)]
        about = (
            f"{options.chunks:,} made-up chunks of about {options.tokens} tokens of {options.colbert_dim} dimensions"
        )
        print(f"\n{about}, {options.queries} questions, encoded beforehand\n", flush=True)
        command += ["--tokens", str(options.tokens), "--colbert-dim", str(options.colbert_dim)]
        command += ["--queries", str(options.queries)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
