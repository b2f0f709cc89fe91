"""KnowledgeBase: the one object that holds encoder, store and settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from m3rag.answering import LLM, Answerer, AnswerEvent, Extractive, Generative, OpenAIChat
from m3rag.chunking import CONTEXT_TOKENS, Chunker, siblings, widened
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, IndexMismatchError, InputError
from m3rag.ingest import IngestReport, take_in
from m3rag.reading import find_files, supported_suffixes
from m3rag.reading.discover_rules import Rules
from m3rag.retrieval import HybridRetriever, Mode, NoHits, TokenMatch
from m3rag.retrieval.explain import explanations
from m3rag.settings import LLMSettings, Settings, load_settings
from m3rag.store import DocumentRecord, Filter, Manifest
from m3rag.store.place import Place, place_of
from m3rag.types import LEGS, Answer, Hit, ModelInfo

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from m3rag.bm25 import BM25Leg
    from m3rag.encoder.explain import TokenAlignment
    from m3rag.ingest import IngestOptions
    from m3rag.reading import Found
    from m3rag.retrieval import SearchOptions
    from m3rag.store.protocol import Store

DEFAULT_MODEL = "mini"

BM25_FILE = "bm25.sqlite"
"""In the index's folder (in memory for an index on a server); derived from the index, made again where missing."""

HASHES_FILE = "files.sqlite"
"""In the index's folder; what is remembered of files there, made again where missing, see `FileHashes`."""

ROOM_TOKENS = CONTEXT_TOKENS + 8
"""What a chunk needs beyond its own tokens: its headings, the specials, a prefix."""


