"""Where the lines of `m3rag chat` come from: a terminal with a history, or a pipe."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from m3rag.cli.console import note

PROMPT = "> "
KEPT = 1000
"""Lines that the history keeps."""

PASTE_SECONDS = 0.03
"""Lines that come faster than a hand types them are pasted, and are one question."""


def questions() -> Iterator[str]:
    """Lines without their ends, until the input does; on a terminal Ctrl-C drops the line, Ctrl-D ends."""
    if sys.stdin.isatty():
        yield from _typed()
    else:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # one bad line is no reason not to take the others
        for line in sys.stdin:
            yield line.rstrip("\r\n")


def _typed() -> Iterator[str]:
    readline = _readline()
    history = history_file()
    if readline is not None:
        _load(readline, history)
    try:
        while True:
            try:
                yield _one()
            except KeyboardInterrupt:
                note("")
            except EOFError:
                note("")
                return
    finally:
        if readline is not None:
            _save(readline, history)


def _one() -> str:
    """A line, with those that were pasted together with it."""
    # What waits before the prompt was typed ahead, line by line.
    typed_ahead = _waits(0)
    lines = [input(PROMPT)]
    while not typed_ahead and _waits(PASTE_SECONDS):
        lines.append(input())
    return "\n".join(lines)


def _waits(seconds: float) -> bool:
    if os.name == "nt":
        return False  # there select takes sockets alone
    import select

    return bool(select.select([sys.stdin], [], [], seconds)[0])


def history_file() -> Path:
    """Where the questions asked are kept, for the arrow keys."""
    from platformdirs import user_state_path

    return user_state_path("m3rag", appauthor=False) / "chat_history"


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:  # Windows has line editing of its own
        return None
    if "libedit" not in (readline.__doc__ or ""):
        # A paste of several lines is then one line to edit, and nothing is asked before Enter.
        readline.parse_and_bind("set enable-bracketed-paste on")
    return readline


def _load(readline: ModuleType, file: Path) -> None:
    readline.set_history_length(KEPT)
    readline.clear_history()
    with contextlib.suppress(OSError):  # there is none yet, or it is not ours to read
        readline.read_history_file(file)


def _save(readline: ModuleType, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        readline.write_history_file(file)
    except OSError as error:
        note(f"the history could not be kept in {file}: {error.strerror}")
