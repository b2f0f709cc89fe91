"""Files in, `Document`s out: one file a format."""

from m3rag.reading.content import READING_VERSION, Content, Reader
from m3rag.reading.discover import Found, find_files
from m3rag.reading.discover_paths import document_id
from m3rag.reading.discover_rules import Rules
from m3rag.reading.formats import FORMATS, SUPPORTED_SUFFIXES, Format, formats_known, register, supported_suffixes
from m3rag.reading.readers import READERS, formats_of, limits_of, sandbox_of
from m3rag.reading.registry import MAX_BYTES, parse, read
from m3rag.reading.sandbox import Limits, Sandbox

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "READERS",
    "READING_VERSION",
    "SUPPORTED_SUFFIXES",
    "Content",
    "Format",
    "Found",
    "Limits",
    "Reader",
    "Rules",
    "Sandbox",
    "document_id",
    "find_files",
    "formats_known",
    "formats_of",
    "limits_of",
    "parse",
    "read",
    "register",
    "sandbox_of",
    "supported_suffixes",
]
