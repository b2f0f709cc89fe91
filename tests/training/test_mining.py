from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3rag.collection import Collection
from m3rag.errors import ConfigurationError, InputError
from m3rag.retrieval import HybridRetriever
from m3rag.testing import HashEncoder
from m3rag.training.data import Example, load_examples
from m3rag.training.mining import MiningSettings, mine
from m3rag.training.mining_files import mine_files, own_passages, read_corpus
from m3rag.types import Chunk

TEXTS = [
    "Wild ducks swim in the old pond",
    "Ducks that swim in the old pond are wild",
    "Swans swim in the old pond",
    "The old pond was dug in 1802",
    "Geese do not swim in winter",
    "Trains leave at noon",
    "The bakery sells bread",
]
QUESTION = Example("Do wild ducks swim in the old pond?", (TEXTS[0],), ("kept",), "s")


@pytest.fixture
def retriever() -> Iterator[HybridRetriever]:
    with Collection(":memory:", encoder=HashEncoder()) as collection:
        collection.upsert(
            [Chunk(id=str(i), document_id=str(i), text=t, start=0, end=len(t)) for i, t in enumerate(TEXTS)]
        )
        yield HybridRetriever(collection.encoder, collection.store)


def mined(retriever: HybridRetriever, example: Example = QUESTION, teacher: Any = None, **options: Any) -> Example:
    settings = MiningSettings(**{"share": None, **options})
    (found,) = mine([example], retriever, settings=settings, teacher=teacher)
    return found


def test_what_the_search_finds_but_the_positive_in_its_order(retriever: HybridRetriever) -> None:
    hits = [hit.chunk.text for hit in retriever.search(QUESTION.query, k=7)]
    assert hits[0] == TEXTS[0]
    assert mined(retriever, negatives=3).negatives == tuple(hits[1:4])
    assert mined(retriever, first=3, last=5).negatives == tuple(hits[2:5])
    assert mined(retriever, negatives=2, keep=True).negatives == ("kept", *hits[1:3])


def test_what_comes_too_near_the_positive_is_left_out(retriever: HybridRetriever) -> None:
    hits = {hit.chunk.text: hit.score for hit in retriever.search(QUESTION.query, k=7)}
    best = hits[TEXTS[0]]
    for options, limit in (({"share": 0.6}, 0.6 * best), ({"margin": 0.2}, best - 0.2)):
        wanted = tuple(text for text, score in hits.items() if score <= limit)
        assert 0 < len(wanted) < 6
        assert mined(retriever, **options).negatives == wanted


@pytest.mark.parametrize("mode", ["dense", "lexical", "colbert", "dense+lexical", "all"])
def test_the_positives_score_is_that_of_the_search(retriever: HybridRetriever, mode: str) -> None:
    # Nothing scores below all of the positive's own score but what scores less: the positive is its own bound.
    hits = retriever.search(QUESTION.query, k=7, mode=mode)
    best = next(hit.score for hit in hits if hit.chunk.text == TEXTS[0])
    second = next(hit for hit in hits if hit.chunk.text != TEXTS[0])
    gap = best - second.score
    assert second.chunk.text in mined(retriever, mode=mode, margin=gap - 1e-3).negatives
    assert second.chunk.text not in mined(retriever, mode=mode, margin=gap + 1e-3).negatives


def test_nothing_that_scores_above_a_positive_without_a_word_of_the_question(retriever: HybridRetriever) -> None:
    strange = Example(QUESTION.query, ("Enten leben auf Seen.",), (), "s")
    assert mined(retriever, strange, mode="lexical", share=0.95).negatives == ()
    assert mined(retriever, strange, mode="lexical").negatives, "without a bound they are taken"


def test_other_answers_are_no_negatives(retriever: HybridRetriever) -> None:
    dated = Example("When was the old pond dug?", ("In the year 1802.",), (), "s", answers=("１８０２",))
    assert TEXTS[3] not in mined(retriever, dated).negatives
    assert TEXTS[2] in mined(retriever, dated).negatives
    part = Example("When was the old pond dug?", ("It is said THE OLD  POND was dug in 1802, by hand.",), (), "s")
    assert TEXTS[3] not in mined(retriever, part).negatives


def test_what_answers_in_another_row_of_the_question_is_no_negative(retriever: HybridRetriever, tmp_path: Path) -> None:
    apart = [{"query": QUESTION.query, "pos": [text]} for text in TEXTS[:2]]
    rows = [apart[0], *({"query": f"{text}?", "pos": [text]} for text in TEXTS[2:] * 8), apart[1]]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    mine_files(tmp_path / "a.jsonl", tmp_path / "mined.jsonl", retriever, settings=MiningSettings(share=None))
    found = [e for e in load_examples(tmp_path / "mined.jsonl") if e.query == QUESTION.query]
    assert len(found) == 2
    for example in found:
        assert example.negatives
        assert not set(TEXTS[:2]) & set(example.negatives)


