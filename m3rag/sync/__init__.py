"""Keeping an index true to files: what changed, what of it must be encoded, what is gone."""

from m3rag.sync.results import FileResult, IngestReport, Progress, Status
from m3rag.sync.watch import watch

__all__ = ["FileResult", "IngestReport", "Progress", "Status", "watch"]
