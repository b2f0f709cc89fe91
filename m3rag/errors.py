"""Every error m3rag raises on purpose. Each message names the input and the remedy."""

from __future__ import annotations


class M3RagError(Exception):
    """Base of all errors raised on purpose; catch it to show a message instead of a traceback."""


class InputError(M3RagError, ValueError):
    """An argument or a path given by the caller cannot be used."""


class ReadError(M3RagError):
    """A file could not be read as a document: damaged, encrypted, empty or of no known format."""


class ConfigurationError(M3RagError):
    """A setting is unknown, malformed or contradicts another."""


class ModelError(M3RagError):
    """A model cannot be had or is not what it claims to be."""


class StoreError(M3RagError):
    """Base of the errors about a stored index."""


class IndexMissingError(StoreError):
    """There is no index at the path."""


class IndexLockedError(StoreError):
    """Another process holds the index."""


class IndexMismatchError(StoreError):
    """The index was made by another model or by an incompatible version of m3rag."""


class LLMError(M3RagError):
    """The language model could not be reached or refused to answer."""
