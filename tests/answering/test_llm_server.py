from __future__ import annotations

import base64
import json
import threading
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMRequest, LLMServer, Reply


def post(url: str, body: dict[str, object], **headers: str) -> str:
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=10) as response:
        return response.read().decode()


def body(text: str = "hi", *, stream: bool = False) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}


def test_a_whole_reply() -> None:
    with LLMServer("Hello") as server:
        reply = json.loads(post(f"{server.base_url}/chat/completions", body()))
    assert reply["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello"},
        "finish_reason": "stop",
    }
    assert server.requests[0].prompt == "hi"


def test_a_streamed_reply_ends_with_done() -> None:
    with LLMServer("Hello world") as server:
        events = post(f"{server.base_url}/chat/completions", body(stream=True)).split("\n\n")
    assert [e.removeprefix("data: ") for e in events[-2:]] == ["[DONE]", ""]
    deltas = [json.loads(e.removeprefix("data: "))["choices"][0]["delta"] for e in events[:-2]]
    assert [d.get("content") for d in deltas] == ["Hello", " worl", "d", None]


def test_scripts_by_turn_and_by_function() -> None:
    def echo(request: LLMRequest) -> str:
        return request.prompt.upper()

    with LLMServer(["one", "two"]) as server:
        url = f"{server.base_url}/chat/completions"
        said = [json.loads(post(url, body()))["choices"][0]["message"]["content"] for _ in range(3)]
    assert said == ["one", "two", "two"]
    with LLMServer(echo) as server:
        assert "LOUD" in post(f"{server.base_url}/chat/completions", body("loud"))


@pytest.mark.parametrize(("path", "key", "status"), [("/chat/completions", "wrong", 401), ("/nowhere", "right", 404)])
def test_keys_and_paths_are_checked(path: str, key: str, status: int) -> None:
    with LLMServer("Hello", api_key="right") as server:
        with pytest.raises(HTTPError) as caught:
            post(server.base_url + path, body(), authorization=f"Bearer {key}")
        with caught.value as error:
            assert error.code == status
            assert json.loads(error.read())["error"]["code"] == status


def test_leaving_does_not_wait_for_a_slow_reply() -> None:
    started = time.monotonic()
    with LLMServer(Reply("late", delay=60)) as server:
        asking = threading.Thread(target=post, args=(f"{server.base_url}/chat/completions", body()))
        asking.start()
        while not server.requests:
            time.sleep(0.005)
    asking.join(timeout=10)
    assert not asking.is_alive()
    assert time.monotonic() - started < 10


def embeddings(server: LLMServer, texts: object, **options: object) -> list[dict[str, Any]]:
    reply = json.loads(post(f"{server.base_url}/embeddings", {"model": "m", "input": texts, **options}))
    assert (reply["object"], reply["model"]) == ("list", "m")
    return list(reply["data"])


def test_embeddings_as_numbers_and_as_bytes() -> None:
    texts = ["Ducks swim.", "Enten schwimmen."]
    expected = HashEncoder().encode_documents(texts).dense
    with LLMServer() as server:
        data = embeddings(server, texts, encoding_format="float")
        coded = embeddings(server, texts, encoding_format="base64")
        short = embeddings(server, texts[0], dimensions=5)
    assert [item["index"] for item in data] == [0, 1]
    assert np.array_equal(np.array([item["embedding"] for item in data], np.float32), expected)
    bytes_sent = b"".join(base64.b64decode(item["embedding"]) for item in coded)
    assert np.array_equal(np.frombuffer(bytes_sent, "<f4").reshape(2, -1), expected)
    assert short[0]["embedding"] == data[0]["embedding"][:5]


def test_embeddings_by_a_function_and_by_script() -> None:
    with LLMServer(embed=lambda texts: np.array([[len(text)] for text in texts])) as server:
        assert embeddings(server, ["ab", "abc"])[1]["embedding"] == [3.0]
    with LLMServer([Reply(body={"odd": 1}), Reply(body=b"<html>")]) as server:
        url = f"{server.base_url}/embeddings"
        assert json.loads(post(url, {"model": "m", "input": "a"})) == {"odd": 1}
        assert post(url, {"model": "m", "input": "a"}) == "<html>"


@pytest.mark.parametrize("texts", ["", [], ["a", ""], [1, 2]])
def test_embeddings_of_nothing_are_refused(texts: object) -> None:
    with LLMServer() as server:
        with pytest.raises(HTTPError) as caught:
            embeddings(server, texts)
        with caught.value as error:
            assert error.code == 400
            assert "empty" in json.loads(error.read())["error"]["message"]
