"""The process that draws a page for `PdfPages`: a request on stdin, what was asked for on stdout."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

from m3rag.errors import M3RagError

SCALE = 2.0
"""Pixels a point."""

MOST_PIXELS = 6_000_000
MOST_SIDE = 16_000
"""Pixels of a side: pictures have such limits, and a page may be a long strip."""


def main() -> None:
    """Answer one request and end."""
    from m3rag.reading.sandbox_child import limit_memory  # noqa: PLC0415 - nothing is parsed before its limit

    request = json.loads(sys.stdin.buffer.read())
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    limit_memory(request["memory_bytes"])
    try:
        reply = image(request) if request["do"] == "image" else rectangles(request)
    except (M3RagError, OSError) as error:
        sys.stderr.write(str(error))
        sys.stderr.flush()
        os._exit(3)
    replies.write(reply)
    replies.close()


def image(request: dict[str, Any]) -> bytes:
    """A page as PNG."""
    import pypdfium2  # noqa: PLC0415

    with _opened(request["path"]) as document:
        page = _page(document, request["page"])
        width, height = page.get_size()
        scale = min(SCALE, (MOST_PIXELS / max(width * height, 1.0)) ** 0.5, MOST_SIDE / max(width, height))
        bitmap: pypdfium2.PdfBitmap = page.render(scale=scale, rev_byteorder=True)
        out = io.BytesIO()
        bitmap.to_pil().save(out, "PNG")
        return out.getvalue()


def rectangles(request: dict[str, Any]) -> bytes:
    """Boxes in fractions of the page, as JSON."""
    from m3rag.reading.pdf_rectangles import page_rectangles  # noqa: PLC0415

    path, number = request["path"], request["page"]
    with _opened(path) as document:
        width, height = _page(document, number).get_size()
    boxes = page_rectangles(path, number, request["start"], request["end"])
    shown = [[b.left / width, b.top / height, b.right / width, b.bottom / height] for b in boxes]
    return json.dumps([[min(max(x, 0.0), 1.0) for x in box] for box in shown]).encode()


def _opened(path: str) -> Any:
    import pypdfium2  # noqa: PLC0415

    from m3rag.errors import ReadError  # noqa: PLC0415

    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise ReadError(f"{path}: is a PDF that cannot be opened ({error})") from error


def _page(document: Any, number: int) -> Any:
    from m3rag.errors import InputError  # noqa: PLC0415

    if not 1 <= number <= len(document):
        raise InputError(f"has no page {number}, only 1 to {len(document)}")
    return document[number - 1]
