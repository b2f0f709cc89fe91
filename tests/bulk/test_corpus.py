"""Any rows, in any files, come out of the shards as they went in; a bad row is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3rag.bulk.corpus import ROW_COST, Fields, ShardReader, find_files, plan_shards
from m3rag.errors import InputError

FIELDS = Fields(id="id", text="text")
ROWS = [
    ("a", "Ducks swim."),
    ("ü/1", "line one\nline two\u2028three\x85"),
    ("3", ""),
    ("d", "的" * 40),
    ("e", "🦆"),
    ("f", "x" * 300),
    ("g", "\x00"),
]


def write_jsonl(path: Path, rows: Sequence[tuple[Any, Any]], *, ascii: bool = False) -> Path:
    lines = [json.dumps({"other": 1, "text": text, "id": id}, ensure_ascii=ascii) for id, text in rows]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def write_parquet(path: Path, rows: Sequence[tuple[Any, Any]], *, group: int = 2) -> Path:
    table = pa.table({"other": [1] * len(rows), "text": [r[1] for r in rows], "id": [r[0] for r in rows]})
    pq.write_table(table, path, row_group_size=group)
    return path


def rows_of(files: list[Path], *, shard_bytes: int) -> list[list[tuple[str, str]]]:
    shards = plan_shards(files, FIELDS, shard_bytes=shard_bytes)
    reader = ShardReader(FIELDS)
    return [list(zip(*reader.read(shard), strict=True)) for shard in shards]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=25),
    cuts=st.lists(st.integers(0, 25), max_size=3),
    shard_bytes=st.integers(1, 400),
    kinds=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_shards_hold_all_rows_in_order_and_within_their_size(
    tmp_path: Path, texts: list[str], cuts: list[int], shard_bytes: int, kinds: list[bool]
) -> None:
    rows = [(f"id{i}", text) for i, text in enumerate(texts)]
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    files = [
        write_parquet(tmp_path / f"{i}.parquet", rows[a:b])
        if kinds[i]
        else write_jsonl(tmp_path / f"{i}.jsonl", rows[a:b])
        for i, (a, b) in enumerate(pairwise(edges))
    ]
    found = rows_of(files, shard_bytes=shard_bytes)
    assert [row for shard in found for row in shard] == rows
    for shard in found:
        size = sum(len(text.encode()) + ROW_COST for _, text in shard)
        assert size <= shard_bytes or len(shard) == 1
    whole = plan_shards([write_jsonl(tmp_path / "whole.jsonl", rows)], FIELDS, shard_bytes=shard_bytes)
    again = plan_shards(files, FIELDS, shard_bytes=shard_bytes)
    assert [shard.digest for shard in whole] == [shard.digest for shard in again]


@pytest.mark.parametrize("shard_bytes", [1, 90, 10_000])
def test_files_may_have_marks_blank_lines_and_windows_line_ends(tmp_path: Path, shard_bytes: int) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines[:3]) + b"\r\n\r\n  \n" + b"\n".join(lines[3:]).rstrip())
    assert [row for shard in rows_of([path], shard_bytes=shard_bytes) for row in shard] == ROWS


def test_ids_may_be_whole_numbers_and_texts_half_characters(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [(7, "\ud800 half")], ascii=True)
    assert rows_of([path], shard_bytes=100) == [[("7", "\ud800 half")]]


def test_no_rows_are_one_empty_shard(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    write_parquet(tmp_path / "b.parquet", [("x", "y")][:0])
    assert rows_of(find_files(tmp_path), shard_bytes=100) == [[]]


def test_files_are_found_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.parquet", "c.txt", "a.jsonl", "d.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in find_files(tmp_path)] == ["a/z.parquet", "a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "b", "tex": "t"}', r"no field 'text'; there are 'id', 'tex'"),
        (b'{"text": "t"}', r"no field 'id'"),
        (b'{"id": "b", "text": null}', r"must be a string, got None"),
        (b'{"id": "b", "text": ["t"]}', r"must be a string, got \['t'\]"),
        (b'{"id": 1.5, "text": "t"}', r"whole number, got 1.5"),
        (b'{"id": true, "text": "t"}', r"whole number, got True"),
        (b'{"id": "", "text": "t"}', r"not empty"),
        (b'{"id": "\\ud800", "text": "t"}', r"half of a UTF-16 pair"),
        (b'{"id": "b", "text": "t"', r"not JSON"),
        (b"[" * 100_000, r"not JSON"),
        (b'["b", "t"]', r"expected a JSON object, got list"),
        (b'{"id": "b", "text": "\xff"}', r"not UTF-8"),
        (b'{"id": "a", "text": "t"}', r"the id 'a' is already at .*bad\.jsonl:1; ids must be unique"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"id": "a", "text": "t"}\n\n' + line + b'\n{"id": "c", "text": "t"}\n')
    with pytest.raises(InputError, match=rf"bad\.jsonl:3: .*{message}"):
        plan_shards([path], FIELDS, shard_bytes=100)


def test_an_id_in_two_files_is_named_with_both(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", [("x", "t"), (1, "t")])
    second = write_parquet(tmp_path / "b.parquet", [("y", "t"), ("z", "t"), ("1", "t")])
    with pytest.raises(InputError, match=r"b\.parquet:3: the id '1' is already at .*a\.jsonl:2"):
        plan_shards([first, second], FIELDS, shard_bytes=100)


def test_a_bad_row_or_column_of_parquet_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [("x", "t"), ("y", "t"), ("z", None)])
    with pytest.raises(InputError, match=r"a\.parquet:3: the text 'text' must be a string, got None"):
        plan_shards([path], FIELDS, shard_bytes=100)
    with pytest.raises(InputError, match=r"a\.parquet: there is no column 'body'; there are .*'other', 'text', 'id'"):
        plan_shards([path], Fields(id="id", text="body"), shard_bytes=100)
    pq.write_table(pa.table([["x"], ["t"], ["u"]], names=["id", "text", "text"]), path)
    with pytest.raises(
        InputError, match=r"a\.parquet: there are several columns 'text'; there are \['id', 'text', 'te"
    ):
        plan_shards([path], FIELDS, shard_bytes=100)


@pytest.mark.parametrize("name", ["id", "text"])
@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_a_row_of_parquet_that_is_not_utf8_is_named(tmp_path: Path, name: str, kind: str) -> None:
    bad = pa.array([b"a", b"b", b"c\xff"], pa.binary()).cast(getattr(pa, kind)(), safe=False)
    good = pa.array(["x", "y", "z"])
    table = pa.table({"id": good, "text": good} | {name: bad})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=2)
    with pytest.raises(
        InputError, match=rf"a\.parquet:3: the column '{name}' is not UTF-8 \(invalid start byte at byte 1\)"
    ):
        plan_shards([path], FIELDS, shard_bytes=100)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"no parquet", r"a\.parquet cannot be read as Parquet"),
        ("a.txt", b"", r"a\.txt is of no known format"),
        ("a", None, "does not exist"),
        (".", None, r"no \.jsonl or \.parquet files"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        plan_shards(find_files(tmp_path / name), FIELDS, shard_bytes=100)


def test_a_file_that_changes_after_it_was_planned_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    shards = plan_shards([path], FIELDS, shard_bytes=100)
    write_jsonl(path, [(id, text.replace("x", "y")) for id, text in ROWS])
    changed = next(shard for shard in shards if any(part.number == 6 for part in shard.slices))
    with pytest.raises(InputError, match=r"a\.jsonl changed while being encoded"):
        ShardReader(FIELDS).read(changed)
