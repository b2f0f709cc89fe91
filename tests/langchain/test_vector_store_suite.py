"""LangChain's own suites, over every kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from langchain_core.indexing.base import DocumentIndex
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from langchain_tests.integration_tests.indexer import AsyncDocumentIndexTestSuite, DocumentIndexerTestSuite

from m3rag.collection import Collection
from m3rag.langchain import M3DocumentIndex, M3VectorStore
from m3rag.store.place import Place
from m3rag.testing import HashEncoder

PLACES = ["memory", "edge", "chroma", "qdrant"]

IndexAt = Callable[[str], str | Path | Place]


class TestForeignDense(VectorStoreIntegrationTests):
    """The suite's own embeddings, which give the dense leg alone."""

    @pytest.fixture(params=PLACES)
    def vectorstore(self, request: pytest.FixtureRequest, index_at: IndexAt) -> Iterator[VectorStore]:
        with M3VectorStore(self.get_embeddings(), index=index_at(request.param)) as store:
            yield store


class TestAllLegs(VectorStoreIntegrationTests):
    """A model of all three legs, in the default mode."""

    @pytest.fixture(params=PLACES)
    def vectorstore(self, request: pytest.FixtureRequest, index_at: IndexAt) -> Iterator[VectorStore]:
        with Collection(index_at(request.param), encoder=HashEncoder()) as collection:
            yield M3VectorStore(collection=collection)


@pytest.mark.filterwarnings("ignore:.*is in beta")
class TestDocumentIndex(DocumentIndexerTestSuite):
    @pytest.fixture(params=PLACES)
    def index(self, request: pytest.FixtureRequest, index_at: IndexAt) -> Iterator[DocumentIndex]:
        with Collection(index_at(request.param), encoder=HashEncoder()) as collection:
            yield M3DocumentIndex(collection=collection)


@pytest.mark.filterwarnings("ignore:.*is in beta")
class TestAsyncDocumentIndex(AsyncDocumentIndexTestSuite):
    @pytest.fixture(params=PLACES)
    async def index(self, request: pytest.FixtureRequest, index_at: IndexAt) -> AsyncIterator[DocumentIndex]:
        with Collection(index_at(request.param), encoder=HashEncoder()) as collection:
            yield M3DocumentIndex(collection=collection)
