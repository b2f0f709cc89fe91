"""Every store keeps token vectors by the codec that it was made with, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m3rag.errors import ConfigurationError, StoreError
from m3rag.knowledge_base import KnowledgeBase
from m3rag.rebuild import rebuild
from m3rag.settings import Settings
from m3rag.store import QdrantEdgeStore
from m3rag.store.codec import DEFAULT_CODEC
from m3rag.store.memory import MemoryStore
from m3rag.store.place import place_of
from m3rag.store.side_legs import SideLegs
from m3rag.testing import HashEncoder
from m3rag.testing.data import MODEL, random_document, random_query
from m3rag.types import Chunk

CHUNK = Chunk(id="a", document_id="a", text="Ducks swim.", start=0, end=11)


@pytest.mark.parametrize("codec", ["float16", "int8", "int4", "binary"])
def test_chroma_scores_what_the_codec_keeps(tmp_path: Path, codec: str) -> None:
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    from m3rag.store.chroma import ChromaStore

    rng = np.random.default_rng(0)
    example, oracle = random_document(rng, "a", chunks=30), MemoryStore(MODEL, codec=codec)
    oracle.put_document(example.record, example.parts())
    ids = [chunk.id for chunk in example.chunks]
    with ChromaStore.create(tmp_path, MODEL, codec=codec) as store:
        store.put_document(example.record, example.parts())
    # The index has its own codec, whatever the opener would choose.
    with ChromaStore.open_or_create(tmp_path, MODEL, codec="float16") as store:
        assert store.manifest.codec == codec
        for _ in range(5):
            query = random_query(rng)
            assert store.score(query, "colbert", ids) == pytest.approx(oracle.score(query, "colbert", ids), abs=2e-3)
        np.testing.assert_array_equal(store.representations(ids).colbert, oracle.representations(ids).colbert)


@pytest.mark.parametrize("codec", ["float16", "int8", "int4"])
def test_a_qdrant_collection_has_the_datatype_of_its_codec(codec: str) -> None:
    client = pytest.importorskip("qdrant_client", reason="needs the extra qdrant").QdrantClient(":memory:")
    from m3rag.store import QdrantStore

    with QdrantStore.create(None, MODEL, client=client, codec=codec):
        pass
    kept = client.get_collection("m3rag").config.params.vectors["colbert"].datatype
    assert kept.value == {"float16": "float16", "int8": "turbo8", "int4": "turbo4"}[codec]
    with QdrantStore.open(None, client=client) as store:
        assert store.manifest.codec == codec


def test_what_a_store_lacks_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    client = pytest.importorskip("qdrant_client", reason="needs the extra qdrant").QdrantClient(":memory:")
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    from m3rag.store import ChromaStore, QdrantStore

    for codec in ("binary", "int3"):
        with pytest.raises(ConfigurationError, match=f"{codec!r}: choose one of float16, int8, int4"):
            QdrantStore.create(None, MODEL, client=client, codec=codec)
    with pytest.raises(ConfigurationError, match=r"int3.*binary"):
        ChromaStore.create(tmp_path / "chroma", MODEL, codec="int3")
    assert not QdrantStore.exists(None, client=client)
    assert not (tmp_path / "chroma").exists()


@pytest.mark.parametrize("place", [":memory:", "folder", "chroma:"])
def test_one_setting_names_the_codec_of_a_new_index(tmp_path: Path, place: str) -> None:
    if place == "chroma:":
        pytest.importorskip("chromadb", reason="needs the extra chroma")
    index = {":memory:": place, "folder": str(tmp_path / "i"), "chroma:": f"chroma:{tmp_path / 'i'}"}[place]
    with KnowledgeBase(index, encoder=HashEncoder(), settings=Settings(codec="int4")) as kb:
        kb.upsert([CHUNK])
        assert kb.store.manifest.codec == "int4"
        assert kb.search("Do ducks swim?")[0].scores.colbert == pytest.approx(2 / 3, abs=0.1)
    with pytest.raises(ConfigurationError, match="int3"):
        place_of(index, codec="int3")


def test_rebuild_keeps_the_codec_unless_told_otherwise(tmp_path: Path) -> None:
    with KnowledgeBase(tmp_path / "i", encoder=HashEncoder(), settings=Settings(codec="float16")) as kb:
        kb.upsert([CHUNK])
    for codec, found in ((None, "float16"), (DEFAULT_CODEC, DEFAULT_CODEC), (None, DEFAULT_CODEC)):
        rebuild(QdrantEdgeStore.open(tmp_path / "i"), HashEncoder(), codec=codec)
        with QdrantEdgeStore.open(tmp_path / "i") as store:
            assert store.manifest.codec == found


def test_a_side_file_of_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    SideLegs.create(tmp_path / "side", MODEL, {})
    legs = SideLegs(tmp_path / "side")
    legs.remember("manifest", legs.meta["manifest"].replace(f'"{DEFAULT_CODEC}"', '"int2"'))
    legs.close()
    with pytest.raises(StoreError, match=r"keeps token vectors as 'int2'.* upgrade"):
        SideLegs(tmp_path / "side")
