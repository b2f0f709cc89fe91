"""A model of this machine where the rest of the library asks one."""

from __future__ import annotations

from pathlib import Path

import pytest

from m3rag import KnowledgeBase
from m3rag.answering import Generative, LocalChat, OpenAIChat, SizedLLM
from m3rag.doctor.llm import check_llm
from m3rag.errors import LLMError
from m3rag.settings import LLMSettings, Settings
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMServer
from m3rag.types import Chunk, Hit

ANSWER = "Ducks eat pond weed [1]."


def hits(count: int, *, words: int) -> list[Hit]:
    text = "duck " * words
    return [Hit(Chunk(f"c{n}", "ducks.md", text, 0, len(text)), 1.0) for n in range(count)]


def test_passages_are_fitted_to_a_short_context(short_gguf: Path) -> None:
    with LocalChat(short_gguf, threads=1) as llm:
        assert isinstance(llm, SizedLLM)
        answerer = Generative(llm)
        many = answerer.answer("What do ducks eat?", hits(10, words=100))  # 7,000 tokens
        assert many.text == ANSWER
        long = answerer.answer("What do ducks eat?", hits(1, words=2000))
        assert long.text == ANSWER
        with pytest.raises(LLMError, match="does not fit the context"):
            answerer.answer("duck " * 1000 + "?", hits(1, words=1))


def test_the_settings_name_the_file(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ducks.md").write_text("Ducks eat pond weed.")
    settings = Settings(llm=LLMSettings(model=str(tiny_gguf)))
    with KnowledgeBase("index", encoder=HashEncoder(), settings=settings) as kb:
        kb.ingest("ducks.md")
        llm = kb.llm
        assert isinstance(llm, LocalChat)
        answer = kb.ask("What do ducks eat?")
        assert answer.text == ANSWER
        assert [citation.document_id for citation in answer.citations] == ["ducks.md"]
        assert not kb.ask("What do ducks drink!").answered
        process = llm._loaded().process
        assert process.alive
    assert not process.alive


@pytest.mark.parametrize(
    ("model", "base_url", "local"),
    [
        ("a.gguf", None, True),
        ("~/models/A.GGUF", None, True),
        ("a.gguf", "http://127.0.0.1:1/v1", False),
        ("llama3.2", None, False),
        (None, None, False),
    ],
)
def test_a_file_is_known_by_its_ending(model: str | None, base_url: str | None, local: bool) -> None:
    assert LLMSettings(model=model, base_url=base_url).local is local


def test_doctor_looks_at_the_file(tiny_gguf: Path, tmp_path: Path) -> None:
    (check,) = check_llm(LLMSettings(model=str(tiny_gguf)))
    assert check.severity == "ok"
    assert str(tiny_gguf) in check.message
    (check,) = check_llm(LLMSettings(model=str(tmp_path / "none.gguf")))
    assert (check.severity, check.remedy) == ("error", "export M3RAG_LLM__MODEL=FILE.gguf")


def test_the_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with LLMServer("Paris.") as server, OpenAIChat("any", base_url=server.base_url, max_retries=0) as llm:
        assert llm.complete([]) == "Paris."
