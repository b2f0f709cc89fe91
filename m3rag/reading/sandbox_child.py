"""The process that reads files for `Sandbox`: one after the other, until its parent is gone."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from m3rag.errors import InputError, ReadError
from m3rag.reading.sandbox_wire import document_to_wire, format_from_wire, pack, receive, send, unpack

MOST_REQUEST = 1 << 20  # bytes: a path, a password
GRACE = 2.0  # seconds that a parent has to end us before the kernel does


def main() -> None:
    """Serve the parent on stdin and stdout."""
    requests_from = sys.stdin.buffer
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a parser prints must not stand between the replies.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    setup = unpack(receive(requests_from, most=MOST_REQUEST))
    from m3rag import reading  # noqa: PLC0415 - what it loads counts for the limits, not for their setting

    for one in setup["formats"]:
        reading.register(format_from_wire(one))
    limit_memory(setup["memory_bytes"])
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests_from, waiting), daemon=True).start()
    send(replies, pack({"ready": os.getpid()}))
    while True:
        request = waiting.get()
        _alarm(request["seconds"] + GRACE)
        reply = _answer(reading, request)
        message = pack(reply)
        if len(message) > request["output_bytes"]:
            reply = {"limit": "output"}
            message = pack(reply)
        send(replies, message)
        _alarm(0)
        if "limit" in reply:  # what such a file leaves in memory is the next one's shortage
            os._exit(0)


def _answer(reading: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        document = reading.read(Path(request["path"]), **request["options"])
        return {"document": document_to_wire(document)}
    except InputError as error:
        return {"input_error": str(error)}
    except ReadError as error:
        # The registry wraps whatever a parser raises.
        return {"limit": "memory"} if _for_want_of_memory(error) else {"read_error": str(error)}
    except MemoryError:
        return {"limit": "memory"}
    except Exception as error:  # noqa: BLE001 - one file must not end an ingest
        return {"read_error": f"{request['path']}: its reader failed ({type(error).__name__}: {error})"}


def _for_want_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False


def _listen(requests: BinaryIO, waiting: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Hand requests on, and end this process, whatever it is doing, when the parent is gone."""
    while True:
        try:
            waiting.put(unpack(receive(requests, most=MOST_REQUEST)))
        except (EOFError, OSError):
            os._exit(0)


def _alarm(seconds: float) -> None:
    """Have the kernel end this process: for a parser that lets no other thread run, and no parent to kill it."""
    if sys.platform != "win32":
        import signal  # noqa: PLC0415

        signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory(most: int) -> None:
    """Bound this process's memory as the system can.

    Linux: the address space (RLIMIT_AS), so that an allocation fails. macOS does not enforce that:
    a thread ends the process soon after its resident set has grown past the limit. Windows: no bound.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "darwin":
        threading.Thread(target=watch_memory, args=(most,), daemon=True).start()
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def watch_memory(most: int, *, pause: float = 0.05) -> None:
    """End this process when its resident set has exceeded `most` bytes; looks every `pause` seconds."""
    import resource  # noqa: PLC0415

    unit = 1 if sys.platform == "darwin" else 1024
    while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit <= most:
        time.sleep(pause)
    os.kill(os.getpid(), 9)
