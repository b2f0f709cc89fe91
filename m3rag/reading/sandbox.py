"""Files are parsed in a process of their own, with limits: what a bad file does there ends there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from m3rag._children import cause_of
from m3rag.errors import InputError, M3RagError, ReadError
from m3rag.reading.discover_paths import own_root
from m3rag.reading.formats import Format, formats_known
from m3rag.reading.sandbox_wire import document_from_wire, formats_to_wire, pack, receive, send, unpack
from m3rag.types import Document

START_SECONDS = 60.0

MOST = {"seconds": threading.TIMEOUT_MAX, "memory_bytes": 2**63 - 1, "output_bytes": 2**63 - 1}
"""What a timer, a limit of the system and a size can hold."""

# Isolated, so that no file of the working folder is imported; then with exactly the parent's modules.
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from m3rag.reading.sandbox_child import main; main()"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What reading one file may take.

    Attributes:
        seconds: Wall-clock time.
        memory_bytes: Memory of the reading process, its libraries (some 100 MB) included. On Linux its
            address space; on macOS its resident set, looked at 20 times a second; not bounded on Windows.
        output_bytes: Size of the document as JSON, about that of its text in UTF-8.

    Raises:
        InputError: One is not positive, or more than the system can be told.
    """

    seconds: float = 60.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 < getattr(self, name) <= MOST[name]:
                raise InputError(
                    f"the limit {name} is {getattr(self, name)}; it must be more than 0, and {MOST[name]:,.0f} at most"
                )