def test_a_teacher_judges_and_its_scores_are_kept(retriever: HybridRetriever) -> None:
    def teacher(pairs: Any) -> Any:
        assert all(query == QUESTION.query for query, _ in pairs)
        return np.array([5.0 if "duck" in text.lower() else float(len(text)) / 10 for _, text in pairs])

    found = mined(retriever, teacher=teacher, teacher_margin=1.0)
    assert TEXTS[1] not in found.negatives
    assert found.positive_scores == (5.0,)
    assert found.negative_scores == tuple(len(text) / 10 for text in found.negatives)


def test_a_draw_is_of_the_seed_and_the_question_alone(retriever: HybridRetriever) -> None:
    options = {"random": True, "negatives": 3}
    found = mined(retriever, **options).negatives
    assert len(set(found)) == 3
    assert mined(retriever, **options).negatives == found
    assert any(mined(retriever, seed=seed, **options).negatives != found for seed in range(1, 8))


def test_settings_out_of_range_are_refused() -> None:
    for options in (
        {"negatives": 0},
        {"first": 9, "last": 8},
        {"last": 2**31},
        {"share": 1.5},
        {"mode": "bm25"},
        {"mode": "best"},
    ):
        with pytest.raises(ConfigurationError):
            MiningSettings(**options)  # type: ignore[arg-type]
    for name in ("margin", "teacher_margin"):
        for value in (float("nan"), float("inf")):
            with pytest.raises(ConfigurationError, match=f"^{name} is {value}, must be finite"):
                MiningSettings(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"whole numbers; got negatives 1\.5"):
        MiningSettings(negatives=1.5)  # type: ignore[arg-type]


