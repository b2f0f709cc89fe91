"""Importing m3rag and asking for help load nothing heavy, and no framework reaches the core."""

from __future__ import annotations

import subprocess
import sys

import pytest

# pydantic is not among them: typer itself loads it.
HEAVY = {"torch", "transformers", "tokenizers", "scipy", "qdrant_edge", "pypdfium2", "openai", "chromadb", "ray"}
HEAVY |= {"sentence_transformers", "onnxruntime"}
FRAMEWORKS = {"langchain_core", "llama_index", "fastapi"}


def loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in run.stdout.split("\n")}


def test_importing_m3rag_loads_nothing_heavy() -> None:
    assert not loaded_by("import m3rag; m3rag.__version__") & (HEAVY | FRAMEWORKS | {"numpy", "typer"})


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import contextlib, io, sys\n"
        f"sys.argv = ['m3rag', *{arguments!r}]\n"
        "from m3rag.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main()"
    )
    assert not loaded_by(code) & (HEAVY | FRAMEWORKS | {"numpy"})


def test_the_core_imports_no_framework() -> None:
    parts = ("knowledge_base", "rebuild", "evaluation", "training.trainer", "cli.app")
    loaded = loaded_by("import " + ", ".join(f"m3rag.{part}" for part in parts))
    assert "torch" in loaded
    assert not loaded & (FRAMEWORKS | {"openai", "rank_bm25", "bm25s"})


def test_listing_an_index_loads_no_model_code() -> None:
    assert not loaded_by("import m3rag.knowledge_base") & {"torch", "transformers"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    import m3rag

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        m3rag.Nothing  # noqa: B018
