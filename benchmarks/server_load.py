"""Many people ask one server at once: time to the first event, errors, and whether memory stays flat.

    python benchmarks/server_load.py [--askers 50] [--seconds 60] [--json out.json]

The server runs in a process of its own with the embedded model over the sample documents; the askers share the
machine with it. Each reads its whole answer, then asks the next question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

DOCUMENTS = Path(__file__).parents[1] / "examples" / "documents"

QUESTIONS = (
    "Who founded the Debian project, and when?",
    "¿Qué comen los patos?",
    "Do men and women have equal rights in marriage?",
    "How are origins allowed in FastAPI?",
    "Wie installiert man ein Paket?",
    "What is the capital of Mongolia?",
)

SERVER = """
import sys
from m3rag.server.run import opened, serve
from m3rag.settings import ServeSettings, Settings
kb = opened(Settings(index=sys.argv[1]))
kb.ingest(sys.argv[2])
serve(kb, ServeSettings(port=0, rate_limit=0), ready=lambda url: print(url, flush=True))
"""


@dataclass
class Seen:
    """What the askers saw."""

    first: list[float] = field(default_factory=list)  # seconds to the first event
    whole: list[float] = field(default_factory=list)  # to the last
    errors: list[str] = field(default_factory=list)


async def asker(client: httpx.AsyncClient, number: int, until: float, seen: Seen) -> None:
    asked = number
    while time.perf_counter() < until:
        began, first, last = time.perf_counter(), None, ""
        try:
            # Nobody asks the very same, which would be encoded once.
            question = f"{QUESTIONS[asked % len(QUESTIONS)]} ({number}, {asked})"
            async with client.stream("POST", "/api/ask", json={"question": question}) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    if line.startswith("event: "):
                        last = line.removeprefix("event: ")
                        first = first or time.perf_counter() - began
        except httpx.HTTPError as error:
            seen.errors.append(repr(error))
            continue
        if last != "done" or first is None:
            seen.errors.append(f"the stream ended with {last!r}")
            continue
        seen.first.append(first)
        seen.whole.append(time.perf_counter() - began)
        asked += 1


def memory_mb(pid: int) -> float:
    """The resident set of a process (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(name + " ")))


async def load(url: str, pid: int, *, askers: int, seconds: float) -> dict[str, object]:
    limits = httpx.Limits(max_connections=askers + 1, max_keepalive_connections=askers + 1)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:
        warm = Seen()  # what grows once (threads, caches of the allocator) is not what grows for ever
        await asyncio.gather(*(asker(client, n, time.perf_counter() + seconds / 4, warm) for n in range(askers)))
        before = memory_mb(pid)
        texts, passes = [await metric(client, f"m3rag_{n}_total") for n in ("encoded_texts", "forward_passes")]
        seen = Seen()
        began = time.perf_counter()
        await asyncio.gather(*(asker(client, n, began + seconds, seen) for n in range(askers)))
        took = time.perf_counter() - began
        after = memory_mb(pid)
        texts = await metric(client, "m3rag_encoded_texts_total") - texts
        passes = await metric(client, "m3rag_forward_passes_total") - passes
    return {
        "askers": askers,
        "seconds": round(took, 1),
        "answers": len(seen.first),
        "answers_per_s": round(len(seen.first) / took, 1),
        "errors": len(warm.errors) + len(seen.errors),
        "first_error": (warm.errors + seen.errors or [None])[0],
        "first_event_p50_s": round(float(np.percentile(seen.first, 50)), 3),
        "first_event_p95_s": round(float(np.percentile(seen.first, 95)), 3),
        "whole_p50_s": round(float(np.percentile(seen.whole, 50)), 3),
        "whole_p95_s": round(float(np.percentile(seen.whole, 95)), 3),
        "questions_per_pass": round(texts / passes, 2),
        "memory_before_mb": round(before),
        "memory_after_mb": round(after),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--askers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SERVER, str(Path(folder) / "index"), str(DOCUMENTS)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            result = asyncio.run(load(url, server.pid, askers=given.askers, seconds=given.seconds))
        finally:
            server.terminate()
            server.wait()
    print(json.dumps(result, indent=2))
    if given.json:
        given.json.write_text(json.dumps(result) + "\n")
    sys.exit(1 if result["errors"] else 0)


if __name__ == "__main__":
    main()
