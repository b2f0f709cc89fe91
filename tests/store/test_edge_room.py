"""A disk that gets full fails a write with its remedy; the engine alone would end the process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from m3rag.errors import StoreError
from m3rag.store.qdrant_edge import QdrantEdgeStore
from m3rag.testing.data import MODEL, random_document


def test_a_full_disk_is_said_and_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    first, second = random_document(rng, "a", chunks=3), random_document(rng, "b", chunks=3)
    with QdrantEdgeStore.create(tmp_path / "index", MODEL) as store:
        store.put_document(first.record, first.parts())
        with monkeypatch.context() as full:
            full.setattr("m3rag.store.edge_folder.shutil.disk_usage", lambda _: SimpleNamespace(free=5_000_000))
            with pytest.raises(StoreError, match=r"index has only 5 MB left.* free 134 MB"):
                store.put_document(second.record, second.parts())
            with pytest.raises(StoreError, match="only 5 MB left"):
                QdrantEdgeStore.create(tmp_path / "other", MODEL)
        assert not (tmp_path / "other").exists()
        assert [record.id for record in store.documents()] == ["a"]
        store.put_document(second.record, second.parts())
        assert store.count() == 6


@pytest.mark.parametrize(
    "said", ["Out of memory, free: 20199686144, IO Error: Cannot allocate memory (os error 12)", "x (os error 24)"]
)
def test_a_machine_at_its_limits_is_not_called_a_damaged_index(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    QdrantEdgeStore.create(tmp_path / "index", MODEL).close()
    with monkeypatch.context() as full:
        full.setattr("qdrant_edge.EdgeShard", SimpleNamespace(load=Mock(side_effect=RuntimeError(said))))
        with pytest.raises(StoreError, match="it is as it was: close other programs") as caught:
            QdrantEdgeStore.open(tmp_path / "index")
    assert "delete" not in str(caught.value)
    QdrantEdgeStore.open(tmp_path / "index").close()
