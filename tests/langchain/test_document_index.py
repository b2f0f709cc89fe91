from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import ConfigurableField
from pydantic import ValidationError

from m3rag.collection import Collection
from m3rag.errors import InputError
from m3rag.langchain import M3DocumentIndex, M3Retriever, M3VectorStore
from m3rag.settings import Settings
from m3rag.testing import HashEncoder

pytestmark = pytest.mark.filterwarnings("ignore:.*is in beta")

DOCUMENTS = [
    Document(id="duck", page_content="Ducks swim on the pond.", metadata={"lang": "en"}),
    Document(id="ente", page_content="Enten schwimmen on the pond.", metadata={"lang": "de"}),
    Document(id="train", page_content="Trains run on rails.", metadata={"lang": "en"}),
]


@pytest.fixture
def index() -> M3DocumentIndex:
    index = M3DocumentIndex(collection=Collection(":memory:", encoder=HashEncoder(), settings=Settings()), k=2)
    index.upsert(DOCUMENTS)
    return index


async def test_as_a_retriever_it_gives_what_m3_retriever_gives(index: M3DocumentIndex) -> None:
    retriever = M3Retriever(knowledge_base=index.collection)
    assert index.invoke("ducks swim") == retriever.invoke("ducks swim", k=2)
    assert index.invoke("ducks swim", k=1, mode="dense") == retriever.invoke("ducks swim", k=1, mode="dense")
    assert await index.ainvoke("ducks swim", filter={"lang": "de"}) == retriever.invoke(
        "ducks swim", k=2, filter={"lang": "de"}
    )
    with pytest.raises(InputError, match="unknown option top_k"):
        index.invoke("ducks", top_k=1)


def test_options_of_the_index_hold_unless_a_call_says_otherwise(index: M3DocumentIndex) -> None:
    german = M3DocumentIndex(collection=index.collection, filter={"lang": "de"}, mode="lexical")
    (found,) = german.invoke("pond")
    assert (found.id, found.metadata["scores"]["dense"]) == ("ente", None)
    assert {document.id for document in german.invoke("pond", filter=None)} == {"duck", "ente"}


def test_get_gives_each_once_in_the_order_asked_for(index: M3DocumentIndex) -> None:
    assert index.get(["train", "no such", "duck", "train"]) == [DOCUMENTS[2], DOCUMENTS[0]]


def test_delete_counts_what_there_was(index: M3DocumentIndex) -> None:
    told = index.delete(["train", "no such", "train"])
    assert told == {"succeeded": ["train"], "failed": [], "num_deleted": 1, "num_failed": 0}
    with pytest.raises(InputError, match="needs ids"):
        index.delete()
    for call in (
        lambda: index.delete(["a"], all=True),
        lambda: index.upsert([], ids=["a"]),
        lambda: index.get([], n=1),
    ):
        with pytest.raises(InputError, match="unknown option"):
            call()
    with pytest.raises(InputError, match="ids must be a list, got one string: 'duck'"):
        index.delete("duck")


def test_a_bad_document_leaves_all_as_it_was(index: M3DocumentIndex) -> None:
    with pytest.raises(InputError, match="metadata of 'x' are not JSON"):
        index.upsert([Document(id="new", page_content="a"), Document(page_content="b", metadata={"x": object()})])
    assert index.get(["new"]) == []


def test_what_is_no_document_is_named(index: M3DocumentIndex) -> None:
    with pytest.raises(InputError, match="document 0 is a str, must be a Document"):
        index.upsert(["a text"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="documents is a Document, must be a list"):
        index.upsert(Document(page_content="a"))  # type: ignore[arg-type]


def test_over_other_embeddings_and_a_folder(tmp_path: Path) -> None:
    embedding = DeterministicFakeEmbedding(size=8)
    index = M3DocumentIndex(embedding=embedding, index=tmp_path / "index", settings=Settings())
    assert index.upsert(DOCUMENTS, batch_size=1) == {"succeeded": ["duck", "ente", "train"], "failed": []}
    index.close()
    again = M3DocumentIndex(embedding=embedding, index=tmp_path / "index", settings=Settings())
    assert again.invoke("Ducks swim on the pond.", k=1)[0].id == "duck"
    again.close()


@pytest.mark.parametrize("given", [{"k": 0}, {"top_k": 3}, {"mode": "sideways"}, {"filter": {"x": {"$near": 1}}}, {}])
def test_what_cannot_be_used_is_told_when_it_is_made(given: dict[str, object]) -> None:
    said = r"greater than or equal to 1|top_k|unknown mode 'sideways'|no embedding|\$near"
    with pytest.raises(Exception, match=said):
        M3DocumentIndex(**({"index": ":memory:"} if "mode" in given else {}), **given)


@pytest.mark.parametrize("folder", [None, "index"])
async def test_a_configured_copy_finds_what_the_index_holds(tmp_path: Path, folder: str | None) -> None:
    class Counted(DeterministicFakeEmbedding):
        asked: ClassVar[list[str]] = []

        def embed_query(self, text: str) -> list[float]:
            self.asked.append(text)
            return super().embed_query(text)

    embedding = Counted(size=8)
    index = M3DocumentIndex(embedding=embedding, index=folder and tmp_path / folder, settings=Settings())
    index.upsert(DOCUMENTS)
    configurable = index.configurable_fields(k=ConfigurableField(id="k"), mode=ConfigurableField(id="mode"))
    embedding.asked.clear()
    assert len(configurable.with_config(configurable={"k": 1}).invoke("ducks")) == 1
    assert len(await configurable.with_config(configurable={"k": 2}).ainvoke("ducks")) == 2
    assert embedding.asked == ["ducks"] * 2, "a copy does not ask anew what model it is"
    (found,) = configurable.with_config(configurable={"k": 1, "mode": "bm25"}).invoke("rails")
    assert found.id == "train"
    assert len(M3DocumentIndex(collection=index.collection, k=2).invoke("ducks")) == 2
    assert "collection" not in index.model_dump()
    index.close()


def test_a_copy_for_another_index_opens_that(tmp_path: Path) -> None:
    embedding = DeterministicFakeEmbedding(size=8)
    with M3VectorStore.from_documents(DOCUMENTS[2:], embedding, index=tmp_path / "other"):
        index = M3DocumentIndex(embedding=embedding, index=tmp_path / "index")
        index.upsert(DOCUMENTS[:2])
        configurable = index.configurable_fields(index=ConfigurableField(id="index"))
        (found,) = configurable.with_config(configurable={"index": tmp_path / "other"}).invoke("ducks")
        assert found.id == "train"
        assert len(index.invoke("ducks")) == 2
        index.close()


def test_a_key_in_the_wrong_place_is_not_shown() -> None:
    with pytest.raises(ValidationError, match="api_key") as raised:
        M3DocumentIndex(index=":memory:", api_key="sk-secret")
    assert "sk-secret" not in str(raised.value)
