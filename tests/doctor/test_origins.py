from __future__ import annotations

from pathlib import Path

import pytest

from m3rag.doctor.origins import Origin, origins
from m3rag.settings import setting_names


def by_name(**overrides: object) -> dict[str, Origin]:
    return {origin.name: origin for origin in origins(**overrides)}


def test_each_source_hides_those_behind_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {origin.origin for origin in origins()} == {"default"}
    assert [origin.name for origin in origins()] == setting_names()
    user = folder / "config" / "m3rag" / "m3rag.toml"
    user.parent.mkdir(parents=True)
    user.write_text("top_k = 1\n")
    assert by_name()["top_k"] == Origin("top_k", 1, str(user))
    Path("m3rag.toml").write_text("top_k = 2\n[llm]\nmodel = 'a'\n")
    assert by_name()["top_k"] == Origin("top_k", 2, str(folder / "m3rag.toml"))
    Path(".env").write_text("M3RAG_TOP_K=3\nOTHER=1\n")
    assert by_name()["top_k"] == Origin("top_k", 3, str(folder / ".env"))
    monkeypatch.setenv("M3RAG_TOP_K", "4")
    monkeypatch.setenv("M3RAG_LLM__TIMEOUT", "5")
    found = by_name()
    assert found["top_k"] == Origin("top_k", 4, "M3RAG_TOP_K")
    assert found["llm.timeout"] == Origin("llm.timeout", 5.0, "M3RAG_LLM__TIMEOUT")
    assert found["llm.model"] == Origin("llm.model", "a", str(folder / "m3rag.toml"))
    found = by_name(top_k=5, mode=None)
    assert (found["top_k"], found["mode"].origin) == (Origin("top_k", 5, "command line"), "default")


def test_an_empty_variable_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_TOP_K", "")
    assert by_name()["top_k"] == Origin("top_k", 10, "default")


@pytest.mark.parametrize("name", ["M3RAG_LLM__API_KEY", "M3RAG_INDEX_API_KEY"])
def test_secrets_are_never_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hush-hush")
    assert "hush" not in repr(origins())
    assert sum(origin.value == "***" and origin.origin == name for origin in origins()) == 1


def test_a_password_within_an_address_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3RAG_LLM__BASE_URL", "http://user:hush@localhost:1/v1")
    assert by_name()["llm.base_url"].value == "http://***@localhost:1/v1"
