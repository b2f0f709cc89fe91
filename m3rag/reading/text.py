"""Plain text."""

from __future__ import annotations

from m3rag.reading.content import Content
from m3rag.reading.decoding import decode


def read_text(data: bytes) -> Content:
    """Read plain text, line ends as line feeds.

    Args:
        data: The file's bytes, in UTF-8, UTF-16, UTF-32 or an encoding that can be guessed.

    Returns:
        The text as it stands.

    Raises:
        ReadError: The bytes are not text.
    """
    decoded = decode(data)
    return Content(decoded.text, metadata={"encoding": decoded.encoding}, warnings=decoded.warnings)
