"""LlamaIndex's nodes as chunks, and back: what one door wrote, every other door can read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import (
    BaseNode,
    IndexNode,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from pydantic import BaseModel, PrivateAttr
from pydantic_core import PydanticSerializationError

from m3rag.chunking.parents import GAP, PARENT, RESERVED, without_reserved
from m3rag.errors import InputError
from m3rag.types import Chunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from m3rag.types import Hit

NODE = RESERVED + "node"
"""What of a node is neither id, text nor metadata, so that it comes back whole, see `to_node`."""

_ELSEWHERE = ("id_", "text", "metadata", "class_name", "start_char_idx", "end_char_idx")


def nodes_given(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    """A list of nodes, which an iterator may give.

    Raises:
        InputError: If it is one node or no collection, or holds something that is no node.
    """
    if isinstance(nodes, BaseNode | str) or not isinstance(nodes, Iterable):
        raise InputError(f"nodes is a {type(nodes).__name__}, must be a list of nodes")
    given = list(nodes)
    for place, node in enumerate(given):
        if not isinstance(node, BaseNode):
            raise InputError(
                f"node {place} is a {type(node).__name__}, must be a node: TextNode(text=...), of a NodeWithScore its "
                "`node`"
            )
    return given


def to_chunk(node: BaseNode) -> Chunk:
    """A node as a chunk.

    Its document is the node's `ref_doc_id`, else the node itself. Its span is the node's where that fits the
    text, else the whole text. `page` (a number, or the `page_label` that LlamaIndex's PDF readers give) and
    `headings` are taken from the metadata, which stay as they are, but for a passage that `M3NodeParser` wrote and
    the node does not say that it stands in: another splitter copied it to its parts.

    Args:
        node: Stays as it is. Its embedding is left out.

    Raises:
        InputError: If its metadata, or an IndexNode's `obj`, are not JSON, or the metadata use a reserved key.
    """
    owner = f"node {node.node_id!r}"
    try:
        # pydantic would make null of what is no number; dates it writes as ISO 8601, which filters understand.
        json.dumps(node.metadata, allow_nan=False, default=lambda value: None)
        whole = node.model_dump(mode="json", exclude={"embedding"})
    except (PydanticSerializationError, TypeError, ValueError) as error:
        remedy = "leave that out of its metadata"
        if getattr(node, "obj", None) is not None:
            remedy += ", or its obj out of the node, and give that to M3Retriever(object_map={index_id: obj})"
        raise InputError(f"{owner} cannot be written as JSON ({error}): {remedy}") from error
    metadata: dict[str, Any] = whole["metadata"]
    # What m3rag's own node parser writes is the one thing of ours that a node may bring along.
    taken = sorted(key for key in metadata if key.startswith(RESERVED) and key not in (PARENT, GAP))
    if taken:
        raise InputError(f"{owner}: the metadata key {taken[0]!r} is reserved: rename it, or leave it out")
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    place = place_of(node, text)
    if not _stands_in_its_passage(metadata, place):
        metadata = without_reserved(metadata)
    start, end = place or (0, len(text))
    return Chunk(
        id=node.node_id,
        document_id=node.ref_doc_id or node.node_id,
        text=text,
        start=start,
        end=end,
        page=_page(metadata),
        headings=_headings(metadata),
        metadata={**metadata, NODE: _rest(node, whole)},
    )


def to_passages(nodes: Sequence[BaseNode]) -> list[Chunk]:
    """What a reranker or an answer reads of nodes: their headings, text and place, under their own ids.

    Of several with one id, those that are not the same as the first get another, or they would be taken for it.
    """
    own = {node.node_id for node in nodes}
    first: dict[str, Chunk] = {}
    passages = []
    for place, node in enumerate(nodes):
        passage = _passage(node)
        if first.setdefault(passage.id, passage) != passage:
            id = f"{passage.id} ({place})"
            while id in own:
                id += "'"
            passage = replace(passage, id=id)
        passages.append(passage)
    return passages


def _passage(node: BaseNode) -> Chunk:
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    document_id = node.ref_doc_id or node.node_id
    start, end = place_of(node, text) or (0, len(text))
    page, headings = _page(node.metadata), _headings(node.metadata)
    return Chunk(node.node_id, document_id, text, start, end, page=page, headings=headings)


def to_node(chunk: Chunk) -> BaseNode:
    """A chunk as a node: the one that came in, or for a chunk of another origin a TextNode.

    A TextNode, IndexNode, ImageNode or Node comes back equal to what it was, but for the bytes in a Node's resources,
    which LlamaIndex writes nowhere: keep those at a `path` or `url`. A Document, or a node of a class of your own,
    comes back as a TextNode, as from LlamaIndex's own stores: without the fields that a TextNode has not.

    The metadata of a chunk of another origin are its own and `document_id`, `headings` and `page` (from 1; left out
    for formats without pages); its SOURCE is the document, `start_char_idx` and `end_char_idx` are its place there.
    """
    rest = chunk.metadata.get(NODE)
    if rest is not None:
        return _restored(chunk, rest)
    return TextNode(
        id_=chunk.id,
        text=chunk.text,
        start_char_idx=chunk.start,
        end_char_idx=chunk.end,
        metadata=deepcopy(without_reserved(chunk.metadata)) | _place(chunk),
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.document_id, node_type=ObjectType.DOCUMENT)
        },
    )


def to_scored_node(hit: Hit) -> NodeWithScore:
    """A hit as a new node with its score, its place and the `scores` of each leg among the metadata.

    What a node that came in says of its place itself is left as it is. No language model or embedding is shown the
    scores, and nothing that is added counts for the node's hash.
    """
    node = to_node(hit.chunk)
    own = without_reserved(node.metadata)
    # Behind what came in: a node's hash counts the order of its metadata.
    added = {key: value for key, value in _place(hit.chunk).items() if key not in own}
    node.metadata = own | added | {"scores": asdict(hit.scores)}
    node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, "scores"]
    node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, "scores"]
    found_type = _FOUND.get(type(node))
    if found_type is not None:
        node = found_type(**{name: getattr(node, name) for name in type(node).model_fields})
        node._added = frozenset(node.metadata.keys() - own.keys())
        node._replaced = {key: own[key] for key in own.keys() & {"scores"}}
    return NodeWithScore(node=node, score=hit.score)


class _Found(BaseNode):
    """A node whose hash is that of the node as it is stored.

    LlamaIndex takes nodes of the same hash for the same node when it fuses the results of several retrievers, and
    the metadata count for the hash.
    """

    _added: frozenset[str] = PrivateAttr(default=frozenset({"scores"}))
    _replaced: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def hash(self) -> str:
        """Of the text and the metadata, without what the search added to them."""
        own = {key: self._replaced.get(key, value) for key, value in self.metadata.items() if key not in self._added}
        return str(super(_Found, self.model_copy(update={"metadata": own})).hash)  # type: ignore[safe-super]

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Restore it; not through `__init__` as the base class does, which knows nothing of what was added."""
        BaseModel.__setstate__(self, state)


class _FoundText(_Found, TextNode):
    pass


class _FoundIndex(_Found, IndexNode):
    pass


class _FoundMedia(_Found, Node):
    pass


_FOUND: dict[type[BaseNode], type[_Found]] = {TextNode: _FoundText, IndexNode: _FoundIndex, Node: _FoundMedia}


def _place(chunk: Chunk) -> dict[str, Any]:
    page = {} if chunk.page is None else {"page": chunk.page}
    return {"document_id": chunk.document_id, "headings": list(chunk.headings), **page}


def _rest(node: BaseNode, whole: Mapping[str, Any]) -> dict[str, Any]:
    # A Node of several media keeps its text in a resource, of which there may be more.
    defaults = _defaults(type(node))
    rest = {key: value for key, value in whole.items() if key not in _ELSEWHERE and value != defaults.get(key)}
    if "text_resource" in rest:
        rest["text_resource"] = {**rest["text_resource"], "text": ""}
    spans = {key: whole[key] for key in ("start_char_idx", "end_char_idx") if whole.get(key) is not None}
    return {"class_name": node.class_name(), **rest, **spans}


@cache
def _defaults(node_type: type[BaseNode]) -> Mapping[str, Any]:
    return {key: field.get_default(call_default_factory=True) for key, field in node_type.model_fields.items()}


def _restored(chunk: Chunk, rest: Mapping[str, Any]) -> BaseNode:
    metadata = {key: value for key, value in chunk.metadata.items() if key != NODE}
    fields = {**rest, "id_": chunk.id, "metadata": metadata, "text": chunk.text}
    if "text_resource" in rest:
        fields["text_resource"] = {**rest["text_resource"], "text": chunk.text}
    return metadata_dict_to_node({"_node_content": json.dumps(fields), "_node_type": rest["class_name"]})


def place_of(node: BaseNode, text: str) -> tuple[int, int] | None:
    """Where a node says that its text stands in its document; None where it says nothing, or what does not fit."""
    start, end = getattr(node, "start_char_idx", None), getattr(node, "end_char_idx", None)
    if isinstance(start, int) and isinstance(end, int) and start >= 0 and end - start == len(text):
        return start, end
    return None


def _stands_in_its_passage(metadata: Mapping[str, Any], place: tuple[int, int] | None) -> bool:
    match metadata.get(PARENT), metadata.get(GAP), place:
        case [int(begin), int(stop)], str(), (start, end):
            return begin <= start and end <= stop
    return False


def _page(metadata: Mapping[str, Any]) -> int | None:
    for key in ("page", "page_label"):
        value = metadata.get(key)
        if isinstance(value, str) and value.isdecimal() and len(value) < 10:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
    return None


def _headings(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    value = metadata.get("headings")
    return tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else ()
