"""The texts of a bulk job: JSONL and Parquet files, cut into shards that any process can read again."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from m3rag.bulk.arrow import pyarrow, reading
from m3rag.errors import InputError

FORMATS = (".jsonl", ".parquet")
ROW_COST = 16
"""What a row adds to a shard beside its text, in bytes of text: its dense vector is about as large."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a file calls the id and the text of a row."""

    id: str
    text: str


class Row(NamedTuple):
    """A text, its id, and where it stands: line or row `number` (from 1) of `path`.

    `group` and `start` let a reader begin here: the byte in a JSONL file (`group` is 0), the row group
    and the row in it in a Parquet file.
    """

    path: Path
    number: int
    group: int
    start: int
    id: str
    text: str

    @property
    def place(self) -> str:
        """File and line, for people."""
        return f"{self.path}:{self.number}"


@dataclass(frozen=True, slots=True)
class Slice:
    """`rows` consecutive rows of one file, of one row group where there are such; begins as `Row` says."""

    path: Path
    number: int
    group: int
    start: int
    rows: int


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows that one output file will hold, and the SHA-256 (hex) of their ids and texts."""

    slices: tuple[Slice, ...]
    rows: int
    digest: str


def find_files(source: Path) -> list[Path]:
    """The `.jsonl` and `.parquet` files of a path, in order of their names.

    Raises:
        InputError: If there is none.
    """
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix in FORMATS and path.is_file())
        if not found:
            raise InputError(f"there are no {' or '.join(FORMATS)} files in {source}")
        return found
    if not source.is_file():
        raise InputError(f"{source} does not exist: give a {' or '.join(FORMATS)} file, or a folder of them")
    if source.suffix not in FORMATS:
        raise InputError(f"{source} is of no known format: give a {' or '.join(FORMATS)} file, or a folder of them")
    return [source]


def plan_shards(files: Iterable[Path], fields: Fields, *, shard_bytes: int) -> list[Shard]:
    """Read and check all rows once, and cut them into shards.

    The plan depends on the rows alone, not on how they are spread over files. Holds every id in memory
    (about 100 bytes each).

    Args:
        files: In the order in which their rows shall come out.
        fields: What the files call id and text.
        shard_bytes: A shard ends when its texts (UTF-8) would exceed this; one that is longer alone is
            a shard of its own.

    Returns:
        At least one shard; without rows it is an empty one.

    Raises:
        InputError: If a row has no usable id or text, or an id comes twice; file and line are named.
    """
    files = list(files)
    shards: list[Shard] = []
    building = _Builder()
    seen: set[str] = set()
    for row in read_rows(files, fields):
        if row.id in seen:
            first = next(earlier for earlier in read_rows(files, fields) if earlier.id == row.id)
            raise InputError(f"{row.place}: the id {row.id!r} is already at {first.place}; ids must be unique")
        seen.add(row.id)
        cost = len(row.text.encode("utf-8", "surrogatepass")) + ROW_COST
        if building.rows and building.cost + cost > shard_bytes:
            shards.append(building.finish())
            building = _Builder()
        building.add(row, cost)
    if building.rows or not shards:
        shards.append(building.finish())
    return shards


def read_rows(files: Iterable[Path], fields: Fields) -> Iterator[Row]:
    """All rows of all files, checked, in order.

    Raises:
        InputError: As `plan_shards`.
    """
    for path in files:
        yield from _parquet_rows(path, fields) if path.suffix == ".parquet" else _jsonl_rows(path, fields)


class ShardReader:
    """Reads planned shards again, in any process.

    Keeps the row group that it read last, since the next shard mostly lies in it too.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._group: tuple[Path, int] | None = None
        self._table: Any = None

    def read(self, shard: Shard) -> tuple[list[str], list[str]]:
        """The ids and the texts of a shard.

        Raises:
            InputError: If a file is no longer what it was when the shard was planned.
        """
        rows = [row for part in shard.slices for row in self._rows(part)]
        digest = hashlib.sha256()
        for row in rows:
            digest.update(_digested(row))
        if digest.hexdigest() != shard.digest:
            names = ", ".join(sorted({str(part.path) for part in shard.slices}))
            raise InputError(f"{names} changed while being encoded: start again when it no longer does")
        return [row.id for row in rows], [row.text for row in rows]

    def _rows(self, part: Slice) -> Iterator[Row]:
        if part.path.suffix != ".parquet":
            return islice(_jsonl_rows(part.path, self._fields, number=part.number, start=part.start), part.rows)
        if self._group != (part.path, part.group):
            with _open(part.path) as file:
                self._table = file.read_row_group(part.group, columns=[self._fields.id, self._fields.text])
            self._group = part.path, part.group
        return _table_rows(self._table.slice(part.start, part.rows), part, self._fields)


