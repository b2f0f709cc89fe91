"""What an extra is missing for is said by its name, before anything that takes time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({missing!r}))
sys.argv = ["m3rag", *{arguments!r}]
from m3rag.cli import main
try:
    main()
finally:
    print(*sorted({{"torch", "m3rag.knowledge_base"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["serve"], "fastapi", "app"),
        (["serve"], "python_multipart", "app"),
        (["mcp"], "fastapi", "mcp"),
        (["mcp", "--http"], "fastapi", "mcp"),
        (["mcp"], "mcp.server.mcpserver", "mcp"),  # mcp 1 has none
    ],
)
def test_a_server_without_its_extra(tmp_path: Path, arguments: list[str], missing: str, extra: str) -> None:
    result = without(missing, arguments, tmp_path)
    assert result.returncode == 5
    assert result.stderr == f'error: m3rag {arguments[0]} needs {missing}: pip install "m3rag[{extra}]"\n'
    assert result.stdout.split() == []  # neither a model's code nor an index


@pytest.mark.parametrize(("more", "missing"), [([], "onnx"), (["--int8"], "onnx"), (["--int8"], "onnxruntime")])
def test_an_export_without_its_extra(tmp_path: Path, more: list[str], missing: str) -> None:
    result = without(missing, ["export", "no-such-model", *more], tmp_path)
    assert result.returncode == 5
    assert result.stderr == f'error: m3rag export needs {missing}: pip install "m3rag[onnx]"\n'


def without(missing: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(missing=[missing], arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
