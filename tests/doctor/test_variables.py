from __future__ import annotations

import pytest

from m3rag.doctor.variables import unknown_variables
from m3rag.settings import Settings, load_settings, setting_names, variable_of


def test_every_setting_is_known_with_its_group() -> None:
    names = setting_names()
    assert {"top_k", "llm.model", "llm.api_key"} <= set(names)
    assert {name.partition(".")[0] for name in names} == set(Settings.model_fields)
    assert unknown_variables({variable_of(name): "" for name in names}) == []


def test_a_variable_of_a_setting_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of("llm.base_url"), "http://localhost:1")
    assert load_settings().llm.base_url == "http://localhost:1"
    monkeypatch.delenv(variable_of("llm.base_url"))
    monkeypatch.setenv("M3RAG_LLM", '{"model": "whole"}')
    assert load_settings().llm.model == "whole"
    assert unknown_variables() == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("M3RAG_TOPK", "M3RAG_TOP_K"),
        ("m3rag_topk", "M3RAG_TOP_K"),
        ("M3RAG_LLM_MODEL", "M3RAG_LLM__MODEL"),
        ("M3RAG_CASHE", "M3RAG_CACHE"),
        ("M3RAG_SOMETHING_ELSE_ENTIRELY", None),
    ],
)
def test_what_is_none_is_found_with_what_was_meant(name: str, nearest: str | None) -> None:
    (found,) = unknown_variables({name: "1", "PATH": "/bin", "M3RAG_CACHE": "c", "OTHER_M3RAG_X": ""})
    assert (found.name, found.nearest) == (name, nearest)
    assert name in found.message
    assert ("did you mean" in found.message) is (nearest is not None)
