"""Collection: chunks with their three representations at one place, and the encoder that made them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from m3rag._copied import CopiedAsItself
from m3rag._shell import quoted
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, IndexMismatchError, InputError
from m3rag.opened import shared_place
from m3rag.output import M3Output
from m3rag.reranking.named import reranker_named
from m3rag.retrieval import HybridRetriever, Mode, NoHits, TokenMatch
from m3rag.retrieval.explain import explanations
from m3rag.retrieval.options import require_named
from m3rag.settings import Settings, load_settings
from m3rag.store import DocumentRecord, Filter, Manifest
from m3rag.store.payload import require_storable
from m3rag.types import LEGS, Chunk, Hit, ModelInfo

if TYPE_CHECKING:
    from typing import Self, Unpack

    from m3rag.bm25 import BM25Leg
    from m3rag.encoder.explain import TokenAlignment
    from m3rag.reranking import Reranker
    from m3rag.retrieval import SearchOptions
    from m3rag.store.place import Place
    from m3rag.store.protocol import Store

DEFAULT_MODEL = "mini"

BM25_FILE = "bm25.sqlite"
"""In the index's folder (in memory for an index on a server); derived from the index, made again where missing."""

CHUNKS_AT_ONCE = 256
"""Chunks encoded and written together by `upsert`: it bounds memory, and what a kill can undo."""


