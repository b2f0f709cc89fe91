"""Our models in MTEB: as an encoder, for its dense vectors, and as a search in any mode.

Needs the extra `mteb`.

Example:
    >>> import mteb  # doctest: +SKIP
    >>> model = MTEBSearch(M3Encoder("BAAI/bge-m3"), mode="all")  # doctest: +SKIP
    >>> mteb.evaluate(model, mteb.get_tasks(tasks=["SciFact"]))  # doctest: +SKIP
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from m3rag.collection import Collection
from m3rag.encoder.inputs import require_whole
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.evaluation.corpus import corpus_name, take_corpus
from m3rag.evaluation.metrics import as_ranked
from m3rag.retrieval import HybridRetriever, Mode
from m3rag.retrieval.options import plan
from m3rag.scoring import Weights
from m3rag.settings import Settings

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

Floats = npt.NDArray[np.float32]


class MTEBEncoder:
    """An encoder as MTEB's `EncoderProtocol` has it: the dense vectors, for tasks of any kind.

    Passages are encoded as passages; questions, and the texts of tasks where all are of one kind
    (similarity, classification, clustering), as questions.

    Args:
        encoder: The model.

    Raises:
        ImportError: If mteb is not installed.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._meta = _meta(encoder, None)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The model's name, with its fingerprint as the revision."""
        return self._meta

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Floats:
        """Encode texts.

        Args:
            inputs: Batches, each a mapping whose `text` is a list.
            prompt_type: MTEB's `PromptType`, `query` or `document`; None where there is no such difference.

        Returns:
            `(texts, d)` float32, rows of unit length, in the order given.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        is_document = prompt_type is not None and str(getattr(prompt_type, "value", prompt_type)) == "document"
        output = self.encoder.encode_documents(texts) if is_document else self.encoder.encode_queries(texts)
        return output.dense

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Floats:
        """Inner products of all with all: `(n, m)` float32 in [-1, 1]."""
        return cast(Floats, np.asarray(embeddings1, np.float32) @ np.asarray(embeddings2, np.float32).T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Floats:
        """Inner products of each with its counterpart: `(n,)` float32 in [-1, 1]."""
        return cast(Floats, (np.asarray(embeddings1, np.float32) * np.asarray(embeddings2, np.float32)).sum(axis=1))


class MTEBSearch:
    """A search in any mode as MTEB's `SearchProtocol` has it, for its retrieval and reranking tasks.

    A document longer than the model takes is split, and stands where its best chunk does.

    Args:
        encoder: The model.
        mode: Which legs, of those without BM25.
        weights: Of the legs.
        candidates: See `m3rag.retrieval.HybridRetriever`, as for the next.
        rerank_depth: See there.
        cache: Folder to keep encoded corpora in; by default they go with the next one.

    Raises:
        ImportError: If mteb is not installed.
        ConfigurationError: If the mode is unknown, needs BM25, or a leg that the model lacks; or if the weights
            are unknown or leave none of the mode's legs, or a depth is no whole number or not positive.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        mode: Mode | str = Mode.ALL,
        weights: Weights | str = "miracl",
        candidates: int | None = None,
        rerank_depth: int | None = None,
        cache: str | Path | None = None,
    ) -> None:
        self.encoder = encoder
        self.mode = Mode.parse(mode)
        if self.mode.needs_bm25:
            raise ConfigurationError(f"mode {self.mode.value!r} is not of the model alone: choose one without BM25")
        self.mode.check(encoder.info)
        plan(default_weights=weights, default_fusion=None, mode=self.mode)
        for name, depth in (("candidates", candidates), ("rerank_depth", rerank_depth)):
            if depth is not None:
                require_whole(name, depth, least=1)
        self._options: dict[str, Any] = {
            "weights": weights,
            "candidates": candidates,
            "rerank_depth": rerank_depth,
        }
        self._meta = _meta(encoder, {"mode": self.mode.value, **{k: str(v) for k, v in self._options.items() if v}})
        self._cache = None if cache is None else Path(cache).expanduser()
        self._collection: Collection | None = None
        self._release: weakref.finalize[[Collection, Path | None], MTEBSearch] | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The model's name, with its fingerprint as the revision and the search's options."""
        return self._meta

    def index(self, corpus: Any, **_: Any) -> None:
        """Encode a corpus, in place of the one before.

        Args:
            corpus: Rows with `id`, `text` and perhaps `title`.

        Raises:
            InputError: If it is empty, has texts of another kind, or an id twice.
        """
        self.close()
        texts: dict[str, str] = {}
        for row in corpus:
            if texts.setdefault(str(row["id"]), passage := _passage(row)) != passage:
                raise InputError(f"the id {row['id']!r} is there twice, with two texts; ids must be unique")
        name = corpus_name(self.encoder, texts)
        # MTEB never says that it is done: what is temporary goes with this object, or with the process.
        temporary = Path(tempfile.mkdtemp(prefix="m3rag-mteb-")) if self._cache is None else None
        place = (temporary or cast(Path, self._cache)) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        self._collection = Collection(place, encoder=self.encoder, mode=self.mode, settings=Settings())
        self._release = weakref.finalize(self, _discard, self._collection, temporary)
        take_corpus(self._collection, texts)

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, list[str]] | None = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """Search the corpus that was indexed last.

        Args:
            queries: Rows with `id` and `text`.
            top_k: Most documents of a query.
            top_ranked: Of each query the documents to look at, in reranking tasks.

        Returns:
            `{query id: {document id: score}}`; a blank query finds nothing.

        Raises:
            InputError: If nothing was indexed, or a query is no text.
        """
        if self._collection is None:
            raise InputError("nothing was indexed yet: call index(corpus) before search")
        retriever = HybridRetriever(self.encoder, self._collection.store, **self._options)
        rows = [(str(row["id"]), _text(row, "the query")) for row in queries]
        encoded = self.encoder.encode_queries([text for _, text in rows])
        found: dict[str, dict[str, float]] = {}
        for (key, text), output in zip(rows, encoded, strict=True):
            only = None if top_ranked is None else {"document_id": list(top_ranked.get(key, ()))}
            hits = (
                retriever.search_output(output, text=text, k=top_k, mode=self.mode, group_by_document=1, filter=only)
                if text.strip() and only != {"document_id": []}
                else []
            )
            found[key] = as_ranked((hit.chunk.document_id, hit.score) for hit in hits)
        return found

    def close(self) -> None:
        """Release the corpus."""
        if self._release is not None:
            self._release()
        self._collection = self._release = None


def _discard(collection: Collection, folder: Path | None) -> None:
    collection.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _passage(row: Mapping[str, Any]) -> str:
    text, title = _text(row, "the document"), row.get("title")
    return f"{title}\n{text}" if title else text


def _text(row: Mapping[str, Any], what: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise InputError(
            f"{what} {row.get('id')!r} has no text but {type(text).__name__}: m3rag encodes texts; leave out tasks of "
            "images, sounds and conversations"
        )
    return text


def _meta(encoder: Encoder, experiment: Mapping[str, Any] | None) -> ModelMeta:
    try:
        from mteb.models.model_meta import ModelMeta, ScoringFunction  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mteb":
            raise
        raise ImportError('m3rag.evaluation.mteb needs mteb: pip install "m3rag[mteb]"', name=error.name) from error
    info = encoder.info
    bounded = encoder.max_length < 2**31
    return ModelMeta.create_empty(
        {
            "name": info.name if info.name.count("/") == 1 else f"m3rag/{Path(info.name).name}",
            "revision": info.fingerprint,
            "max_tokens": encoder.max_length if bounded else None,
            "embed_dim": info.dense_dim,
            "similarity_fn_name": ScoringFunction.DOT_PRODUCT,
            "experiment_kwargs": experiment,
        }
    )
