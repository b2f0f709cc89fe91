"""The SQLite file of a side store: its tables."""

from __future__ import annotations

from typing import ClassVar

from m3rag.store.side_legs_filter import SCHEMA as POSTINGS_SCHEMA
from m3rag.store.sqlite_file import SqliteFile

SCHEMA = (
    """
CREATE TABLE documents (id TEXT PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE chunks (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    document_id TEXT NOT NULL,
    live INTEGER NOT NULL,
    UNIQUE (id, live)
);
CREATE INDEX chunks_by_document ON chunks (document_id, live);
CREATE INDEX chunks_staged ON chunks (row) WHERE live = 0;
CREATE TABLE legs (
    row INTEGER PRIMARY KEY,
    payload TEXT NOT NULL,
    dense BLOB NOT NULL,
    lexical BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    colbert BLOB NOT NULL,
    colbert_checksum INTEGER NOT NULL
);
CREATE TABLE marked (id TEXT PRIMARY KEY);
"""
    + POSTINGS_SCHEMA
)


class SideFile(SqliteFile):
    """The file in which a side store keeps all it knows."""

    schema: ClassVar[str] = SCHEMA
    remedy: ClassVar[str] = (
        "restore it together with the Chroma collection from a backup, or delete both and ingest again"
    )
