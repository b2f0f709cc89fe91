from __future__ import annotations

import json

import httpx
import pytest

from m3rag.scoring import LEG_SCORES, Weights, fuse
from m3rag.testing import HashEncoder

TEXTS = ["Cats purr.", "Ducks swim in ponds.", "Frogs jump.", "Ducks eat pond weed."]
QUERY = "do ducks swim"


def expected() -> list[float]:
    query, passages = HashEncoder().encode_queries([QUERY]), HashEncoder().encode_documents(TEXTS)
    return list(fuse({leg: of(query, passages)[0] for leg, of in LEG_SCORES.items()}, Weights()))


@pytest.mark.parametrize("documents", [TEXTS, [{"text": text} for text in TEXTS]])
@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
async def test_documents_in_the_order_of_the_models_own_scores(
    client: httpx.AsyncClient, documents: list[object], path: str
) -> None:
    body = {"query": QUERY, "documents": documents, "model": "any", "return_documents": True}
    results = (await client.post(path, json=body)).json()["results"]
    scores = expected()
    assert [r["index"] for r in results] == sorted(range(4), key=lambda i: -scores[i])
    assert [r["relevance_score"] for r in results] == pytest.approx(sorted(scores, reverse=True), abs=1e-6)
    assert [r["document"]["text"] for r in results] == [TEXTS[r["index"]] for r in results]


async def test_the_first_few_and_ties_by_place(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "documents": ["ducks swim"] * 3, "top_n": 2}
    results = (await client.post("/rerank", json=body)).json()["results"]
    assert [r["index"] for r in results] == [0, 1]
    assert "document" not in results[0]


async def test_teis_shape(client: httpx.AsyncClient) -> None:
    found = (await client.post("/rerank", json={"query": QUERY, "texts": TEXTS})).json()
    assert [one["index"] for one in found] == sorted(range(4), key=lambda i: -expected()[i])
    assert set(found[0]) == {"index", "score"}


async def test_what_teis_clients_send(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "texts": TEXTS, "raw_scores": False, "return_text": True, "truncate": True}
    found = (await client.post("/rerank", json={**body, "truncation_direction": "Right"})).json()
    assert [one["text"] for one in found] == [TEXTS[one["index"]] for one in found]
    found = (await client.post("/rerank", json={**body, "return_text": False})).json()
    assert set(found[0]) == {"index", "score"}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_what_coheres_clients_send(client: httpx.AsyncClient, path: str) -> None:
    body = {"query": QUERY, "documents": TEXTS, "max_tokens_per_doc": 4096, "rank_fields": ["text"], "user": "me"}
    response = await client.post(path, json={**body, "return_documents": None})
    assert "document" not in response.json()["results"][0]


@pytest.mark.parametrize(
    ("further", "told"),
    [
        ({"raw_scores": True}, "raw_scores: the scores"),
        ({"truncation_direction": "Left"}, "truncation_direction: "),
        ({"rank_fields": ["title"]}, "rank_fields.0: "),
    ],
)
async def test_what_would_be_ranked_otherwise_is_refused(
    client: httpx.AsyncClient, further: dict[str, object], told: str
) -> None:
    response = await client.post("/rerank", json={"query": QUERY, "texts": TEXTS, **further})
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith(told)


@pytest.mark.parametrize(
    "given", [{"documents": ["\ud800"]}, {"documents": [{"text": "\ud800"}]}, {"texts": ["\ud800"]}]
)
async def test_half_a_surrogate_pair_is_no_text(client: httpx.AsyncClient, given: dict[str, object]) -> None:
    content = json.dumps({"query": QUERY, "return_documents": True, **given})
    response = await client.post("/rerank", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422
    message = response.json()["error"]["message"]
    assert "surrogate" in message
    assert "[" not in message  # as pydantic names the types of a field


async def test_one_leg_alone(client: httpx.AsyncClient) -> None:
    body = {"query": "cats purr", "documents": TEXTS, "mode": "lexical"}
    results = (await client.post("/rerank", json=body)).json()["results"]
    assert results[0]["index"] == 0
    assert [r["relevance_score"] for r in results[1:]] == [0.0] * 3


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "x"}, 422),
        ({"query": "x", "documents": ["a"], "texts": ["a"]}, 422),
        ({"query": "x", "documents": []}, 422),
        ({"query": "x", "documents": ["a"], "mode": "bm25"}, 400),
        ({"query": "x", "documents": ["a"], "weights": "0/0/0"}, 400),
    ],
)
async def test_what_cannot_be_ranked(client: httpx.AsyncClient, body: dict[str, object], status: int) -> None:
    assert (await client.post("/rerank", json=body)).status_code == status
