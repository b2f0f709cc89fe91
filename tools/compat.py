"""The frameworks' tests in throw-away environments, each with other releases than the development one.

    python tools/compat.py [newest] [lowest] [migrate] [milvus] [--folder FOLDER] [-- PYTEST_ARGUMENTS]

- `newest`: the newest releases that pyproject.toml allows, and the integrations that tests/*/interop need.
- `lowest`: the lowest releases of LangChain and LlamaIndex that it allows. Several integrations need newer ones.
- `migrate`: what people come from, which does not stand beside the rest, for the tests of docs/migrate.md.
- `milvus`: LlamaIndex's store for Milvus, whose pymilvus is older than langchain-milvus's.

Of constraints.txt only torch's version is taken, so that the build for CPUs is not replaced by one with CUDA's
libraries. Runs on Python 3.11 or newer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

EXTRAS = ("langchain", "llama-index")
"""The extras whose lowest and newest versions are tried."""

BESIDE = ("bm25", "chroma", "openai", "qdrant")
"""The extras that the frameworks' tests use."""

TOOLS = ("hypothesis", "langchain-tests", "pytest", "pytest-asyncio", "pytest-timeout")
"""What the tests themselves need, as the extra `dev` has it."""

INTEGRATIONS = ("langchain-", "llama-index-", "openinference-")
"""What the names of the frameworks' packages begin with; those in the extra `dev` are tried with the newest."""

LEFT_BEHIND = (
    "FlagEmbedding",
    "langchain-chroma",
    "langchain-classic",
    "langchain-community",
    "langchain-huggingface",
    "llama-index-indices-managed-bge-m3",
)
"""What docs/migrate.md leads away from."""

FRAMEWORKS = ("tests/langchain", "tests/llama_index")

TESTS = {
    "newest": FRAMEWORKS,
    "lowest": FRAMEWORKS,
    "migrate": ("tests/docs/test_migrate.py",),
    "milvus": ("tests/llama_index/interop/test_milvus.py",),
}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required(extra: str) -> list[Requirement]:
    """The requirements of an extra of pyproject.toml."""
    return [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]


def floor(requirement: Requirement) -> str:
    """The lowest version that a requirement allows, as a pin."""
    lowest = [part.version for part in requirement.specifier if part.operator in {">=", "=="}]
    if len(lowest) != 1:
        raise SystemExit(f"{requirement} has no single lowest version: write it as NAME>=VERSION in pyproject.toml")
    return f"{requirement.name}=={lowest[0]}"


def packages(kind: str) -> list[str]:
    """What is installed beside m3rag and torch."""
    wanted = required("dev")
    tools = [str(requirement) for requirement in wanted if requirement.name in TOOLS]
    if kind == "newest":
        return [*tools, *(str(requirement) for requirement in wanted if requirement.name.startswith(INTEGRATIONS))]
    if kind == "migrate":
        return [*tools, *LEFT_BEHIND]
    if kind == "milvus":
        return [*tools, "llama-index-vector-stores-milvus>=1.2", "milvus-lite>=3.2"]
    return [*tools, *(floor(requirement) for extra in EXTRAS for requirement in required(extra))]


def torch_pin() -> str:
    """The line of constraints.txt for torch."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def make(folder: Path, kind: str) -> Path:
    """A fresh environment; returns its Python."""
    venv.create(folder, with_pip=True, clear=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    constraint = folder / "constraints.txt"
    constraint.write_text(torch_pin() + "\n", encoding="utf-8")
    install = [str(python), "-m", "pip", "install", "-q", "-c", str(constraint)]
    subprocess.run([*install, "torch"], check=True)
    subprocess.run([*install, "-e", f"{ROOT}[{','.join((*EXTRAS, *BESIDE))}]", *packages(kind)], check=True)
    return python


def versions(python: Path) -> str:
    """What was installed of the frameworks, for the report."""
    done = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    shown = ("langchain", "llama-index", "llama_index", "pydantic", "torch", "transformers")
    return " ".join(line for line in done.stdout.splitlines() if line.lower().startswith(shown))


def try_out(kind: str, folder: Path, pytest_arguments: Sequence[str]) -> bool:
    """Whether the tests pass in a fresh environment of a kind."""
    python = make(folder / kind, kind)
    sys.stdout.write(f"{kind}: {versions(python)}\n")
    sys.stdout.flush()
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS[kind]]
    # Old releases warn of themselves beside new ones of what they stand on; no version of ours could change that.
    command += ["-W", "default"] if kind == "lowest" else []
    passed = subprocess.run([*command, *pytest_arguments], cwd=ROOT, check=False).returncode == 0
    sys.stdout.write(f"{kind}: {'passed' if passed else 'FAILED'}\n")
    return passed


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # Not by `choices`, to which Python 3.11 holds an empty list too.
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(TESTS)}; by default all")
    parser.add_argument("--folder", type=Path, help="keep the environments here")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.kinds) - set(TESTS))
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}: choose among {', '.join(TESTS)}")
    options.kinds = options.kinds or list(TESTS)
    return options


def main() -> None:
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = options_of(sys.argv[1:at])
    with tempfile.TemporaryDirectory(prefix="compat-") as temporary:
        folder = options.folder or Path(temporary)
        passed = [try_out(kind, folder, sys.argv[at + 1 :]) for kind in options.kinds]
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