class _Builder:
    """A shard in the making."""

    def __init__(self) -> None:
        self.rows, self.cost = 0, 0
        self._slices: list[Slice] = []
        self._digest = hashlib.sha256()

    def add(self, row: Row, cost: int) -> None:
        last = self._slices[-1] if self._slices else None
        if last is not None and (last.path, last.group) == (row.path, row.group):
            self._slices[-1] = Slice(last.path, last.number, last.group, last.start, last.rows + 1)
        else:
            self._slices.append(Slice(row.path, row.number, row.group, row.start, 1))
        self.rows += 1
        self.cost += cost
        self._digest.update(_digested(row))

    def finish(self) -> Shard:
        return Shard(tuple(self._slices), self.rows, self._digest.hexdigest())


def _digested(row: Row) -> bytes:
    # JSON, so that no text can look like the end of an id.
    return json.dumps([row.id, row.text]).encode()


def _jsonl_rows(path: Path, fields: Fields, *, number: int = 1, start: int = 0) -> Iterator[Row]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    with file:
        file.seek(start)
        for line in file:
            text = line.removeprefix(codecs.BOM_UTF8) if start == 0 else line
            if text.strip():
                yield Row(path, number, 0, start, *_json_fields(text, f"{path}:{number}", fields))
            number += 1
            start += len(line)


def _json_fields(line: bytes, place: str, fields: Fields) -> tuple[str, str]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{place}: expected a JSON object, got {type(record).__name__}")
    for name in (fields.id, fields.text):
        if name not in record:
            raise InputError(f"{place}: there is no field {name!r}; there are {', '.join(map(repr, record)) or 'none'}")
    return _checked(place, fields, record[fields.id], record[fields.text])


def _parquet_rows(path: Path, fields: Fields) -> Iterator[Row]:
    with _open(path) as file:
        for name in (fields.id, fields.text):
            names = file.schema_arrow.names
            if names.count(name) != 1:
                wrong = "are several columns" if name in names else "is no column"
                raise InputError(f"{path}: there {wrong} {name!r}; there are {names}")
        number = 1
        for group in range(file.num_row_groups):
            start = 0
            for batch in file.iter_batches(batch_size=1024, row_groups=[group], columns=[fields.id, fields.text]):
                yield from _table_rows(batch, Slice(path, number, group, start, batch.num_rows), fields)
                number += batch.num_rows
                start += batch.num_rows


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    with reading(path, remedy="give an undamaged file"), pyarrow().parquet.ParquetFile(path) as file:
        yield file


def _table_rows(table: Any, part: Slice, fields: Fields) -> Iterator[Row]:
    ids, texts = (_values(table.column(name), name, part) for name in (fields.id, fields.text))
    for i, (id, text) in enumerate(zip(ids, texts, strict=True)):
        number = part.number + i
        yield Row(part.path, number, part.group, part.start + i, *_checked(f"{part.path}:{number}", fields, id, text))


def _values(column: Any, name: str, part: Slice) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # of which row, only the rows one by one tell
        for number, value in enumerate(column, part.number):
            try:
                value.as_py()
            except UnicodeDecodeError as error:
                told = f"not UTF-8 ({error.reason} at byte {error.start})"
                raise InputError(f"{part.path}:{number}: the column {name!r} is {told}") from None
        raise
    return values


def _checked(place: str, fields: Fields, id: object, text: object) -> tuple[str, str]:
    """An id as a string, and the text."""
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise InputError(
            f"{place}: the id {fields.id!r} must be a string that is not empty, or a whole number, got {id!r:.60}"
        )
    if not isinstance(text, str):
        raise InputError(f"{place}: the text {fields.text!r} must be a string, got {text!r:.60}")
    try:
        str(id).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{place}: the id {id!r:.60} holds half of a UTF-16 pair, which is no character") from None
    return str(id), text
