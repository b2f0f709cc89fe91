"""The real files beside the checkout, with what a correct parse holds; absent in a published checkout."""

import json
import re
import unicodedata
from pathlib import Path

import pytest

from m3rag.errors import ReadError
from m3rag.reading import read

FILES = Path(__file__).parents[3] / "shared" / "data" / "files"
MANIFEST = FILES / "manifest.jsonl"


def squeezed(text):
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text).lower())


def real_files(*suffixes):
    if not MANIFEST.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason="the real files are not beside this checkout"))]
    entries = [json.loads(line) for line in MANIFEST.read_text(encoding="utf-8").splitlines()]
    return [pytest.param(entry, id=entry["file"]) for entry in entries if entry["file"].endswith(suffixes)]


def check(entry):
    """Read a real file and hold it to the manifest; returns the document, None after a due refusal."""
    path = FILES / entry["file"]
    if entry["must"] == "refuse":
        with pytest.raises(ReadError, match=re.escape(entry["file"])):
            read(path, root=FILES)
        return None
    document = read(path, root=FILES)
    assert document.id == entry["file"]
    for expected in entry["expect"]:
        assert squeezed(expected) in squeezed(document.text)
    assert "\0" not in document.text
    for heading in document.headings:
        assert 0 <= heading.start < heading.end <= len(document.text)
    return document
