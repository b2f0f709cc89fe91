"""Labelled questions: files, and what they mean in an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from m3rag.errors import InputError
from m3rag.evaluation.labelled import (
    Judgements,
    LabelledQuestion,
    Relevant,
    distinct,
    judgements,
    load_labelled,
    unit_of,
)
from m3rag.store.memory import MemoryStore
from m3rag.store.protocol import DocumentRecord
from m3rag.testing import HashEncoder
from m3rag.types import Chunk


def written(folder: Path, *records: Any) -> Path:
    path = folder / "labelled.jsonl"
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return path


def beir(folder: Path, split: str, *rows: tuple[str, str, int]) -> Path:
    (folder / "qrels").mkdir(exist_ok=True)
    for name, texts in (
        ("corpus", {"d1": "Ducks swim.", "d2": "Geese fly."}),
        ("queries", {"q1": "Ducks?", "q2": "?"}),
    ):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    lines = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t{gain}" for q, d, gain in rows)]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"query": "Wo schwimmen Enten?", "relevant": ["enten.md"]},
        {"id": "x", "query": "鸭", "relevant": [{"id": "b.pdf", "page": 3, "gain": 2}, {"id": "c"}], "note": "ignored"},
    )
    assert load_labelled(path) == [
        LabelledQuestion("line-1", "Wo schwimmen Enten?", (Relevant("enten.md"),)),
        LabelledQuestion("x", "鸭", (Relevant("b.pdf", 3, 2), Relevant("c"))),
    ]


def test_a_beir_folder(tmp_path: Path) -> None:
    folder = beir(tmp_path, "train", ("q1", "d2", 2), ("q1", "d1", 0), ("q2", "d1", 0))
    assert load_labelled(folder) == [LabelledQuestion("q1", "Ducks?", (Relevant("d2", gain=2),))]
    with pytest.raises(InputError, match=r"dev\.tsv is missing; the splits there are: train"):
        load_labelled(folder, split="dev")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"relevant": ["a"]}, "'query' must be a string"),
        ({"query": " ", "relevant": ["a"]}, "the query is empty"),
        ({"query": "q"}, "'relevant' must be a list"),
        ({"query": "q", "relevant": []}, "leave out a question"),
        ({"query": "q", "relevant": "a"}, "'relevant' must be a list"),
        ({"query": "q", "relevant": [7]}, "an id or an object"),
        ({"query": "q", "relevant": [{"document": "a"}]}, "an id or an object"),
        ({"query": "q", "relevant": [{"page": 1}]}, "'id' must be a string"),
        ({"query": "q", "relevant": [{"id": "a", "page": 0}]}, "'page' must be a whole number"),
        ({"query": "q", "relevant": [{"id": "a", "page": True}]}, "'page' must be a whole number"),
        ({"query": "q", "relevant": [{"id": "a", "gain": 0.5}]}, "'gain' must be a whole number"),
        ({"query": "q", "relevant": ["a"], "id": 7}, "'id' must be a string"),
        (["q"], "expected a JSON object"),
    ],
)
def test_what_is_malformed_is_named_with_its_line(tmp_path: Path, record: Any, message: str) -> None:
    path = written(tmp_path, {"query": "fine", "relevant": ["a"]}, record)
    with pytest.raises(InputError, match=message) as error:
        load_labelled(path)
    assert f"{path}:2" in str(error.value)


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        load_labelled(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="holds no question"):
        load_labelled(tmp_path / "empty.jsonl")


def test_one_text_is_one_question() -> None:
    asked = [
        LabelledQuestion("1", "a?", (Relevant("x"), Relevant("y", gain=3))),
        LabelledQuestion("2", "b?", (Relevant("x"),)),
        LabelledQuestion("3", "a?", (Relevant("y"), Relevant("z", 2))),
    ]
    first, second = distinct(asked)
    assert (first.id, second) == ("1", asked[1])
    assert set(first.relevant) == {Relevant("x"), Relevant("y", gain=3), Relevant("z", 2)}
    assert asked[0].relevant == (Relevant("x"), Relevant("y", gain=3))


@pytest.fixture
def store() -> MemoryStore:
    """A document of four pages in three chunks: pages 1, 2 to 3, 4; and one without pages."""
    encoder = HashEncoder()
    store = MemoryStore(encoder.info)
    spans = [("p#0", 0, 10, 1), ("p#1", 10, 30, 2), ("p#2", 30, 40, 4)]
    chunks = [Chunk(id=i, document_id="p", text="x" * (e - s), start=s, end=e, page=page) for i, s, e, page in spans]
    record = DocumentRecord(id="p", title="", version="1", chunks=3, page_starts=(0, 10, 20, 30))
    store.put_document(record, [(chunks, encoder.encode_documents([c.text for c in chunks]))])
    plain = Chunk(id="t#0", document_id="t", text="ducks", start=0, end=5)
    record = DocumentRecord(id="t", title="", version="1", chunks=1)
    store.put_document(record, [([plain], encoder.encode_documents(["ducks"]))])
    return store


def judged(store: MemoryStore, *relevant: Relevant) -> Judgements:
    return judgements(LabelledQuestion("q", "?", relevant), store)


def test_what_labels_mean_in_an_index(store: MemoryStore) -> None:
    assert judged(store, Relevant("p"), Relevant("t", gain=2)) == Judgements("document", {("p", 0): 1, ("t", 0): 2}, ())
    assert judged(store, Relevant("p#1"), Relevant("t#0")) == Judgements("chunk", {("p#1", 0): 1, ("t#0", 0): 1}, ())
    assert judged(store, Relevant("p", 1), Relevant("p", 4)).gains == {("p", 1): 1, ("p", 4): 1}
    across = judged(store, Relevant("p", 3))
    assert across.gains == {("p", 2): 1}, "page 3 stands in the chunk that begins on page 2"
    for level, unit in (("document", ("p", 0)), ("page", ("p", 2)), ("chunk", ("p#1", 0))):
        assert unit_of(store.get(["p#1"])[0], level) == unit  # type: ignore[arg-type]


def test_what_is_not_in_the_index_is_told(store: MemoryStore) -> None:
    found = judged(store, Relevant("p", 5), Relevant("t", 1), Relevant("nothing"), Relevant("p", 1))
    assert found == Judgements("page", {("p", 1): 1}, ("p page 5", "t page 1", "nothing"))
    assert judged(store, Relevant("p#9")).gains == {}


def test_two_kinds_of_things_are_refused(store: MemoryStore) -> None:
    with pytest.raises(InputError, match="calls chunks and documents relevant"):
        judged(store, Relevant("p"), Relevant("t#0"))
