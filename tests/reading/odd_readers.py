"""A reader that misbehaves as a file's text tells it, for the tests of the process that reads files."""

from __future__ import annotations

import ctypes
import os
import sys
import time

from m3rag.reading import Content


def read_odd(data: bytes) -> Content:
    what = data.decode().strip()
    if what == "sleep":
        time.sleep(600)
    elif what == "spin without other threads":
        ctypes.PyDLL(None).sleep(600)  # PyDLL holds the interpreter's lock
    elif what == "allocate":
        return Content(str(len([bytearray(1 << 24) for _ in range(4096)])))
    elif what == "segfault":
        ctypes.string_at(0)
    elif what == "exit":
        os._exit(3)
    elif what == "print":
        sys.stdout.write("noise")
        sys.stdout.flush()
        os.write(1, b"noise")
    elif what == "flood":
        return Content("word " * 400_000)
    elif what == "bug":
        raise RuntimeError("an oversight")
    return Content(what)
