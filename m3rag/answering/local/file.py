"""GGUF files, checked by their first bytes before anything loads them."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import BinaryIO

from m3rag.errors import LLMError

MAGIC = b"GGUF"
TEMPLATE = b"tokenizer.chat_template"
TEMPLATE_KEY = struct.pack("<Q", len(TEMPLATE)) + TEMPLATE
"""How a chat template begins among the metadata: every string is written behind its length."""
METADATA_BYTES = 64 << 20
"""The metadata come first, and no vocabulary makes them longer."""
GET_ONE = "download the model in the GGUF format, of the instruct kind"
POINTERS = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the model itself: run `git lfs pull` in its folder",
    b"<": "is a web page, saved in place of the model: download it again, by its direct link",
    b"PK\x03\x04": f"is a ZIP archive or a PyTorch file, not GGUF: unpack it, or {GET_ONE}",
}


def checked_gguf(path: str | Path) -> Path:
    """The absolute path of a GGUF file.

    Args:
        path: `~` stands for the home folder.

    Raises:
        LLMError: If there is no such file, it cannot be read, it is something else, or it has no chat template:
            llama.cpp would take one that the model does not know, and a base model has none at all.
    """
    try:
        found = Path(path).expanduser().absolute()
        if found.is_dir():
            inside = sorted(one.name for one in found.glob("*.gguf"))
            holds = f"it holds {', '.join(inside[:5])}" if inside else f"there is none in it: {GET_ONE}"
            raise LLMError(f"the model {found} is a folder: name a .gguf file; {holds}")
        with found.open("rb") as file:
            beginning = file.read(32)
            chats = beginning.startswith(MAGIC) and _has_template(file)
    except FileNotFoundError as error:
        raise LLMError(
            f"there is no model {path}: check llm.model (M3RAG_LLM__MODEL), give llm.base_url if it is the name of a "
            f"server's model, or {GET_ONE}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # no permission, no home, a NUL in the name
        raise LLMError(f"the model {str(path)!r} cannot be read ({error}): check its path and permissions") from error
    if chats:
        return found
    if beginning.startswith(MAGIC):
        raise LLMError(
            f"the model {found} has no chat template, so it is a base model, which only goes on with a text: {GET_ONE}"
        )
    for prefix, remedy in POINTERS.items():
        if beginning.lstrip().startswith(prefix):
            raise LLMError(f"the model {found} {remedy}")
    what = f"begins with {beginning[:8]!r}" if beginning else "is empty"
    raise LLMError(f"the model {found} is not a GGUF file (it {what}): {GET_ONE}")


def _has_template(file: BinaryIO) -> bool:
    size = min(os.fstat(file.fileno()).st_size, METADATA_BYTES)
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as metadata:
        return metadata.find(TEMPLATE_KEY) >= 0
