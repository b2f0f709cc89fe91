"""One knowledge base behind many requests: what routes ask of it, without blocking the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import math
import os
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from m3rag import __version__
from m3rag.answering import AnswerEvent, Turn
from m3rag.answering.conversation import rewriting, rewritten
from m3rag.answering.protocol import refusal
from m3rag.collection import DEFAULT_MODEL
from m3rag.encoder.microbatch import AsyncEncoding
from m3rag.encoder.protocol import AsyncEncoder, Encoder
from m3rag.errors import InputError, M3RagError
from m3rag.knowledge_base import KnowledgeBase
from m3rag.output import M3Output
from m3rag.retrieval import Mode, NoHits, SearchOptions
from m3rag.retrieval.words import WordMatch, aligned_words, matched_words
from m3rag.server.counting import CPU_CHARS, CountingBatcher
from m3rag.server.errors import Refused
from m3rag.server.feedback import Feedback
from m3rag.server.highlights import Mark, marks
from m3rag.server.jobs import Jobs
from m3rag.server.pdf_pages import PdfPages
from m3rag.server.source import text_of
from m3rag.server.streaming import Pump
from m3rag.server.uploads import Uploads
from m3rag.settings import ServeSettings
from m3rag.store.protocol import DocumentRecord
from m3rag.types import LEGS, Hit

NO_INDEX = NoHits("empty index", "there is no document yet: add one first", 0, 0)
NO_DOCUMENT = "There is no document yet: add one first."

MOST_COUNTED = 100_000
"""Characters of which the tokens are counted in one call of `Engine.tokens`."""


def data_folder(kb: KnowledgeBase, settings: ServeSettings) -> Path:
    """Where uploads and feedback are kept: as set, else beside the index (in it, they would be passed over).

    For an index on a server it is in the current folder, and of that index alone: what lies there is taken for its
    documents.
    """
    if settings.data is not None:
        return settings.data.expanduser().absolute()
    if kb.path is not None:
        path = kb.path.absolute()
        return path.with_name(path.name + "-data")
    digest = hashlib.blake2b(kb.place.name.encode(), digest_size=4).hexdigest()
    readable = re.sub(r"\W+", "-", kb.place.name).strip("-")[-40:]
    return Path.cwd() / f"m3rag-{readable}-{digest}-data"


@dataclass(slots=True)
class Engine:
    """What the routes stand on.

    Attributes:
        kb: The knowledge base; the engine closes what it opens of it.
        settings: Of the server.
        count: Called with each shared call's number of texts.
    """

    kb: KnowledgeBase
    settings: ServeSettings
    count: Callable[[int], None] = lambda _texts: None
    uploads: Uploads = field(init=False)
    jobs: Jobs = field(init=False)
    feedback: Feedback = field(init=False)
    pages: PdfPages = field(init=False)
    removals: ThreadPoolExecutor = field(init=False)  # each waits for the document being written, and nobody for them
    counts: ThreadPoolExecutor = field(init=False)  # what others wait for is not kept from a thread by long texts

    def __post_init__(self) -> None:
        data = data_folder(self.kb, self.settings)
        self.uploads = Uploads(data)
        self.jobs = Jobs(self.kb, self.uploads)
        self.feedback = Feedback(data / "feedback.jsonl")
        self.pages = PdfPages()
        self.removals = ThreadPoolExecutor(1, "m3rag-remove")
        self.counts = ThreadPoolExecutor(1, "m3rag-count")

    def status(self) -> dict[str, Any]:
        """What the page and `GET /api/status` say of the server; loads no model."""
        kb = self.kb
        manifest = kb.manifest
        records = kb.documents() if manifest is not None else []
        legs = manifest.model.legs if manifest is not None else LEGS
        bm25 = importlib.util.find_spec("rank_bm25") is not None or importlib.util.find_spec("bm25s") is not None
        possible = set(legs) | ({"bm25"} if bm25 else set())
        return {
            "version": __version__,
            "index": kb.place.folder.name if kb.place.folder is not None else str(kb.place),
            "model": manifest.model.name if manifest is not None else kb.model_name or DEFAULT_MODEL,
            "modes": [mode.value for mode in Mode if set(mode.legs) <= possible],
            "default_mode": kb.mode.value,
            "weights": kb.settings.weights,
            "legs": list(legs),
            "llm": self.llm_name(),
            "documents": len(records),
            "chunks": sum(record.chunks for record in records),
            "auth": self.settings.api_key is not None,
            "max_upload_mb": self.settings.max_upload_mb,
        }

    def sizes(self) -> tuple[int, int]:
        """How many documents and chunks there are."""
        records = self.kb.documents() if self.kb.exists else []
        return len(records), sum(record.chunks for record in records)

    def llm_name(self) -> str | None:
        """The language model's name; None if answers are quoted sentences."""
        llm = self.kb.llm
        return llm.name if llm is not None else None

    async def encoder(self) -> Encoder:
        """The model, loaded on first use; its shared calls are counted."""
        encoder = await asyncio.to_thread(lambda: self.kb.encoder)
        if isinstance(encoder, AsyncEncoding) and getattr(encoder.batcher, "count", None) != self.count:
            on_cpu = getattr(getattr(encoder, "device", None), "type", None) == "cpu"
            encoder.batcher = CountingBatcher(self.count, **({"max_chars": CPU_CHARS} if on_cpu else {}))
        return encoder

    async def encode(self, texts: Sequence[str], *, query: bool = False) -> M3Output:
        """Encode texts in passes shared with concurrent callers."""
        encoder = await self.encoder()
        if isinstance(encoder, AsyncEncoder):
            return await (encoder.aencode_queries if query else encoder.aencode_documents)(list(texts))
        return await asyncio.to_thread(encoder.encode_queries if query else encoder.encode_documents, list(texts))

    async def tokens(self, *texts: str) -> list[int]:
        """How many tokens texts have; words where the model does not tell, or none is needed yet.

        Of texts that have more than MOST_COUNTED characters together, that of the long ones is an estimate: a first
        part is counted, and the rest taken to have as many a character.
        """
        encoder = await self.encoder() if await asyncio.to_thread(self._filled) else None
        total, half = sum(map(len, texts)), MOST_COUNTED // 2

        def counted(text: str) -> int:
            # Half goes to all alike, so that short texts are counted whole; half by length.
            most = max(half // len(texts), math.ceil(len(text) * half / total)) if total > MOST_COUNTED else len(text)
            part = text[:most]
            # A language model may write half a surrogate pair, which not every tokenizer takes.
            sound = part.encode("utf-8", "replace").decode("utf-8")
            try:
                found = len(encoder.word_spans(sound) if encoder is not None else sound.split())
            except M3RagError:
                found = len(sound.split())
            return found if part == text else round(found * len(text) / len(part))

        return await asyncio.get_running_loop().run_in_executor(self.counts, lambda: list(map(counted, texts)))

    async def search(self, query: str, options: SearchOptions) -> tuple[list[Hit], NoHits | None]:
        """The hits; without any, why."""
        if not await asyncio.to_thread(self._filled):
            return [], NO_INDEX
        await self.encoder()
        hits = await self.kb.asearch(query, **options)
        why = None if hits else await asyncio.to_thread(lambda: self.kb.why_empty(query, **options))
        return hits, why

    async def standalone(self, question: str, history: Sequence[Turn]) -> str:
        """The question by itself, as `KnowledgeBase.standalone`; a caller that is cancelled ends the model's reply."""
        llm = self.kb.llm if history else None
        if llm is None:
            return question
        async with aclosing(Pump(lambda: llm.stream(rewriting(question, history))).items()) as pieces:
            return rewritten("".join([piece async for piece in pieces]), question)

    async def passages(self, question: str, history: Sequence[Turn], options: SearchOptions) -> tuple[str, list[Hit]]:
        """The question by itself, and what an answer is made from."""
        asked = await self.standalone(question, history)
        if not await asyncio.to_thread(self._filled):
            return asked, []
        await self.encoder()
        return asked, await self.kb.apassages(asked, **options)

    def answer(self, question: str, hits: Sequence[Hit]) -> AsyncGenerator[AnswerEvent]:
        """Pieces of text, then the Answer; closing it ends the work."""

        def events() -> Iterator[AnswerEvent]:
            if not hits:
                none = refusal(())
                return iter([none if self._filled() else replace(none, text=NO_DOCUMENT)])
            return self.kb.answerer.stream(question, hits)

        return Pump(events).items()

    def titles(self, document_ids: Sequence[str]) -> dict[str, str]:
        """The titles of documents, which are their ids where they have none."""
        found: dict[str, str] = {}
        for one in dict.fromkeys(document_ids):
            record = self.kb.store.document(one)
            found[one] = record.title if record is not None and record.title else one
        return found

    async def words(self, query: str, hits: Sequence[Hit]) -> list[list[WordMatch]]:
        """For each hit the words that share tokens with the question; none where the model cannot tell."""
        encoder = await self.encoder()
        if "lexical" not in encoder.info.legs or not hasattr(encoder, "tokens"):
            return [[] for _ in hits]

        def found() -> list[list[WordMatch]]:
            return [matched_words(encoder, query, hit, store=self.kb.store) for hit in hits]

        return await asyncio.to_thread(found)

    async def highlights(self, query: str, chunk_id: str) -> dict[str, list[Mark]]:
        """The words of a chunk that matched, by both legs; none of a leg that the model does not give."""
        chunks = await asyncio.to_thread(self.kb.get, [chunk_id])
        if not chunks:
            raise Refused(404, "this passage is not in the index any more", "Search again.")
        hit = Hit(chunks[0], 0.0)
        encoder = await self.encoder()

        def found() -> dict[str, list[Mark]]:
            legs = encoder.info.legs if hasattr(encoder, "tokens") else ()
            lexical = matched_words(encoder, query, hit, store=self.kb.store) if "lexical" in legs else []
            colbert = aligned_words(encoder, query, hit) if "colbert" in legs else []
            return {
                "lexical": marks((word.start, word.end, word.contribution) for word in lexical),
                "colbert": marks(((word.start, word.end, word.strength) for word in colbert), top=1.0),
            }

        return await asyncio.to_thread(found)

    def documents(self) -> list[dict[str, Any]]:
        """All documents as JSON."""
        records = self.kb.documents() if self.kb.exists else []
        return [
            {
                "id": record.id,
                "title": record.title or record.id,
                "chunks": record.chunks,
                "pages": record.pages,
                "has_image": _pdf_of(record, self.uploads) is not None,
            }
            for record in records
        ]

    def source(self, document_id: str) -> dict[str, Any]:
        """A document's text and its pages."""
        record = self._record(document_id)
        text = text_of(self.kb.store.chunks_of(document_id))
        starts = record.page_starts
        ends = (*starts[1:], max(len(text), *starts)) if starts else ()
        return {
            "document_id": record.id,
            "title": record.title or record.id,
            "text": text,
            "pages": [
                {"number": n, "start": s, "end": e} for n, (s, e) in enumerate(zip(starts, ends, strict=True), 1)
            ],
            "is_pdf": _pdf_of(record, self.uploads) is not None,
        }

    def remove(self, document_id: str) -> None:
        """Remove a document, and its file if it was uploaded."""
        record = self._record(document_id)
        covered = self.jobs.coming(document_id)
        try:
            settle = self.jobs.put_away(record)
        except OSError as error:
            message = f"the file of {document_id} cannot be removed ({error.strerror})"
            raise Refused(503, message, "Try again in a moment, or see the setting serve.data.") from None
        try:
            self.kb.remove([document_id])
        except InputError:
            raise _unknown(document_id) from None  # somebody else was faster
        finally:
            settle()
        self.jobs.removed(document_id, covered)

    def pdf(self, document_id: str) -> Path:
        """The PDF a document was read from.

        Raises:
            Refused: If it was none, or is not there any more.
        """
        path = _pdf_of(self._record(document_id), self.uploads)
        if path is None:
            raise Refused(404, "this document has no pages to show", "Its text is at /api/source.")
        return path

    def _record(self, document_id: str) -> DocumentRecord:
        record = self.kb.store.document(document_id) if self.kb.exists else None
        if record is None:
            raise _unknown(document_id)
        return record

    def _filled(self) -> bool:
        return self.kb.exists and self.kb.store.count() > 0

    def close(self) -> None:
        """End the work and release the index."""
        try:
            self.jobs.stop()
        finally:
            self.kb.close()


def _unknown(_document_id: str) -> Refused:
    return Refused(404, "there is no such document in the index", "The list of documents says what there is.")


def _pdf_of(record: DocumentRecord, uploads: Uploads) -> Path | None:
    path = uploads.where(Path(record.source)) if record.source else None
    return path if path is not None and path.suffix.lower() == ".pdf" and os.path.isfile(path) else None
