"""Made-up chunks and questions with all three representations, at any number and size.

Retrieval engines see structure, not meaning: chunks lie in topics of very different size, tokens follow
Zipf's law within the topic and over all, a token's vector depends on the token and on its chunk, and a
question is about one chunk, sharing some of its tokens. Random vectors without this would make every
approximate index look worse, and every codec better, than it is on texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from m3rag.output import M3Output
from m3rag.types import Chunk, ModelInfo

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """`chunks` chunks, made in parts so that they need not fit in memory; the same seed, the same chunks."""

    chunks: int
    dense_dim: int = 1024
    colbert_dim: int = 128
    tokens: int = 140
    vocab_size: int = 250_002
    topics: int = 400
    seed: int = 0
    part: int = 500
    model: ModelInfo = field(init=False)

    def __post_init__(self) -> None:
        name = f"synthetic-{self.dense_dim}-{self.colbert_dim}"
        info = ModelInfo(name, f"{name}-{self.seed}", self.dense_dim, self.vocab_size, self.colbert_dim)
        object.__setattr__(self, "model", info)

    @cached_property
    def _world(self) -> tuple[Floats, Floats, npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        rng = np.random.default_rng(self.seed)
        centres = units(rng, self.topics, self.dense_dim)
        table = units(rng, 20_000, self.colbert_dim)  # token vectors, shared by ids of the same remainder
        popularity = 1 / np.arange(1, self.topics + 1)
        words = rng.integers(1000, self.vocab_size, (self.topics, 800)).astype(np.int32)
        return centres, table, popularity / popularity.sum(), words

    def parts(self) -> Iterator[tuple[list[Chunk], M3Output]]:
        """All chunks, `part` at a time. Metadata: `half` is 0 or 1, `hundred` is 0 to 99."""
        for start in range(0, self.chunks, self.part):
            numbers = range(start, min(start + self.part, self.chunks))
            yield [chunk_of(i) for i in numbers], self._outputs(numbers)

    def queries(self, n: int) -> list[M3Output]:
        """Questions about chunks spread over the corpus."""
        found = []
        for i in np.random.default_rng(self.seed + 1).integers(0, self.chunks, n):
            start = int(i) - int(i) % self.part
            part = self._outputs(range(start, min(start + self.part, self.chunks)))
            found.append(self._question(part[int(i) - start], np.random.default_rng([self.seed, 2, int(i)])))
        return found

    def _outputs(self, numbers: Sequence[int]) -> M3Output:
        centres, table, popularity, words = self._world
        rng = np.random.default_rng([self.seed, 3, numbers[0] // self.part])
        n = len(numbers)
        topics = rng.choice(self.topics, n, p=popularity)
        dense = normalised(centres[topics] + 0.9 * units(rng, n, self.dense_dim))
        counts = rng.integers(self.tokens // 2, self.tokens * 3 // 2 + 1, n)
        ids, offsets = [], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        for topic, count in zip(topics, counts, strict=True):
            common = (5 + 4000 * rng.random(count) ** 4).astype(np.int32)
            own = words[topic, (800 * rng.random(count) ** 2).astype(np.int64)]
            ids.append(np.where(rng.random(count) < 0.45, common, own))
        flat = np.concatenate(ids)
        context = np.repeat(units(rng, n, self.colbert_dim), counts, axis=0)
        colbert = normalised(table[flat % len(table)] + 0.45 * context + 0.35 * units(rng, len(flat), self.colbert_dim))
        weights = np.where(flat < 4005, 0.02, 0.2) * rng.lognormal(0, 0.4, len(flat))
        return M3Output(
            dense=dense,
            lexical=maxima(flat, weights.astype(np.float32), offsets, self.vocab_size),
            colbert=colbert.astype(np.float16),
            offsets=offsets,
        )

    def _question(self, chunk: M3Output, rng: np.random.Generator) -> M3Output:
        n = min(12, len(chunk.colbert))
        noise = 0.5 * units(rng, n, self.colbert_dim)
        asked = chunk.colbert[rng.choice(len(chunk.colbert), n, replace=False)].astype(np.float32)
        heavy = np.argsort(-chunk.lexical.data)[: max(n * 3, 1)]
        kept = rng.choice(heavy, min(n, len(heavy)), replace=False)
        lexical = csr_array(
            (chunk.lexical.data[kept], (np.zeros(len(kept), np.int32), chunk.lexical.indices[kept])),
            shape=(1, self.vocab_size),
        )
        return M3Output(
            dense=normalised(chunk.dense + 0.8 * units(rng, 1, self.dense_dim)),
            lexical=lexical,
            colbert=normalised(asked + noise).astype(np.float16),
            offsets=np.array([0, n], np.int64),
        )


def chunk_of(i: int) -> Chunk:
    """The i-th chunk; a document is a hundred chunks."""
    text = f"Chunk {i}. " + "The text of a chunk is kept beside its representations. " * 12
    metadata = {"half": i % 2, "hundred": i // 100 % 100, "number": i}
    return Chunk(f"c{i:08}", f"d{i // 100:06}", text, i % 100 * 700, i % 100 * 700 + len(text), metadata=metadata)


def maxima(ids: npt.NDArray[np.int32], weights: Floats, offsets: npt.NDArray[np.int64], width: int) -> csr_array:
    """The largest weight of each token id of each text, as a row of a sparse matrix."""
    rows, starts = [], [0]
    for a, b in itertools.pairwise(offsets.tolist()):
        order = np.lexsort((-weights[a:b], ids[a:b])) + a
        first = order[np.concatenate([[True], np.diff(ids[order]) > 0])]
        rows.append(first)
        starts.append(starts[-1] + len(first))
    kept = np.concatenate(rows)
    return csr_array((weights[kept], ids[kept], np.array(starts, np.int32)), shape=(len(rows), width))


def units(rng: np.random.Generator, n: int, size: int) -> Floats:
    """Random directions `(n, size)`."""
    return normalised(rng.standard_normal((n, size), np.float32))


def normalised(vectors: Floats) -> Floats:
    """The same directions, of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