class Sandbox:
    """Reads files in one child process that lives on from file to file and is replaced when a file ends it.

    The child starts with the first file (some 0.2 s) and ends with `close`, or with this process, however
    that ends. Formats that were registered are read there too, so their readers must be functions of
    modules that can be imported. Usable from several threads, which take turns.

    Args:
        limits: Of each file.
        formats: What is read otherwise than `formats_known` says: a format goes before that of its name. What is
            registered by the time of a file if None.

    Examples:
        >>> with Sandbox(limits=Limits(seconds=10)) as sandbox:  # doctest: +SKIP
        ...     document = sandbox.read("report.pdf")
    """

    def __init__(self, *, limits: Limits | None = None, formats: Sequence[Format] | None = None) -> None:
        self.limits = limits or Limits()
        self._given = None if formats is None else tuple(formats)
        self._formats: tuple[Format, ...] = ()  # those the child knows
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def read(
        self,
        path: str | Path,
        *,
        root: str | Path | None = None,
        max_bytes: int | None = None,
        password: str | None = None,
    ) -> Document:
        """Read a file as `m3rag.reading.read` does, with its default for what is None.

        Raises:
            InputError: There is no such file, or it is not below `root`.
            ReadError: The file cannot be read, exceeds a limit, or ends the process that reads it; the
                message begins with the path.
        """
        absolute = Path(path).absolute()  # the child may have been started in another working folder
        base = own_root(absolute) if root is None else Path(root).absolute()
        given = {"root": str(base), "max_bytes": max_bytes, "password": password}
        options = {name: value for name, value in given.items() if value is not None}
        limits = {"seconds": self.limits.seconds, "output_bytes": self.limits.output_bytes}
        request = pack({"path": str(absolute), "options": options, **limits})
        with self._lock:
            reply = self._ask(path, request)
        if "input_error" in reply:
            raise InputError(reply["input_error"])
        if "read_error" in reply:
            raise ReadError(_as_given(reply["read_error"], path))
        if "limit" in reply:
            raise ReadError(f"{path}: {self._too_much(reply['limit'])}")
        try:
            return document_from_wire(reply["document"])
        except (KeyError, TypeError, ValueError) as error:
            raise ReadError(f"{path}: the reading process gave no document ({error}); leave the file out") from error

    def close(self) -> None:
        """End the child at once. Closing twice, or going on to read, is not an error."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, path: str | Path, request: bytes) -> dict[str, Any]:
        """The child's reply; a `limit` that was exceeded may be a reply as well."""
        late = threading.Event()
        try:
            reply = _exchange(self._living(), request, self.limits, late)
        except M3RagError:  # it could not start
            raise
        except OverflowError:
            self._stop()
            return {"limit": "output"}
        except (EOFError, OSError, ValueError) as error:
            code = self._stop(ending=True)
            if late.is_set():
                return {"limit": "seconds"}
            raise ReadError(
                f"{path}: its reader crashed ({cause_of(code)}), perhaps for want of memory "
                f"(the limit is {self.limits.memory_bytes / 1e6:,.0f} MB); repair the file or leave it out"
            ) from error
        except BaseException:  # Ctrl-C above all: the reply that may still come is nobody's
            self._stop()
            raise
        if late.is_set() or "limit" in reply:
            self._stop()
        return reply

    def _living(self) -> subprocess.Popen[bytes]:
        formats = formats_known() if self._given is None else self._given
        if self._child is not None and self._child.poll() is None and formats == self._formats:
            return self._child
        self._stop()
        if not sys.executable:
            raise ReadError("no Python to read files with: sys.executable is empty; run m3rag with a Python of its own")
        setup = pack({"formats": formats_to_wire(formats), "memory_bytes": self.limits.memory_bytes})
        search = json.dumps([entry or os.getcwd() for entry in sys.path])
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-W", "ignore", "-c", BOOT, search],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C in the terminal is for the parent, which then ends the child.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
            | getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        try:
            _exchange(self._child, setup, Limits(seconds=START_SECONDS), threading.Event())
        except (EOFError, OSError, ValueError, OverflowError) as error:
            code = self._stop(ending=True)
            # Not a ReadError: no file is to blame, and none of the others can be read either.
            raise InputError(
                f"the process that reads files could not start ({cause_of(code)}) with the limit of "
                f"{self.limits.memory_bytes / 1e6:,.0f} MB: raise the limit, or, if you have registered formats, mend "
                "what fails when the modules of their readers are imported"
            ) from error
        self._formats = formats
        return self._child

    def _stop(self, *, ending: bool = False) -> int | None:
        """End the child, if there is one; the exit status of one that was ending by itself."""
        child, self._child = self._child, None
        if child is None:
            return None
        code = None
        if ending:
            with suppress(subprocess.TimeoutExpired):
                code = child.wait(timeout=1)
        child.kill()
        for stream in (child.stdin, child.stdout):
            with suppress(OSError):  # what was not yet sent cannot be sent any more
                _stream(stream).close()
        child.wait()
        return code

    def _too_much(self, limit: str) -> str:
        limits = self.limits
        return {
            "seconds": f"took more than {limits.seconds:g} s to read: leave it out, or raise the limit (seconds)",
            "memory": f"takes more than {limits.memory_bytes / 1e6:,.0f} MB of memory to read: leave it out, or raise "
            "the limit (memory_bytes)",
            "output": f"gives more than {limits.output_bytes / 1e6:,.0f} MB of text: split it, or raise the limit "
            "(output_bytes)",
        }.get(limit, "exceeds a limit")


def _exchange(child: subprocess.Popen[bytes], request: bytes, limits: Limits, late: threading.Event) -> dict[str, Any]:
    """Send a request and wait for the reply; kill the child, and say it was late, when time is over."""

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(limits.seconds, end)
    timer.daemon = True
    timer.start()
    try:
        send(_stream(child.stdin), request)
        return unpack(receive(_stream(child.stdout), most=limits.output_bytes))
    finally:
        timer.cancel()


def _stream(stream: Any) -> BinaryIO:
    found: BinaryIO = stream
    return found


def _as_given(message: str, path: str | Path) -> str:
    """The child knows the absolute path; a person gave it another form perhaps."""
    absolute = str(Path(path).absolute())
    return f"{path}{message[len(absolute) :]}" if message.startswith(absolute) else f"{path}: {message}"
