"""How often each upload was begun and not ended, kept on disk: a file that kills the server is not tried for ever."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from m3rag.errors import InputError

log = logging.getLogger("m3rag.server")

MOST_ATTEMPTS = 3
"""So often a server may die over a file; then a person has to say that it be tried again."""


class Attempts:
    """A file beside the uploads for each that is at work, of one byte for each time it was begun.

    Args:
        folder: Where these files lie; made when the first upload is begun.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, upload: Path) -> int:
        """How often an upload was begun and not ended."""
        try:
            return self._file(upload).stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, upload: Path) -> None:
        """Count an attempt, durably: what comes next may end the machine.

        Raises:
            InputError: If it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file(upload).open("ab") as file:
                file.write(b".")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"the server cannot keep uploads ({error.strerror}): see its setting serve.data") from None

    def forgive(self, upload: Path) -> None:
        """Take back an attempt that was ended by something else than the upload."""
        try:
            count = self.of(upload)
            if count:
                os.truncate(self._file(upload), count - 1)
        except FileNotFoundError:
            pass  # it has ended meanwhile
        except OSError as error:
            log.warning("an attempt at %s counts although it was cut off: %s", upload.name, error)

    def forget(self, upload: Path) -> None:
        """Begin to count anew: the upload has ended, or is to be tried again."""
        _removed(self._file(upload))

    def keep(self, uploads: Collection[Path]) -> None:
        """Forget all uploads but these."""
        kept = {self._file(upload) for upload in uploads}
        for file in self.folder.iterdir() if self.folder.is_dir() else ():
            if file not in kept:
                _removed(file)

    def _file(self, upload: Path) -> Path:
        return self.folder / upload.parent.name


def _removed(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:  # a scanner may have it open: the next start removes it
        log.warning("%s stays for now: %s", file, error)
