"""Pages per second of reading PDFs, beside pypdf and markitdown.

    python benchmarks/reading.py [--data ../shared/data/files] [--rounds 3] [--markitdown PYTHON]

Each real PDF of the folder is read from memory by each contender in turn, the median of the rounds
counts. m3rag does more than the others within its time: headers and page numbers are recognised,
bookmarks found in the text, right-to-left pages read a second time. markitdown has requirements of
its own: PYTHON is the interpreter of an environment with `markitdown[pdf]`, which times itself; without
it, it is left out where it cannot be imported. Files that a contender cannot read are left out of the
total. The last column is one box of one passage, which reads the file anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

Contender = Callable[[bytes], int]
"""Reads a PDF and gives the number of characters."""

Timed = Callable[[Path], float]
"""Reads a PDF and gives the seconds that it took."""


def by_m3rag(data: bytes) -> int:
    from m3rag.reading import parse

    return len(parse(data, name="a.pdf").text)


def by_pypdf(data: bytes) -> int:
    from pypdf import PdfReader

    return sum(len(page.extract_text()) for page in PdfReader(io.BytesIO(data)).pages)


def by_markitdown(data: bytes) -> int:
    from markitdown import MarkItDown

    return len(MarkItDown().convert_stream(io.BytesIO(data), file_extension=".pdf").text_content)


def timed(read: Contender) -> Timed:
    def run(path: Path) -> float:
        data = path.read_bytes()
        begun = time.perf_counter()
        read(data)
        return time.perf_counter() - begun

    return run


def serve_markitdown() -> None:
    """In an environment of its own: a path a line in, its seconds or what went wrong a line out."""
    logging.disable(logging.ERROR)
    run = timed(by_markitdown)
    for line in sys.stdin:
        try:
            reply: dict[str, float | str] = {"seconds": run(Path(json.loads(line)))}
        except Exception as error:  # noqa: BLE001
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


def markitdown_of(python: str, stack: ExitStack) -> Timed:
    """markitdown of another environment."""
    child = subprocess.Popen(
        [python, __file__, "--serve-markitdown"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    stack.enter_context(child)
    stack.callback(child.kill)
    asked, answered = child.stdin, child.stdout
    if asked is None or answered is None:
        raise RuntimeError("the pipes of a child that was started with pipes")

    def run(path: Path) -> float:
        print(json.dumps(str(path)), file=asked, flush=True)
        line = answered.readline()
        if not line:
            raise RuntimeError(f"{python} ended: has its environment markitdown[pdf]?")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return float(reply["seconds"])

    return run


def contenders(python: str | None, stack: ExitStack) -> dict[str, Timed]:
    found = {"m3rag": timed(by_m3rag), "pypdf": timed(by_pypdf)}
    if python:
        found["markitdown"] = markitdown_of(python, stack)
    elif importlib.util.find_spec("markitdown"):
        found["markitdown"] = timed(by_markitdown)
    return found


def pages_per_second(path: Path, pages: int, name: str, run: Timed, rounds: int) -> float | None:
    """None for a contender that cannot read the file."""
    try:
        return pages / median(run(path) for _ in range(rounds))
    except Exception as error:  # noqa: BLE001
        print(f"  {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def box_milliseconds(path: Path, rounds: int) -> float:
    from m3rag.reading import parse
    from m3rag.reading.pdf_rectangles import page_rectangles

    document = parse(path.read_bytes(), name=path.name)
    page = max(document.pages, key=lambda page: page.end - page.start)
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        page_rectangles(path, page.number, page.start, min(page.start + 300, page.end))
        seconds.append(time.perf_counter() - begun)
    return 1000 * median(seconds)


def compare(data: Path, compared: dict[str, Timed], rounds: int) -> None:
    """Print a row for each file that m3rag can read, then the totals."""
    from m3rag.errors import ReadError
    from m3rag.reading import parse

    print(f"| file | pages | {' | '.join(compared)} | box ms |\n|---|--:|{'--:|' * (len(compared) + 1)}")
    totals = dict.fromkeys(compared, 0.0)
    all_pages = 0
    for path in sorted(data.rglob("*.pdf")):
        try:
            pages = len(parse(path.read_bytes(), name=path.name).pages)
        except ReadError:
            continue
        speeds = {name: pages_per_second(path, pages, name, run, rounds) for name, run in compared.items()}
        if all(speeds.values()):
            all_pages += pages
            for name, speed in speeds.items():
                totals[name] += pages / (speed or 1.0)
        shown = " | ".join(f"{speed:,.0f}" if speed else "failed" for speed in speeds.values())
        print(f"| {path.name} | {pages} | {shown} | {box_milliseconds(path, rounds):.0f} |", flush=True)
    overall = {name: round(all_pages / seconds, 1) for name, seconds in totals.items() if seconds}
    print(json.dumps({"pages": all_pages, "pages_per_second": overall}))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=Path("../shared/data/files"))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--markitdown", metavar="PYTHON", help="an interpreter that has markitdown[pdf]")
    options.add_argument("--serve-markitdown", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve_markitdown:
        serve_markitdown()
        return
    logging.disable(logging.ERROR)
    with ExitStack() as stack:
        compare(chosen.data, contenders(chosen.markitdown, stack), chosen.rounds)


if __name__ == "__main__":
    main()
