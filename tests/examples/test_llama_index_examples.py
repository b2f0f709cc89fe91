"""The examples for LlamaIndex run as they stand, with the embedded model."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest

import m3rag.encoder.shared  # noqa: F401 - made of the class itself, which is replaced below
from m3rag.encoder.encoder import M3Encoder

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def mini() -> M3Encoder:
    return M3Encoder("mini", device="cpu")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mini: M3Encoder) -> Callable[[str], str]:
    """Runs an example and gives what it prints; the model is loaded once for all of them."""
    monkeypatch.setattr("m3rag.encoder.loaded.loaded", lambda *names, **options: mini)

    def run(name: str) -> str:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        asyncio.run(module.main()) if iscoroutinefunction(module.main) else module.main()
        return capsys.readouterr().out

    return run


def test_quickstart(run: Callable[[str], str]) -> None:
    printed = run("llama_index_quickstart")
    assert "hybrid: Brot wird aus Mehl" in printed
    assert "filtered: brot" in printed
    assert "answer: Ducks eat water plants, seeds and insects. [1]" in printed
    assert "cited: ['ducks']" in printed


def test_chat_engine(run: Callable[[str], str]) -> None:
    printed = run("llama_index_chat_engine")
    assert "m3rag: Ducks eat water plants, seeds and insects. [1]" in printed
    assert "[1] trains.md: The first public railway with steam locomotives opened in 1825." in printed
    assert "remembered: 4 messages" in printed


def test_one_index_two_frameworks(run: Callable[[str], str]) -> None:
    printed = run("one_index_two_frameworks")
    assert "documents: ['brot', 'ducks.txt']" in printed
    assert printed.count("ducks.txt | Ducks eat water plants and insects.") == 2
    assert printed.count("brot | Brot wird aus Mehl gebacken.") == 2


@pytest.mark.parametrize("name", ["llama_index_quickstart", "llama_index_chat_engine", "one_index_two_frameworks"])
def test_examples_are_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 45
