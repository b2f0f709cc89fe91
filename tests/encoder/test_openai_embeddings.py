"""OpenAIEncoder against a real HTTP server."""

from __future__ import annotations

import json
import pickle
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from m3rag._openai import NO_KEY
from m3rag.encoder.openai_embeddings import OpenAIEncoder
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMRequest, LLMServer, Reply

KEY = "sk-very-secret-0123456789"
TEXTS = ["Ducks swim on ponds.", "Les canards nagent.", "鸭子在游泳。", "half a pair \ud800", "Enten schwimmen."]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer() as running:
        yield running


def expected(texts: list[str]) -> np.ndarray:
    return HashEncoder().encode_documents(texts).dense


def inputs(server: LLMServer) -> list[list[str]]:
    return [list(request.body["input"]) for request in server.requests]


def item(index: int, vector: object) -> dict[str, object]:
    return {"object": "embedding", "index": index, "embedding": vector}


def reply(*data: dict[str, object]) -> Reply:
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Reply(body={"object": "list", "model": "m1", "data": list(data), "usage": usage})


def failure(script: Reply, texts: list[str] = TEXTS, **options: Any) -> str:
    """What is said of a server that replies so, once its dimension is known."""
    options = {"dimensions": 4, "max_retries": 0, **options}
    with LLMServer(script) as server, OpenAIEncoder("m1", base_url=server.base_url, **options) as encoder:
        with pytest.raises(ModelError) as caught:
            encoder.encode_documents(texts)
        message = str(caught.value)
        assert f"the model 'm1' at {server.base_url}" in message
        assert KEY not in message
        return message


@pytest.mark.parametrize("encoding_format", ["base64", "float"])
def test_vectors_are_those_of_the_server_in_order(server: LLMServer, encoding_format: Any) -> None:
    with OpenAIEncoder("m1", base_url=server.base_url, batch_size=2, encoding_format=encoding_format) as encoder:
        output = encoder.encode_documents(TEXTS)
        assert np.allclose(output.dense, expected(TEXTS), atol=1e-6)
        assert output.dense.dtype == np.float32
        assert (output.lexical.shape, output.colbert.shape) == ((5, 0), (0, 0))
        assert encoder.info.legs == ("dense",)
        assert np.array_equal(encoder.encode_dense(TEXTS, role="query"), output.dense)
        assert encoder.encode_queries([]).dense.shape == (0, 32)
        assert encoder.token_spans("Ducks").shape == (0, 2)
    assert {request.path for request in server.requests} == {"/v1/embeddings"}
    assert {request.body["encoding_format"] for request in server.requests} == {encoding_format}
    assert {request.body["model"] for request in server.requests} == {"m1"}


def test_a_reply_in_another_order_is_put_right() -> None:
    def backwards(request: LLMRequest) -> Reply:
        vectors = expected(request.body["input"]).tolist()
        return reply(*[item(i, vector) for i, vector in enumerate(vectors)][::-1])

    with LLMServer(backwards) as server, OpenAIEncoder("m1", base_url=server.base_url) as encoder:
        assert np.allclose(encoder.encode_documents(TEXTS).dense, expected(TEXTS), atol=1e-6)


def test_the_dimension_is_asked_for_once_and_only_when_needed(server: LLMServer) -> None:
    with OpenAIEncoder("m1", base_url=server.base_url) as encoder:
        assert (server.requests, encoder.max_length) == ([], 8192)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: encoder.info.dense_dim, range(8)))
    assert set(found) == {32}
    assert inputs(server) == [["dimension"]]


def test_dimensions_given_are_asked_of_the_server(server: LLMServer) -> None:
    with OpenAIEncoder("m1", base_url=server.base_url, dimensions=8) as encoder:
        assert encoder.info.dense_dim == 8
        dense = encoder.encode_queries(TEXTS).dense
    assert inputs(server)[0][0] == TEXTS[0]
    assert server.requests[0].body["dimensions"] == 8
    cut = expected(TEXTS)[:, :8]
    assert np.allclose(dense, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)
    with OpenAIEncoder("m1", base_url=server.base_url, dimensions=8, normalize=False) as encoder:
        assert np.allclose(encoder.encode_queries(TEXTS).dense, cut, atol=1e-6)


