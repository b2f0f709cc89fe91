"""pyarrow, which only the extra `ray` installs, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m3rag.errors import InputError

INSTALL = 'pip install "m3rag[ray]"'


def pyarrow() -> Any:
    """The module `pyarrow`, its `parquet` loaded.

    Raises:
        ImportError: If it is not installed; the command that installs it is named.
    """
    try:
        import pyarrow as module  # type: ignore[import-untyped]  # noqa: PLC0415
        import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ImportError(f"bulk encoding needs pyarrow: {INSTALL}", name=error.name) from error
    return module


@contextmanager
def reading(path: Path, *, remedy: str) -> Iterator[None]:
    """Name the file, and what to do, in the errors that reading it gives.

    Raises:
        InputError: For a file that is missing, damaged, or no Parquet.
    """
    try:
        yield
    except (OSError, pyarrow().ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}): {remedy}") from error
