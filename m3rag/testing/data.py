"""Random documents and queries with all three representations, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from m3rag.output import M3Output
from m3rag.store.protocol import DocumentRecord
from m3rag.types import Chunk, Leg, Metadata, ModelInfo

MODEL = ModelInfo(name="random", fingerprint="random-1", dense_dim=24, vocab_size=500, colbert_dim=8)
"""A model of small dimensions, so that a test over thousands of vectors takes milliseconds."""

DENSE_ONLY = ModelInfo(name="random-dense", fingerprint="random-dense-1", dense_dim=24, vocab_size=0, colbert_dim=0)
"""A model of one leg."""


@dataclass(frozen=True, slots=True)
class Example:
    """A document ready for `Store.put_document`."""

    record: DocumentRecord
    chunks: tuple[Chunk, ...]
    output: M3Output

    def parts(self, size: int = 3) -> list[tuple[Sequence[Chunk], M3Output]]:
        """The document in parts of at most `size` chunks."""
        starts = range(0, len(self.chunks), size)
        return [(self.chunks[a : a + size], self.output[a : a + size]) for a in starts]


def random_output(rng: np.random.Generator, n: int, *, model: ModelInfo = MODEL, max_tokens: int = 12) -> M3Output:
    """Representations of `n` texts as a model could give them; about one text in ten is empty.

    Token ids follow a skewed distribution, so that texts share some and not others. An empty text
    has a dense vector but no lexical weights and no token vectors, as has any text of a model
    without these legs.
    """
    if model.legs == ("dense",):
        return M3Output.from_dense(_units(rng, n, model.dense_dim))
    counts = rng.integers(1, max_tokens + 1, n) * (rng.random(n) > 0.1)
    rows = [np.unique((model.vocab_size * rng.random(count) ** 3).astype(np.int32)) for count in counts]
    indices = np.concatenate([*rows, np.zeros(0, np.int32)])
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    data = rng.uniform(0.01, 0.6, len(indices)).astype(np.float32)
    return M3Output(
        dense=_units(rng, n, model.dense_dim),
        lexical=csr_array((data, indices, indptr), shape=(n, model.vocab_size)),
        colbert=_units(rng, int(counts.sum()), model.colbert_dim).astype(np.float16),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def random_query(rng: np.random.Generator, *, model: ModelInfo = MODEL) -> M3Output:
    """The representation of one text that is not empty."""
    while True:
        output = random_output(rng, 1, model=model)
        if len(output.colbert) or "colbert" not in model.legs:
            return output


def spoilt_outputs(output: M3Output) -> Iterator[tuple[Leg, M3Output]]:
    """The output with its last number of a leg made one that nothing can be compared with, in every way there is."""
    for value in (np.nan, np.inf, -np.inf):
        dense, colbert = output.dense.copy(), output.colbert.copy()
        dense[-1, -1] = colbert[-1, -1] = value
        yield "dense", replace(output, dense=dense)
        yield "colbert", replace(output, colbert=colbert)
        yield "colbert", replace(output, colbert=colbert.astype(np.float32))
    for value in (np.nan, np.inf, -0.5):
        lexical = output.lexical.copy()
        lexical.data[-1] = value
        yield "lexical", replace(output, lexical=lexical)


def random_document(
    rng: np.random.Generator,
    id: str,
    *,
    chunks: int,
    version: str = "v1",
    metadata: Metadata | None = None,
    model: ModelInfo = MODEL,
) -> Example:
    """A document of random chunks whose metadata cover every kind of value a filter meets."""
    texts = [f"{id} {version} passage {i} héllo 鸭子 🦆" for i in range(chunks)]
    made = tuple(
        Chunk(
            id=f"{id}@{version}#{i}",
            document_id=id,
            text=text,
            start=i * 100,
            end=i * 100 + len(text),
            page=i + 1 if i % 2 else None,
            headings=("Top", f"Part {i}") if i % 3 else (),
            metadata={**_metadata(i), **(metadata or {})},
        )
        for i, text in enumerate(texts)
    )
    record = DocumentRecord(
        id=id,
        title=f"Title of {id}",
        version=version,
        chunks=chunks,
        source=f"/docs/{id}",
        page_starts=tuple(range(chunks)),
        metadata=dict(metadata or {}),
    )
    return Example(record=record, chunks=made, output=random_output(rng, chunks, model=model))


def _metadata(i: int) -> dict[str, Any]:
    return {
        "lang": ("de", "en", "zh")[i % 3],
        "year": 2000 + i % 4,
        "score": i / 2,
        "draft": i % 2 == 0,
        "flag": 1 if i % 3 == 0 else True,
        "tags": ["common", f"tag {i % 5}", i % 4],
        "none": None,
        "nested": {"lang": "fr"},
        "empty": [],
        "big": 2**53 + i % 3,
        "when": (f"2024-01-0{1 + i % 5}", f"2024-01-0{1 + i % 5}T02:00:00.000+02:00", ["soon", "2024-01-02T00:00:00Z"])[
            i % 3
        ],
        **({"rare": i} if i % 5 == 0 else {}),
        'odd "key".[0]': "odd value",
    }


def _units(rng: np.random.Generator, n: int, size: int) -> npt.NDArray[np.float32]:
    vectors = rng.standard_normal((n, size), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
