"""Pages of PDFs as pictures, and where a passage stands on them: drawn in a process of its own, with limits."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from m3rag.errors import ReadError

SECONDS = 30.0
MEMORY_BYTES = 2 << 30
AT_ONCE = 2
MOST_KEPT = 64 << 20
"""Bytes of pictures that are kept for the next to ask."""

# As in m3rag.reading.sandbox: isolated, then with exactly the parent's modules.
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from m3rag.server.pdf_child import main; main()"


class PdfPages:
    """Draws pages, `AT_ONCE` at the same time, and keeps the latest."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._size = 0
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="m3rag-pages")

    async def image(self, path: Path, page: int) -> bytes:
        """A page as PNG, at 144 dots an inch, or less if it is large.

        Args:
            path: The PDF.
            page: From 1.

        Raises:
            ReadError: If it cannot be drawn.
        """
        return await self._asked(path, {"do": "image", "page": page})

    async def rectangles(self, path: Path, page: int, start: int, end: int) -> list[list[float]]:
        """The boxes of a passage on a page, `[left, top, right, bottom]` in fractions of the page.

        Args:
            path: The PDF.
            page: From 1.
            start: First character of the passage in the document's text.
            end: One past the last.

        Raises:
            ReadError: If the page or the span is not there, or cannot be read.
        """
        request = {"do": "rectangles", "page": page, "start": start, "end": end}
        found = json.loads(await self._asked(path, request))
        return [[float(x) for x in box] for box in found]

    async def _asked(self, path: Path, request: dict[str, Any]) -> bytes:
        try:
            stat = path.stat()
        except OSError:
            raise ReadError(f"{path.name}: its file is not there any more; upload it again") from None
        key = (str(path), stat.st_mtime_ns, stat.st_size, *request.values())
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        # In threads of their own: those of the event loop are for what takes no time.
        child = self._pool.submit(_in_child, {"path": str(path), **request}, path.name)
        made = await asyncio.wrap_future(child)
        if key not in self._kept:
            self._kept[key] = made
            self._size += len(made)
        while self._size > MOST_KEPT and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])
        return made


def _in_child(request: dict[str, Any], name: str) -> bytes:
    search = json.dumps([entry or os.getcwd() for entry in sys.path])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", "-c", BOOT, search],
            input=json.dumps({**request, "memory_bytes": MEMORY_BYTES}).encode(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
            start_new_session=True,  # Ctrl-C is for the server
        )
    except subprocess.TimeoutExpired:
        raise ReadError(f"{name}: the page took more than {SECONDS:g} s to draw; look at the file itself") from None
    if done.returncode == 0:
        return done.stdout
    told = done.stderr.decode("utf-8", "replace").strip() if done.returncode == REFUSED else ""
    raise ReadError(f"{name}: {told.replace(request['path'] + ': ', '') or 'the page cannot be drawn'}")


REFUSED = 3
"""Exit status of a child that says on stderr what is wrong with the file."""
