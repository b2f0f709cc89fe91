"""StoreSuite: what any store must pass, as a class of pytest tests to inherit."""

from __future__ import annotations

from m3rag.testing.store_chunks import StoreChunkTests
from m3rag.testing.store_documents import StoreDocumentTests
from m3rag.testing.store_filters import StoreFilterTests
from m3rag.testing.store_machine import StoreMachineTests
from m3rag.testing.store_search import StoreSearchTests


class StoreSuite(StoreDocumentTests, StoreChunkTests, StoreSearchTests, StoreFilterTests, StoreMachineTests):
    """Tests of the contract in `m3rag.store.protocol`, against `MemoryStore` as the oracle.

    Inherit from it in a test module, in a class whose name starts with `Test`, and implement
    `make_store`. A store that outlives its process also sets `persistent` and implements
    `reopen_store`; `make_store` and `reopen_store` get the same path. What a second handle on an
    open store does is told by `second_handle`: it is `"refused"`, or `"shared"`. It needs pytest and
    hypothesis.

    Examples:
        >>> class TestMyStore(StoreSuite):  # doctest: +SKIP
        ...     def make_store(self, path, model):
        ...         return MyStore.create(path, model)
    """
