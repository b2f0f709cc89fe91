"""M3Rerank: m3rag's rerankers as a LlamaIndex postprocessor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from pydantic import ConfigDict, Field, PrivateAttr

from m3rag.errors import InputError
from m3rag.llama_index.nodes import to_passages
from m3rag.types import Hit

if TYPE_CHECKING:
    from typing import Self

    from m3rag.encoder.protocol import Encoder
    from m3rag.reranking import Reranker

dispatcher = get_dispatcher(__name__)

_MODEL_OPTIONS = ("device", "dtype", "max_length", "cache_folder", "local_files_only")


class M3Rerank(BaseNodePostprocessor):
    """Orders nodes anew by a cross-encoder, or by ColBERT.

    Setup:
        ```bash
        pip install "m3rag[llama-index]"
        ```

    Instantiate:
        ```python
        from m3rag.llama_index import M3Rerank

        rerank = M3Rerank(model="BAAI/bge-reranker-v2-m3", top_n=5)
        rerank = M3Rerank(encoder=knowledge_base.encoder, top_n=5)  # ColBERT of the model that is loaded anyway
        rerank = M3Rerank(reranker=reranker, top_n=5)  # shared
        ```

    Use:
        ```python
        nodes = rerank.postprocess_nodes(nodes, query_str="Who proved it first?")
        engine = RetrieverQueryEngine.from_args(retriever, node_postprocessors=[rerank], llm=llm)
        ```

    What is given stays as it is: the result is new. A passage is the node's `headings` (a list of strings in its
    metadata) and its text. Asynchronous calls run on threads. A pickle, and `to_dict`, hold the settings, not the
    weights; with `encoder` or `reranker` there is neither.

    Args:
        reranker: One already made; its settings are its own.
        encoder: An encoder already loaded, for ColBERT. For nodes of an index, whose token vectors are stored,
            `reranker=ColbertReranker(knowledge_base.encoder, knowledge_base.store)` costs less.

    Attributes:
        model: A hub id or a checkpoint folder; of a reranker that was given its model's name, else its class's.
        top_n: Most nodes to return; None for all.
        keep_retrieval_score: Whether the nodes' metadata have the score that they came with, as `retrieval_score`.
        device: As torch names it; None for a CUDA device if there is one, else the CPU.
        dtype: `float32`, `float16` or `bfloat16`; None for what suits the device.
        max_length: Most tokens of question and passage together.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub.

    Raises:
        ValidationError: (a ValueError) If a field is unknown or of the wrong type.
        InputError: If `encoder` or `reranker` is given beside the settings of a model.
        ModelError: If the model cannot be had.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(default="BAAI/bge-reranker-v2-m3", description="A hub id or a checkpoint folder.")
    top_n: int | None = Field(default=None, ge=1, description="Most nodes to return.")
    keep_retrieval_score: bool = Field(default=False, description="Whether metadata have the score before.")
    device: str | None = Field(default=None, description="As torch names it.")
    dtype: str | None = Field(default=None, description="`float32`, `float16` or `bfloat16`.")
    max_length: int | None = Field(default=None, description="Most tokens of a pair.")
    cache_folder: str | None = Field(default=None, description="Where models from the hub are kept.")
    local_files_only: bool = Field(default=False, description="Never ask the hub.")

    _reranker: Any = PrivateAttr(default=None)
    _given: bool = PrivateAttr(default=False)

    def __init__(self, *, reranker: Reranker | None = None, encoder: Encoder | None = None, **fields: Any) -> None:
        contradicting = sorted(fields.keys() & {"model", *_MODEL_OPTIONS})
        if reranker is not None and encoder is not None:
            raise InputError("M3Rerank takes a reranker, or an encoder to rerank by ColBERT: give one of them")
        if contradicting and (reranker is not None or encoder is not None):
            raise InputError(f"the model is already loaded: leave out {', '.join(contradicting)}")
        if encoder is not None:
            from m3rag.reranking.colbert import ColbertReranker  # noqa: PLC0415

            reranker = ColbertReranker(encoder)
        if reranker is not None:
            name = getattr(reranker, "model", None)
            fields["model"] = name if isinstance(name, str) else type(reranker).__name__
        super().__init__(**fields)
        self._given = reranker is not None
        self._reranker = reranker if reranker is not None else self._loaded()

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "M3Rerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("M3Rerank needs the question: give query_str or query_bundle")
        if not nodes:
            return []
        question = query_bundle.query_str
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.QUERY_STR: question,
            EventPayload.TOP_K: self.top_n,
            EventPayload.MODEL_NAME: self.model,
        }
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=self.model))
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            # Nodes are told apart by where they stand: the same one may have come from several retrievers.
            places: dict[str, list[NodeWithScore]] = {}
            hits = []
            for node, passage in zip(nodes, to_passages([node.node for node in nodes]), strict=True):
                places.setdefault(passage.id, []).append(node)
                hits.append(Hit(passage, node.score or 0.0))
            ranked = self._reranker.rerank(question, hits, k=self.top_n)
            found = [self._scored(places[hit.chunk.id].pop(0), hit.score) for hit in ranked]
            event.on_end(payload={EventPayload.NODES: found})
        dispatcher.event(ReRankEndEvent(nodes=found))
        return found

    def _scored(self, given: NodeWithScore, score: float) -> NodeWithScore:
        if not self.keep_retrieval_score:
            return NodeWithScore(node=given.node, score=score)
        node = given.node.model_copy(deep=True)
        node.metadata["retrieval_score"] = given.score
        node.excluded_embed_metadata_keys.append("retrieval_score")
        node.excluded_llm_metadata_keys.append("retrieval_score")
        return NodeWithScore(node=node, score=score)

    def _loaded(self) -> Reranker:
        from m3rag.reranking.cross_encoder import CrossEncoderReranker  # noqa: PLC0415 - torch takes seconds

        return CrossEncoderReranker(self.model, **{name: getattr(self, name) for name in _MODEL_OPTIONS})

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """The settings without the weights.

        Raises:
            InputError: If an encoder or a reranker was given, which no settings would make again.
        """
        self._require_named("written as a dict")
        return dict(super().to_dict(**kwargs))

    def _require_named(self, what: str) -> None:
        if self._given:
            raise InputError(f"the reranker given cannot be {what}: make M3Rerank(...) anew where it is needed")

    def __getstate__(self) -> dict[str, Any]:
        """The settings without the weights."""
        self._require_named("pickled")
        fields = type(self).model_fields.keys() - {"callback_manager"}
        return {"__dict__": {name: getattr(self, name) for name in fields}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["__dict__"])  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the model."""
        return self.model_copy()
