from __future__ import annotations

import pytest

from m3rag.chunking import Chunker
from m3rag.chunking.blocks import solid_blocks
from m3rag.testing import HashEncoder
from m3rag.types import Document

WORDS = HashEncoder().word_spans

PROSE = "Some words stand here before it. " * 6
TABLE = "name | size\n" + "".join(f"duck {i} | {i} cm\n" for i in range(8))
LIST = "".join(f"- item {i} goes on here\n  and on the next line\n" for i in range(5))
CODE = "```python\ndef swim():\n    return 1\n\n\ndef dive():\n    return 2\n```\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"before\n\n{TABLE}\nafter", [TABLE]),
        (f"before\n{LIST}\nafter", [LIST]),
        (f"before\n{CODE}after", [CODE]),
        (f"{LIST}\n{CODE}{TABLE}", [LIST, CODE, TABLE]),
        ("- one\n\n- two\n\nafter", ["- one\n\n- two\n"]),
        ("1. one\n2) two\n10. ten", ["1. one\n2) two\n10. ten"]),
        ("a\tb\nc\td", ["a\tb\nc\td"]),
        ("```\nnever closed\n\nto the end", ["```\nnever closed\n\nto the end"]),
        ("~~~\n```\n~~~\nrest", ["~~~\n```\n~~~\n"]),
        ("one | row alone\nthen prose", []),
        ("- an item alone\n\nthen prose", []),
        ("plain\n\nprose", []),
        ("", []),
    ],
)
def test_tables_lists_and_code_are_found(text, expected):
    assert [text[a:b] for a, b in solid_blocks(text)] == expected


@pytest.mark.parametrize("block", [TABLE, LIST, CODE], ids=["table", "list", "code"])
@pytest.mark.parametrize("overlap", [0, 8])
@pytest.mark.parametrize("before", range(7))
def test_what_fits_a_chunk_is_kept_whole(block, overlap, before):
    text = f"{PROSE[: 33 * before]}\n\n{block}\n{PROSE}{PROSE}"
    chunks = Chunker(chunk_tokens=64, overlap_tokens=overlap).split(Document("d", text, "h"), WORDS)
    assert any(block.strip() in chunk.text for chunk in chunks)
    assert len(chunks) > 1


def test_a_table_longer_than_a_chunk_is_cut_between_its_rows():
    text = PROSE + "\n\n" + "duck of the pond | 12 cm\n" * 60
    chunks = Chunker(chunk_tokens=32, overlap_tokens=0).split(Document("d", text, "h"), WORDS)
    rows = [chunk.text for chunk in chunks if "|" in chunk.text]
    assert len(rows) > 5
    assert all(text.startswith("duck") for text in rows[1:])  # the first begins with the prose above
    assert all(text.endswith("cm") for text in rows)
