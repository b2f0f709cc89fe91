from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from m3rag.collection import Collection
from m3rag.errors import ConfigurationError, IndexMismatchError, InputError, ModelError
from m3rag.langchain import M3Embeddings, M3VectorStore
from m3rag.langchain.foreign import EmbeddingsEncoder, encoder_of
from m3rag.testing import HashEncoder


class Words(Embeddings):
    """Embeddings by words, of any length, that may be a little off as a server's are."""

    def __init__(self, model: str = "words-1", *, noise: float = 0.0, size: int = 32) -> None:
        self.model = model
        self.noise = noise
        self.encoder = HashEncoder(dense_dim=size)
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        dense = self.encoder.encode_documents(texts).dense * 3
        wave = np.sin(np.arange(dense.size)).reshape(dense.shape)
        return (dense + self.noise * wave).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_it_gives_unit_vectors_of_the_dense_leg_alone() -> None:
    encoder = EmbeddingsEncoder(Words())
    assert encoder.info.legs == ("dense",)
    assert encoder.info.name == "Words words-1"
    texts = ["Ducks swim.", "Enten 🦆", ""]
    output = encoder.encode_documents(texts)
    assert np.allclose(output.dense, HashEncoder().encode_documents(texts).dense, atol=1e-6)
    assert np.array_equal(encoder.encode_queries(texts[:1]).dense, output.dense[:1])
    assert len(encoder.encode_documents([]).dense) == 0
    assert encoder.word_spans("Ducks swim.").shape[1] == 2


def test_m3_embeddings_share_their_encoder(tiny_checkpoint: Path) -> None:
    embeddings = M3Embeddings(model=str(tiny_checkpoint), model_kwargs={"device": "cpu"})
    assert encoder_of(embeddings) is embeddings.encoder


def test_a_stores_own_embeddings_are_its_encoder() -> None:
    with Collection(":memory:", encoder=HashEncoder()) as collection:
        embeddings = M3VectorStore(collection=collection).embeddings
        assert encoder_of(embeddings) is collection.encoder
        assert M3VectorStore(embeddings).collection.mode == collection.mode


def test_the_same_model_is_recognised_though_its_numbers_are_a_little_off() -> None:
    made = EmbeddingsEncoder(Words()).info
    again = EmbeddingsEncoder(Words(noise=1e-3))
    again.recognise(made)
    assert again.info == made


@pytest.mark.parametrize(
    "other",
    [Words("words-2"), Words(size=16), Words(noise=3.0), DeterministicFakeEmbedding(size=32)],
    ids=["name", "dimension", "numbers", "class"],
)
def test_an_index_is_opened_with_the_model_that_made_it_and_no_other(tmp_path: Path, other: Embeddings) -> None:
    with M3VectorStore(Words(), index=tmp_path / "index") as store:
        store.add_texts(["Ducks swim."], ids=["a"])
    with pytest.raises(IndexMismatchError, match=r"was made with .*; nothing was changed"):
        M3VectorStore(other, index=tmp_path / "index")
    with M3VectorStore(Words(noise=1e-3), index=tmp_path / "index") as store:  # the refused ones left no lock
        assert store.similarity_search("ducks", k=1)[0].id == "a"


def test_an_index_of_all_legs_is_refused() -> None:
    encoder = EmbeddingsEncoder(Words())
    before = encoder.info
    encoder.recognise(HashEncoder().info)
    assert encoder.info == before


@pytest.mark.parametrize("mode", ["lexical", "colbert", "all", "dense+lexical"])
def test_a_mode_of_other_legs_is_refused(mode: str) -> None:
    with pytest.raises(ConfigurationError, match=r"needs the legs? .*Words words-1 does not give: choose mode='dense'"):
        M3VectorStore(Words(), mode=mode)
    store = M3VectorStore(Words())
    store.add_texts(["Ducks swim."])
    with pytest.raises(ConfigurationError, match="does not give"):
        store.similarity_search("ducks", mode=mode)


def test_no_secret_is_shown() -> None:
    class Remote(Words):
        api_key = "sk-secret"

    assert "secret" not in repr(EmbeddingsEncoder(Remote())) + repr(M3VectorStore(Remote()))


class Broken(Words):
    def __init__(self, gives: object) -> None:
        super().__init__()
        self.gives = gives

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.gives if len(texts) > 1 else super().embed_documents(texts)  # type: ignore[return-value]


@pytest.mark.parametrize("gives", [[[1.0] * 32], [[1.0, 2.0], [1.0]], None, [1.0, 2.0], [["a"], ["b"]]])
def test_what_is_no_vector_a_text_is_told(gives: object) -> None:
    with pytest.raises(ModelError, match="Broken gave no vector of one length for each of 2 texts"):
        EmbeddingsEncoder(Broken(gives)).encode_documents(["a", "b"])


def test_what_changes_its_dimension_is_told() -> None:
    with pytest.raises(ModelError, match="not of its dimension 32"):
        EmbeddingsEncoder(Broken([[1.0], [1.0]])).encode_documents(["a", "b"])


def test_what_is_no_embeddings_is_told() -> None:
    with pytest.raises(InputError, match=r"embedding is a str, must be an Embeddings of LangChain"):
        M3VectorStore("mini")  # type: ignore[arg-type]
