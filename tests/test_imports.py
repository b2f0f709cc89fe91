"""Importing m3rag and asking for help load nothing heavy, and no framework reaches the core."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import m3rag

# pydantic is not among them: typer itself loads it.
HEAVY = {"torch", "transformers", "tokenizers", "scipy", "qdrant_edge", "pypdfium2", "openai", "chromadb", "ray"}
HEAVY |= {"sentence_transformers", "onnxruntime"}
FRAMEWORKS = {"langchain_core", "llama_index", "fastapi"}
ROOT = Path(m3rag.__file__).parent


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


PACKAGES = sorted(
    ".".join(("m3rag", *file.parent.relative_to(ROOT).parts))
    for file in ROOT.rglob("__init__.py")
    if "__all__" in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_listed(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))


def test_names_are_listed_before_they_are_loaded() -> None:
    listed = "import m3rag.encoder; assert set(m3rag.encoder.__all__) <= set(dir(m3rag.encoder)); dir(m3rag)"
    assert not loaded_by(listed) & (HEAVY - {"scipy"})


def test_names_whose_extra_is_missing_are_not_listed_and_named_when_used() -> None:
    code = (
        "import pydoc, sys\n"
        "sys.modules.update(dict.fromkeys(['qdrant_client', 'langchain_core']))\n"
        "import m3rag.langchain, m3rag.store\n"
        "assert {'ChromaStore', 'QdrantEdgeStore'} <= set(dir(m3rag.store))\n"
        "assert not {'QdrantStore', 'M3Retriever'} & {*dir(m3rag.store), *dir(m3rag.langchain)}\n"
        "pydoc.render_doc(m3rag.langchain)\n"
        "for load in (lambda: m3rag.langchain.M3Retriever, lambda: m3rag.store.QdrantStore):\n"
        "    try:\n"
        "        load()\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        'm3rag.langchain.M3Retriever needs langchain_core: pip install "m3rag[langchain]"',
        'm3rag.store.QdrantStore needs qdrant_client: pip install "m3rag[qdrant]"',
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_aliases_say_what_they_are(package: str) -> None:
    """A class or a function has its docstring checked by ruff; an alias has it below."""
    public = set(importlib.import_module(package).__all__)
    folder = ROOT.joinpath(*package.split(".")[1:])
    for file in folder.glob("*.py"):
        silent = public & set(undocumented_aliases(ast.parse(file.read_text(encoding="utf-8")).body))
        assert not silent, file


def undocumented_aliases(body: list[ast.stmt]) -> list[str]:
    """Names in capitals and small letters that are assigned, with no text below."""
    found = []
    for one, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        targets = one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
        told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        found += [t.id for t in targets if isinstance(t, ast.Name) and t.id.istitle() and not told]
    return found


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        m3rag.Nothing  # noqa: B018


def test_what_a_package_has_is_told_beside_a_module_made_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core", types.ModuleType("langchain_core"))  # which has no spec
    assert "M3Retriever" in dir(importlib.import_module("m3rag.langchain"))
