"""Documents on their way into a store: small ones are encoded together, each is written by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from m3rag.chunking import late_parts
from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.store.protocol import DocumentRecord, Store
from m3rag.sync.encoding import CHUNKS_AT_ONCE, Represented, Stored, encoded_parts, missing, output_of
from m3rag.sync.plan import Planned
from m3rag.sync.results import FileResult
from m3rag.types import Chunk

BATCH_CHARACTERS = 65_536
"""Of the chunks encoded together: some 16,000 tokens, up to 130 MB of token vectors of the full model."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that was read and split.

    Attributes:
        planned: Its file.
        record: What the store is to remember.
        chunks: In order.
        message: For people.
    """

    planned: Planned
    record: DocumentRecord
    chunks: list[Chunk]
    message: str = ""

    def result(self, stored: Stored) -> FileResult:
        """What to report when it is written."""
        planned = self.planned
        was = planned.donor.id if planned.status == "renamed" and planned.donor else ""
        encoded = len(missing(self.chunks, stored))
        return FileResult(planned.path, self.record.id, planned.status, len(self.chunks), encoded, self.message, was)


@dataclass(slots=True)
class Batches:
    """Encodes and writes documents; each is wholly in the store, or not at all, when its result is given.

    Args:
        store: Where to.
        encoder: Gives the model.
        done: Called with each document and its result, in the order they were added.
        step: Called with a document, and the number of its chunks that are written.
        late: Whether dense vectors are pooled late, see `m3rag.chunking.late_parts`: they depend on the
            neighbours, so that nothing stored is taken over by its text.
    """

    store: Store
    encoder: Callable[[], Encoder]
    done: Callable[[Prepared, FileResult], None]
    step: Callable[[Prepared, int], None]
    late: bool = False
    _waiting: list[Prepared] = field(default_factory=list)
    _characters: int = 0

    def add(self, prepared: Prepared) -> None:
        """Take a document; it, or those before it, may be written now."""
        size = sum(len(chunk.encoded_text) for chunk in prepared.chunks)
        if self._waiting and self._characters + size > BATCH_CHARACTERS:
            self.flush()
        if self.late or len(prepared.chunks) > CHUNKS_AT_ONCE or size > BATCH_CHARACTERS:
            self._write_long(prepared)
            return
        self._waiting.append(prepared)
        self._characters += size

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting, self._characters = self._waiting, [], 0
        if not waiting:
            return
        stored = [self._stored(one) for one in waiting]
        # All before the first is written, which may replace a document that another one is taken from; and before
        # the encoding, during which another thread may remove it.
        read = [held.read(one.chunks) for one, held in zip(waiting, stored, strict=True)]
        texts = [text for one, held in zip(waiting, stored, strict=True) for text in missing(one.chunks, held)]
        encoded = Represented.of(texts, self.encoder())
        outputs = [output_of(one.chunks, encoded, known) for one, known in zip(waiting, read, strict=True)]
        for one, held, output in zip(waiting, stored, outputs, strict=True):
            self._write(one, held, [(one.chunks, output)] if one.chunks else [])

    def _write_long(self, one: Prepared) -> None:
        self.flush()
        held = self._stored(one)

        def step(done: int, _: int) -> None:
            self.step(one, done)

        if self.late:
            parts = late_parts(one.chunks, self.encoder(), on_part=step)
        else:
            parts = encoded_parts(one.chunks, self.encoder(), stored=held, on_part=step)
        self._write(one, held, parts)

    def _write(self, one: Prepared, held: Stored, parts: Iterable[tuple[Sequence[Chunk], M3Output]]) -> None:
        try:
            self.store.put_document(one.record, parts)
        except InputError as error:
            failed = replace(one.result(held), status="failed", chunks=0, encoded=0, message=str(error), was="")
            self.done(one, failed)
            return
        self.step(one, len(one.chunks))
        self.done(one, one.result(held))  # not before: parts may find what was stored gone

    def _stored(self, one: Prepared) -> Stored:
        donor = None if self.late else one.planned.donor
        return Stored.of(self.store, donor.id if donor else None, [chunk.encoded_text for chunk in one.chunks])
