"""The models that this process has loaded: who asks for one of them by the same name and options gets that one."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakValueDictionary

from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.encoder import M3Encoder

_LOADED: WeakValueDictionary[tuple[object, ...], M3Encoder] = WeakValueDictionary()

_LOCK = threading.Lock()


def loaded(model: str, *, cache_folder: str | None = None, local_files_only: bool = False, **options: Any) -> M3Encoder:
    """An encoder, shared by all who asked for it in the same way and still hold it.

    So ten indexes of one model have it in memory once. A checkpoint that was changed on disk is another model, and
    a process that was forked loads its own: torch's threads stayed behind.

    Args:
        model: As for `M3Encoder`.
        cache_folder: As for `M3Encoder`.
        local_files_only: As for `M3Encoder`.
        **options: The others of `M3Encoder`; None is as if left out.

    Raises:
        ModelError: If the model cannot be had or loaded.
        ConfigurationError: If an option is out of range for the model.
    """
    found = Checkpoint.find(model, cache_folder=cache_folder, local_files_only=local_files_only)
    given = sorted((name, repr(value)) for name, value in options.items() if value is not None)
    key = (os.getpid(), found.name, found.fingerprint(), *given)
    with _LOCK:
        encoder = _LOADED.get(key)
        if encoder is None:
            encoder = M3Encoder(model, cache_folder=cache_folder, local_files_only=local_files_only, **options)
            _LOADED[key] = encoder
        return encoder
