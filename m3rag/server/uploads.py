"""Uploaded files on disk: each in a folder of a random name, so that no name of a client is ever a path.

`DATA/files/0f3a.../report.pdf` is the document `report.pdf`. While another file of that name is read, the
old one waits in `DATA/aside`, from where it comes back if the new one cannot be read.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from m3rag.errors import InputError
from m3rag.server.attempts import Attempts

PIECE = 1 << 20


class Uploads:
    """The files below one folder, which is made when the first is kept.

    Args:
        data: The folder.
    """

    def __init__(self, data: Path) -> None:
        self.files = (data / "files").resolve()  # as the index knows its sources
        self.aside = data.absolute() / "aside"
        self.attempts = Attempts(data.absolute() / "attempts")

    def new(self, name: str) -> Path:
        """A place for a file of this (clean) name, in a folder of its own.

        Raises:
            InputError: If the folder cannot be written.
        """
        folder = self.files / secrets.token_hex(8)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"the server cannot keep uploads ({error.strerror}): see its setting serve.data") from None
        return folder / name

    def discard(self, path: Path) -> None:
        """Remove an uploaded file; of one that is none, nothing."""
        if self.holds(path):
            shutil.rmtree(path.parent, ignore_errors=True)

    def holds(self, path: Path) -> bool:
        """Whether this is the path of an upload, there or not."""
        return path.parent.parent == self.files

    def where(self, path: Path) -> Path:
        """Where a file lies now: an upload may be set aside."""
        there = self.aside / path.parent.name / path.name
        return there if self.holds(path) and not os.path.isfile(path) and os.path.isfile(there) else path

    def named(self, name: str) -> list[Path]:
        """All uploaded files of a name."""
        return [path for path in self._all() if path.name == name]

    def set_aside(self, path: Path) -> Callable[[bool], None]:
        """Put the file that a new one may replace out of the way.

        Returns:
            What to call in the end: with True to bring it back, with False to drop it. Nothing comes of
            it where the file was gone, or set aside by another, who sees to it.
        """
        self.aside.mkdir(parents=True, exist_ok=True)
        there = self.aside / path.parent.name
        try:
            os.replace(path.parent, there)
        except FileNotFoundError:
            return lambda _back: None

        def end(back: bool) -> None:
            if back:
                os.replace(there, path.parent)
            else:
                shutil.rmtree(there, ignore_errors=True)

        return end

    def recover(self, sources: Sequence[str]) -> list[Path]:
        """Mend what a server that was killed has left.

        Args:
            sources: The files that the index was made from.

        Returns:
            Uploads that the index does not hold yet, in the order in which they came: of one name, the last wins.
        """
        known = {Path(source) for source in sources if source}
        for folder in sorted(self.aside.iterdir()) if self.aside.is_dir() else []:
            here = self.files / folder.name
            if any(path.parent == here for path in known) and not here.exists():
                os.replace(folder, here)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        found = list(self._all())
        partial = [path for path in found if path.name.endswith(PARTIAL)]
        for path in partial:
            self.discard(path)
        waiting = [(path.stat().st_mtime_ns, path) for path in found if path not in known and path not in partial]
        return [path for _, path in sorted(waiting)]

    def _all(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self.files):  # which passes over a folder that goes meanwhile
            yield from filter(self.holds, (Path(folder, name) for name in names))


PARTIAL = ".m3rag-part"
"""Ends the name of a file that is still being written."""
