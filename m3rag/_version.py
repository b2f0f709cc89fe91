"""The version of m3rag, the only place that holds it."""

__version__ = "0.1.0.dev0"
