"""Files in, `Document`s out: one file a format."""

from m3rag.reading.content import READING_VERSION, Content, Reader
from m3rag.reading.discover import Found, find_files
from m3rag.reading.registry import FORMATS, MAX_BYTES, SUPPORTED_SUFFIXES, Format, document_id, read

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "READING_VERSION",
    "SUPPORTED_SUFFIXES",
    "Content",
    "Format",
    "Found",
    "Reader",
    "document_id",
    "find_files",
    "read",
]
