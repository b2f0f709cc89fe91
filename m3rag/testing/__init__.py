"""Fakes and conformance suites, for m3rag's own tests and for those of its users.

`StoreSuite` needs pytest and hypothesis; it is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names
from m3rag.testing.encoder import HashEncoder

if TYPE_CHECKING:
    from m3rag.testing.store_suite import StoreSuite

__all__ = ["HashEncoder", "StoreSuite"]

__getattr__, __dir__ = lazy_names(__name__, {"StoreSuite": "m3rag.testing.store_suite"})