def test_requests_are_bounded_by_number_and_by_tokens(server: LLMServer) -> None:
    # Each text is 10 tokens, with its 2 specials 12; the long one is a request of its own.
    texts = ["one two tre for fiv six sev eig nin ten"] * 5 + ["long " * 90] + ["end"]
    done: list[int] = []
    with OpenAIEncoder("m1", base_url=server.base_url, dimensions=32, batch_size=3, batch_tokens=40) as encoder:
        dense = encoder.encode_dense(texts, role="document", progress=done.append)
    assert [len(sent) for sent in inputs(server)] == [3, 2, 1, 1] == done
    assert np.allclose(dense, expected(texts), atol=1e-6)
    server.requests.clear()
    with OpenAIEncoder("m1", base_url=server.base_url, dimensions=32, batch_tokens=25) as encoder:
        encoder.encode_documents(texts)
    assert [len(sent) for sent in inputs(server)] == [2, 2, 1, 1, 1]


def test_blank_texts_are_not_sent_and_have_no_direction(server: LLMServer) -> None:
    texts = ["", "Ducks swim.", " \n\t", "Enten"]
    done: list[int] = []
    with OpenAIEncoder("m1", base_url=server.base_url, document_instruction="passage: ") as encoder:
        dense = encoder.encode_dense(texts, role="document", progress=done.append)
        assert inputs(server) == [["dimension"], ["passage: Ducks swim.", "passage: Enten"]]
        assert np.linalg.norm(dense, axis=1) == pytest.approx([0, 1, 0, 1], abs=1e-6)
        assert sum(done) == 4
        assert encoder.encode_queries(["", " "]).dense.tolist() == [[0.0] * 32] * 2
    assert len(server.requests) == 2


def test_each_role_has_its_instruction(server: LLMServer) -> None:
    with OpenAIEncoder("m1", base_url=server.base_url, dimensions=32, query_instruction="query: ") as encoder:
        encoder.encode_queries(["Ducks"])
        encoder.encode_documents(["Ducks"])
    assert inputs(server) == [["query: Ducks"], ["Ducks"]]


def words() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def test_long_texts_are_cut_between_tokens(server: LLMServer, caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {"base_url": server.base_url, "dimensions": 32, "document_instruction": "a b "}
    with OpenAIEncoder("m1", max_length=7, tokenizer=words(), **options) as encoder:
        encoder.encode_documents(["internationalisation is long", "one two three four", "\n" * 50, "x"])
        assert encoder.word_spans("one two").tolist() == [[0, 3], [4, 7]]
    assert inputs(server) == [["a b internationalisation is long", "a b one two three", "a b x"]]
    assert "1 of 4 texts are longer than max_length=7 tokens and were cut" in caplog.text
    server.requests.clear()
    with OpenAIEncoder("m1", max_length=8, **options) as encoder:
        encoder.encode_documents(["internationalisation is long"])
    assert inputs(server) == [["a b internationalisa"]]  # estimated: four tokens of four letters


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "dimensions=None"),
        (401, "check api_key"),
        (403, "check api_key"),
        (404, "check the model's name"),
        (413, "lower batch_size or batch_tokens"),
        (422, "lower batch_size or max_length"),
        (429, "wait and ask again"),
        (500, "log of the server"),
    ],
)
def test_refusals_name_the_remedy_and_never_the_key(status: int, remedy: str) -> None:
    message = failure(Reply(f"no {KEY} here", status=status), api_key=KEY)
    assert f"answered {status}" in message
    assert "no *** here" in message
    assert remedy in message


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (Reply(body=b"<html>log in</html>"), "sent what is no list of embeddings"),
        (Reply(body={"object": "list", "data": None}), "no list of embeddings"),
        (Reply(body={"object": "list"}), "no list of embeddings"),
        (Reply(body=[1, 2]), "no list of embeddings"),
        (Reply(body={"error": "model is loading"}), "no list of embeddings"),
        (reply(), "no list of embeddings"),
        (reply(item(0, "not base64!"), item(1, [1.0] * 4)), "no list of embeddings"),
        (reply(item(0, None), item(1, [1.0] * 4)), "vectors of 4 and no dimensions"),
        (reply(item(0, [1.0] * 4)), r"sent 1 vectors \(for 1 different texts\) for 2 texts"),
        (reply(item(0, [1.0] * 4), item(0, [1.0] * 4)), r"sent 2 vectors \(for 1 different texts\)"),
        (reply(item(1, [1.0] * 4), item(2, [1.0] * 4)), "for 2 texts"),
        (reply(*[item(i, [1.0] * 4) for i in range(3)]), "sent 3 vectors"),
        (reply(item(0, [1.0] * 3), item(1, [1.0] * 3)), "vectors of 3 dimensions where one of 4 is expected"),
        (reply(item(0, [1.0] * 3), item(1, [1.0] * 4)), "vectors of 3 and 4 dimensions"),
        (reply(item(0, [[1.0] * 4] * 2), item(1, [[1.0] * 4] * 2)), r"vectors of 2x4 dimensions.*with pooling"),
    ],
)
def test_a_reply_that_is_not_what_was_asked_for_is_named(script: Reply, message: str) -> None:
    assert re.search(message, failure(script, ["a", "b"]))


