from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from m3rag.answering.local.file import checked_gguf
from m3rag.errors import LLMError

CHATS = b"GGUF\x03\x00\x00\x00" + len("tokenizer.chat_template").to_bytes(8, "little") + b"tokenizer.chat_template"


def test_the_path_comes_back_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Ente 鸭.gguf").write_bytes(CHATS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert checked_gguf("Ente 鸭.gguf") == checked_gguf("~/Ente 鸭.gguf") == tmp_path / "Ente 鸭.gguf"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04rest", "a ZIP archive or a PyTorch file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"\n <!doctype html><html>", "a web page"),
        (b"\x93NUMPY", r"begins with b'\x93NUMPY'"),
        (b"GGU", "begins with b'GGU'"),
        (b"GGUF", "has no chat template, so it is a base model"),
        (b"GGUF" + b"tokenizer.chat_template", "has no chat template"),  # a token of that name, perhaps
    ],
)
def test_what_is_no_gguf_is_refused_before_it_is_loaded(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(LLMError) as caught:
        checked_gguf(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(LLMError, match=r"there is no model .*none\.gguf: check llm\.model \(M3RAG_LLM__MODEL\)"):
        checked_gguf(tmp_path / "none.gguf")


def test_a_folder_names_the_files_in_it(tmp_path: Path) -> None:
    with pytest.raises(LLMError, match=r"is a folder: name a \.gguf file; there is none in it"):
        checked_gguf(tmp_path)
    for name in ("b.gguf", "a.gguf", "c.txt"):
        (tmp_path / name).touch()
    with pytest.raises(LLMError, match=r"it holds a\.gguf, b\.gguf$"):
        checked_gguf(tmp_path)


def test_an_impossible_name_is_refused() -> None:
    with pytest.raises(LLMError, match="cannot be read"):
        checked_gguf("a\0b.gguf")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything, and Windows has no modes")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0)
    with pytest.raises(LLMError, match="check its path and permissions"):
        checked_gguf(path)


def test_a_real_file_with_a_chat_template_is_taken(tiny_gguf: Path) -> None:
    assert checked_gguf(tiny_gguf) == tiny_gguf


def test_a_real_base_model_is_refused(tmp_path: Path, gguf_writer: Callable[..., None]) -> None:
    path = tmp_path / "base.gguf"
    gguf_writer(path, template=None)
    with pytest.raises(LLMError, match="has no chat template"):
        checked_gguf(path)
