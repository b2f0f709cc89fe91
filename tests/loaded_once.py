"""In one process a vocabulary is parsed once and the network of `mini` is read once, whichever tests load them.

A quarter of a million tokens take over a second to parse, and the weights of `mini` as long again. Neither
changes after it is loaded, so tests that load the same content share what came of it. What a process of
its own loads, a test's child or a worker, is loaded as ever.
"""

from __future__ import annotations

import sys
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any


def share() -> None:
    """Share what the loaders give from now on; those not imported yet are left, as importing torch takes seconds."""
    for module, name in (("m3rag.encoder.tokenizer", "Tokenizer"), ("m3rag.reranking.pairs", "PairTokenizer")):
        if module in sys.modules:
            _share_instances(getattr(sys.modules[module], name))
    if "m3rag.encoder.encoder" in sys.modules:
        _share_mini()


@cache
def _share_instances(kind: type[Any]) -> None:
    """Give instances of a class that are made of files with the same content the same attributes."""
    real = kind.__init__
    attributes: dict[bytes, dict[str, Any]] = {}

    @wraps(real)
    def init(self: Any, path: Path) -> None:
        content = sha256(path.read_bytes()).digest() if path.is_file() else b""
        if content not in attributes:
            real(self, path)
            attributes[content] = vars(self).copy()
        vars(self).update(attributes[content])

    kind.__init__ = init  # type: ignore[misc]


def _identity(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


@cache
def _share_mini() -> None:
    from m3rag.encoder import encoder, model
    from m3rag.encoder.checkpoint import Checkpoint

    real = model.load_model
    loaded: dict[object, model.M3Model] = {}

    @wraps(real)  # named as the real one, which a worker process then has
    def load(checkpoint: Checkpoint, **options: Any) -> model.M3Model:
        if not checkpoint.folder.name.startswith("mini-"):
            return real(checkpoint, **options)
        key = (*map(_identity, sorted(checkpoint.folder.iterdir())), *sorted(map(str, options.items())))
        if key not in loaded:
            loaded[key] = real(checkpoint, **options)
        return loaded[key]

    model.load_model = encoder.load_model = load
