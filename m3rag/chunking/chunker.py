"""The chunker: one class, whose strategy decides the cuts and which sees that the spans are exact.

The text is first taken apart into units that are never cut (words, or tokens where a script has no
spaces), a strategy then packs units into chunks. All per-character work is numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from m3rag.chunking.names import strategy_of
from m3rag.chunking.parents import require_unreserved, with_parents
from m3rag.chunking.sections import Section, context_path, sections_of
from m3rag.chunking.strategy import Material, Strategy
from m3rag.chunking.units import Units
from m3rag.encoder.inputs import require_whole
from m3rag.errors import ConfigurationError, InputError
from m3rag.reading.content import READING_VERSION
from m3rag.types import Chunk, Document

if TYPE_CHECKING:
    from m3rag.encoder.protocol import Encoder

CHUNKING_VERSION = 2
"""Raised whenever the same parameters would give other chunks."""

CONTEXT_TOKENS = 32

Spans = npt.NDArray[np.int64]


class SpanSource(Protocol):
    """The part of an encoder that counts tokens."""

    def word_spans(self, text: str) -> Spans:
        """See `m3rag.encoder.protocol.Encoder.word_spans`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunker:
    """How documents are split.

    Attributes:
        strategy: Where the cuts are: `structure`, `fixed`, `sentence-window`, `small-to-big` or `semantic`,
            with options if need be, as in `semantic:percentile=90`; or a `Strategy`.
        chunk_tokens: The most tokens in a chunk, as the whole text is tokenized; its heading
            path comes on top with at most 32.
        overlap_tokens: The most tokens at a chunk's start that also end the chunk before it, within
            one section. Not used by strategies whose chunks have parents.
        late: Encode chunks as a part of their document, see `late_parts`.

    Raises:
        ConfigurationError: A number is not whole or out of range, the overlap is half a chunk or more, or there is no
            such strategy.
    """

    strategy: str | Strategy = "structure"
    chunk_tokens: int = 256
    overlap_tokens: int = 32
    late: bool = False

    def __post_init__(self) -> None:
        for name, least in (("chunk_tokens", 1), ("overlap_tokens", 0)):
            object.__setattr__(self, name, require_whole(name, getattr(self, name), least=least))
        if self.overlap_tokens and 2 * self.overlap_tokens >= self.chunk_tokens:
            raise ConfigurationError(
                f"overlap_tokens is {self.overlap_tokens}, which must be less than half of chunk_tokens "
                f"({self.chunk_tokens}); lower it to {max(self.chunk_tokens // 8, 0)} or raise chunk_tokens"
            )
        strategy_of(self.strategy)  # a wrong name is said now

    @property
    def version(self) -> str:
        """All that decides where the cuts are and what is encoded, but for the model."""
        late = "/late" if self.late else ""
        name = strategy_of(self.strategy).version
        return f"chunks-{CHUNKING_VERSION}/{name}/{self.chunk_tokens}+{self.overlap_tokens}{late}"

    def split(self, document: Document, spans_of: Callable[[str], Spans] | SpanSource) -> list[Chunk]:
        """Split a document.

        No chunk starts or ends within a word, unless the word alone is longer than a chunk. Chunks
        together hold every character that is not white space.

        Args:
            document: What was read.
            spans_of: An encoder, or its `word_spans`: `(tokens, 2)` int64, in order, not overlapping.
                Tokens without characters of their own count too if they have a row, an empty span.

        Returns:
            The chunks in order, `document.text[chunk.start:chunk.end] == chunk.text`. A chunk's
            `headings` are those that all of its text stands below, its own included, less
            what would make them longer than 32 tokens. Empty for a document of white space.

        Raises:
            InputError: The spans do not fit the text, or the document's metadata have a reserved key.
            ConfigurationError: The strategy needs the encoder, and was given its `word_spans` alone.
        """
        require_unreserved(document.metadata, document.id)
        spans = np.asarray((spans_of if callable(spans_of) else spans_of.word_spans)(document.text), np.int64)
        _check_spans(spans, document)
        units = Units.of(document.text, spans, budget=self.chunk_tokens)
        if not len(units):
            return []
        sections = sections_of(document, units, spans)
        encoder = cast("Encoder", spans_of) if hasattr(spans_of, "encode_documents") else None
        material = Material(document.text, units, sections, self.chunk_tokens, self.overlap_tokens, encoder)
        cuts = list(strategy_of(self.strategy).cuts(material))
        chunks = self._chunks(document, units, sections, [cut[:2] for cut in cuts])
        parents = [_span(units, *cut.parent) if cut.parent else None for cut in cuts]
        return with_parents(chunks, parents, document.text)

    def _chunks(
        self, document: Document, units: Units, sections: list[Section], cuts: list[tuple[int, int]]
    ) -> list[Chunk]:
        version = document_version(document, self)
        pages = np.array([p.start for p in document.pages], np.int64)
        chunks: list[Chunk] = []
        for first, last in cuts:
            start, end = _span(units, first, last)
            page = int(np.searchsorted(pages, start, "right")) - 1 if len(pages) else -1
            chunk = Chunk(
                id=f"{document.id}#{version[:12]}-{len(chunks)}",
                document_id=document.id,
                text=document.text[start:end],
                start=start,
                end=end,
                page=document.pages[max(page, 0)].number if document.pages else None,
                headings=context_path(sections, first, last, limit=CONTEXT_TOKENS),
                metadata=document.metadata,
            )
            chunks.append(chunk)
        return chunks


def document_version(document: Document, chunker: Chunker) -> str:
    """What the chunks of a document depend on, as one name: equal for equal bytes and settings.

    Args:
        document: Its `content_hash` and its `reader` count, its id does not.
        chunker: Its strategy and parameters count.

    Returns:
        64 hex digits. The tokenizer is not a part: an index is bound to its model anyway.
    """
    parts = f"{document.content_hash}\n{chunker.version}\nreading-{READING_VERSION}"
    if document.reader != "builtin":
        parts += f"\n{document.reader}"
    return hashlib.sha256(parts.encode()).hexdigest()


def _span(units: Units, first: int, last: int) -> tuple[int, int]:
    return int(units.starts[first]), int(units.ends[last - 1])


def _check_spans(spans: Spans, document: Document) -> None:
    if spans.size == 0:
        return
    sound = spans.ndim == 2 and spans.shape[1] == 2
    if sound:
        flat = spans.ravel()
        sound = bool(flat[0] >= 0 and flat[-1] <= len(document.text) and np.all(np.diff(flat) >= 0))
    if not sound:
        raise InputError(
            f"the token spans of {document.id} are not in order within its {len(document.text)} characters; "
            "word_spans must give (tokens, 2) spans that do not overlap"
        )
