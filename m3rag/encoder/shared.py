"""A loaded encoder that is given to a framework's class, to be shared."""

from __future__ import annotations

from typing import Any

from m3rag.encoder.cache import MemoryCache
from m3rag.encoder.cached import CachedEncoder
from m3rag.encoder.dense_only import DenseOnlyEncoder
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError

SharedEncoder = M3Encoder | DenseOnlyEncoder | CachedEncoder


def shared(encoder: object) -> SharedEncoder:
    """An encoder with all that the frameworks ask of it: itself, or one of your own behind a short-lived cache.

    Raises:
        InputError: If it is no encoder.
    """
    if isinstance(encoder, (M3Encoder, DenseOnlyEncoder, CachedEncoder)):
        return encoder
    if isinstance(encoder, Encoder):
        return CachedEncoder(encoder, MemoryCache())
    raise InputError(
        f"encoder is a {type(encoder).__name__}, must be an m3rag.M3Encoder, a DenseOnlyEncoder, a CachedEncoder or "
        "another m3rag.encoder.Encoder"
    )


def reload_options(encoder: SharedEncoder) -> dict[str, Any] | None:
    """What loads an encoder of the same numbers again by its name, as after unpickling; None if nothing does."""
    inner = encoder.encoder if isinstance(encoder, CachedEncoder) else encoder
    return inner.reload_options if isinstance(inner, M3Encoder) else None


def require_reloadable(encoder: SharedEncoder, *, owner: str) -> None:
    """Refuse to pickle what could not be loaded again.

    Raises:
        InputError: If its name and options are not enough.
    """
    if reload_options(encoder) is None:
        raise InputError(
            f"the encoder of {encoder.info.name} cannot be loaded again by its name: make {owner}(encoder=...) "
            "anew where it is needed"
        )
