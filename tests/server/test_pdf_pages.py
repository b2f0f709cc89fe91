"""Pages are drawn by processes that have an end."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfWriter

from m3rag.errors import ReadError
from m3rag.server import pdf_pages
from m3rag.server.errors import Refused
from m3rag.server.pdf_pages import PdfPages

from ..reading.pdfs import pdf
from .serving import WAIT_S

posix = pytest.mark.skipif(sys.platform == "win32", reason="asks for a process by its number")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "one.pdf"
    file.write_bytes(pdf("Ducks"))
    return file


def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Drawing never ends; the file that will hold the number of the process."""
    told = tmp_path / "number"
    boot = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(pdf_pages, "BOOT", boot)
    return told


def gone(told: Path) -> bool:
    try:
        os.kill(int(told.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


@posix
async def test_who_is_cancelled_ends_the_drawing(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = stuck(tmp_path, monkeypatch)
    drawing = asyncio.create_task(PdfPages().image(path, 1))
    until = time.monotonic() + WAIT_S
    while not (told.exists() and told.read_text()) and time.monotonic() < until:
        await asyncio.sleep(0.01)
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    assert gone(told)


@posix
async def test_a_page_that_takes_too_long_is_given_up(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = stuck(tmp_path, monkeypatch)
    monkeypatch.setattr(pdf_pages, "SECONDS", 1.0)
    with pytest.raises(ReadError, match=r"one\.pdf has a page that took more than 1 s"):
        await PdfPages().image(path, 1)
    assert not told.exists() or gone(told)


async def test_many_who_ask_for_one_page_do_not_have_it_drawn_each(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0

    async def draw(request: dict[str, Any], name: str) -> bytes:
        nonlocal drawn
        drawn += 1
        await asyncio.sleep(0)
        return b"png"

    monkeypatch.setattr(pdf_pages, "_in_child", draw)
    pages = PdfPages()
    assert await asyncio.gather(*(pages.image(path, 1) for _ in range(20))) == [b"png"] * 20
    assert drawn <= pdf_pages.AT_ONCE


async def test_a_line_that_is_too_long_is_not_joined(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_pages, "MOST_WAITING", 0)
    with pytest.raises(Refused, match="waiting") as refused:
        await PdfPages().image(path, 1)
    assert refused.value.status == 503


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"%PDF-1.7 and no more"])
async def test_what_is_no_pdf_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.pdf"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"^odd\.pdf is a PDF that cannot be opened"):
        await PdfPages().image(path, 1)


async def test_a_page_of_any_size_is_a_picture(tmp_path: Path) -> None:
    for width, height in ((1, 200_000), (14_400, 14_400), (0.5, 0.5)):
        path = tmp_path / "odd.pdf"
        writer = PdfWriter()
        writer.add_blank_page(width, height)
        writer.write(path)
        assert (await PdfPages().image(path, 1)).startswith(b"\x89PNG")
