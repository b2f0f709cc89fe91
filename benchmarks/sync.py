"""How long a sync takes: of new files, of the same again, of one that changed, of all renamed.

    python benchmarks/sync.py --files 10000 [--model hash|mini] [--chars 600]

Writes small Markdown files of synthetic words into a temporary folder, lets them rest for 3 s (a file
younger than 2 s is never trusted), and times each `KnowledgeBase.sync` of it, each in a process of its
own, from opening the index to closing it. Also the time that the reading process adds to a small file.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [
    f"{a}{b}" for a in ("duck", "pond", "rain", "reed", "wing", "nest", "lake") for b in ("s", "er", "ing", "ly", "ful")
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--model", choices=["hash", "mini"], default="hash")
    parser.add_argument("--chars", type=int, default=600, help="characters of a file")
    parser.add_argument("--one", nargs=2, metavar=("INDEX", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(*arguments.one, model=arguments.model)))
        return
    with tempfile.TemporaryDirectory() as work:
        root = Path(work) / "files"
        write(root, files=arguments.files, chars=arguments.chars)
        time.sleep(3)
        first = timed("first", arguments.model, work)
        again = timed("second, nothing changed", arguments.model, work)
        print(f"{'ratio':<26}{again / first:8.2%}")
        changed = root / "0000" / "00000.md"
        changed.write_text(changed.read_text() + "\n\nAn afterthought.\n")
        timed("one file changed", arguments.model, work)
        root.joinpath("0000").rename(root / "renamed")
        timed("100 files renamed", arguments.model, work)
    print(f"{'reading process':<26}{1000 * sandbox_overhead():8.2f} ms a small file more than in this process")


def write(root: Path, *, files: int, chars: int) -> None:
    rng = random.Random(1)
    for i in range(files):
        folder = root / f"{i // 100:04}"
        folder.mkdir(parents=True, exist_ok=True)
        text = " ".join(rng.choices(WORDS, k=chars // 7))
        (folder / f"{i:05}.md").write_text(f"# File {i}\n\n{text}\n")


def timed(name: str, model: str, work: str) -> float:
    command = [sys.executable, __file__, "--model", model, "--one", f"{work}/index", f"{work}/files"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    counts = ", ".join(f"{n} {status}" for status, n in found["counts"].items() if n)
    print(f"{name:<26}{found['seconds']:8.2f} s  {counts}; {found['encoded']} texts encoded", flush=True)
    return float(found["seconds"])


def one(index: str, folder: str, *, model: str) -> dict[str, object]:
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.testing import HashEncoder

    given = {"encoder": HashEncoder()} if model == "hash" else {}
    start = time.perf_counter()
    with KnowledgeBase(index, **given) as kb:  # type: ignore[arg-type]
        report = kb.sync(folder)
    seconds = time.perf_counter() - start
    encoded = sum(result.encoded for result in report.results)
    return {"seconds": seconds, "counts": report.counts, "encoded": encoded}


def sandbox_overhead(files: int = 300) -> float:
    from m3rag.reading import read
    from m3rag.reading.sandbox import Sandbox

    with tempfile.TemporaryDirectory() as work, Sandbox() as sandbox:
        write(Path(work), files=files, chars=600)
        paths = sorted(Path(work).rglob("*.md"))
        read(paths[0], root=work)
        sandbox.read(paths[0], root=work)
        start = time.perf_counter()
        for path in paths:
            read(path, root=work)
        middle = time.perf_counter()
        for path in paths:
            sandbox.read(path, root=work)
        end = time.perf_counter()
    return ((end - middle) - (middle - start)) / files


if __name__ == "__main__":
    main()
