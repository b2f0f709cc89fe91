"""Pages per second of reading PDFs, beside pypdf and markitdown.

    python benchmarks/reading.py [--data ../shared/data/files] [--rounds 3]

Each real PDF of the folder is read from memory by each contender in turn, the median of the rounds
counts. m3rag does more than the others within its time: headers and page numbers are recognised,
bookmarks found in the text, right-to-left pages read a second time. markitdown is not a dependency
and is left out where it cannot be imported; files that a contender cannot read are left out of the
total. The last column is one box of one passage, which reads the
file anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from m3rag.errors import ReadError
from m3rag.reading import parse
from m3rag.reading.pdf_rectangles import page_rectangles

Contender = Callable[[bytes], int]
"""Reads a PDF and gives the number of characters."""


def by_m3rag(data: bytes) -> int:
    return len(parse(data, name="a.pdf").text)


def by_pypdf(data: bytes) -> int:
    from pypdf import PdfReader

    return sum(len(page.extract_text()) for page in PdfReader(io.BytesIO(data)).pages)


def by_markitdown(data: bytes) -> int:
    from markitdown import MarkItDown

    return len(MarkItDown().convert_stream(io.BytesIO(data), file_extension=".pdf").text_content)


def contenders() -> dict[str, Contender]:
    found: dict[str, Contender] = {"m3rag": by_m3rag, "pypdf": by_pypdf}
    if importlib.util.find_spec("markitdown"):
        found["markitdown"] = by_markitdown
    return found


def pages_per_second(data: bytes, pages: int, read: Contender, rounds: int) -> float | None:
    """None for a contender that cannot read the file."""
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        try:
            read(data)
        except Exception as error:  # noqa: BLE001
            print(f"  {read.__name__}: {type(error).__name__}: {error}")
            return None
        seconds.append(time.perf_counter() - begun)
    return pages / median(seconds)


def box_milliseconds(path: Path, rounds: int) -> float:
    document = parse(path.read_bytes(), name=path.name)
    page = max(document.pages, key=lambda page: page.end - page.start)
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        page_rectangles(path, page.number, page.start, min(page.start + 300, page.end))
        seconds.append(time.perf_counter() - begun)
    return 1000 * median(seconds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, default=Path("../shared/data/files"))
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    logging.disable(logging.ERROR)
    compared = contenders()
    print(f"| file | pages | {' | '.join(compared)} | box ms |\n|---|--:|{'--:|' * (len(compared) + 1)}")
    totals = dict.fromkeys(compared, 0.0)
    all_pages = 0
    for path in sorted(chosen.data.rglob("*.pdf")):
        data = path.read_bytes()
        try:
            pages = len(parse(data, name=path.name).pages)
        except ReadError:
            continue
        speeds = {name: pages_per_second(data, pages, read, chosen.rounds) for name, read in compared.items()}
        if all(speeds.values()):
            all_pages += pages
            for name, speed in speeds.items():
                totals[name] += pages / (speed or 1.0)
        shown = " | ".join(f"{speed:,.0f}" if speed else "failed" for speed in speeds.values())
        print(f"| {path.name} | {pages} | {shown} | {box_milliseconds(path, chosen.rounds):.0f} |")
    overall = {name: round(all_pages / seconds, 1) for name, seconds in totals.items()}
    print(json.dumps({"pages": all_pages, "pages_per_second": overall}))


if __name__ == "__main__":
    main()