def test_a_vector_that_is_no_direction_is_refused() -> None:
    script = reply(item(0, [1.0, float("nan"), 0.0, 0.0]))
    with (
        LLMServer(script) as server,
        OpenAIEncoder("m1", base_url=server.base_url, dimensions=4, encoding_format="float") as encoder,
        pytest.raises(ModelError, match=r"infinity or NaN.*or the like option of the server"),
    ):
        encoder.encode_documents(["a"])


def test_a_server_that_changes_its_dimension_is_not_the_model_it_was() -> None:
    sizes = iter([4, 4, 6])

    def changing(request: LLMRequest) -> Reply:
        size = next(sizes)
        return reply(*[item(i, [1.0] * size) for i in range(len(request.body["input"]))])

    with LLMServer(changing) as server, OpenAIEncoder("m1", base_url=server.base_url, max_retries=0) as encoder:
        assert encoder.encode_documents(["a"]).dense.tolist() == [[0.5] * 4]
        with pytest.raises(ModelError, match="vectors of 6 dimensions where one of 4"):
            encoder.encode_documents(["a"])


def test_a_rate_limit_is_tried_again() -> None:
    with LLMServer([Reply("slow down", status=429), ""]) as server:
        with OpenAIEncoder("m1", base_url=server.base_url, dimensions=32, max_retries=1) as encoder:
            assert np.allclose(encoder.encode_documents(TEXTS).dense, expected(TEXTS), atol=1e-6)
        assert len(server.requests) == 2


def test_a_server_that_is_too_slow_or_not_there() -> None:
    assert "sent nothing for 0.2 s: raise timeout" in failure(Reply(delay=5), timeout=0.2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        with (
            OpenAIEncoder("m1", base_url=url, max_retries=0) as encoder,
            pytest.raises(ModelError, match=rf"'m1' at {url} cannot be reached: start the server"),
        ):
            encoder.info  # noqa: B018


def test_a_reply_that_breaks_off_is_not_told_as_a_server_that_is_not_there() -> None:
    def half() -> None:
        with listening.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=half, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with (
            OpenAIEncoder("m1", base_url=url, max_retries=0, timeout=10) as encoder,
            pytest.raises(ModelError, match=r"broke off or sent .*complete message body.*: ask again"),
        ):
            encoder.info  # noqa: B018
        thread.join(10)


def test_keys_and_addresses_come_from_the_environment_and_are_shown_nowhere(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenAIEncoder("m1", base_url=server.base_url) as encoder:
        encoder.encode_queries(["Ducks"])
    assert server.requests[-1].headers["authorization"] == f"Bearer {NO_KEY}"
    with OpenAIEncoder("m1", base_url=server.base_url, api_key=SecretStr(KEY)) as encoder:
        encoder.encode_queries(["Ducks"])
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url.replace("http://", "http://me:hunter2@"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAIEncoder("m1") as encoder:
        encoder.encode_queries(["Ducks"])
        shown = f"{encoder!r} {encoder.info} {encoder.base_url}"
    assert repr(encoder) == f"OpenAIEncoder('m1', base_url='{server.base_url}')"
    assert KEY not in shown
    assert "hunter2" not in shown


def test_the_key_is_not_in_a_printed_traceback() -> None:
    with (
        LLMServer(Reply(f"bad {KEY}", status=401)) as server,
        OpenAIEncoder("m1", base_url=server.base_url, api_key=KEY, max_retries=0) as encoder,
        pytest.raises(ModelError) as caught,
    ):
        encoder.encode_documents(["Ducks"])
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"base_url": None}, ModelError, "no API key for 'm1': set OPENAI_API_KEY"),
        ({"model": " "}, InputError, "name is empty"),
        ({"dimensions": 0}, ConfigurationError, "dimensions must be at least 1, got 0"),
        ({"batch_size": 0}, ConfigurationError, "batch_size must be at least 1, got 0"),
        ({"batch_tokens": 0}, ConfigurationError, "batch_tokens must be at least 1, got 0"),
        ({"max_length": 2}, ConfigurationError, "max_length 2 leaves no room"),
        ({"max_length": 5, "query_instruction": "a b c "}, ConfigurationError, "an instruction of 3 tokens"),
        ({"encoding_format": "hex"}, ConfigurationError, "'hex' is unknown: choose base64 or float"),
        ({"dimensions": "4"}, ConfigurationError, "dimensions must be a whole number, got '4'"),
        ({"batch_size": 2.5}, ConfigurationError, r"batch_size must be a whole number, got 2\.5"),
        ({"batch_tokens": None}, ConfigurationError, "batch_tokens must be a whole number, got None"),
        ({"max_length": "5"}, ConfigurationError, "max_length must be a whole number, got '5'"),
        ({"query_instruction": None}, ConfigurationError, "query_instruction must be text, got None"),
        ({"timeout": "a"}, ConfigurationError, "timeout must be a number of seconds above 0, got 'a'"),
        ({"timeout": 0}, ConfigurationError, "timeout must be a number of seconds above 0, got 0"),
        ({"max_retries": -1}, ConfigurationError, "max_retries must be at least 0, got -1"),
        ({"tokenizer": 3}, InputError, "tokenizer is a int"),
        ({"tokenizer": "/no/such/file"}, ModelError, r"no tokenizer\.json"),
    ],
)
def test_what_cannot_be_done_is_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"model": "m1", "base_url": "http://127.0.0.1:1/v1", **options}
    with pytest.raises(error, match=message):
        OpenAIEncoder(given.pop("model"), **given)


