"""The two packages of the extra `onnx`, imported only when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from m3rag.errors import ConfigurationError


def require(package: str) -> Any:
    """Import `onnx` or `onnxruntime`.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ConfigurationError(
            f'backend="onnx" needs the package {package}: install it with `pip install "m3rag[onnx]"`'
        ) from error