class KnowledgeBase:
    """Files in, hits and cited answers out, kept in a folder.

    Example:
        >>> kb = KnowledgeBase("my-index")
        >>> report = kb.ingest("papers/")
        >>> answer = kb.ask("Who proved it first?")
        >>> [(c.document_id, c.page, c.quote) for c in answer.citations]

    The index is opened when first needed, and the model when a text is first encoded: listing and
    removing load no model. Usable from several threads, and as a context manager.

    Args:
        path: Where the index lies; created by the first `ingest`. A folder, `http://HOST:6333/COLLECTION`
            (Qdrant), `chroma:FOLDER` or `chroma+http://HOST:8000/COLLECTION?side=FOLDER`, see
            `m3rag.store.place`. By default the setting `index`.
        model: `mini`, `BAAI/bge-m3` or a checkpoint folder. By default the one the index was made
            with, or `mini` for a new index.
        settings: By default those of this folder and environment.
        encoder: An encoder already loaded, to share it; `model` is then its own. One that gives dense
            vectors alone needs `mode="dense"`, and a language model to answer.
        mode: Which legs a search looks at, unless told otherwise: `dense`, `lexical`, `colbert`,
            `dense+lexical`, `all`, or, with the extra `bm25`, `bm25` or `dense+bm25`. By default the
            setting `mode`.
        llm: Writes the answers. By default the one of the settings; without any, answers are
            sentences quoted from the documents.

    Raises:
        ConfigurationError: If a setting is unknown or malformed, or `mode` is.
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
        self.settings = settings or load_settings()
        self.place = place_of(self.settings.index if path is None else path, api_key=self.settings.index_key)
        self._model = model or self.settings.model
        self._encoder = encoder
        self._mode = None if mode is None else Mode.parse(mode)
        self._llm = llm
        self._own_llm: OpenAIChat | None = None
        self._store: Store | None = None
        self._bm25: BM25Leg | None = None
        self._lock = threading.RLock()

    @property
    def path(self) -> Path | None:
        """The folder that holds the index; None where a server does."""
        return self.place.folder

    @property
    def store(self) -> Store:
        """The index.

        Raises:
            IndexMissingError: If there is none at the path.
            IndexLockedError: If another process holds it.
        """
        with self._lock:
            if self._store is None:
                self._store = self.place.open()
            return self._store

    @property
    def encoder(self) -> Encoder:
        """The model, loaded on first use.

        Raises:
            ModelError: If it cannot be had.
            IndexMismatchError: If the index was made with another one.
            ConfigurationError: If the index was made with an encoder that must be given.
        """
        with self._lock:
            manifest = self.manifest
            if self._encoder is None:
                # Imported here: torch takes seconds, and listing or removing needs no model.
                from m3rag.encoder.checkpoint import Checkpoint  # noqa: PLC0415
                from m3rag.encoder.encoder import M3Encoder  # noqa: PLC0415

                name = self._model or (manifest.model.name if manifest else DEFAULT_MODEL)
                if manifest is not None and name == manifest.model.name:
                    _require_loadable(self.place, manifest)
                if manifest is not None:
                    self._require_same_model(manifest, name, Checkpoint.find(name).fingerprint())
                self._encoder = M3Encoder(
                    name,
                    device=self.settings.device,
                    dtype=self.settings.dtype,
                    max_length=self.settings.max_length,
                    batch_tokens=self.settings.batch_tokens,
                )
            elif manifest is not None:
                self._require_same_model(manifest, self._encoder.info.name, self._encoder.info.fingerprint)
            return self._encoder

    @property
    def manifest(self) -> Manifest | None:
        """What the index says of itself, None where there is no index yet."""
        with self._lock:
            return self.store.manifest if self._store or self.place.exists() else None

    @property
    def mode(self) -> Mode:
        """Which legs a search looks at, unless told otherwise.

        Raises:
            ConfigurationError: If the setting names no mode.
        """
        return self._mode or Mode.parse(self.settings.mode)

    def _require_same_model(self, manifest: Manifest, name: str, fingerprint: str) -> None:
        made = manifest.model
        if made.fingerprint != fingerprint:
            told = f"another version of {name}" if made.name == name else f"the model {made.name}, not {name}"
            raise IndexMismatchError(
                f"the index {self.place} was made with {told}; nothing was changed. Encode it again with "
                f"`m3rag rebuild --index {self.place} --model {name}`"
                + ("" if made.name == name else f", or use it with {_how_to_use(made)}")
            )

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
            InputError: If no path is given, one does not exist, or they hold no file to read.
            ConfigurationError: If the model's texts are too short for the chunks, or it does not give
                the legs that a search will look at.
        """
        return self._take_in(paths, options, sync=False, remove_most=False)

    def sync(self, *folders: str | Path, remove_most: bool = False, **options: Unpack[IngestOptions]) -> IngestReport:
        """Make the index equal to folders: as `ingest`, and remove what is not there any more.

        Only documents that were ingested with the same folder are removed; what was ingested with
        another one, or as a single file, stays. A file that was renamed or moved within the folder, or a
        copy of another, is not encoded again; of a changed one, only the chunks that are new. A folder
        that was moved as a whole keeps its documents. What cannot be read is kept as it is.

        Args:
            *folders: Folders; a file among them is ingested, and never causes a removal.
            remove_most: Go on if more than half of a folder's documents, and more than 10, would be
                removed, or all of them since the folder is empty; else that is refused.
            **options: As for `ingest`.

        Raises:
            InputError: If no path is given or one does not exist, or too much would be removed; nothing
                is changed then.
            ConfigurationError: As `ingest`.
        """
        return self._take_in(folders, options, sync=True, remove_most=remove_most)

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
            known = ", ".join(sorted(supported_suffixes()))
            raise InputError(f"no file to read in {', '.join(map(str, paths))}: m3rag reads {known}")

        def encoder() -> Encoder:
            ready = self.encoder
            self.mode.check(ready.info)
            _require_room(ready, chunker)
            return ready

        dry = options.get("dry_run", False)
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
        )

    def found(self, *paths: str | Path, **options: Unpack[IngestOptions]) -> Found:
        """The files that `ingest` and `sync` read with the same arguments.

        Raises:
            InputError: If no path is given, or one does not exist.
        """
        if not paths:
            raise InputError("nothing to ingest: give files or folders")
        rules = Rules(
            include=tuple(options.get("include", ())),
            exclude=tuple(options.get("exclude", ())),
            gitignore=options.get("gitignore", False),
        )
        without = [self.path] if self.path else []
        return find_files(paths, suffixes=supported_suffixes(), rules=rules, without=without)

    def _store_for(self, encoder: Callable[[], Encoder]) -> Store:
        """The index, made if need be; the model is loaded only if it may be another one than the index's."""
        with self._lock:
            if self._model is None and self._encoder is None and (self._store or self.place.exists()):
                return self.store
            ready = encoder()
            if self._store is None:
                self._store = self.place.open_or_create(ready.info)
            return self._store

    def search(self, query: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """The best chunks for a question, best first.

        Args:
            query: The question.
            **options: See `m3rag.retrieval.SearchOptions`: `k` (by default the setting `top_k`), `mode`
                (by default that of the knowledge base), `filter`, `weights` (by default the setting, else
                those that `m3rag tune` learned for this index) or `alpha`, `fusion`, `rrf_k`,
                `score_threshold`, `diversity`, `group_by_document`, `reranker`, `rerank_top`.

        Raises:
            InputError: If the query is empty, or a number is out of its range.
            IndexMissingError: If there is no index.
            ConfigurationError: If the mode needs a leg that the model does not give, or options do not
                go together.
        """
        retriever, options = self._prepared(options)
        return retriever.search(query, **options)

    def why_empty(self, query: str, **options: Unpack[SearchOptions]) -> NoHits | None:
        """Why `search` with the same options finds nothing; None where it does find something."""
        retriever, options = self._prepared(options)
        return retriever.why_empty(query, **options)

    def _prepared(self, options: SearchOptions) -> tuple[HybridRetriever, SearchOptions]:
        """A retriever for one search, and its options with the defaults of these settings."""
        store = self.store  # before the encoder: a missing index should not cost loading a model
        given: SearchOptions = {**options}
        if given.get("k") is None:
            given["k"] = self.settings.top_k
        if given.get("mode") is None:
            given["mode"] = self.mode
        bm25 = self._bm25_leg() if Mode.parse(given["mode"] or Mode.ALL).needs_bm25 else None
        return HybridRetriever(self.encoder, store, bm25=bm25, weights=self._weights(store, given)), given

    def _bm25_leg(self) -> BM25Leg:
        """The BM25 leg, whose file lies in the index's folder; the retriever makes it equal to the store."""
        from m3rag.bm25 import BM25Leg  # noqa: PLC0415  # an extra, which most searches do without

        with self._lock:
            if self._bm25 is None:
                self._bm25 = BM25Leg(self.path / BM25_FILE if self.path else None)
            return self._bm25

    def _weights(self, store: Store, given: SearchOptions) -> str:
        # What a person has set counts for more than what was learned, and that for more than the default.
        # It was learned for all three legs as they are: of other modes and fusions it says nothing.
        applies = Mode.parse(given["mode"] or Mode.ALL) is Mode.ALL and given.get("fusion") in (None, "weighted")
        if "weights" in self.settings.model_fields_set or not applies:
            return self.settings.weights
        return str(store.settings.get("weights", self.settings.weights))

    def ask(
        self, question: str, *, k: int | None = None, mode: Mode | str | None = None, filter: Filter | None = None
    ) -> Answer:
        """Answer a question from the documents, with citations.

        `answer.answered` is False when the documents do not answer it.
        """
        answerer = self.answerer  # first: that nothing can answer should not cost a search
        return answerer.answer(question, self._passages(answerer, question, k, mode, filter))

    def stream(
        self, question: str, *, k: int | None = None, mode: Mode | str | None = None, filter: Filter | None = None
    ) -> Iterator[AnswerEvent]:
        """As `ask`, piece by piece: the text as it is written, then the Answer with its citations."""
        answerer = self.answerer
        return answerer.stream(question, self._passages(answerer, question, k, mode, filter))

    def _passages(
        self, answerer: Answerer, question: str, k: int | None, mode: Mode | str | None, filter: Filter | None
    ) -> list[Hit]:
        n = self.settings.answer_passages if k is None else k
        hits = self.search(question, k=n, mode=mode, filter=filter)
        # Small chunks are answered from the passage they stand in; quoting needs the stored chunks of it.
        expand = siblings if isinstance(answerer, Extractive) else widened
        return expand(hits, self.store.chunks_of)

    @property
    def answerer(self) -> Answerer:
        """What turns hits into answers: the language model if there is one, else quotation.

        Raises:
            ConfigurationError: If there is none and the model gives no ColBERT vectors to quote by.
        """
        with self._lock:
            if self._llm is None and self.settings.llm.model is not None:
                self._llm = self._own_llm = _llm_of(self.settings.llm)
        if self._llm is not None:
            return Generative(self._llm, page_of=self._page_of)
        store = self.store  # before the encoder: a missing index should not cost loading a model
        threshold = self.settings.answer_threshold
        return Extractive(self.encoder, store, threshold=threshold, page_of=self._page_of)

    def _page_of(self, document_id: str, position: int) -> int | None:
        # A chunk knows only the page it begins on; its document knows where every page begins.
        record = self.store.document(document_id)
        return record.page_of(position) if record else None

    def explain(self, query: str, hits: Sequence[Hit], *, limit: int | None = 5) -> list[list[TokenMatch]]:
        """For each hit the tokens it shares with the question, those that count most first.

        Without a limit the contributions of a hit's tokens sum to `hit.scores.lexical`. Explaining
        changes neither order nor scores.

        Raises:
            ConfigurationError: If the model gives no lexical weights.
        """
        found = explanations(self.encoder, self.store, query, hits, limit=limit, alignment=False) if hits else []
        return [list(one.tokens) for one in found]

    def align(self, query: str, hit: Hit) -> list[TokenAlignment]:
        """For each token of the question the token of `hit.chunk.encoded_text` that ColBERT scores it by.

        Raises:
            ConfigurationError: If the model gives no token vectors, or the encoder does not know its tokens.
        """
        (found,) = explanations(self.encoder, self.store, query, [hit], limit=0, alignment=True)
        return list(found.alignment or ())

    def documents(self) -> list[DocumentRecord]:
        """All documents in the index, ordered by id."""
        return self.store.documents()

    def remove(self, document_ids: Sequence[str]) -> int:
        """Remove documents with their chunks; returns how many there were.

        Raises:
            InputError: If one is not in the index; nothing is removed then.
        """
        unknown = [i for i in document_ids if self.store.document(i) is None]
        if unknown:
            raise InputError(f"not in the index {self.place}: {', '.join(unknown)}; `m3rag list` shows what is")
        return self.store.delete_documents(document_ids)

    def close(self) -> None:
        """Release the index. Closing twice does nothing."""
        with self._lock:
            if self._own_llm is not None:
                self._own_llm.close()
                self._llm = self._own_llm = None
            if self._store is not None:
                self._store.close()
                self._store = self._bm25 = None

    def __enter__(self) -> KnowledgeBase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _llm_of(settings: LLMSettings) -> OpenAIChat:
    model = settings.model or ""
    return OpenAIChat(model, base_url=settings.base_url, api_key=settings.api_key, timeout=settings.timeout)


def _require_loadable(place: Place, manifest: Manifest) -> None:
    # A name is enough for an M3 checkpoint alone: others are of several kinds, with options of their own.
    if manifest.model.legs != LEGS:
        raise ConfigurationError(
            f"the index {place} was made with {manifest.model.name}, which gives {' and '.join(manifest.model.legs)} "
            f"vectors alone: open it with {_how_to_use(manifest.model)}"
        )


def _how_to_use(model: ModelInfo) -> str:
    if model.legs == LEGS:
        return f"--model {model.name}"
    return f"KnowledgeBase(..., encoder=...), the encoder being that of {model.name}"


def _require_room(encoder: Encoder, chunker: Chunker) -> None:
    most = encoder.max_length - ROOM_TOKENS
    if chunker.chunk_tokens > most:
        raise ConfigurationError(
            f"chunk_tokens {chunker.chunk_tokens} does not fit the model {encoder.info.name}, whose texts have at most "
            f"{encoder.max_length} tokens: set it to {most} or less"
        )
