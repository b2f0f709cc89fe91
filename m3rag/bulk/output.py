"""Shards of encoded texts: `M3Output` to Parquet and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from m3rag.bulk.arrow import pyarrow, reading
from m3rag.bulk.manifest import EncodedManifest, replacing
from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.types import ModelInfo

COLUMNS = ("id", "dense", "lexical_ids", "lexical_weights", "tokens", "colbert")
DIGEST = b"m3rag.shard"
TOKEN_VECTORS = np.dtype("<f2")


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` (from 0) of a folder lies; names sort in order."""
    return folder / f"part-{number:06d}.parquet"


def write_shard(path: Path, ids: Sequence[str], output: M3Output, *, digest: str) -> None:
    """Write a shard wholly or not at all.

    Token vectors are one binary value a text: as nested lists they take 5 times as long to write and
    10 times as long to read. They do not compress.

    Args:
        path: A file; one that is there is replaced.
        ids: One a text of `output`.
        output: Its token vectors are stored as float16.
        digest: Of the rows the shard was made from.

    Raises:
        InputError: If the file cannot be written.
    """
    table = _to_table(ids, output).replace_schema_metadata({DIGEST: digest})
    try:
        with replacing(path) as partial:
            pyarrow().parquet.write_table(
                table,
                partial,
                compression={"id": "zstd", "lexical_ids.list.element": "zstd", "tokens": "zstd"},
                use_dictionary=False,
                write_statistics=["id"],
                write_page_checksum=True,
            )
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error


def is_finished(path: Path, *, rows: int, digest: str) -> bool:
    """Whether a shard is there with these rows; a damaged or foreign file is as good as none."""
    arrow = pyarrow()
    try:
        found = arrow.parquet.read_metadata(path)
    except (OSError, arrow.ArrowException):
        return False
    return found.num_rows == rows and (found.metadata or {}).get(DIGEST) == digest.encode()


def read_encoded(folder: Path | str) -> Iterator[tuple[list[str], M3Output]]:
    """Read what `encode_corpus` wrote, a shard at a time.

    Args:
        folder: A finished job's output.

    Yields:
        The ids of some texts and their representations, in the order of the input.

    Raises:
        InputError: If the job is unfinished, or a file is damaged or missing; the file is named.
        ImportError: If pyarrow is not installed.
    """
    folder = Path(folder)
    manifest = EncodedManifest.read(folder)
    paths = [shard_path(folder, number) for number in range(len(manifest.shard_rows))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{folder} is unfinished: {len(missing)} of {len(paths)} shards are missing ({missing[0]} first); "
            f"run the same m3rag encode again to finish it"
        )
    for path, rows in zip(paths, manifest.shard_rows, strict=True):
        with reading(path, remedy="delete it and run the same m3rag encode again"):
            table = pyarrow().parquet.read_table(path, page_checksum_verification=True)
        if table.num_rows != rows or tuple(table.schema.names) != COLUMNS:
            raise InputError(f"{path} is no shard of this folder: delete it and run the same m3rag encode again")
        yield table.column("id").to_pylist(), _from_table(table, manifest.model)


def _to_table(ids: Sequence[str], output: M3Output) -> Any:
    pa = pyarrow()
    lexical, starts = output.lexical, pa.array(output.lexical.indptr, pa.int32())
    vectors = np.ascontiguousarray(output.colbert, TOKEN_VECTORS)
    ends = output.offsets * vectors.itemsize * vectors.shape[1]
    columns = (
        pa.array(ids, pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(output.dense.reshape(-1)), output.dense.shape[1]),
        pa.ListArray.from_arrays(starts, pa.array(lexical.indices, pa.int32())),
        pa.ListArray.from_arrays(starts, pa.array(lexical.data, pa.float32())),
        pa.array(np.diff(output.offsets), pa.int32()),
        pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(ids), [None, pa.py_buffer(ends.astype(np.int64)), pa.py_buffer(vectors)]
        ),
    )
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


def _from_table(table: Any, model: ModelInfo) -> M3Output:
    dense, indices, weights, tokens, colbert = (table.column(name).combine_chunks() for name in COLUMNS[1:])
    vectors = np.frombuffer(colbert.buffers()[2] or b"", TOKEN_VECTORS)
    starts = indices.offsets.to_numpy()
    return M3Output(
        dense=dense.flatten().to_numpy().reshape(len(table), model.dense_dim),
        lexical=csr_array(
            (weights.flatten().to_numpy(), indices.flatten().to_numpy(), starts), shape=(len(table), model.vocab_size)
        ),
        colbert=vectors.reshape(-1, model.colbert_dim),
        offsets=np.concatenate([[0], np.cumsum(tokens.to_numpy())]).astype(np.int64),
    )
