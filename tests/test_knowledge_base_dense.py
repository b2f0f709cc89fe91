"""A KnowledgeBase on encoders that give dense vectors alone, from files to answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m3rag import KnowledgeBase
from m3rag.answering import OpenAIChat
from m3rag.encoder.openai_embeddings import OpenAIEncoder
from m3rag.encoder.sentence_transformer import SentenceTransformerEncoder
from m3rag.errors import ConfigurationError, IndexMismatchError, IndexMissingError, ModelError
from m3rag.rebuild import rebuild
from m3rag.settings import Settings
from m3rag.store import QdrantEdgeStore
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMServer, Reply

from .encoder.sentence_models import save_mini

DOCUMENTS = Path(__file__).parents[1] / "examples" / "documents"
NAMES = ["fastapi-cors.es.md", "human-rights.ko.html"]
QUESTION = "What is an origin?"  # of the Spanish document


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformerEncoder:
    folder = save_mini(tmp_path_factory.mktemp("st") / "mini")
    return SentenceTransformerEncoder(str(folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two of the sample documents."""
    folder = tmp_path_factory.mktemp("files")
    for name in NAMES:
        shutil.copy(DOCUMENTS / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def index(files: Path, encoder: SentenceTransformerEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the two, closed again."""
    path = tmp_path_factory.mktemp("kb") / "index"
    with KnowledgeBase(path, encoder=encoder, mode="dense", settings=Settings()) as kb:
        assert kb.ingest(files).count("added") == 2
    return path


@pytest.fixture
def kb(index: Path, encoder: SentenceTransformerEncoder) -> Iterator[KnowledgeBase]:
    with KnowledgeBase(index, encoder=encoder, mode="dense", settings=Settings()) as found:
        yield found


def test_what_was_ingested_is_found_after_reopening(kb: KnowledgeBase, files: Path) -> None:
    assert [document.id for document in kb.documents()] == NAMES
    assert kb.ingest(files).count("unchanged") == 2
    hits = kb.search(QUESTION, k=5)
    best = hits[0]
    assert best.chunk.document_id == "fastapi-cors.es.md"
    assert "Un origen es la combinación" in best.chunk.text
    assert best.score == best.scores.dense == max(hit.score for hit in hits)
    assert (best.scores.lexical, best.scores.colbert, best.ranks.dense) == (None, None, 1)
    (only,) = kb.search(QUESTION, k=1, filter={"document_id": "human-rights.ko.html"})
    assert only.chunk.document_id == "human-rights.ko.html"


def test_every_mode_that_needs_another_leg_is_refused(kb: KnowledgeBase) -> None:
    for mode in ("all", "lexical", "colbert", "dense+lexical"):
        with pytest.raises(ConfigurationError, match=r"needs the leg.*choose mode='dense', or an M3 model") as caught:
            kb.search(QUESTION, mode=mode)
        assert str(caught.value).startswith(f"mode '{mode}' ")


def test_the_default_mode_is_refused_before_anything_is_stored(
    tmp_path: Path, files: Path, encoder: SentenceTransformerEncoder
) -> None:
    with KnowledgeBase(tmp_path / "index", encoder=encoder, settings=Settings()) as kb:
        with pytest.raises(ConfigurationError, match=r"mode 'all' needs the legs lexical and colbert"):
            kb.ingest(files)
        assert not kb.path.exists()
    settings = Settings(mode="dense")
    with KnowledgeBase(tmp_path / "index", encoder=encoder, settings=settings) as kb:
        assert kb.ingest(files / NAMES[0]).count("added") == 1
        assert kb.search(QUESTION, k=1)


def test_the_mode_given_goes_before_the_setting(index: Path, encoder: SentenceTransformerEncoder) -> None:
    with KnowledgeBase(index, encoder=encoder, mode="all", settings=Settings(mode="dense")) as kb:
        with pytest.raises(ConfigurationError, match="mode 'all'"):
            kb.search(QUESTION)
        assert kb.search(QUESTION, mode="dense")
    with pytest.raises(ConfigurationError, match="unknown mode 'sideways'"):
        KnowledgeBase(index, encoder=encoder, mode="sideways")


def test_an_answer_takes_a_language_model(index: Path, encoder: SentenceTransformerEncoder, kb: KnowledgeBase) -> None:
    for ask in (kb.ask, kb.stream):
        with pytest.raises(ConfigurationError, match=r"quoted sentences needs the leg colbert.*llm=OpenAIChat"):
            ask(QUESTION)
    kb.close()
    script = "Un origen es protocolo, dominio y puerto [1]."
    with LLMServer(script) as server, OpenAIChat("m", base_url=server.base_url) as llm:
        with KnowledgeBase(index, encoder=encoder, mode="dense", settings=Settings(), llm=llm) as other:
            answer = other.ask(QUESTION)
        assert answer.answered
        assert answer.citations[0].document_id == "fastapi-cors.es.md"
        assert "Un origen es la combinación" in server.requests[0].prompt


def test_an_explanation_takes_lexical_weights(kb: KnowledgeBase) -> None:
    hits = kb.search(QUESTION, k=1)
    with pytest.raises(ConfigurationError, match=r"shared tokens needs the leg lexical.*hit\.scores\.dense"):
        kb.explain(QUESTION, hits)


def test_an_index_of_another_kind_of_model_says_how_to_open_it(index: Path, kb: KnowledgeBase) -> None:
    name = kb.encoder.info.name
    kb.close()
    with KnowledgeBase(index, mode="dense", settings=Settings()) as other:
        assert len(other.documents()) == 2  # needs no encoder
        with pytest.raises(
            ConfigurationError, match=rf"made with {name}, .*open it with KnowledgeBase\(\.\.\., encoder="
        ):
            other.search(QUESTION)
    other = KnowledgeBase(index, encoder=HashEncoder(), settings=Settings())
    with other, pytest.raises(IndexMismatchError, match=r"or use it with KnowledgeBase\(\.\.\., encoder=\.\.\.\)"):
        other.search(QUESTION)


def test_a_missing_index_is_said_first(tmp_path: Path, encoder: SentenceTransformerEncoder) -> None:
    with KnowledgeBase(tmp_path / "index", encoder=encoder, mode="dense", settings=Settings()) as kb:
        for call in (kb.search, kb.ask):
            with pytest.raises(IndexMissingError):
                call(QUESTION)


def test_over_a_server(tmp_path: Path, files: Path) -> None:
    def load(server: LLMServer, **options: Any) -> OpenAIEncoder:
        return OpenAIEncoder("m1", base_url=server.base_url, max_retries=0, **options)

    question = "¿Qué es un origen?"
    with LLMServer() as server, load(server) as encoder:
        with KnowledgeBase(tmp_path / "index", encoder=encoder, mode="dense", settings=Settings()) as kb:
            assert kb.ingest(files / NAMES[0]).count("added") == 1
            hits = kb.search(question)
            assert hits[0].chunk.document_id.endswith(NAMES[0])
        with (
            load(server) as again,
            KnowledgeBase(tmp_path / "index", encoder=again, mode="dense", settings=Settings()) as kb,
        ):
            assert kb.search(question) == hits
        with (
            load(server, dimensions=8) as other,
            KnowledgeBase(tmp_path / "index", encoder=other, mode="dense", settings=Settings()) as kb,
            pytest.raises(IndexMismatchError, match="another version of m1"),
        ):
            kb.search(question)
        with QdrantEdgeStore.open(tmp_path / "index") as store:
            assert rebuild(store, HashEncoder()) == 1
        with KnowledgeBase(tmp_path / "index", encoder=HashEncoder(), settings=Settings()) as kb:
            assert kb.search(question, mode="all")


def test_a_server_that_fails_leaves_the_index_as_it_was(tmp_path: Path, files: Path) -> None:
    good = [""] * 4
    with LLMServer([*good, Reply("out of order", status=500)]) as server:
        encoder = OpenAIEncoder("m1", base_url=server.base_url, max_retries=0, batch_size=4)
        with encoder, KnowledgeBase(tmp_path / "index", encoder=encoder, mode="dense", settings=Settings()) as kb:
            with pytest.raises(ModelError, match="answered 500"):
                kb.ingest(files / NAMES[1])
            assert kb.documents() == []
            assert kb.store.count() == 0
