"""What is read from the file of a side store: rows as chunks, records and representations."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csc_array, vstack

from m3rag.store.payload import Payload, record_from_payload
from m3rag.store.protocol import DocumentRecord
from m3rag.store.side_legs_file import SideFile
from m3rag.store.side_legs_rows import Packed, checksum, unpack_dense, unpack_lexical
from m3rag.store.sqlite_file import groups
from m3rag.store.token_rows import check_codes
from m3rag.store.view import Segment
from m3rag.types import ModelInfo

LOADED = 4096  # chunks whose bytes are held twice while a file is opened


def load_segment(connection: sqlite3.Connection, model: ModelInfo, file: SideFile, *, live: bool) -> Segment:
    """The chunks that are there, or those that are staged, as one segment.

    Raises:
        StoreError: If a checksum does not hold.
    """
    cursor = connection.execute(
        "SELECT row, id, payload, dense, lexical, checksum FROM chunks JOIN legs USING (row) WHERE live = ? "
        "ORDER BY row",
        (int(live),),
    )
    rows: list[int] = []
    ids: list[str] = []
    dense = [np.zeros((0, model.dense_dim), np.float32)]
    lexical = [unpack_lexical([], model)]
    while block := cursor.fetchmany(LOADED):
        for _, id_, payload, vector, weights, expected in block:
            if checksum(payload.encode(), vector, weights) != expected:
                raise file.damaged(f"chunk {id_!r} is not what was written")
        rows += [one[0] for one in block]
        ids += [one[1] for one in block]
        dense.append(unpack_dense([one[3] for one in block], model))
        lexical.append(unpack_lexical([one[4] for one in block], model))
    stacked = lexical[0] if len(lexical) == 1 else vstack(lexical, format="csr")
    return Segment.of(np.array(rows, np.int64), ids, np.concatenate(dense), csc_array(stacked.tocsc()))


def find_record(connection: sqlite3.Connection, document_id: str) -> DocumentRecord | None:
    """One document's record."""
    found = connection.execute("SELECT payload FROM documents WHERE id = ?", (document_id,)).fetchone()
    return record_from_payload(json.loads(found[0])) if found else None


def all_records(connection: sqlite3.Connection) -> list[DocumentRecord]:
    """The records of all documents, ordered by id."""
    found = (record_from_payload(json.loads(one)) for (one,) in connection.execute("SELECT payload FROM documents"))
    return sorted(found, key=lambda record: record.id)


def payloads_of(connection: sqlite3.Connection, rows: Sequence[int]) -> dict[int, Payload]:
    """The payloads of some chunks, by row."""
    found = {}
    for group in groups(rows):
        marks = ", ".join("?" * len(group))
        cursor = connection.execute(f"SELECT row, payload FROM legs WHERE row IN ({marks})", group)
        found.update({row: json.loads(payload) for row, payload in cursor})
    return found


def packed_of(connection: sqlite3.Connection, rows: Sequence[int], file: SideFile) -> dict[int, Packed]:
    """The representations of some chunks, by row.

    Raises:
        StoreError: If a checksum does not hold.
    """
    found = {}
    for group in groups(rows):
        marks = ", ".join("?" * len(group))
        asked = f"SELECT row, dense, lexical, colbert, colbert_checksum FROM legs WHERE row IN ({marks})"
        for row, dense, lexical, colbert, expected in connection.execute(asked, group):
            check_codes(row, colbert, expected, file)
            found[row] = Packed(dense, lexical, colbert)
    return found