def questions(folder: Path, count: int = 80) -> Path:
    folder.mkdir()
    for name in ("a", "b"):
        rows = [{"query": f"{TEXTS[i % 7]} {name} {i}?", "pos": [TEXTS[i % 7]]} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


class StoppedError(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_same_files(retriever: HybridRetriever, tmp_path: Path) -> None:
    data = questions(tmp_path / "data")
    settings = MiningSettings(negatives=2, random=True)
    report = mine_files(data, tmp_path / "whole", retriever, settings=settings)
    assert report.examples == 160
    assert report.negatives == sum(len(e.negatives) for e in load_examples(tmp_path / "whole"))
    assert [e.query for e in load_examples(tmp_path / "whole")] == [e.query for e in load_examples(data)]

    def stop(done: int, total: int) -> None:
        assert total == 160
        if done >= 110:
            raise StoppedError

    with pytest.raises(StoppedError):
        mine_files(data, tmp_path / "stopped", retriever, settings=settings, on_progress=stop)
    assert not (tmp_path / "stopped").exists()
    with (tmp_path / "stopped.mining" / "b.jsonl.part").open("ab") as part:
        part.write(b'{"query": "half a li')
    with pytest.raises(ConfigurationError, match=r"another run \(other negatives\)"):
        mine_files(data, tmp_path / "stopped", retriever, settings=MiningSettings(negatives=3, random=True))
    seen: list[int] = []
    again = mine_files(
        data, tmp_path / "stopped", retriever, settings=settings, on_progress=lambda done, _: seen.append(done)
    )
    assert again == report
    assert seen[0] > 110
    for name in ("a.jsonl", "b.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"data", "whole", "stopped"}


def test_a_stopped_run_does_not_go_on_among_other_passages(retriever: HybridRetriever, tmp_path: Path) -> None:
    data = questions(tmp_path / "data")

    def stop(done: int, total: int) -> None:
        raise StoppedError

    def put(text: str) -> None:
        chunk = Chunk(id="6", document_id="6", text=text, start=0, end=len(text))
        retriever.store.upsert([chunk], retriever.encoder.encode_documents([text]))

    with pytest.raises(StoppedError):
        mine_files(data, tmp_path / "mined", retriever, on_progress=stop)
    put("The butcher sells meat")
    with pytest.raises(ConfigurationError, match=r"another run \(other passages\)"):
        mine_files(data, tmp_path / "mined", retriever)
    put(TEXTS[6])
    assert mine_files(data, tmp_path / "mined", retriever).examples == 160


def test_another_run_does_not_write_between_the_lines(retriever: HybridRetriever, tmp_path: Path) -> None:
    data = questions(tmp_path / "data")
    refused: list[str] = []

    def begin_another(done: int, total: int) -> None:
        with pytest.raises(InputError, match="is being written by another run") as told:
            mine_files(data, tmp_path / "mined", retriever)
        refused.append(str(told.value))

    assert mine_files(data, tmp_path / "mined", retriever, on_progress=begin_another).examples == 160
    assert refused
    assert [e.query for e in load_examples(tmp_path / "mined")] == [e.query for e in load_examples(data)]
    assert {p.name for p in (tmp_path / "mined").iterdir()} == {"a.jsonl", "b.jsonl"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named(retriever: HybridRetriever, tmp_path: Path) -> None:
    data = questions(tmp_path / "data", 3)
    (tmp_path / "mined.jsonl.mining").mkdir()
    (tmp_path / "mined.jsonl.mining" / "run.json.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"run\.json\.part cannot be written .*No space left.*give another --out"):
        mine_files(data / "a.jsonl", tmp_path / "mined.jsonl", retriever)


def test_what_a_line_says_besides_is_passed_on(retriever: HybridRetriever, tmp_path: Path) -> None:
    more = {"prompt": "Ask: ", "type": "qa", "id": 7}
    row = {"query": "Who fixes cars?", "pos": ["A mechanic"], "neg_scores": [], **more}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    mine_files(tmp_path / "a.jsonl", tmp_path / "mined.jsonl", retriever)
    found = json.loads((tmp_path / "mined.jsonl").read_text(encoding="utf-8"))
    assert list(found) == ["query", "pos", "neg", "prompt", "type", "id"]
    assert {key: found[key] for key in more} == more


def test_one_file_becomes_one_file(retriever: HybridRetriever, tmp_path: Path) -> None:
    data = questions(tmp_path / "data", 3)
    out = tmp_path / "mined.jsonl"
    assert mine_files(data / "a.jsonl", out, retriever).examples == 3
    assert len(load_examples(out)) == 3
    assert not (tmp_path / "mined.jsonl.mining").exists()
    with pytest.raises(InputError, match="is there already"):
        mine_files(data / "a.jsonl", out, retriever)


def test_the_file_may_be_called_as_the_run_calls_its_own(retriever: HybridRetriever, tmp_path: Path) -> None:
    data = (questions(tmp_path / "d", 3) / "a.jsonl").rename(tmp_path / "run.json")
    assert mine_files(data, tmp_path / "mined.jsonl", retriever).examples == 3
    assert [e.query for e in load_examples(tmp_path / "mined.jsonl")] == [e.query for e in load_examples(data)]


def test_a_bad_line_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "q", "pos": ["p"]}\nno', encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        mine_files(tmp_path, tmp_path / "out", None)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*.mining"))


def test_one_file_does_not_become_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = questions(tmp_path / "data", 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty is a folder, and one file of data becomes one file"):
        mine_files(data / "a.jsonl", tmp_path / "empty", None)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match="give --out the name of a new one"):
        mine_files(data, Path(), None)  # type: ignore[arg-type]


def test_gzipped_files_become_plain_ones(retriever: HybridRetriever, tmp_path: Path) -> None:
    data = questions(tmp_path / "data", 3)
    (data / "b.jsonl.gz").write_bytes(gzip.compress((data / "b.jsonl").read_bytes()))
    (data / "b.jsonl").unlink()
    assert mine_files(data, tmp_path / "mined", retriever).examples == 6
    assert {p.name for p in (tmp_path / "mined").iterdir()} == {"a.jsonl", "b.jsonl"}
    assert [e.source for e in load_examples(tmp_path / "mined")] == ["a"] * 3 + ["b"] * 3


def test_passages_of_a_corpus_and_of_the_data(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = ['{"_id": "7", "title": "Ponds", "text": "deep"}', "", '{"text": "plain"}', '{"_id": "9", "text": " "}']
    corpus.write_text("\n".join(rows), encoding="utf-8")
    assert [(c.id, c.text) for c in read_corpus(tmp_path)] == [("7", "Ponds\ndeep"), ("3", "plain")]
    (tmp_path / "gz").mkdir()
    (tmp_path / "gz" / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
    assert [c.id for c in read_corpus(tmp_path / "gz")] == ["7", "3"]
    deep = b'{"text": ' + b"[" * 100_000
    unnamed = [f'{{"_id": {name}, "text": "a"}}'.encode() for name in ("null", "7", '""')]
    for bad in (*unnamed, b'{"text": 5}', b'{"title": "Ponds", "text": 5}', '{"text": "café"}'.encode("latin-1"), deep):
        corpus.write_bytes(bad)
        with pytest.raises(InputError, match=r"corpus\.jsonl:1"):
            list(read_corpus(corpus))
    corpus.write_text(
        '{"_id": "7", "text": "a"}\n{"_id": "8", "text": "b"}\n{"_id": "7", "text": "c"}', encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"corpus\.jsonl:3: the _id '7' is there twice"):
        list(read_corpus(corpus))
    with pytest.raises(InputError, match="is not there"):
        list(read_corpus(tmp_path / "none"))
    data = questions(tmp_path / "data", 20)
    assert sorted(chunk.text for chunk in own_passages(data)) == sorted(TEXTS)
