"""What every store refuses before it writes or searches, so that all refuse the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from m3rag.errors import InputError
from m3rag.legs import require_legs
from m3rag.output import M3Output
from m3rag.store.protocol import DocumentRecord
from m3rag.types import LEGS, Chunk, Leg, ModelInfo


def checked_parts(
    document: DocumentRecord, parts: Iterable[tuple[Sequence[Chunk], M3Output]], *, model: ModelInfo
) -> Iterator[tuple[Sequence[Chunk], M3Output]]:
    """Hand parts on one at a time, as long as they are what the record promises.

    Raises:
        InputError: If chunks and representations differ in number, a chunk belongs to another
            document, an id comes twice, the dimensions are not the model's, or (after the last
            part) there are more or fewer chunks than the record says.
    """
    seen: set[str] = set()
    for chunks, output in parts:
        if len(chunks) != len(output):
            raise InputError(f"document {document.id!r}: {len(chunks)} chunks came with {len(output)} encoded texts")
        check_dimensions(output, model)
        for chunk in chunks:
            if chunk.document_id != document.id:
                raise InputError(f"chunk {chunk.id!r} is of document {chunk.document_id!r}, not of {document.id!r}")
            if chunk.id in seen:
                raise InputError(f"document {document.id!r}: two chunks have the id {chunk.id!r}; ids must be unique")
            seen.add(chunk.id)
        yield chunks, output
    if len(seen) != document.chunks:
        raise InputError(f"document {document.id!r}: the record says {document.chunks} chunks, {len(seen)} were given")


def check_dimensions(output: M3Output, model: ModelInfo) -> None:
    """Refuse representations that another model made.

    Raises:
        InputError: If a dimension is not the model's.
    """
    found = (output.dense.shape[1], output.lexical.shape[1], output.colbert.shape[1])
    expected = (model.dense_dim, model.vocab_size, model.colbert_dim)
    if found != expected:
        raise InputError(
            f"(dense, lexical, colbert) dimensions {found} are not those of {model.name!r} {expected}: "
            "encode with the model the index was made with"
        )


def check_query(query: M3Output, leg: Leg, model: ModelInfo) -> None:
    """Refuse what cannot be one query of one leg.

    Raises:
        InputError: If there is not exactly one text, the leg is unknown, or a dimension differs.
        ConfigurationError: If the model does not give the leg.
    """
    if leg not in LEGS:
        raise InputError(f"unknown leg {leg!r}: one of {', '.join(get_args(Leg))}")
    require_legs(model, [leg], what=f"a {leg} score", remedy=f"choose among {', '.join(model.legs)}")
    if len(query) != 1:
        raise InputError(f"a query is the output of one text, got {len(query)}: search one at a time, query[i]")
    check_dimensions(query, model)


def check_k(k: int) -> None:
    """Refuse a number of results below 1.

    Raises:
        InputError: If `k` is not positive.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
