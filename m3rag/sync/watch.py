"""Watching files by looking at them: what works on every system, network folders and containers included."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable

from m3rag.errors import InputError
from m3rag.reading import Found

MOST_WAITS = 10
"""Looks that files which keep changing can put off a sync."""


def watch(
    find: Callable[[], Found],
    changed: Callable[[], bool],
    *,
    interval: float = 2.0,
    stop: threading.Event | None = None,
) -> None:
    """Call a function at once, and again whenever files have changed and then stayed as they were for one look.

    A change is a file that comes, goes, or has another size, time or inode. Files that change at every
    look (a log) put the call off by ten looks at most.

    Args:
        find: Gives the files to look at.
        changed: It must look at the files itself; what changes meanwhile is found by the next look. Gives
            whether it could do its work; if not, it is called again after the next look.
        interval: Seconds between two looks; > 0.
        stop: Set it to return, at once while waiting. Else this goes on until an exception, such as
            Ctrl-C's KeyboardInterrupt.

    Raises:
        InputError: The interval is not positive.
    """
    if not interval > 0:
        raise InputError(f"the interval is {interval} s; it must be more than 0, such as 2")
    stop = stop or threading.Event()
    seen = snapshot(find())
    done = seen if changed() else None
    waits = 0
    while not stop.wait(interval):
        now = snapshot(find())
        if now == done:
            waits = 0
        elif now == seen or waits >= MOST_WAITS:
            done = now if changed() else None
            waits = 0
        else:
            waits += 1
        seen = now


def snapshot(found: Found) -> bytes:
    """A digest of the files' names, sizes, times and inodes."""
    digest = hashlib.blake2b()
    for _, path in found.files:
        digest.update(os.fsencode(path))
        try:
            looked = os.stat(path)
        except OSError:  # gone since it was listed, or not to be looked at: one state of its own
            digest.update(b"\0gone\0")
            continue
        digest.update(f"\0{looked.st_size} {looked.st_mtime_ns} {looked.st_ino}\0".encode())
    return digest.digest()
