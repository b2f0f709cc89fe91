"""Search, highlights, feedback, status, health and metrics over REST."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from m3rag import KnowledgeBase
from m3rag.encoder import M3Encoder
from m3rag.server import create_app
from m3rag.server.errors import Refused
from m3rag.server.feedback import Feedback
from m3rag.settings import ServeSettings, Settings
from m3rag.types import Chunk

from .serving import base, client_of

TEXT = "The duckling's feathers are waterproof. Ducks swim in ponds, and ducks dive."


@pytest.fixture(scope="module")
def mini() -> M3Encoder:
    return M3Encoder("mini", device="cpu")


@pytest.mark.parametrize(
    "wide",
    [
        {"$or": [{"a": n} for n in range(6_000)]},
        {"a": {"$in": list(range(10_001))}},
        {str(n): 1 for n in range(10_001)},
    ],
)
async def test_a_filter_has_an_end(client: httpx.AsyncClient, wide: dict[str, object]) -> None:
    response = await client.post("/api/search", json={"query": "ducks", "filter": wide})
    assert response.status_code == 422
    assert "ask in parts" in response.json()["error"]["message"]


@pytest.mark.parametrize("half", [{"lang": "\ud800"}, {"\ud800": 1}, {"a": {"$in": ["\udfff"]}}, {"a": {"\ud800": 1}}])
async def test_a_filter_holds_no_half_surrogate_pairs(client: httpx.AsyncClient, half: dict[str, object]) -> None:
    content = json.dumps({"query": "ducks", "filter": half})
    response = await client.post("/api/search", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert "surrogate" in response.json()["error"]["message"]


async def test_a_filter_may_name_many(client: httpx.AsyncClient) -> None:
    body = {"query": "ducks", "filter": {"document_id": {"$in": ["ducks.txt", *map(str, range(9_000))]}}}
    (hit,) = (await client.post("/api/search", json=body)).json()["hits"]
    assert hit["document_id"] == "ducks.txt"


@pytest.fixture
async def with_model(mini: M3Encoder) -> AsyncIterator[httpx.AsyncClient]:
    kb = KnowledgeBase(":memory:", settings=Settings(index="unused"), encoder=mini)
    headings = ("Birds",)
    kb.upsert([Chunk(id="c", document_id="d", text=TEXT, start=9, end=9 + len(TEXT), headings=headings)])
    async with client_of(create_app(kb, ServeSettings())) as client:
        yield client


async def test_hits_are_those_of_the_library(client: httpx.AsyncClient, kb: KnowledgeBase) -> None:
    found = (await client.post("/api/search", json={"query": "what do ducks eat", "k": 2})).json()
    expected = kb.search("what do ducks eat", k=2)
    assert [hit["chunk_id"] for hit in found["hits"]] == [hit.chunk.id for hit in expected]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in expected])
    assert found["no_hits"] is None
    first = found["hits"][0]
    assert first == {**first, "document_id": "ducks.txt", "title": "ducks.txt", "start": 0, "headings": []}
    assert set(first["scores"]) == {"dense", "lexical", "colbert", "bm25", "rerank"}
    assert "words" not in first


async def test_mode_weights_and_filter_count(client: httpx.AsyncClient) -> None:
    body = {"query": "frogs", "mode": "dense", "filter": {"document_id": ["ducks.txt"]}}
    (hit,) = (await client.post("/api/search", json=body)).json()["hits"]
    assert hit["document_id"] == "ducks.txt"
    assert hit["scores"]["lexical"] is None
    nothing = (await client.post("/api/search", json={"query": "frogs", "filter": {"year": 1999}})).json()
    assert nothing["hits"] == []
    assert nothing["no_hits"]["reason"] == "filter"
    dense = (await client.post("/api/search", json={"query": "frogs", "weights": "1/0/0"})).json()["hits"][0]
    assert dense["score"] == pytest.approx(dense["scores"]["dense"], abs=1e-6)


async def test_words_account_for_the_lexical_score(with_model: httpx.AsyncClient) -> None:
    body = {"query": "waterproof ducks", "explain": True}
    (hit,) = (await with_model.post("/api/search", json=body)).json()["hits"]
    assert sum(word["contribution"] for word in hit["words"]) == pytest.approx(hit["scores"]["lexical"], abs=2e-3)
    for word in hit["words"]:
        assert TEXT[word["start"] : word["end"]] in ("", word["text"])


async def test_highlights_are_whole_words_in_three_strengths(with_model: httpx.AsyncClient) -> None:
    found = (await with_model.post("/api/highlights", json={"query": "waterproof ducks", "chunk_id": "c"})).json()
    assert set(found) == {"lexical", "colbert"}
    for leg, marks in found.items():
        assert marks == sorted(marks), leg
        assert {strength for _, _, strength in marks} <= {1, 2, 3}
        words = [TEXT[start:end] for start, end, _ in marks]
        assert "waterproof" in words, leg
        assert all(word.strip() == word and word for word in words)
    assert max(strength for _, _, strength in found["lexical"]) == 3


async def test_many_at_once_share_forward_passes(with_model: httpx.AsyncClient, mini: M3Encoder) -> None:
    await asyncio.gather(
        *(with_model.post("/api/search", json={"query": f"ducks {n}"}) for n in range(24)),
    )
    metrics = (await with_model.get("/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(values["m3rag_encoded_texts_total"]) == 24
    assert 1 <= float(values["m3rag_forward_passes_total"]) < 24
    assert values["m3rag_documents"] == "1.0"
    assert float(values['m3rag_requests_total{method="POST",route="/api/search",status="200"}']) == 24


async def test_a_question_waits_behind_a_small_piece_of_what_others_send(
    with_model: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    encode = M3Encoder.encode_documents

    def recorded(self: M3Encoder, texts: list[str], **options: Any) -> Any:
        calls.append(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(M3Encoder, "encode_documents", recorded)
    response = await with_model.post("/v1/embeddings", json={"input": ["ducks " * 500] * 12})
    assert len(response.json()["data"]) == 12
    assert [len(texts) for texts in calls] == [5, 5, 2]


async def test_no_client_makes_new_labels(client: httpx.AsyncClient) -> None:
    for path in ("/a", "/b", "/api/jobs/1", "/api/jobs/2"):
        await client.get(path)
    await client.request("BREW", "/c")
    lines = [line for line in (await client.get("/metrics")).text.splitlines() if "m3rag_requests_total{" in line]
    assert sorted(line.partition(" ")[0] for line in lines) == [
        'm3rag_requests_total{method="GET",route="/api/jobs/{job_id}",status="404"}',
        'm3rag_requests_total{method="GET",route="other",status="404"}',
        'm3rag_requests_total{method="other",route="other",status="404"}',
    ]


async def test_status_says_what_the_server_is(client: httpx.AsyncClient) -> None:
    status = (await client.get("/api/status")).json()
    assert status == {
        **status,
        "index": ":memory:",
        "model": "hash",
        "default_mode": "all",
        "legs": ["dense", "lexical", "colbert"],
        "llm": None,
        "documents": 2,
        "chunks": 2,
        "auth": False,
        "max_upload_mb": 100.0,
    }
    assert "all" in status["modes"]


async def test_status_names_the_model_before_there_is_an_index(tmp_path: Path) -> None:
    kb = base(tmp_path)
    async with client_of(create_app(kb, ServeSettings())) as client:
        status = (await client.get("/api/status")).json()
    assert status["model"] == kb.encoder.info.name
    assert status["documents"] == 0


async def test_health_looks_at_nothing(tmp_path: Path) -> None:
    async with client_of(create_app(base(tmp_path), ServeSettings())) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/metrics")).status_code == 200
        assert not (tmp_path / "index").exists()


async def test_feedback_is_kept_a_line_each(client: httpx.AsyncClient, tmp_path: Path) -> None:
    body = {"id": "1", "question": "Wo?\n", "answer": "Hier.", "rating": "up", "comment": "鸭子"}
    for _ in range(2):
        assert (await client.post("/api/feedback", json=body)).status_code == 204
    (kept,) = tmp_path.glob("m3rag-memory-*-data/feedback.jsonl")
    lines = kept.read_text(encoding="utf-8").splitlines()
    assert [{**json.loads(line), "at": ""} for line in lines] == [{**body, "at": ""}] * 2


def test_feedback_has_no_half_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, line: Any) -> int:
            return super().write(bytes(line)[:5])

    kept = Feedback(tmp_path / "feedback.jsonl")
    kept.add({"rating": "up"})
    before = kept.path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode, buffering: Full(path, mode))
        with pytest.raises(Refused, match="cannot be kept"):
            kept.add({"rating": "down"})
    assert kept.path.read_bytes() == before


def test_feedback_has_an_end(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "feedback.jsonl", most_bytes=200)
    feedback.add({"comment": "x" * 100})
    with pytest.raises(Refused, match="room"):
        feedback.add({"comment": "x" * 100})
    assert (tmp_path / "feedback.jsonl").stat().st_size <= 200