def test_bad_input_is_named(server: LLMServer) -> None:
    with OpenAIEncoder("m1", base_url=server.base_url) as encoder:
        calls: list[tuple[Callable[[], object], str]] = [
            (lambda: encoder.encode_queries("Ducks"), "got one string: 'Ducks'"),
            (lambda: encoder.encode_queries(["a", 3]), "text 1 is a int"),  # type: ignore[list-item]
            (lambda: encoder.encode_dense(["a"], role="passage"), "role is 'passage'"),  # type: ignore[arg-type]
        ]
        for call, message in calls:
            with pytest.raises(InputError, match=message):
                call()
    assert server.requests == []


def test_the_fingerprint_is_that_of_what_the_numbers_depend_on() -> None:
    def fingerprint(model: str = "m1", *, port: int = 1, **options: Any) -> str:
        given = {"dimensions": 8, **options}
        with OpenAIEncoder(model, base_url=f"http://127.0.0.1:{port}/v1", **given) as encoder:
            return encoder.info.fingerprint

    own = fingerprint()
    assert fingerprint(port=2, batch_size=3, timeout=1, encoding_format="float", api_key=KEY) == own
    others = [
        fingerprint("m2"),
        fingerprint(dimensions=9),
        fingerprint(query_instruction="q: "),
        fingerprint(document_instruction="q: "),
        fingerprint(normalize=False),
        fingerprint(max_length=512),
    ]
    assert len({own, *others}) == len(others) + 1
    assert fingerprint(max_length=np.int64(512), dimensions=np.int64(8)) == others[-1]


def test_a_pickled_encoder_has_every_option_but_the_key(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"api_key": KEY, "dimensions": 8, "query_instruction": "q: ", "normalize": False}
    with OpenAIEncoder("m1", base_url=server.base_url, **options) as encoder:
        written = pickle.dumps(encoder)
        assert KEY.encode() not in written
        monkeypatch.setenv("OPENAI_API_KEY", "of another machine")
        with pickle.loads(written) as other:  # noqa: S301
            assert other.info == encoder.info
            assert np.array_equal(other.encode_queries(TEXTS).dense, encoder.encode_queries(TEXTS).dense)
    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer of another machine",
        f"Bearer {KEY}",
    ]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r'OpenAIEncoder needs the openai package: pip install "m3rag\[openai\]"'):
        OpenAIEncoder("m1", base_url="http://127.0.0.1:1/v1")


def test_what_is_sent_is_json_whatever_the_text(server: LLMServer) -> None:
    texts = ["\ud800", "\x00", "a\u2028b", "🦆" * 1000, '"\\']
    with OpenAIEncoder("m1", base_url=server.base_url) as encoder:
        assert np.isfinite(encoder.encode_documents(texts).dense).all()
    assert json.dumps(inputs(server)[1]) == json.dumps(["\ufffd", *texts[1:]])
