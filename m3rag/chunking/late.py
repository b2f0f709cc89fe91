"""Late chunking: chunks encoded as parts of their document instead of one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from m3rag.encoder.inputs import Role
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError
from m3rag.output import M3Output
from m3rag.types import Chunk

AT_ONCE = 64
"""Chunks encoded and written together."""

NEIGHBOURS = 16
"""Chunks on each side of them that are in reach as context: more than fills a window of `mini`."""


@runtime_checkable
class SpanEncoder(Protocol):
    """An encoder that can encode spans of a text in its context: `M3Encoder` with one device and torch."""

    def encode_spans(self, text: str, spans: Sequence[tuple[int, int]], *, role: Role = "document") -> M3Output:
        """See `m3rag.encoder.late.encode_spans`."""


def late_parts(
    chunks: Sequence[Chunk], encoder: Encoder, *, on_part: Callable[[int, int], None] | None = None
) -> Iterator[tuple[Sequence[Chunk], M3Output]]:
    """Encode a document's chunks as a store takes them, their dense vectors pooled late.

    The lexical weights and token vectors are those of the chunk encoded by itself with its heading path, as
    ever: quoting and explaining align them with `chunk.encoded_text`. So a document is encoded twice, and a
    chunk again whenever its neighbours change.

    It does not pay for dense search: a vector that has seen its surroundings tells neighbouring chunks apart less
    well, and for models whose dense vector is not a mean (BGE-M3 takes the CLS) a mean was never trained. Where
    all legs are fused it may add a little; benchmarks/chunking.py measures both.

    Args:
        chunks: All of one document, in order; between them the document has white space alone.
        encoder: The model.
        on_part: Called with the number of chunks written and of all, each time a part is.

    Raises:
        ConfigurationError: If the encoder cannot encode spans.
    """
    if not isinstance(encoder, SpanEncoder):
        raise ConfigurationError(
            f"late chunking needs an M3Encoder, and {encoder.info.name!r} is a {type(encoder).__name__}: "
            "switch late chunking off, or give the M3Encoder itself"
        )
    for start in range(0, len(chunks), AT_ONCE):
        part = chunks[start : start + AT_ONCE]
        output = encoder.encode_documents([chunk.encoded_text for chunk in part])
        # Only what is in reach: the whole text for each part would take quadratic time.
        first = max(start - NEIGHBOURS, 0)
        text, spans = _joined(chunks[first : start + AT_ONCE + NEIGHBOURS])
        late = encoder.encode_spans(text, spans[start - first : start - first + len(part)])
        yield part, M3Output(late.dense, output.lexical, output.colbert, output.offsets)
        if on_part is not None:
            on_part(start + len(part), len(chunks))


def _joined(chunks: Sequence[Chunk]) -> tuple[str, list[tuple[int, int]]]:
    """The text that chunks are of, with one blank for white space between them, and their spans in it.

    To a tokenizer white space is white space, so that the document itself is not needed.
    """
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    length, done = 0, 0
    for chunk in chunks:
        if spans and chunk.start > done:
            pieces.append(" ")
            length += 1
        new = chunk.text[max(done - chunk.start, 0) :] if spans else chunk.text
        pieces.append(new)
        length, done = length + len(new), chunk.end
        spans.append((length - len(chunk.text), length))
    return "".join(pieces), spans
