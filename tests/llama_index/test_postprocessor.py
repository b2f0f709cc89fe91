from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from m3rag.collection import Collection
from m3rag.errors import InputError
from m3rag.llama_index import M3Rerank, M3Retriever, M3VectorStore
from m3rag.reranking import ColbertReranker, CrossEncoderReranker
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.types import Hit

TEXTS = {"trains": "Trains run on rails.", "ducks": "Ducks swim on ponds.", "geese": "Geese swim, too."}


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(id_=key, text=text), score=0.5) for key, text in TEXTS.items()]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random cross-encoder with the real vocabulary."""
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

    from m3rag.encoder.mini import ensure_mini

    folder = tmp_path_factory.mktemp("cross-encoder")
    torch.manual_seed(3)
    config = XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    specials = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
    PreTrainedTokenizerFast(
        tokenizer_file=str(ensure_mini() / "tokenizer.json"), **{f"{k}_token": v for k, v in specials.items()}
    ).save_pretrained(folder)
    return folder


def test_nodes_are_ordered_anew_and_what_was_given_stays() -> None:
    given = nodes()
    found = M3Rerank(encoder=HashEncoder()).postprocess_nodes(given, query_str="ducks swim")
    assert [node.node_id for node in found] == ["ducks", "geese", "trains"]
    hits = ColbertReranker(HashEncoder()).rerank("ducks swim", [Hit(_chunk(node), 0.5) for node in given])
    assert [node.score for node in found] == pytest.approx([hit.score for hit in hits])
    assert given == nodes()
    assert all(new is not old for new in found for old in given)


def _chunk(node: NodeWithScore) -> Any:
    from m3rag.llama_index.nodes import to_passages

    return to_passages([node.node])[0]


def test_top_n_and_the_score_before() -> None:
    given = nodes()
    rerank = M3Rerank(encoder=HashEncoder(), top_n=2, keep_retrieval_score=True)
    found = rerank.postprocess_nodes(given, query_str="ducks swim")
    assert [node.metadata for node in found] == [{"retrieval_score": 0.5}] * 2
    assert found[0].node.get_content(metadata_mode=MetadataMode.LLM) == TEXTS["ducks"]
    assert given == nodes()


def test_headings_are_read_and_nothing_but_text_is_needed() -> None:
    titled = TextNode(id_="z", text="They swim.", metadata={"headings": ["Ducks"], "odd": object()})
    found = M3Rerank(encoder=HashEncoder(), top_n=1).postprocess_nodes(
        [*nodes()[:1], NodeWithScore(node=titled)], query_str="ducks"
    )
    assert found[0].node is titled


def test_the_same_node_twice_stays_twice() -> None:
    twice = [*nodes(), NodeWithScore(node=nodes()[1].node, score=0.9)]
    found = M3Rerank(encoder=HashEncoder()).postprocess_nodes(twice, query_str="ducks swim")
    assert [node.node_id for node in found] == ["ducks", "ducks", "geese", "trains"]


def test_other_nodes_of_the_same_id_are_not_taken_for_each_other() -> None:
    texts = ["Trains run on rails.", "Ducks swim on ponds.", "Geese fly."]
    given = [
        NodeWithScore(node=TextNode(id_=id, text=text)) for id, text in zip(["0", "0", "0 (1)"], texts, strict=True)
    ]
    found = M3Rerank(encoder=HashEncoder()).postprocess_nodes(given, query_str="ducks swim")
    alone = [M3Rerank(encoder=HashEncoder()).postprocess_nodes([one], query_str="ducks swim")[0].score for one in given]
    assert (found[0].node_id, found[0].text) == ("0", "Ducks swim on ponds.")
    assert {node.text: node.score for node in found} == dict(zip(texts, alone, strict=True))


def test_nothing_to_rerank() -> None:
    rerank = M3Rerank(encoder=HashEncoder())
    assert rerank.postprocess_nodes([], query_str="ducks") == []
    with pytest.raises(InputError, match="M3Rerank needs the question"):
        rerank.postprocess_nodes(nodes())
    with pytest.raises(InputError, match="the query is empty"):
        rerank.postprocess_nodes(nodes(), query_str=" ")


def test_a_cross_encoder_by_name_and_its_pickle(checkpoint: Path) -> None:
    rerank = M3Rerank(model=str(checkpoint), device="cpu", top_n=2, max_length=64)
    found = rerank.postprocess_nodes(nodes(), query_str="ducks swim")
    assert len(found) == 2
    assert found[0].score is not None
    stored = pickle.dumps(rerank)
    assert len(stored) < 10_000
    for restored in (pickle.loads(stored), M3Rerank.from_dict(rerank.to_dict()), copy.deepcopy(rerank)):  # noqa: S301
        assert restored.to_dict() == rerank.to_dict()
        assert restored.postprocess_nodes(nodes(), query_str="ducks swim") == found


def test_a_shared_reranker_uses_the_stored_vectors_and_is_not_pickled() -> None:
    with Collection(":memory:", encoder=HashEncoder(), settings=Settings()) as collection:
        M3VectorStore(collection).add([node.node for node in nodes()])
        rerank = M3Rerank(reranker=ColbertReranker(collection.encoder, collection.store), top_n=2)
        engine = RetrieverQueryEngine.from_args(
            M3Retriever(collection, mode="dense"), node_postprocessors=[rerank], llm=MockLLM()
        )
        response = engine.query("do ducks swim?")
        assert [node.node_id for node in response.source_nodes] == ["ducks", "geese"]
        with pytest.raises(InputError, match="the reranker given cannot be pickled"):
            pickle.dumps(rerank)


def test_a_dict_never_swaps_the_reranker_that_was_given(checkpoint: Path) -> None:
    cross = CrossEncoderReranker(checkpoint, device="cpu", normalize=True)
    for rerank, name in (
        (M3Rerank(encoder=HashEncoder()), "ColbertReranker"),
        (M3Rerank(reranker=ColbertReranker(HashEncoder())), "ColbertReranker"),
        (M3Rerank(reranker=cross), str(checkpoint)),
    ):
        assert rerank.model == name
        for written in (rerank.to_dict, rerank.to_json):
            with pytest.raises(InputError, match=r"given cannot be written as a dict: make M3Rerank\(...\) anew"):
                written()


async def test_the_event_loop_goes_on() -> None:
    beat = threading.Event()

    class Slow(ColbertReranker):
        def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
            assert beat.wait(10), "the event loop was blocked by the reranker"
            return super().rerank(query, hits, k=k)

    task = asyncio.create_task(M3Rerank(reranker=Slow(HashEncoder())).apostprocess_nodes(nodes(), query_str="ducks"))
    await asyncio.sleep(0.02)
    beat.set()
    assert (await task)[0].node_id == "ducks"


def test_callbacks_see_it() -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    rerank = M3Rerank(encoder=HashEncoder(), callback_manager=CallbackManager([handler]))
    rerank.postprocess_nodes(nodes(), query_str="ducks")
    assert len(handler.get_event_pairs(CBEventType.RERANKING)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": HashEncoder(), "device": "cpu"}, "already loaded: leave out device"),
        ({"encoder": HashEncoder(), "reranker": ColbertReranker(HashEncoder())}, "give one of them"),
        ({"encoder": HashEncoder(), "top_n": 0}, "greater than or equal to 1"),
        ({"encoder": HashEncoder(), "topn": 3}, "Extra inputs"),
    ],
)
def test_what_cannot_be_used_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        M3Rerank(**arguments)
