"""KnowledgeBase: files in, hits and cited answers out."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m3rag.answering import LLM, Answerer, AnswerEvent, Extractive, Generative, LocalChat, OpenAIChat, Turn
from m3rag.answering.conversation import standalone
from m3rag.chunking import CONTEXT_TOKENS, Chunker, siblings, widened
from m3rag.collection import Collection
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.ingest import IngestReport, checked, take_in
from m3rag.reading import find_files, supported_suffixes
from m3rag.reading.discover_rules import Rules
from m3rag.reading.readers import formats_of
from m3rag.retrieval.options import require_named
from m3rag.settings import LLMSettings

if TYPE_CHECKING:
    from typing import Unpack

    from m3rag.ingest import IngestOptions
    from m3rag.reading import Found
    from m3rag.retrieval import Mode, SearchOptions
    from m3rag.settings import Settings
    from m3rag.store.place import Place
    from m3rag.types import Answer, Hit

HASHES_FILE = "files.sqlite"
"""In the index's folder; what is remembered of files there, made again where missing, see `FileHashes`."""

ROOM_TOKENS = CONTEXT_TOKENS + 8
"""What a chunk needs beyond its own tokens: its headings, the specials, a prefix."""


class KnowledgeBase(Collection):
    """A `Collection` that reads files and answers questions.

    Example:
        >>> kb = KnowledgeBase("my-index")
        >>> report = kb.ingest("papers/")
        >>> answer = kb.ask("Who proved it first?")
        >>> [(c.document_id, c.page, c.quote) for c in answer.citations]

    Args:
        path: As for `Collection`, and so are `model`, `settings`, `encoder` and `mode`.
        llm: Writes the answers. By default the one of the settings; without any, answers are
            sentences quoted from the documents, which needs a model that gives ColBERT vectors.

    Raises:
        ConfigurationError: If a setting is unknown or malformed, or `mode` is.
        InputError: If `encoder` or `llm` is none.
    """

    def __init__(
        self,
        path: str | Path | Place | None = None,
        *,
        model: str | None = None,
        settings: Settings | None = None,
        encoder: Encoder | None = None,
        mode: Mode | str | None = None,
        llm: LLM | None = None,
    ) -> None:
        super().__init__(path, model=model, settings=settings, encoder=encoder, mode=mode)
        if llm is not None and not callable(getattr(llm, "complete", None)):
            raise InputError(
                f"llm is {llm!r}, must be an m3rag.answering.LLM such as OpenAIChat('llama3.2', base_url=...): a name "
                "goes into the setting llm.model"
            )
        self._llm = llm
        self._own_llm: LocalChat | OpenAIChat | None = None
        self._llm_lock = threading.RLock()

    def ingest(self, *paths: str | Path, **options: Unpack[IngestOptions]) -> IngestReport:
        """Read files and folders into the index, which is created if need be.

        A file whose content is unchanged costs no encoding; a bad one is reported and the rest
        goes on. When a result is handed out, that document is durable. Files are parsed in a process
        of their own, with limits.

        Args:
            *paths: Files and folders.
            **options: See `m3rag.ingest.IngestOptions`: `include`, `exclude`, `gitignore`, `password`,
                `limits`, `dry_run`, `on_result`, `on_progress`.

        Raises:
            InputError: If no path is given, one is empty or does not exist, or they hold no file to read; or if an
                option is unknown, or of a type that it cannot have.
            ConfigurationError: If the model's texts are too short for the chunks, or it does not give
                the legs that a search will look at.
        """
        return self._take_in(paths, checked(options), sync=False, remove_most=False)

    def sync(self, *folders: str | Path, remove_most: bool = False, **options: Unpack[IngestOptions]) -> IngestReport:
        """Make the index equal to folders: as `ingest`, and remove what is not there any more.

        Only documents that were ingested with the same folder are removed; what was ingested with
        another one stays, and so does a single file from elsewhere, or a hidden one. A file that was
        renamed or moved within the folder, or a copy of another, is not encoded again; of a changed one,
        only the chunks that are new. A folder that was moved as a whole keeps its documents. What cannot be
        read is kept as it is.

        Args:
            *folders: Folders; a file among them is ingested, and never causes a removal.
            remove_most: Go on if more than half of a folder's documents, and more than 10, would be
                removed, or all of them since the folder is empty; else that is refused.
            **options: As for `ingest`.

        Raises:
            InputError: As `ingest`, or if too much would be removed; nothing is changed then.
            ConfigurationError: As `ingest`.
        """
        return self._take_in(folders, checked(options, remove_most=remove_most), sync=True, remove_most=remove_most)

    def _take_in(
        self, paths: Sequence[str | Path], options: IngestOptions, *, sync: bool, remove_most: bool
    ) -> IngestReport:
        settings = self.settings
        chunker = Chunker(
            strategy=settings.chunking,
            chunk_tokens=settings.chunk_tokens,
            overlap_tokens=settings.overlap_tokens,
            late=settings.late_chunking,
        )
        found = self.found(*paths, **options)
        if not found.files and not (sync and self.place.exists()):
            known = ", ".join(sorted(supported_suffixes(formats_of(settings.reader))))
            raise InputError(f"no file to read in {', '.join(map(str, paths))}: m3rag reads {known}")

        def encoder() -> Encoder:
            ready = self.encoder
            self.mode.check(ready.info)
            _require_room(ready, chunker)
            return ready

        dry = options.get("dry_run")
        store = self._store_for(encoder) if not dry else self.store if self.place.exists() else None
        return take_in(
            found,
            store,
            options,
            encoder=encoder,
            chunker=chunker,
            hashes_file=self.path / HASHES_FILE if self.path and store else None,
            max_bytes=int(settings.max_file_mb * 1e6),
            sync=sync,
            remove_most=remove_most,
            look_again=lambda folders: self.found(*folders, **options),
            reader=settings.reader,
        )

    def found(self, *paths: str | Path, **options: Unpack[IngestOptions]) -> Found:
        """The files that `ingest` and `sync` read with the same arguments.

        Raises:
            InputError: If no path is given, or one is empty or does not exist; or if an option is unknown, or of a type
                that it cannot have.
        """
        if not paths:
            raise InputError("nothing to ingest: give files or folders")
        for path in paths:
            if not isinstance(path, str | os.PathLike):
                raise InputError(
                    f"a path is of type {type(path).__name__}, must be a text or a Path: give several as ingest(*paths)"
                )
            if not os.fspath(path):
                raise InputError("a path is empty: give '.' if the current folder is meant")
        given = checked(options)
        rules = Rules(
            include=tuple(given.get("include") or ()),
            exclude=tuple(given.get("exclude") or ()),
            gitignore=bool(given.get("gitignore")),
        )
        without = [self.path] if self.path else []
        suffixes = supported_suffixes(formats_of(self.settings.reader))
        return find_files(paths, suffixes=suffixes, rules=rules, without=without)

    def standalone(self, question: str, history: Sequence[Turn]) -> str:
        """A question of a conversation, made understandable by itself.

        Needs a language model; without one, or without turns before it, the question stays as it is.

        Raises:
            LLMError: If the model fails.
        """
        llm = self.llm if history else None
        return question if llm is None else standalone(llm, question, history)

    def passages(self, question: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """What an answer is made from: the hits, small ones with the passage around them.

        Args:
            question: The question, understandable by itself.
            **options: As for `search`; `k` is by default the setting `answer_passages`.

        Raises:
            As `search`; ConfigurationError if nothing can answer.
        """
        options = self._for_answer(options)
        answerer = self.answerer  # first: that nothing can answer should not cost a search
        return self.expanded(answerer, self.search(question, **options))

    async def apassages(self, question: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """As `passages`, see `asearch`."""
        options = self._for_answer(options)
        answerer = await asyncio.to_thread(lambda: self.answerer)
        hits = await self.asearch(question, **options)
        return await asyncio.to_thread(self.expanded, answerer, hits)

    def ask(self, question: str, *, history: Sequence[Turn] = (), **options: Unpack[SearchOptions]) -> Answer:
        """Answer a question from the documents, with citations.

        `answer.answered` is False when the documents do not answer it.

        Args:
            question: The question.
            history: The turns of the conversation before it, oldest first.
            **options: As for `passages`.
        """
        asked = self.standalone(question, history)
        hits = self.passages(asked, **options)
        return self.answerer.answer(asked, hits)

    async def aask(self, question: str, *, history: Sequence[Turn] = (), **options: Unpack[SearchOptions]) -> Answer:
        """As `ask`, beside others: concurrent callers share forward passes, and the event loop goes on."""
        asked = await asyncio.to_thread(self.standalone, question, history)
        hits = await self.apassages(asked, **options)
        return await asyncio.to_thread(lambda: self.answerer.answer(asked, hits))

    def stream(
        self, question: str, *, history: Sequence[Turn] = (), **options: Unpack[SearchOptions]
    ) -> Iterator[AnswerEvent]:
        """As `ask`, piece by piece: the text as it is written, then the Answer with its citations."""
        asked = self.standalone(question, history)
        hits = self.passages(asked, **options)
        return self.answerer.stream(asked, hits)

    def _for_answer(self, options: SearchOptions) -> SearchOptions:
        require_named(options)
        k = options.get("k")
        return {**options, "k": self.settings.answer_passages if k is None else k}

    def expanded(self, answerer: Answerer, hits: Sequence[Hit]) -> list[Hit]:
        """What an answerer is given for hits: small chunks with the passage they stand in.

        Quoting needs the stored chunks of it, a language model its text.
        """
        expand = siblings if isinstance(answerer, Extractive) else widened
        return expand(hits, self.store.chunks_of)

    @property
    def answerer(self) -> Answerer:
        """What turns hits into answers: the language model if there is one, else quotation.

        Raises:
            ConfigurationError: If there is none and the model gives no ColBERT vectors to quote by.
        """
        llm = self.llm
        if llm is not None:
            return Generative(llm, page_of=self.page_of)
        store = self.store  # before the encoder: a missing index should not cost loading a model
        threshold = self.settings.answer_threshold
        return Extractive(self.encoder, store, threshold=threshold, page_of=self.page_of)

    @property
    def llm(self) -> LLM | None:
        """The language model that writes the answers; None where they are quoted."""
        with self._llm_lock:  # its own: a model is loaded under the collection's
            if self._llm is None and self.settings.llm.model is not None:
                self._llm = self._own_llm = _llm_of(self.settings.llm)
            return self._llm

    def page_of(self, document_id: str, position: int) -> int | None:
        """The page, from 1, on which a character of a document's text stands; None for formats without pages.

        A chunk knows only the page that it begins on.
        """
        record = self.store.document(document_id)
        return record.page_of(position) if record else None

    def close(self) -> None:
        """Release the index and the connection to a language model. Closing twice does nothing."""
        try:
            with self._llm_lock:
                if self._own_llm is not None:
                    self._own_llm.close()
                    self._llm = self._own_llm = None
        finally:
            super().close()


def _llm_of(settings: LLMSettings) -> LocalChat | OpenAIChat:
    model = settings.model or ""
    if settings.local:
        return LocalChat(model, timeout=settings.timeout)
    return OpenAIChat(model, base_url=settings.base_url, api_key=settings.api_key, timeout=settings.timeout)


def _require_room(encoder: Encoder, chunker: Chunker) -> None:
    most = encoder.max_length - ROOM_TOKENS
    if chunker.chunk_tokens > most:
        raise ConfigurationError(
            f"chunk_tokens {chunker.chunk_tokens} does not fit the model {encoder.info.name}, whose texts have at most "
            f"{encoder.max_length} tokens: set it to {most} or less"
        )
