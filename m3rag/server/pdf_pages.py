"""Pages of PDFs as pictures, and where a passage stands on them: drawn in a process of its own, with limits."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections import OrderedDict
from pathlib import Path
from typing import Any

from m3rag.errors import ReadError
from m3rag.server.errors import Refused, about

SECONDS = 30.0
MEMORY_BYTES = 2 << 30
AT_ONCE = 2
MOST_WAITING = 64
MOST_KEPT = 64 << 20
"""Bytes of pictures that are kept for the next to ask."""

# As in m3rag.reading.sandbox: isolated, then with exactly the parent's modules.
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from m3rag.server.pdf_child import main; main()"


class PdfPages:
    """Draws pages, `AT_ONCE` at the same time, and keeps the latest. Who is cancelled ends the drawing."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._kept: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._size = 0
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

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
            raise ReadError(f"{path.name} is not there any more: upload it again") from None
        key = (str(path), stat.st_mtime_ns, stat.st_size, *request.values())
        if key not in self._kept and self._waiting >= MOST_WAITING:
            raise Refused(503, f"{MOST_WAITING} pages are waiting to be drawn already", "Ask again in a moment.")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._made(key, {"path": str(path), **request}, path.name)
        finally:
            self._waiting -= 1

    async def _made(self, key: tuple[Any, ...], request: dict[str, Any], name: str) -> bytes:
        if key in self._kept:  # perhaps made for another while this one waited
            self._kept.move_to_end(key)
            return self._kept[key]
        made = await _in_child(request, name)
        if key not in self._kept:
            self._kept[key] = made
            self._size += len(made)
        while self._size > MOST_KEPT and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])
        return made


async def _in_child(request: dict[str, Any], name: str) -> bytes:
    search = json.dumps([entry or os.getcwd() for entry in sys.path])
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-W", "ignore", "-c", BOOT, search),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,  # Ctrl-C is for the server
    )
    asked = json.dumps({**request, "memory_bytes": MEMORY_BYTES}).encode()
    try:
        drawn, said = await asyncio.wait_for(child.communicate(asked), SECONDS)
    except TimeoutError:
        raise ReadError(
            f"{name} has a page that took more than {SECONDS:g} s to draw: look at the file itself"
        ) from None
    finally:
        if child.returncode is None:  # out of time, or the server ends
            child.kill()
            await child.wait()
    if child.returncode == 0:
        return drawn
    told = said.decode("utf-8", "replace").strip() if child.returncode == REFUSED else ""
    raise ReadError(about(name, told.removeprefix(request["path"] + ": ") or "has a page that cannot be drawn"))


REFUSED = 3
"""Exit status of a child that says on stderr what is wrong with the file."""
