"""What people thought of answers, one JSON object a line."""

from __future__ import annotations

import errno
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from m3rag.server.errors import Refused

MOST_BYTES = 50_000_000


class Feedback:
    """A file that is only added to, up to a size.

    Args:
        path: The file, made with the first entry.
        most_bytes: Beyond it nothing is taken.
    """

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self._lock = threading.Lock()

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry, with the time.

        Raises:
            Refused: If the file is full, or cannot be written.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"at": at, **entry}, ensure_ascii=False).encode() + b"\n"
        try:
            with self._lock:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("ab", buffering=0) as file:
                    size = file.tell()
                    if size + len(line) > self.most_bytes:
                        raise Refused(
                            507, "there is no more room for feedback", "Move the server's feedback.jsonl away."
                        )
                    if file.write(line) != len(line):  # half a line would spoil the next
                        file.truncate(size)
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise Refused(507, f"feedback cannot be kept ({error.strerror})", "See the setting serve.data.") from None
