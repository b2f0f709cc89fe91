"""A llama.cpp server in a process of its own: what ends it does not end us, and it never outlives us."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from m3rag._children import cause_of
from m3rag.errors import LLMError

# As in m3rag.reading.sandbox: isolated, then with exactly the parent's modules.
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from m3rag.answering.local.child import main; main()"
SMALLER = "use a smaller or more strongly quantized model, or less context_tokens"
KILLED = -9
LOGGED_ERROR = re.compile(r"[\d.]+ E +(.*)")
"""A line of llama.cpp's log: the time, the level, what it says."""
NO_MEMORY = ("insufficient memory", "failed to allocate", "out of memory", "bad_alloc", "unable to allocate")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a server is started with.

    Attributes:
        path: The GGUF file, absolute.
        context_tokens: Most tokens of prompt and reply; 0 for as many as the model was trained with.
        threads: Of the CPU; 0 for as many as there are cores.
        seconds: Most seconds that loading may take.
    """

    path: Path
    context_tokens: int
    threads: int
    seconds: float


class LlamaProcess:
    """A running llama.cpp server on a free loopback port; it asks for a key that only this object knows.

    It ends with `close`, when this object is forgotten, or with this process, however that ends.

    Args:
        setup: What it runs.

    Raises:
        LLMError: If the model cannot be loaded.

    Attributes:
        address: Its address, as `http://127.0.0.1:PORT`; "" while it loads.
        api_key: What requests must bring.
        closed: Whether `close` ended it.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.address = ""
        self.closed = False
        self.api_key = secrets.token_urlsafe(32)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = _started(self._log)
        self._end = weakref.finalize(self, _ended, os.getpid(), self._child, self._log)
        try:
            self.address = self._load()
        except BaseException:  # Ctrl-C while it loads, above all
            self._end()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    def ended(self, *, within: float) -> bool:
        """Whether it is gone, or goes within some seconds: its connections break a moment before it is."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=within)
        return not self.alive

    def close(self) -> None:
        """End it at once. Closing twice does nothing."""
        self.closed = self.closed or self.alive
        self._end()

    def post_mortem(self) -> str:
        """Why it ended by itself, and the remedy."""
        self.ended(within=2.0)
        code = self._child.poll()
        # Once it runs, its log speaks of requests, which did not end it.
        said = _first_error(self._log) if not self.address else ""
        why = said or cause_of(code)
        path = self.setup.path
        if any(sign in said.casefold() for sign in NO_MEMORY):
            return f"the model {path} needs more memory than there is ({why}): {SMALLER}"
        if code == KILLED:
            return f"the model {path} was killed, perhaps for want of memory ({why}): {SMALLER}"
        return (
            f"llama.cpp cannot run the model {path} ({why}): download the file again, try another model, or have a "
            "newer llama.cpp: pip install -U xllamacpp"
        )

    def _load(self) -> str:
        """Have it load the model; its address."""
        setup = self.setup
        request = {
            "path": str(setup.path),
            "name": setup.path.stem,
            "api_key": self.api_key,
            "context_tokens": setup.context_tokens,
            "threads": setup.threads,
        }
        late = threading.Event()

        def end() -> None:
            late.set()
            self._child.kill()

        timer = threading.Timer(setup.seconds, end)
        timer.daemon = True
        timer.start()
        try:
            stdin, stdout = _pipe(self._child.stdin), _pipe(self._child.stdout)
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            return str(json.loads(stdout.readline())["address"])
        except (OSError, ValueError) as error:
            if late.is_set():
                raise LLMError(f"the model {setup.path} did not load within {setup.seconds:g} s: {SMALLER}") from error
            raise LLMError(self.post_mortem()) from error
        finally:
            timer.cancel()


def _started(log: IO[bytes]) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise LLMError("no Python to run a model with: sys.executable is empty; run m3rag with a Python of its own")
    search = json.dumps([entry or os.getcwd() for entry in sys.path])
    return subprocess.Popen(
        [sys.executable, "-I", "-W", "ignore", "-c", BOOT, search],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        # Ctrl-C in the terminal is for us; we then end it.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _ended(owner: int, child: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    if os.getpid() != owner:  # a fork of the owner comes to its end
        return
    child.kill()
    for stream in (child.stdin, child.stdout):
        with suppress(OSError):  # what was not yet sent cannot be sent any more
            _pipe(stream).close()
    child.wait()
    log.close()


def _first_error(log: IO[bytes]) -> str:
    """The first line of llama.cpp's log: those after it only say what this one led to."""
    log.seek(0)
    lines = log.read(20_000).decode(errors="replace").splitlines()
    errors = [found[1] for line in lines if (found := LOGGED_ERROR.fullmatch(line.strip()))]
    # Without any it is Python that failed, which says most at its end.
    return " ".join((errors[:1] or lines[-1:] or [""])[0].split())[:300]


def _pipe(stream: Any) -> IO[bytes]:
    found: IO[bytes] = stream
    return found
