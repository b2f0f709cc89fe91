from importlib import import_module
from pathlib import Path

import pytest

from m3rag.errors import InputError
from m3rag.reading import docling, formats_known, supported_suffixes
from m3rag.reading.formats import Format
from m3rag.reading.readers import READERS, formats_of, sandbox_of
from m3rag.reading.sandbox import Limits, Sandbox


def test_the_built_in_reader_is_what_is_known():
    assert formats_of("builtin") == formats_known()
    assert sandbox_of().limits == Limits()


def test_a_reader_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(InputError, match=f"no reader 'dockling'; readers are {', '.join(READERS)}"):
        sandbox_of("dockling")


def test_without_docling_the_extra_is_named_before_any_file(monkeypatch):
    monkeypatch.setattr(docling, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'pip install "m3rag\[docling\]"') as caught:
        sandbox_of("docling")
    assert caught.value.name == "docling"


def test_docling_reads_its_formats_and_images_and_leaves_the_others(monkeypatch):
    monkeypatch.setattr(docling, "find_spec", lambda _: object())
    found = {one.name: one for one in formats_of("docling")}
    assert found["PDF"].reader is docling.read_pdf
    assert found["Markdown"] in formats_known()
    assert len(found) == len(formats_of("docling")) == len(formats_known()) + 1
    added = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
    assert supported_suffixes(formats_of("docling")) == supported_suffixes() | added
    assert sandbox_of("docling", limits=Limits(seconds=7)).limits.seconds == 7
    assert sandbox_of("docling").limits.memory_bytes > Limits().memory_bytes


def test_a_sandbox_reads_by_the_formats_it_was_given(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    reader = import_module("odd_readers").read_odd
    path = tmp_path / "a.md"
    path.write_text("# Ducks  ", encoding="utf-8")
    with Sandbox(formats=[Format("Markdown", (".md",), reader)]) as given, Sandbox() as usual:
        assert given.read(path).headings == ()
        assert [h.text for h in usual.read(path).headings] == ["Ducks"]
        path.with_suffix(".html").write_text("<h1>Duck", encoding="utf-8")
        assert given.read(path.with_suffix(".html")).text == "Duck"
