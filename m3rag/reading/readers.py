"""The readers to choose among: the built-in ones, or docling's for what it reads."""

from __future__ import annotations

from typing import Literal, get_args

from m3rag.errors import InputError
from m3rag.reading.formats import Format, formats_known
from m3rag.reading.sandbox import Limits, Sandbox

ReaderName = Literal["builtin", "docling"]

READERS: tuple[ReaderName, ...] = get_args(ReaderName)

# Its libraries alone take 1 GB of address space and 20 s of a slow core, its models more.
_DOCLING_LIMITS = Limits(seconds=600, memory_bytes=16 << 30)


def formats_of(reader: str = "builtin") -> tuple[Format, ...]:
    """What a reader reads, those of the built-in and registered formats that it does not replace among them.

    Args:
        reader: One of `READERS`.

    Raises:
        InputError: There is no such reader.
        ImportError: It is not installed; the message names the extra.
    """
    if reader == "builtin":
        return formats_known()
    if reader != "docling":
        raise InputError(f"there is no reader {reader!r}; readers are {', '.join(READERS)}")
    from m3rag.reading.docling import DOCLING_FORMATS, require_docling  # noqa: PLC0415 - only when asked for

    require_docling()
    names = {one.name for one in DOCLING_FORMATS}
    return (*DOCLING_FORMATS, *(one for one in formats_known() if one.name not in names))


def limits_of(reader: str = "builtin") -> Limits:
    """What reading one file by a reader may take if nothing else is said.

    Returns:
        Those of `Limits` for the built-in reader, 600 s and 16 GiB of address space for docling.
    """
    return _DOCLING_LIMITS if reader == "docling" else Limits()


def sandbox_of(reader: str = "builtin", *, limits: Limits | None = None) -> Sandbox:
    """The process that reads files by a reader.

    Args:
        reader: One of `READERS`.
        limits: What reading one file may take; `limits_of(reader)` if None.

    Raises:
        InputError, ImportError: As `formats_of`.
    """
    formats = formats_of(reader)
    # What is registered later is read too, by the built-in reader.
    return Sandbox(limits=limits or limits_of(reader), formats=None if reader == "builtin" else formats)
