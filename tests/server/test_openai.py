"""OpenAI's own client is served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from m3rag import KnowledgeBase
from m3rag.answering import OpenAIChat
from m3rag.answering.protocol import NO_ANSWER_TEXT
from m3rag.errors import ConfigurationError
from m3rag.server import create_app
from m3rag.server.engine import MOST_COUNTED
from m3rag.settings import ServeSettings
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMServer

from .serving import WAIT_S, Halved, base, client_of, filled, serving

QUESTION = [{"role": "user", "content": "What do ducks eat in ponds?"}]


@pytest.fixture(scope="module")
def openai_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    settings = ServeSettings.model_validate({"api_key": "key", "data": tmp_path_factory.mktemp("data")})
    with (
        serving(create_app(filled(), settings)) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="key", max_retries=0) as client,
    ):
        yield client


def test_models(openai_client: OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["m3rag", "hash"]


@pytest.mark.parametrize("name", ["m3rag", "hash"])
def test_one_model(openai_client: OpenAI, name: str) -> None:
    assert openai_client.models.retrieve(name).id == name


@pytest.mark.parametrize("name", ["gpt-5", "BAAI/bge-m3"])
def test_no_other_model(openai_client: OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.models.retrieve(name)
    assert (caught.value.code, caught.value.type) == ("model_not_found", "invalid_request_error")


async def test_the_list_of_models_is_found_with_a_slash(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models/")).json() == (await client.get("/v1/models")).json()


async def test_a_model_with_a_slash_in_its_name(monkeypatch: pytest.MonkeyPatch, kb: KnowledgeBase) -> None:
    app = create_app(kb, ServeSettings())
    monkeypatch.setattr(type(app.state.engine), "status", lambda _self: {"model": "BAAI/bge-m3"})
    async with client_of(app) as client:
        for path in ("BAAI/bge-m3", "BAAI%2Fbge-m3"):
            assert (await client.get(f"/v1/models/{path}")).json()["id"] == "BAAI/bge-m3"


def test_errors_are_told_as_the_client_knows_them(openai_client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown:
        openai_client.with_options(api_key="wrong").models.list()
    assert (unknown.value.code, unknown.value.type) == ("invalid_api_key", "authentication_error")
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        openai_client.embeddings.create(model="hash", input="x", extra_body={"m3rag": {"smell": True}})
    assert (wrong.value.param, wrong.value.type) == ("m3rag.smell", "invalid_request_error")
    assert wrong.value.body["remedy"]  # type: ignore[index]


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2, 3], [4]]])
def test_tokens_of_another_model_are_no_text(openai_client: OpenAI, tokens: list[int]) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        openai_client.embeddings.create(model="hash", input=tokens)


def test_a_wrong_key_is_the_clients_own_error(openai_client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="API key"):
        openai_client.with_options(api_key="wrong").models.list()


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_embeddings_are_those_of_the_encoder(openai_client: OpenAI, form: str | None) -> None:
    texts = ["Do ducks swim?", "鸭子"]
    found = openai_client.embeddings.create(model="hash", input=texts, encoding_format=form)  # type: ignore[call-overload]
    expected = HashEncoder().encode_documents(texts)
    for i, item in enumerate(found.data):
        vector = item.embedding
        if isinstance(vector, str):
            import base64

            vector = np.frombuffer(base64.b64decode(vector), "<f4")
        np.testing.assert_allclose(vector, expected.dense[i], atol=1e-7)
    assert found.usage.prompt_tokens == expected.offsets[-1]


def test_embeddings_as_the_client_asks_by_itself(openai_client: OpenAI) -> None:
    (item,) = openai_client.embeddings.create(model="hash", input="Ducks").data
    np.testing.assert_allclose(item.embedding, HashEncoder().encode_documents(["Ducks"]).dense[0], atol=1e-7)


def test_the_other_representations_by_the_extension(openai_client: OpenAI) -> None:
    extension = {"m3rag": {"lexical": True, "colbert": True}}
    found = openai_client.embeddings.create(
        model="hash", input=["Ducks swim"], encoding_format="float", extra_body=extension
    )
    expected = HashEncoder().encode_documents(["Ducks swim"])
    further = found.data[0].m3rag  # type: ignore[attr-defined]
    assert further["lexical"] == pytest.approx({"ducks": 0.5, "swim": 0.4})
    np.testing.assert_allclose(further["colbert"], expected.colbert, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"model": "gpt-5", "input": "x"}, openai.NotFoundError),
        ({"model": "hash", "input": "x", "dimensions": 7}, openai.BadRequestError),
        ({"model": "hash", "input": []}, openai.UnprocessableEntityError),
        ({"model": "hash", "input": ["x"] * 65, "extra_body": {"m3rag": {"colbert": True}}}, openai.BadRequestError),
    ],
)
def test_what_is_not_possible_is_said(
    openai_client: OpenAI, given: dict[str, object], error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        openai_client.embeddings.create(**given)  # type: ignore[arg-type]
    assert caught.value.body["message"]  # type: ignore[index]


def test_a_chat_is_an_answer_with_its_sources(openai_client: OpenAI) -> None:
    found = openai_client.chat.completions.create(model="m3rag", messages=QUESTION)  # type: ignore[arg-type]
    text = found.choices[0].message.content
    assert found.choices[0].finish_reason == "stop"
    assert text is not None
    assert "[1]" in text
    sources = found.m3rag  # type: ignore[attr-defined]
    assert sources["answered"] is True
    assert sources["text"] == text
    assert sources["citations"][0]["document_id"] == "ducks.txt"
    assert sources["hits"][0]["document_id"] == "ducks.txt"


def test_a_streamed_chat_is_the_same(openai_client: OpenAI) -> None:
    whole = openai_client.chat.completions.create(model="m3rag", messages=QUESTION)  # type: ignore[arg-type]
    chunks = list(openai_client.chat.completions.create(model="m3rag", messages=QUESTION, stream=True))  # type: ignore[arg-type, call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].m3rag["citations"] == whole.m3rag["citations"]  # type: ignore[attr-defined]


def tokens_of(*texts: str | None) -> int:
    return sum(len(HashEncoder().word_spans(text or "")) for text in texts)


def test_what_a_chat_used(openai_client: OpenAI) -> None:
    found = openai_client.chat.completions.create(model="m3rag", messages=QUESTION, stream=None)  # type: ignore[call-overload]
    assert found.usage.prompt_tokens == tokens_of(QUESTION[0]["content"])
    assert found.usage.completion_tokens == tokens_of(found.choices[0].message.content)
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


@pytest.mark.parametrize("wanted", [True, False])
def test_what_a_stream_used_comes_last_where_it_is_wanted(openai_client: OpenAI, wanted: bool) -> None:
    *before, last = openai_client.chat.completions.create(
        model="m3rag",
        messages=QUESTION,  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": wanted},
    )
    assert all(chunk.usage is None and chunk.choices for chunk in before)
    if not wanted:
        assert last.usage is None
        return
    text = "".join(chunk.choices[0].delta.content or "" for chunk in before)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.prompt_tokens == tokens_of(QUESTION[0]["content"])
    assert last.usage.completion_tokens == tokens_of(text)
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


async def test_without_documents_words_are_counted(tmp_path: Path) -> None:
    async with client_of(create_app(base(tmp_path), ServeSettings())) as client:
        response = await client.post("/v1/chat/completions", json={"messages": QUESTION})
    assert response.json()["usage"]["prompt_tokens"] == len(QUESTION[0]["content"].split())


async def test_a_model_that_does_not_tell_its_tokens(monkeypatch: pytest.MonkeyPatch, kb: KnowledgeBase) -> None:
    def refused(_self: object, _text: str) -> None:
        raise ConfigurationError("not known")

    app = create_app(kb, ServeSettings())
    monkeypatch.setattr(HashEncoder, "word_spans", refused)
    assert await app.state.engine.tokens("What do\nducks eat?", "") == [4, 0]


async def test_tokens_of_long_texts_are_estimated_from_a_part(
    kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    spans = HashEncoder.word_spans

    def recorded(self: HashEncoder, text: str) -> object:
        counted.append(len(text))
        return spans(self, text)

    monkeypatch.setattr(HashEncoder, "word_spans", recorded)
    engine = create_app(kb, ServeSettings()).state.engine
    assert await engine.tokens("duck " * (MOST_COUNTED // 5)) == [MOST_COUNTED // 5]
    counted.clear()
    found = await engine.tokens("duck " * 500_000, "a bird " * 100_000, "", "duck")
    assert found == pytest.approx([500_000, 200_000, 0, 1], rel=0.001)
    assert sum(counted) <= MOST_COUNTED


async def test_counting_tokens_keeps_no_thread_from_others(kb: KnowledgeBase, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, go_on = threading.Event(), threading.Event()

    def slow(_self: object, _text: str) -> list[object]:
        counting.set()
        assert go_on.wait(2 * WAIT_S)
        return []

    monkeypatch.setattr(HashEncoder, "word_spans", slow)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    app = create_app(kb, ServeSettings())
    async with client_of(app) as client:
        waiting = asyncio.create_task(app.state.engine.tokens("ducks"))
        try:
            while not counting.is_set():
                await asyncio.sleep(0.01)
            assert (await asyncio.wait_for(client.get("/api/status"), WAIT_S)).status_code == 200
        finally:
            go_on.set()
            await waiting


async def test_what_was_said_to_tools_is_passed_over() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Do ducks swim?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "quack"},
        {"role": "function", "name": "look", "content": "quack"},
        {"role": "assistant", "content": "They do."},
        {"role": "user", "content": "And eat?"},
    ]
    with LLMServer(["What do ducks eat?", "Weed [1]."]) as server, OpenAIChat("any", base_url=server.base_url) as llm:
        async with client_of(create_app(filled(llm=llm), ServeSettings())) as client:
            response = await client.post("/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 200, response.text
    assert "They do." in server.requests[0].prompt
    assert "quack" not in server.requests[0].prompt


async def test_turns_before_the_question_are_its_history() -> None:
    messages = [
        {"role": "system", "content": "Be a pirate."},
        {"role": "user", "content": "Do ducks swim?"},
        {"role": "assistant", "content": "They do."},
        {"role": "user", "content": [{"type": "text", "text": "And eat?"}]},
    ]
    body = {"messages": messages, "stream": True, "temperature": 0.7}
    script = ["What do ducks eat?", "NOT_IN_DOCUMENTS"]
    with LLMServer(script) as server, OpenAIChat("any", base_url=server.base_url) as llm:
        async with client_of(create_app(filled(llm=llm), ServeSettings())) as client:
            response = await client.post("/v1/chat/completions", json=body)
    assert "They do." in server.requests[0].prompt
    assert "pirate" not in server.requests[0].prompt
    assert NO_ANSWER_TEXT in response.text
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_language_model_that_fails(kb: KnowledgeBase, stream: bool) -> None:
    with OpenAIChat("any", base_url="http://127.0.0.1:9/v1", max_retries=0) as llm:
        async with client_of(create_app(filled(llm=llm), ServeSettings())) as client:
            response = await client.post("/v1/chat/completions", json={"messages": QUESTION, "stream": stream})
    assert response.status_code == (200 if stream else 502)
    assert '"error"' in response.text


async def test_a_question_has_an_end(client: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "ducks " * 2_000}]
    response = await client.post("/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 400
    assert "longer than" in response.json()["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_half_a_surrogate_pair_of_a_language_model_is_passed_on(stream: bool) -> None:
    async with client_of(create_app(filled(llm=Halved()), ServeSettings())) as client:
        response = await client.post("/v1/chat/completions", json={"messages": QUESTION, "stream": stream})
    assert response.status_code == 200
    assert "\\ud83d" in response.text
    assert '"error"' not in response.text


@pytest.mark.parametrize(
    "messages", [[{"role": "system", "content": "x"}], [*QUESTION, {"role": "assistant", "content": "y"}]]
)
async def test_the_last_message_must_be_a_question(client: httpx.AsyncClient, messages: list[object]) -> None:
    response = await client.post("/v1/chat/completions", json={"messages": messages})
    assert response.status_code == 400
