"""The two packages of the extra `onnx`, imported only when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def require(package: str) -> Any:
    """Import `onnx` or `onnxruntime`.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(f'backend="onnx" needs {package}: pip install "m3rag[onnx]"', name=package) from error
