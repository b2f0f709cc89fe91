"""What python-dotenv logs of a `.env`: told once, with the file's name."""

from __future__ import annotations

import logging
from pathlib import Path


class _OncePerLine(logging.Filter):
    """It logs each line that it cannot read whenever settings are read, and does not say of which file."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[object] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if "could not parse" not in str(record.msg):
            return True
        line, file = record.args, Path(".env").absolute()
        record.msg = f"note: {file}: what begins in line %s is no NAME=VALUE, and is passed over"
        first = (file, line) not in self._told
        self._told.add((file, line))
        return first


_once_per_line = _OncePerLine()


def tell_lines_once() -> None:
    """Begin with it; further calls change nothing."""
    logging.getLogger("dotenv.main").addFilter(_once_per_line)
