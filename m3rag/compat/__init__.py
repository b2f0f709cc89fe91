"""Other libraries' classes on m3rag's encoder: change the import, keep the code.

from m3rag.compat import BGEM3FlagModel  # was: from FlagEmbedding import BGEM3FlagModel
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.compat.flag_embedding import BGEM3FlagModel

__all__ = ["BGEM3FlagModel"]

__getattr__, __dir__ = lazy_names(__name__, {"BGEM3FlagModel": "m3rag.compat.flag_embedding"})
