"""The encoder: a checkpoint's one forward pass, three representations.

Names are loaded on first use, since torch takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names
from m3rag.encoder.protocol import Encoder
from m3rag.output import M3Output

if TYPE_CHECKING:
    from m3rag.encoder.encoder import M3Encoder

__all__ = ["Encoder", "M3Encoder", "M3Output"]

__getattr__ = lazy_names(__name__, {"M3Encoder": "m3rag.encoder.encoder"})
