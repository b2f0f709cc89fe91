"""M3NodeParser: m3rag's chunking for LlamaIndex."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.node_parser import NodeParser
from llama_index.core.schema import (
    DEFAULT_TEXT_NODE_TMPL,
    BaseNode,
    Document,
    MetadataMode,
    NodeRelationship,
    TextNode,
)
from llama_index.core.utils import get_tqdm_iterable
from pydantic import ConfigDict, Field, PrivateAttr

from m3rag.chunking import Chunker, Semantic
from m3rag.chunking.chunker import SpanSource
from m3rag.chunking.counting import require_span_source, tokenizer_of
from m3rag.chunking.names import strategy_of
from m3rag.chunking.parents import GAP, PARENT, without_reserved
from m3rag.errors import InputError
from m3rag.llama_index.nodes import place_of
from m3rag.types import Document as M3Document

if TYPE_CHECKING:
    from typing import Self


class M3NodeParser(NodeParser):
    """Documents to nodes by the tokens of the model that will encode them.

    Setup:
        ```bash
        pip install "m3rag[llama-index]"
        ```

    Instantiate:
        ```python
        from m3rag.llama_index import M3NodeParser

        parser = M3NodeParser(model_name="BAAI/bge-m3", chunk_tokens=256)  # reads its tokenizer alone
        parser = M3NodeParser(encoder=knowledge_base.encoder, strategy="semantic")
        ```

    Use:
        ```python
        nodes = parser.get_nodes_from_documents(documents)
        pipeline = IngestionPipeline(transformations=[parser, embedding])
        ```

    A node's `start_char_idx` and `end_char_idx` are exact: `node.text == document.text[start:end]`, also where
    the text repeats itself. Its SOURCE is the document (or what the document names as its own), PREVIOUS and NEXT
    are its neighbours within the document. Nodes may be split again: what comes of one that says where it stands in
    its SOURCE stands there too; of one that does not, no place is known (None), nor a larger passage to answer from.
    A node's id is `<document id>#<version>-<number>`, the same for the same text and settings, unless `id_func` says
    otherwise. Asynchronous calls run on threads. A pickle holds the settings; what counts tokens is loaded again on
    first use, and a parser that was given an encoder is not pickled.

    Attributes:
        model_name: `mini`, a hub id or a checkpoint folder. Of an encoder that was given its name, with its
            fingerprint where the name alone would not load it again: caches go by it.
        strategy: As for `m3rag.chunking.Chunker`, by name.
        chunk_tokens: Most tokens of a node's text.
        overlap_tokens: Most tokens that two nodes share; less than half of `chunk_tokens`.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub.

    Args:
        encoder: An encoder already loaded, to share its tokenizer; `semantic` needs one, and loads the model else.

    Raises:
        ValidationError: (a ValueError) If a field is unknown or of the wrong type.
        ConfigurationError: If an option is out of range, or there is no such strategy.
        InputError: If both `model_name` and `encoder` are given.
        ModelError: If an encoder must ask its server what it is, and cannot.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: str = Field(default="BAAI/bge-m3", description="`mini`, a hub id or a checkpoint folder.")
    strategy: str = Field(default="structure", description="Where the cuts are.")
    chunk_tokens: int = Field(default=256, description="Most tokens of a node's text.")
    overlap_tokens: int = Field(default=32, description="Most tokens that two nodes share.")
    cache_folder: str | None = Field(default=None, description="Where models from the hub are kept.")
    local_files_only: bool = Field(default=False, description="Never ask the hub.")

    _spans: SpanSource | None = PrivateAttr(default=None)
    _shared: bool = PrivateAttr(default=False)

    def __init__(self, *, encoder: SpanSource | None = None, **fields: Any) -> None:
        if encoder is not None and "model_name" in fields:
            raise InputError("encoder is already loaded: leave out model_name")
        stored = fields.get("id_func")
        if stored is None or (isinstance(stored, dict) and stored.get("id_func_name") == _unset.__name__):
            fields["id_func"] = _unset
        if encoder is not None:
            fields["model_name"] = _name_of(require_span_source(encoder))
        super().__init__(**fields)
        self._chunker()  # what is out of range is said now
        self._spans, self._shared = encoder, encoder is not None

    @classmethod
    def from_defaults(
        cls, *, encoder: SpanSource | None = None, callback_manager: CallbackManager | None = None, **fields: Any
    ) -> Self:
        """As the constructor, under the name that LlamaIndex's own parsers have for it."""
        return cls(encoder=encoder, callback_manager=callback_manager or CallbackManager([]), **fields)

    @classmethod
    def class_name(cls) -> str:
        """The name it is serialised under."""
        return "M3NodeParser"

    def get_nodes_from_documents(
        self, documents: Sequence[Document], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        """The nodes of all documents, those of the first first.

        Args:
            documents: Any number; they stay as they are.
            show_progress: Show a bar on stderr.
            **kwargs: Ignored, as by every parser of LlamaIndex.
        """
        # The base class would look a node's text up in its document, and may find it elsewhere.
        with self.callback_manager.event(
            CBEventType.NODE_PARSING, payload={EventPayload.DOCUMENTS: documents}
        ) as event:
            nodes = self._parse_nodes(documents, show_progress=show_progress)
            event.on_end({EventPayload.NODES: nodes})
        return nodes

    async def aget_nodes_from_documents(
        self, documents: Sequence[Document], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        """As `get_nodes_from_documents`, on a thread."""
        return await asyncio.to_thread(self.get_nodes_from_documents, documents, show_progress, **kwargs)

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **_: Any) -> list[BaseNode]:
        spans, chunker = self._counter(), self._chunker()
        listed = get_tqdm_iterable(nodes, show_progress, "Parsing nodes")
        found: list[BaseNode] = [node for source in listed for node in self._split(source, chunker, spans)]
        if self.include_prev_next_rel:
            _join(found)
        return found

    def _split(self, source: BaseNode, chunker: Chunker, spans: SpanSource) -> list[TextNode]:
        text = source.get_content(metadata_mode=MetadataMode.NONE)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        # What was split before keeps its document: the nodes of a node are of the document that it is of.
        origin = source.source_node or source.as_related_node_info()
        place = place_of(source, text) if source.source_node else (0, len(text))
        # Of the parts of a small chunk it is not true what stands behind them.
        inherited = {key: value for key, value in source.metadata.items() if key not in (PARENT, GAP)}
        found = []
        for i, chunk in enumerate(chunker.split(M3Document(source.node_id, text, digest), spans)):
            ours, start, end = dict(chunk.metadata), None, None
            if place is None:
                ours = without_reserved(ours)
            else:
                start, end = chunk.start + place[0], chunk.end + place[0]
                if PARENT in ours:
                    ours[PARENT] = [at + place[0] for at in ours[PARENT]]
            node = TextNode(
                id_=chunk.id if self.id_func is _unset else self.id_func(i, source),
                text=chunk.text,
                start_char_idx=start,
                end_char_idx=end,
                metadata={**(deepcopy(inherited) if self.include_metadata else {}), **ours},
                excluded_embed_metadata_keys=[*source.excluded_embed_metadata_keys, *ours],
                excluded_llm_metadata_keys=[*source.excluded_llm_metadata_keys, *ours],
                # By its alias: early releases of 0.14 have a second field of that name, and read only that.
                metadata_seperator=source.metadata_separator,
                metadata_template=source.metadata_template,
                text_template=getattr(source, "text_template", DEFAULT_TEXT_NODE_TMPL),
                relationships={NodeRelationship.SOURCE: origin},
            )
            found.append(node)
        return found

    def _chunker(self) -> Chunker:
        return Chunker(strategy=self.strategy, chunk_tokens=self.chunk_tokens, overlap_tokens=self.overlap_tokens)

    def _counter(self) -> SpanSource:
        if self._spans is None:
            options: dict[str, Any] = {
                "cache_folder": self.cache_folder,
                "local_files_only": self.local_files_only,
            }
            if isinstance(strategy_of(self.strategy), Semantic):
                from m3rag.encoder.loaded import loaded  # noqa: PLC0415 - torch takes seconds

                self._spans = loaded(self.model_name, **options)
            else:
                self._spans = tokenizer_of(self.model_name, **options)
        return self._spans

    def __getstate__(self) -> dict[str, Any]:
        if self._shared:
            raise InputError(
                "the encoder given cannot be pickled: make M3NodeParser(encoder=...) anew where it is needed"
            )
        state: dict[str, Any] = super().__getstate__()
        private = {**(state.get("__pydantic_private__") or {}), "_spans": None}
        values = {**state["__dict__"], "callback_manager": CallbackManager([])}
        return {**state, "__dict__": values, "__pydantic_private__": private}


def _name_of(encoder: Any) -> str:
    """What tells the settings of a parser with this encoder from all others, and loads it again where a name can."""
    from m3rag.encoder.shared import reload_options  # noqa: PLC0415 - torch takes seconds

    info = getattr(encoder, "info", None)
    if info is None:
        return f"{type(encoder).__name__} {uuid4()}"  # how it counts, nobody knows
    return str(info.name) if reload_options(encoder) is not None else f"{info.name} ({info.fingerprint})"


def _unset(i: int, doc: BaseNode) -> str:
    """Stands for the chunks' own ids, which need the settings as well."""
    raise NotImplementedError("M3NodeParser names nodes itself")


def _join(nodes: Sequence[BaseNode]) -> None:
    """PREVIOUS and NEXT of nodes that follow each other in one document."""
    for one, two in pairwise(nodes):
        if one.ref_doc_id == two.ref_doc_id:
            one.relationships[NodeRelationship.NEXT] = two.as_related_node_info()
            two.relationships[NodeRelationship.PREVIOUS] = one.as_related_node_info()