class Collection(CopiedAsItself):
    """Chunks in, hits out: what every door to an index (files, frameworks, server) stands on.

    Example:
        >>> from m3rag.testing import HashEncoder
        >>> from m3rag.types import Chunk
        >>> with Collection(":memory:", encoder=HashEncoder()) as collection:
        ...     collection.upsert([Chunk(id="a", document_id="a", text="Ducks swim.", start=0, end=11)])
        ...     [hit.chunk.text for hit in collection.search("Do ducks swim?")]
        ['Ducks swim.']

    The index is opened when first needed, and the model when a text is first encoded: listing and
    removing load no model. Usable from several threads, and as a context manager. Several of one index in one
    process share it while it is open, see `m3rag.opened`; several of one model share that, see
    `m3rag.encoder.loaded`.

    Args:
        path: Where the index lies; created when something is first written. A folder, `:memory:`,
            `http://HOST:6333/COLLECTION` (Qdrant), `chroma:FOLDER` or
            `chroma+http://HOST:8000/COLLECTION?side=FOLDER`, see `m3rag.store.place`. By default the
            setting `index`.
        model: `mini`, `BAAI/bge-m3` or a checkpoint folder. By default the one the index was made
            with, or `mini` for a new index.
        settings: By default those of this folder and environment.
        encoder: An encoder already loaded, to share it; `model` is then its own. One that gives dense
            vectors alone needs `mode="dense"`.
        mode: Which legs a search looks at, unless told otherwise: `dense`, `lexical`, `colbert`,
            `dense+lexical`, `all`, or, with the extra `bm25`, `bm25` or `dense+bm25`. By default the
            setting `mode`.

    Raises:
        ConfigurationError: If a setting is unknown or malformed, or `mode` is.
        InputError: If `encoder` is none.
    """

    def __init__(
        self,
        path: str | Path | Place | None = None,
        *,
        model: str | None = None,
        settings: Settings | None = None,
        encoder: Encoder | None = None,
        mode: Mode | str | None = None,
    ) -> None:
        if encoder is not None and not callable(getattr(encoder, "encode_queries", None)):
            raise InputError(
                f"encoder is {encoder!r}, must be an m3rag.encoder.Encoder such as M3Encoder('mini'): a name is given "
                "as model='mini'"
            )
        self.settings = settings or load_settings()
        self.place = shared_place(path, self.settings)
        self._model = model or self.settings.model
        self._encoder = encoder
        self._mode = None if mode is None else Mode.parse(mode)
        self._store: Store | None = None
        self._bm25: BM25Leg | None = None
        self._reranker: tuple[str | None, Reranker | None] | None = None
        self._lock = threading.RLock()

    @property
    def exists(self) -> bool:
        """Whether there is an index at the place.

        Raises:
            StoreError: If a server cannot be asked.
        """
        with self._lock:
            return self._store is not None or self.place.exists()

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
                from m3rag.encoder.loaded import loaded  # noqa: PLC0415

                name = self._model or (manifest.model.name if manifest else DEFAULT_MODEL)
                if manifest is not None and name == manifest.model.name:
                    _require_loadable(self.place, manifest)
                if manifest is not None:
                    self._require_same_model(manifest, name, Checkpoint.find(name).fingerprint())
                self._encoder = loaded(
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
    def loaded_encoder(self) -> Encoder | None:
        """The model if it was given or is loaded; nothing is loaded for it."""
        return self._encoder

    @property
    def model_name(self) -> str | None:
        """The name of the model that is loaded, else of the one asked for; None to take the index's own."""
        return self._encoder.info.name if self._encoder is not None else self._model

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
            remedy = f"Encode it again with `m3rag rebuild --index {quoted(self.place)} --model {quoted(name)}`"
            if self._encoder is not None and self._encoder.info.legs != LEGS:
                remedy = "Open it with the model that made it, or make a new index"  # no name loads that of others
            elif made.name != name:
                remedy += f", or use it with {_how_to_use(made)}"
            raise IndexMismatchError(f"the index {self.place} was made with {told}; nothing was changed. {remedy}")

    def _store_for(self, encoder: Callable[[], Encoder]) -> Store:
        """The index, made if need be; the model is loaded only if it may be another one than the index's."""
        with self._lock:
            if self._model is None and self._encoder is None and (self._store or self.place.exists()):
                return self.store
            ready = encoder()
            if self._store is None:
                self._store = self.place.open_or_create(ready.info)
            return self._store

    def upsert(self, chunks: Sequence[Chunk], output: M3Output | None = None) -> None:
        """Encode chunks and write them, replacing those of the same id; the index is created if need be.

        Each joins the document that it names, see `Store.upsert`. Durable when this returns; of many
        chunks, `CHUNKS_AT_ONCE` are written together.

        Args:
            chunks: Of any documents.
            output: Their representations, where they are encoded already.

        Raises:
            InputError: If an id comes twice, metadata are not JSON, a text is not Unicode, or chunks and
                representations differ in number.
            ConfigurationError: If the model does not give the legs that a search will look at.
        """
        if not chunks:
            return
        if output is not None and len(output) != len(chunks):
            raise InputError(f"{len(chunks)} chunks come with {len(output)} representations: give one for each")
        self.mode.check(self.encoder.info)
        if len(chunks) > CHUNKS_AT_ONCE:  # else the store refuses all or none
            require_storable(chunks)
        store = self._store_for(lambda: self.encoder)
        for start in range(0, len(chunks), CHUNKS_AT_ONCE):
            part = chunks[start : start + CHUNKS_AT_ONCE]
            if output is None:
                store.upsert(part, self.encoder.encode_documents([chunk.encoded_text for chunk in part]))
            else:
                store.upsert(part, output[start : start + CHUNKS_AT_ONCE])

    def get(self, chunk_ids: Sequence[str]) -> list[Chunk]:
        """Chunks by id, in the order asked for; ids that are not stored are left out."""
        return self.store.get(chunk_ids) if self.exists else []

    def delete(self, chunk_ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> int:
        """Remove single chunks, by id or by a filter on their metadata; returns how many there were.

        Raises:
            InputError: If not exactly one of both is given, or the filter says nothing or makes no sense.
        """
        if filter is not None and chunk_ids is None:
            return self.store.delete(filter) if self.exists else 0
        if filter is None and chunk_ids is not None:
            return self.store.delete_chunks(chunk_ids) if self.exists else 0
        raise InputError("delete takes chunk ids or a filter: give one of them")

    def search(self, query: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """The best chunks for a question, best first.

        Args:
            query: The question.
            **options: See `m3rag.retrieval.SearchOptions`: `k` (by default the setting `top_k`), `mode`
                (by default that of the knowledge base), `filter`, `weights` (by default the setting, else
                those that `m3rag tune` learned for this index) or `alpha`, `fusion`, `rrf_k`,
                `score_threshold`, `diversity`, `group_by_document`, `reranker`, `rerank_top`.

        Raises:
            InputError: If the query is empty, an option is unknown, or a number is out of its range.
            IndexMissingError: If there is no index.
            ConfigurationError: If the mode needs a leg that the model does not give, or options do not
                go together.
        """
        retriever, options = self.prepared(options)
        return retriever.search(query, **options)

    async def asearch(self, query: str, **options: Unpack[SearchOptions]) -> list[Hit]:
        """As `search`, beside others: concurrent callers share forward passes, and the event loop goes on."""
        retriever, options = await asyncio.to_thread(self.prepared, options)
        return await retriever.asearch(query, **options)

    def why_empty(self, query: str, **options: Unpack[SearchOptions]) -> NoHits | None:
        """Why `search` with the same options finds nothing; None where it does find something."""
        retriever, options = self.prepared(options)
        return retriever.why_empty(query, **options)

    def prepared(self, options: SearchOptions) -> tuple[HybridRetriever, SearchOptions]:
        """A retriever for one search, and its options with the defaults of these settings.

        For who has the question encoded already: `retriever.search_output(output, **options)`.
        """
        require_named(options)
        store = self.store  # before the encoder: a missing index should not cost loading a model
        given: SearchOptions = {**options}
        if given.get("k") is None:
            given["k"] = self.settings.top_k
        if given.get("mode") is None:
            given["mode"] = self.mode
        if given.get("reranker") is None:
            given["reranker"] = self._reranker_for(store)
        bm25 = self._bm25_leg() if Mode.parse(given["mode"] or Mode.ALL).needs_bm25 else None
        return HybridRetriever(self.encoder, store, bm25=bm25, weights=self._weights(store, given)), given

    def _reranker_for(self, store: Store) -> Reranker | None:
        """The reranker of the settings, else the one that `m3rag tune` found to help this index."""
        learned = store.settings.get("rerank") or {}
        name = self.settings.reranker or (learned.get("reranker") if learned.get("helps") else None)
        with self._lock:
            if self._reranker is None or self._reranker[0] != name:
                self._reranker = (name, reranker_named(name, self.encoder, store))
            return self._reranker[1]

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
        store = self._store
        if store is None:
            return
        try:
            store.close()  # without our lock: it waits for an ingest, whose `on_progress` may ask for documents
        finally:  # after a Ctrl-C, say, the index is there for who opens it again
            with self._lock:
                if self._store is store:
                    self._store = self._bm25 = self._reranker = None

    def __reduce__(self) -> NoReturn:
        raise InputError(f"the open index {self.place} cannot be pickled: pickle its place, and open it there")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _require_loadable(place: Place, manifest: Manifest) -> None:
    # A name is enough for an M3 checkpoint alone: others are of several kinds, with options of their own.
    if manifest.model.legs != LEGS:
        raise ConfigurationError(
            f"the index {place} was made with {manifest.model.name}, which gives {' and '.join(manifest.model.legs)} "
            f"vectors alone: open it with {_how_to_use(manifest.model)}"
        )


def _how_to_use(model: ModelInfo) -> str:
    if model.legs == LEGS:
        return f"--model {quoted(model.name)}"
    return f"KnowledgeBase(..., encoder=...), the encoder being that of {model.name}"
