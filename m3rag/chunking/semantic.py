"""Cuts where the meaning changes: between sentences whose dense vectors are least alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3rag.chunking.sentence_window import sentences_of
from m3rag.chunking.strategy import Cut, Material
from m3rag.chunking.structure import SMALL_SECTION, section_groups
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError

NEIGHBOURS = 3
"""Sentences on each side of a gap that are compared: one alone is too often a short aside."""

AT_ONCE = 256
"""Sentences encoded at a time, so that the token vectors of a long document are never held at once."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantic:
    """Cuts at the gaps between sentences where the text on both sides is least alike.

    The distance across a gap is 1 - cosine of the mean dense vectors of the three sentences before and
    after it. Within a section, the gaps above the percentile of the document's distances are cut.
    What is then still longer than a chunk is cut as `Structure` does; what has less than 64 tokens stays with what
    follows. It encodes every sentence once more than the chunks, which about doubles the time of an ingest.

    Attributes:
        percentile: Share of the gaps, in percent, that are not cut; 0 to 100.

    Raises:
        ConfigurationError: If it is out of range.
    """

    percentile: float = 80.0

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= 100:
            raise ConfigurationError(f"semantic: percentile is {self.percentile}; it must be 0 to 100, such as 80")

    @property
    def version(self) -> str:
        """See `Strategy`."""
        return f"semantic:percentile={float(self.percentile)}"

    def cuts(self, material: Material) -> Iterator[Cut]:
        """See `Strategy`.

        Raises:
            ConfigurationError: If only a tokenizer was given.
        """
        if material.encoder is None:
            raise ConfigurationError(
                "the strategy semantic compares sentences by the model's dense vectors: give split() the encoder "
                "itself instead of its word_spans, or choose the strategy structure"
            )
        groups = [sentences_of(material.units, *group) for group in section_groups(material)]
        vectors = _encode(material.encoder, material, [sentence for group in groups for sentence in group])
        distances, at = [], 0
        for group in groups:
            distances.append(_distances(vectors[at : at + len(group)]))
            at += len(group)
        every = np.concatenate(distances)
        bound = float(np.percentile(every, self.percentile)) if len(every) else 0.0
        small = min(SMALL_SECTION, material.chunk_tokens // 4)
        packer = material.packer()
        for group, gaps in zip(groups, distances, strict=True):
            for segment in _segments(material, group, gaps > bound, small):
                for window in packer.windows(*segment):
                    yield Cut(*window)


def _encode(encoder: Encoder, material: Material, sentences: Sequence[Range]) -> npt.NDArray[np.float32]:
    """The dense vectors of sentences, `(n, d)`."""
    units = material.units
    texts = [material.text[int(units.starts[a]) : int(units.ends[b - 1])] for a, b in sentences]
    parts = [_dense(encoder, texts[i : i + AT_ONCE]) for i in range(0, len(texts), AT_ONCE)]
    return np.concatenate(parts)


def _dense(encoder: Encoder, texts: list[str]) -> npt.NDArray[np.float32]:
    # M3Encoder has a way that keeps nothing else in memory.
    encode_dense = getattr(encoder, "encode_dense", None)
    if encode_dense is not None:
        vectors: npt.NDArray[np.float32] = encode_dense(texts, role="document")
        return vectors
    return encoder.encode_documents(texts).dense


def _distances(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Across each gap between two of `n` sentences: `(n - 1,)`, 0 to 2."""
    n = len(vectors)
    sums = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0, dtype=np.float64)])
    gaps = np.arange(1, n)
    before = sums[gaps] - sums[np.maximum(gaps - NEIGHBOURS, 0)]
    after = sums[np.minimum(gaps + NEIGHBOURS, n)] - sums[gaps]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    distances: npt.NDArray[np.float64] = 1 - np.einsum("ij,ij->i", before, after) / np.maximum(lengths, 1e-12)
    return distances


def _segments(
    material: Material, sentences: Sequence[Range], cut: npt.NDArray[np.bool_], small: int
) -> Iterator[Range]:
    """Sentences joined between the gaps that are cut."""
    first, end = sentences[0][0], sentences[-1][1]
    for gap in np.flatnonzero(cut).tolist():
        last = sentences[gap][1]
        if material.units.tokens(first, last) >= small <= material.units.tokens(last, end):
            yield first, last
            first = last
    yield first, end
