"""Documents to chunks: token-exact, cut where the text itself pauses, every chunk a span of its document.

The text is first taken apart into units that are never cut (words, or tokens where a script has no
spaces), then units are packed into chunks section by section. All per-character work is numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from m3rag.errors import ConfigurationError, InputError
from m3rag.reading.content import READING_VERSION
from m3rag.sections import Section, context_path, sections_of
from m3rag.types import Chunk, Document
from m3rag.units import HEADING, SENTENCE, Units

CHUNKING_VERSION = 1
"""Raised whenever the same parameters would give other chunks."""

CONTEXT_TOKENS = 32
SMALL_SECTION = 64

Spans = npt.NDArray[np.int64]


class SpanSource(Protocol):
    """The part of an encoder that counts tokens."""

    def word_spans(self, text: str) -> Spans:
        """See `m3rag.encoder.protocol.Encoder.word_spans`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunker:
    """How documents are split.

    Attributes:
        chunk_tokens: The most tokens in a chunk, as the whole text is tokenized; its heading
            path comes on top with at most 32.
        overlap_tokens: The most tokens at a chunk's start that also end the chunk before it, within
            one section.

    Raises:
        ConfigurationError: A number is out of range, or the overlap is half a chunk or more.
    """

    chunk_tokens: int = 256
    overlap_tokens: int = 32

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1:
            raise ConfigurationError(f"chunk_tokens is {self.chunk_tokens}; it must be at least 1, such as 256")
        if self.overlap_tokens < 0:
            raise ConfigurationError(f"overlap_tokens is {self.overlap_tokens}; it must be 0 or more, such as 32")
        if self.overlap_tokens and 2 * self.overlap_tokens >= self.chunk_tokens:
            raise ConfigurationError(
                f"overlap_tokens is {self.overlap_tokens}, which must be less than half of chunk_tokens "
                f"({self.chunk_tokens}); lower it to {max(self.chunk_tokens // 8, 0)} or raise chunk_tokens"
            )

    @property
    def version(self) -> str:
        """All that decides where the cuts are, but for the tokenizer."""
        return f"chunks-{CHUNKING_VERSION}/{self.chunk_tokens}+{self.overlap_tokens}"

    def split(self, document: Document, spans_of: Callable[[str], Spans] | SpanSource) -> list[Chunk]:
        """Split a document.

        No chunk starts or ends within a word, unless the word alone is longer than a chunk. Chunks
        together hold every character that is not white space. A section starts a chunk of its own;
        one of less than 64 tokens shares it with the sections that follow it on its level or below.

        Args:
            document: What was read.
            spans_of: An encoder, or its `word_spans`: `(tokens, 2)` int64, in order, not overlapping.
                Tokens without characters of their own count too if they have a row, an empty span.

        Returns:
            The chunks in order, `document.text[chunk.start:chunk.end] == chunk.text`. A chunk's
            `headings` are those that all of its text stands below, its own included, less
            what would make them longer than 32 tokens. Empty for a document of white space.

        Raises:
            InputError: The spans do not fit the text.
        """
        spans = np.asarray((spans_of if callable(spans_of) else spans_of.word_spans)(document.text), np.int64)
        _check_spans(spans, document)
        units = Units.of(document.text, spans, budget=self.chunk_tokens)
        if not len(units):
            return []
        sections = sections_of(document, units, spans)
        version = document_version(document, self)
        pages = np.array([p.start for p in document.pages], np.int64)
        chunks: list[Chunk] = []
        for first, last in self._cuts(sections, units):
            start, end = int(units.starts[first]), int(units.ends[last - 1])
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

    def _cuts(self, sections: list[Section], units: Units) -> Iterator[tuple[int, int]]:
        """Half-open ranges of units, one a chunk."""
        small = min(SMALL_SECTION, self.chunk_tokens // 4)
        at = 0
        while at < len(sections):
            group = at + 1
            while (
                group < len(sections)
                and sections[group].level >= sections[at].level
                and units.tokens(sections[at].first, sections[group].first) < small
            ):
                group += 1
            yield from self._windows(sections[at].first, sections[group - 1].last, units)
            at = group

    def _windows(self, first: int, last: int, units: Units) -> Iterator[tuple[int, int]]:
        start, done = first, first
        while True:
            cut = self._cut(start, done, last, units)
            yield start, cut
            if cut == last:
                return
            start, done = self._overlap(start, cut, units), cut

    def _cut(self, start: int, done: int, last: int, units: Units) -> int:
        """Where the window from `start` ends: at the strongest pause of its last third, and past `done`."""
        left = units.tokens(start, last)
        if left <= self.chunk_tokens:
            return last
        # Two chunks of about one size instead of a full one and a scrap.
        room = self.chunk_tokens if 4 * left >= 5 * self.chunk_tokens else -(-5 * left // 8)
        end = min(max(units.reach(start, room), done + 1), last)
        soft = max(units.reach(start, room - room // 3), done + 1)
        if soft >= end:
            return end
        strengths = units.strength[soft : end + 1]
        return end - int(np.argmax(strengths[::-1]))

    def _overlap(self, start: int, cut: int, units: Units) -> int:
        """Where the chunk after `cut` starts: at a sentence, else at a unit, in the section of the cut."""
        reached = units.tokens(0, cut)
        # The next chunk must hold the overlap and at least one unit more.
        room = min(self.overlap_tokens, self.chunk_tokens - units.tokens(cut, cut + 1))
        first = max(int(np.searchsorted(units.before, reached - room, "left")), start + 1)
        if room <= 0 or first >= cut or units.strength[cut] == HEADING:
            return cut
        strengths = units.strength[first:cut]
        headings = np.flatnonzero(strengths == HEADING)
        if len(headings):
            first += int(headings[-1])
        sentences = np.flatnonzero(units.strength[first:cut] >= SENTENCE)
        return first + int(sentences[0]) if len(sentences) else first


def document_version(document: Document, chunker: Chunker) -> str:
    """What the chunks of a document depend on, as one name: equal for equal bytes and settings.

    Args:
        document: Its `content_hash` counts, its id does not.
        chunker: Its parameters count.

    Returns:
        64 hex digits. The tokenizer is not a part: an index is bound to its model anyway.
    """
    parts = f"{document.content_hash}\n{chunker.version}\nreading-{READING_VERSION}"
    return hashlib.sha256(parts.encode()).hexdigest()


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
