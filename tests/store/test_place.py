"""One setting names where an index lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m3rag.errors import ConfigurationError, IndexMissingError
from m3rag.store.place import place_of
from m3rag.testing.data import MODEL, random_document


@pytest.mark.parametrize("kind", ["", "chroma:"])
def test_an_index_on_this_machine(tmp_path: Path, kind: str) -> None:
    if kind:
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    place = place_of(f"{kind}{tmp_path / 'i'}")
    assert not place.exists()
    with pytest.raises(IndexMissingError, match=str(tmp_path)):
        place.open()
    example = random_document(np.random.default_rng(0), "a.md", chunks=3)
    store = place.open_or_create(MODEL)
    store.put_document(example.record, example.parts())
    store.close()
    assert place.exists()
    assert place.folder == tmp_path / "i"
    again = place.open_or_create(MODEL)
    assert again.count() == 3
    again.close()


def test_a_missing_index_is_told_as_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = f"{tmp_path / 'sp ace'}"
    with pytest.raises(IndexMissingError) as told:
        place_of("sp ace").open()
    assert str(told.value) == f"there is no index at {folder}: make one with m3rag ingest PATH --index '{folder}'"
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with pytest.raises(IndexMissingError) as told:
        place_of("chroma:sp ace").open()
    assert str(told.value) == (
        "there is no index at chroma:sp ace: make one with m3rag ingest PATH --index 'chroma:sp ace'"
    )


def test_what_an_address_names() -> None:
    qdrant = place_of("https://db.example.org:6333/handbook", api_key="secret-key")
    assert (qdrant._where, qdrant._options, qdrant.folder) == (
        "https://db.example.org:6333",
        {"collection": "handbook"},
        None,
    )
    assert "secret-key" not in f"{qdrant!r} {qdrant}"
    assert place_of("http://localhost:6333")._options == {"collection": "m3rag"}
    chroma = place_of("chroma+http://localhost:8000/papers?side=/data/side")
    assert (chroma._where, chroma._options) == (
        "http://localhost:8000",
        {"collection": "papers", "side": Path("/data/side")},
    )
    assert place_of("chroma:db?collection=other")._options == {"collection": "other"}
    assert place_of(chroma) is chroma


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-this-name/index", "chroma:a\0b"])
def test_what_no_folder_can_be_called_is_told(name: str) -> None:
    with pytest.raises(ConfigurationError, match="the index cannot be at "):
        place_of(name)


def test_a_folder_may_have_any_name() -> None:
    for name in ("m3rag-index", "C:\\Users\\me\\index", "a b/ü", "http", "chroma"):
        place = place_of(name)
        assert (place.folder, place.name) == (Path(name).absolute(), name)
    assert place_of("~/index").folder == Path("~/index").expanduser()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ftp://host/x", "http://HOST:6333/COLLECTION"),
        ("http://", "malformed"),
        ("http://host/a/b", "malformed"),
        ("http://host/a?x=1", "unknown option 'x'"),
        ("http://me:pw@host/a", "M3RAG_INDEX_API_KEY"),
        ("chroma:", "names no folder"),
        (" ", "the index is empty"),
        ("chroma:x?size=3", "unknown option 'size'; there is collection"),
        ("chroma+http://host/a", "side=FOLDER"),
    ],
)
def test_a_malformed_address_is_refused(address: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        place_of(address)
    assert "pw" not in str(refused.value)


def test_a_key_may_be_shown_to_its_own_server_alone() -> None:
    here, beside = place_of("https://db.example.org:6333/a"), place_of("https://db.example.org:6333/b")
    assert beside.shares_server(here)
    for other in ("http://db.example.org:6333/a", "https://db.example.org:6334/a", "https://else.example.org:6333/a"):
        assert not place_of(other).shares_server(here)
    assert not place_of("folder").shares_server(place_of("folder"))
