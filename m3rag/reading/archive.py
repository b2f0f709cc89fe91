"""ZIP containers: their directory is checked before anything is inflated, and nothing inflates beyond it."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO

from m3rag.errors import ReadError

MAX_ENTRIES = 20_000
MAX_INFLATED = 1 << 30
MAX_READ = 64 << 20
MAX_RATIO = 200
SMALL = 8 << 20  # inflated bytes at which no ratio is a danger
CHUNK = 1 << 16

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_DIRECTORY_ENTRY = b"PK\x01\x02"
_DRIVE = re.compile(r"[A-Za-z]:")
_ENCRYPTED = 0x1
# zipfile inflates the other methods (bzip2, LZMA) without a bound, and no document format uses them.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """A ZIP file in memory whose directory holds no more than it should.

    Names are relative, with `/`; they are found whatever their case, as Office does. Limits: 20,000
    entries, 1 GiB inflated in all, 200 inflated bytes for each stored one beyond 8 MiB.
    """

    def __init__(self, data: bytes) -> None:
        """Check the directory.

        Args:
            data: The whole file.

        Raises:
            ReadError: The file is no ZIP or damaged, has encrypted entries, names that lead out of
                it or stand twice, or would inflate beyond the limits.
        """
        self._zip = _open(data)
        self._entries = _checked(self._zip.infolist(), len(data))
        self._folded = {name.casefold(): name for name in self._entries}

    @property
    def names(self) -> tuple[str, ...]:
        """All entries, in the directory's order."""
        return tuple(self._entries)

    def find(self, name: str) -> str | None:
        """The entry of that name, if need be in another case; None where there is none."""
        return name if name in self._entries else self._folded.get(name.casefold())

    def size(self, name: str) -> int:
        """Inflated bytes of an entry as stated; 0 where there is none."""
        found = self.find(name)
        return self._entries[found].file_size if found is not None else 0

    def chunks(self, name: str) -> Iterator[bytes]:
        """Inflate an entry piece by piece.

        Args:
            name: The entry.

        Yields:
            At most 64 KiB each, in all exactly the stated size.

        Raises:
            ReadError: There is no such entry, or it is damaged: its checksum or size is not as stated.
        """
        found = self.find(name)
        if found is None:
            raise ReadError(f"is damaged: its part {name} is missing; save it again with the program that made it")
        entry, done = self._entries[found], 0
        try:
            with self._zip.open(entry) as stream:
                while piece := stream.read(CHUNK):
                    done += len(piece)
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
            raise _damaged(f"{name}: {error}") from error
        if done != entry.file_size:
            raise _damaged(f"{name} has {done:,} bytes, {entry.file_size:,} are stated")

    def read(self, name: str, *, limit: int = MAX_READ) -> bytes:
        """Inflate an entry at once.

        Args:
            name: The entry.
            limit: Largest inflated size in bytes.

        Raises:
            ReadError: As for `chunks`, and for an entry beyond the limit.
        """
        if self.size(name) > limit:
            raise ReadError(
                f"is too large: its part {name} inflates to {self.size(name):,} bytes, the limit is {limit:,}; split it"
            )
        return b"".join(self.chunks(name))


def _open(data: bytes) -> zipfile.ZipFile:
    if data.startswith(_OLE):
        if _OLE_ENCRYPTED in data:
            raise ReadError("is encrypted and needs a password: save a copy without one")
        raise ReadError(
            "is a document of Office 97-2003, whatever its name says, or encrypted with a password: "
            "save it as .docx, .pptx or .xlsx, without a password"
        )
    # Counted before zipfile makes an object of each.
    if data.count(_DIRECTORY_ENTRY) > MAX_ENTRIES:
        raise ReadError(f"has more than {MAX_ENTRIES:,} entries, as no document has; unpack it and give its files")
    try:
        return zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        why = "its end is missing, as of a broken download" if data.startswith(b"PK\x03\x04") else str(error)
        raise _damaged(why) from error


def _checked(entries: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = _safe_name(entry.orig_filename)
        if entry.flag_bits & _ENCRYPTED:
            raise ReadError(f"is encrypted and needs a password (its entry {name}): save a copy without one")
        if entry.compress_type not in _METHODS:
            raise ReadError(f"packs {name} by method {entry.compress_type}, which no document uses; pack it by deflate")
        if entry.file_size > max(SMALL, MAX_RATIO * entry.compress_size):
            raise _bomb(f"{name} inflates from {entry.compress_size:,} to {entry.file_size:,} bytes")
        if name in found:
            raise ReadError(
                f"has two entries of the name {name}, and programs differ in which they show; pack it again"
            )
        found[name] = entry
    inflated = sum(entry.file_size for entry in entries)
    if inflated > MAX_INFLATED or inflated > max(SMALL, MAX_RATIO * size):
        raise _bomb(f"{size:,} bytes inflate to {inflated:,}")
    return found


def _safe_name(stored: str) -> str:
    name = stored.replace("\\", "/")
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/") or "\0" in name:
        raise ReadError(
            f"has an entry that leads out of it ({stored!r}): not opened; pack it again with relative names"
        )
    return name


def _damaged(why: str) -> ReadError:
    return ReadError(f"is a damaged ZIP archive or office document ({why}): fetch or export it again")


def _bomb(why: str) -> ReadError:
    return ReadError(f"is packed like a decompression bomb ({why}): not opened; save it again, or unpack it yourself")
