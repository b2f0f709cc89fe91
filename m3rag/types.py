"""The nouns of m3rag: what is read, what is stored, what is found, what is answered.

Everything here is a frozen dataclass without behaviour beyond small derived values, so that any
stage may hand it on without a defensive copy. Character offsets are offsets into Python strings
(code points), half-open `[start, end)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Leg = Literal["dense", "lexical", "colbert"]
"""One of the three representations that a single forward pass of M3 gives."""

LEGS: tuple[Leg, ...] = get_args(Leg)

SearchLeg = Literal["dense", "lexical", "colbert", "bm25"]
"""What a search may look at: the representations, and BM25 over the words beside them."""

SEARCH_LEGS: tuple[SearchLeg, ...] = get_args(SearchLeg)

KEYWORD_LEGS: tuple[SearchLeg, ...] = ("lexical", "bm25")
"""The legs that find only what shares a token with the question; a score of 0 is no match there."""

MOST = 2**31 - 1
"""Of anything that is searched for: no index holds as much, and engines take no larger number."""

Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a document: its number as printed by readers (1-based) and its span in the text."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a document: its text, its depth (1 is the outermost) and its span in the text."""

    text: str
    level: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """A file as read.

    Attributes:
        id: Identity inside a collection: the path relative to the ingested root, with `/`.
        text: The whole text; pages, headings and chunks are spans of it.
        content_hash: SHA-256 (hex) of the file's bytes; decides only whether work can be skipped.
        title: A human name: the format's own title, else the first heading, else the file name.
        pages: Empty for formats without pages.
        headings: In order of position.
        metadata: JSON values.
        warnings: What the reader could not take over, for people (such as a page without text).
        reader: Who read it, one of `m3rag.reading.readers.READERS`; another one gives another text.
    """

    id: str
    text: str
    content_hash: str
    title: str = ""
    pages: tuple[Page, ...] = ()
    headings: tuple[Heading, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reader: str = "builtin"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document, the unit that is encoded, stored and found.

    Attributes:
        id: Unique in a collection.
        document_id: The document it is a span of.
        text: Exactly `document.text[start:end]`.
        start: First character in the document's text.
        end: One past the last character.
        page: Page number of the first character; None for formats without pages.
        headings: The path of headings above the chunk, outermost first.
        metadata: JSON values, inherited from the document.
    """

    id: str
    document_id: str
    text: str
    start: int
    end: int
    page: int | None = None
    headings: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=dict)

    @property
    def context(self) -> str:
        """What is put before the text when it is encoded, never when it is quoted."""
        return " > ".join(self.headings) + "\n" if self.headings else ""

    @property
    def encoded_text(self) -> str:
        """The text the encoder sees: the heading path as context, then the text itself."""
        return self.context + self.text


@dataclass(frozen=True, slots=True)
class LegScores:
    """The exact score of one chunk in each leg; None where the mode did not look at the leg.

    dense: inner product of unit vectors, [-1, 1]. lexical: sum over shared tokens of the product
    of weights, >= 0. colbert: mean over query tokens of the best cosine in the passage, [-1, 1].
    bm25: >= 0, unbounded, comparable only within one question. rerank: of a reranker that ordered
    the hits, on its own scale.
    """

    dense: float | None = None
    lexical: float | None = None
    colbert: float | None = None
    bm25: float | None = None
    rerank: float | None = None


@dataclass(frozen=True, slots=True)
class LegRanks:
    """The rank (from 1) of one chunk in each leg among the candidates that were scored."""

    dense: int | None = None
    lexical: int | None = None
    colbert: int | None = None
    bm25: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found, the score that ordered it, and the scores behind it.

    Attributes:
        chunk: What was found.
        score: What the hits are ordered by: the fused score, or a reranker's.
        scores: The exact score in each leg that was looked at, and a reranker's.
        ranks: The rank in each leg that was looked at.
        found_by: The legs whose own candidates held the chunk, in the order of the legs; a leg that
            only gave it a score is not among them.
    """

    chunk: Chunk
    score: float
    scores: LegScores = field(default_factory=LegScores)
    ranks: LegRanks = field(default_factory=LegRanks)
    found_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Citation:
    """A quotation that supports an answer.

    Attributes:
        number: The n of `[n]` in the answer's text.
        document_id: The document quoted.
        page: Page number of the quote; None for formats without pages.
        start: First character of the quote in the document's text.
        end: One past the last character.
        quote: Exactly `document.text[start:end]`.
        chunk_id: The chunk the quote stands in.
    """

    number: int
    document_id: str
    page: int | None
    start: int
    end: int
    quote: str
    chunk_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with the citations that hold it up.

    Attributes:
        text: What to show, with `[n]` marks that all have a citation.
        citations: In order of `number`.
        hits: The passages that were considered, best first.
        answered: False when the documents do not answer; `text` then says so plainly.
        support: How well the best evidence supports the answer, for thresholds and display; its
            scale is the answerer's own, None where it has none (a language model).
    """

    text: str
    citations: tuple[Citation, ...]
    hits: tuple[Hit, ...]
    answered: bool
    support: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an index records of the model that made it.

    Attributes:
        name: As the user gave it: a hub id, `mini`, or a folder.
        fingerprint: Changes whenever the numbers the model gives would change.
        dense_dim: Length of the dense vector.
        vocab_size: Number of token ids, the width of the lexical matrix; 0 for a model without that leg.
        colbert_dim: Length of a token vector; 0 for a model without that leg.
    """

    name: str
    fingerprint: str
    dense_dim: int
    vocab_size: int
    colbert_dim: int

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The representations that the model gives: all three for M3, `dense` alone for most others."""
        sizes = (self.dense_dim, self.vocab_size, self.colbert_dim)
        return tuple(leg for leg, size in zip(LEGS, sizes, strict=True) if size > 0)
