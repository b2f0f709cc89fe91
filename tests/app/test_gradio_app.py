"""The example for Gradio: its answer function needs no Gradio, its page does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from m3rag.answering import OpenAIChat, Turn
from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMServer

FILE = Path(__file__).parents[2] / "examples" / "gradio_app.py"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gradio_app", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_answer_grows_and_ends_with_its_quotes(example: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "ducks.txt").write_text("Ducks eat ```grass``` and snails.\n", encoding="utf-8")
    with (
        LLMServer("Ducks eat grass [1].") as server,
        OpenAIChat("scripted", base_url=server.base_url) as llm,
        KnowledgeBase(":memory:", encoder=HashEncoder(), llm=llm, settings=Settings()) as kb,
    ):
        kb.ingest(tmp_path)
        pieces = list(example.answer(kb, "What do ducks eat?", []))
    assert len(pieces) > 2
    assert pieces[0] in pieces[1]
    assert pieces[-1] == "Ducks eat grass [1].\n\n```\n[1] ducks.txt: Ducks eat '''grass''' and snails.\n```"


def test_turns_are_questions_with_their_answers(example: ModuleType) -> None:
    messages = [
        {"role": "user", "content": "What do ducks eat?"},
        {"role": "assistant", "content": "Grass [1].\n\n```\n[1] a.txt: Grass.\n```"},
        {"role": "user", "content": [{"type": "text", "text": "And frogs?"}]},
    ]
    assert example.turns(messages) == [Turn("What do ducks eat?", "Grass [1].")]


def test_the_page_is_built_where_gradio_is_installed(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gradio = pytest.importorskip("gradio", reason="the example's page needs gradio")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["gradio_app.py"])
    launched: list[object] = []
    monkeypatch.setattr(gradio.ChatInterface, "launch", launched.append)
    example.main()
    assert len(launched) == 1
