"""QdrantStore passes the suite on a real server, where M3RAG_QDRANT_URL names one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import QdrantClient

from m3rag.errors import StoreError
from m3rag.output import M3Output
from m3rag.store import MemoryStore
from m3rag.store.qdrant import QdrantStore
from m3rag.testing import StoreSuite
from m3rag.testing.data import MODEL, random_document, random_query
from m3rag.types import LEGS, Chunk, ModelInfo

URL = os.environ.get("M3RAG_QDRANT_URL", "")
KEY = os.environ.get("M3RAG_QDRANT_API_KEY") or None

pytestmark = [
    pytest.mark.skipif(not URL, reason="M3RAG_QDRANT_URL names no Qdrant server (M3RAG_QDRANT_API_KEY its key)"),
    # Of a test server; the library itself lets the warning through.
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning"),
]


class Collections:
    """Each path is a collection of its own name, deleted after the test."""

    @pytest.fixture(autouse=True)
    def _collections(self) -> Iterator[None]:
        self.run = f"m3rag-test-{uuid4().hex}"
        yield
        client = QdrantClient(url=URL, api_key=KEY, timeout=60, check_compatibility=False)
        for collection in client.get_collections().collections:
            if collection.name.startswith(self.run):
                client.delete_collection(collection.name)
        client.close()

    def name(self, path: Path) -> str:
        return f"{self.run}-{path.name}".replace(" ", "-")

    def created(self, path: Path, model: ModelInfo = MODEL, *, grpc: bool = False) -> QdrantStore:
        return QdrantStore.create(URL, model, collection=self.name(path), api_key=KEY, prefer_grpc=grpc)

    def opened(self, path: Path, model: ModelInfo = MODEL) -> QdrantStore:
        return QdrantStore.open(URL, model, collection=self.name(path), api_key=KEY)


class TestQdrantServer(Collections, StoreSuite):
    persistent = True
    second_handle = "shared"

    def make_store(self, path: Path, model: ModelInfo) -> QdrantStore:
        return self.created(path, model)

    def reopen_store(self, path: Path, model: ModelInfo) -> QdrantStore:
        return self.opened(path, model)


class TestQdrantServerOverGrpc(Collections, StoreSuite):
    """The protocol that `prefer_grpc` chooses; needs the port 6334 beside the url's."""

    persistent = True
    second_handle = "shared"

    @pytest.fixture(autouse=True)
    def _only_where_asked(self) -> None:
        if not os.environ.get("M3RAG_QDRANT_GRPC"):
            pytest.skip("M3RAG_QDRANT_GRPC does not say that the server's gRPC port can be reached")

    def make_store(self, path: Path, model: ModelInfo) -> QdrantStore:
        return self.created(path, model, grpc=True)

    def reopen_store(self, path: Path, model: ModelInfo) -> QdrantStore:
        return self.opened(path, model)


class TestClients(Collections):
    def test_readers_see_whole_versions_while_others_write(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        versions = [random_document(rng, "a.md", chunks=6, version=f"v{i}") for i in range(20)]
        whole = [{chunk.id for chunk in version.chunks} for version in versions]
        self.created(tmp_path).put_document(versions[0].record, versions[0].parts())
        done = threading.Event()

        def write(some: Sequence[int]) -> None:
            with self.opened(tmp_path) as store:
                for i in some:
                    store.put_document(versions[i].record, versions[i].parts())

        def read() -> None:
            with self.opened(tmp_path) as store:
                while not done.is_set():
                    found = {id_ for id_, _ in store.candidates(random_query(rng), "dense", k=99)}
                    assert sum(bool(found & version) for version in whole) == 1

        with ThreadPoolExecutor(4) as pool:
            reader = pool.submit(read)
            writers = [pool.submit(write, range(first, 20, 2)) for first in (1, 2)]
            try:
                for writer in writers:
                    writer.result()
            finally:
                done.set()
            reader.result()
        with self.opened(tmp_path) as store:
            assert store.count() == 6
            assert store.info.points == 3 + 1 + 6

    def test_a_graph_and_indexes_change_no_score(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        example = random_document(rng, "a.md", chunks=2_000)
        oracle = MemoryStore(MODEL)
        with self.created(tmp_path) as store:
            store.index_range("year")
            store.index_range("score")
            for one in (store, oracle):
                one.put_document(example.record, example.parts(size=500))
            for leg in LEGS:
                query = random_query(rng)
                narrow = {"year": {"$gte": 2002}, "score": {"$lt": 300}}
                found = store.candidates(query, leg, k=50, filter=narrow)
                assert dict(found) == pytest.approx(oracle.score(query, leg, [id_ for id_, _ in found]), abs=2e-3)
            assert store.count(filter=narrow) == oracle.count(filter=narrow)

    def test_a_chunk_of_the_most_token_vectors(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        model = ModelInfo("wide", "wide-1", dense_dim=24, vocab_size=500, colbert_dim=1024)
        example = random_document(rng, "a.md", chunks=1, model=model)
        vectors = rng.standard_normal((1023, 1024)).astype(np.float16)
        output = M3Output(example.output.dense, example.output.lexical, vectors, np.array([0, 1023]))
        chunks: tuple[Chunk, ...] = example.chunks
        with self.created(tmp_path, model) as store:
            store.put_document(example.record, [(chunks, output)])
            assert np.array_equal(store.representations([chunks[0].id]).colbert, vectors)

    def test_a_wrong_key_is_refused_without_being_shown(self, tmp_path: Path) -> None:
        if KEY is None:
            pytest.skip("M3RAG_QDRANT_API_KEY is not set, so the server may take any key")
        with pytest.raises(StoreError, match="refused the api key") as told:
            QdrantStore.open(URL, MODEL, api_key="wrong-key")
        assert "wrong-key" not in str(told.value)
