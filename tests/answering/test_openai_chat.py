from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from m3rag._openai import NO_KEY
from m3rag.answering.openai_chat import OpenAIChat
from m3rag.answering.protocol import Message
from m3rag.errors import LLMError
from m3rag.testing.llm_server import LLMServer, Reply

KEY = "sk-very-secret-0123456789"
ASK = [Message("system", "Be brief."), Message("user", "Capital of France?")]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer("Paris is the capital [1].") as running:
        yield running


def failure(script: str | Reply, **options: object) -> str:
    with LLMServer(script) as server, OpenAIChat("m1", base_url=server.base_url, max_retries=0, **options) as llm:
        with pytest.raises(LLMError) as caught:
            llm.complete(ASK)
        message = str(caught.value)
        assert "'m1'" in message
        assert server.base_url in message
        assert KEY not in message
        return message


def test_a_reply_comes_in_pieces(server: LLMServer) -> None:
    with OpenAIChat("m1", base_url=server.base_url) as llm:
        pieces = list(llm.stream(ASK))
        assert len(pieces) > 1
        assert "".join(pieces) == llm.complete(ASK) == "Paris is the capital [1]."
        assert llm.name == "m1"


def test_what_is_sent(server: LLMServer) -> None:
    with OpenAIChat("m1", base_url=server.base_url, temperature=0.5, max_tokens=77, api_key=SecretStr(KEY)) as llm:
        llm.complete(ASK)
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "m1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Capital of France?"},
        ],
        "stream": True,
        "max_tokens": 77,
        "temperature": 0.5,
    }


def test_a_local_server_needs_no_key_and_may_choose_the_temperature(server: LLMServer) -> None:
    with OpenAIChat("m1", base_url=server.base_url, temperature=None) as llm:
        llm.complete(ASK)
    assert server.requests[0].headers["authorization"] == f"Bearer {NO_KEY}"
    assert "temperature" not in server.requests[0].body


def test_the_environment_is_used_where_nothing_is_given(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAIChat("m1") as llm:
        llm.complete(ASK)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_neither_key_nor_address_is_an_error() -> None:
    with pytest.raises(LLMError, match=r"no API key for 'm1': set OPENAI_API_KEY"):
        OpenAIChat("m1")


def test_openai_itself_gets_the_new_name_of_max_tokens() -> None:
    with OpenAIChat("m1", api_key=KEY, max_tokens=9) as llm:
        request = llm._request(ASK)
    assert request["max_completion_tokens"] == 9
    assert "max_tokens" not in request


def test_nothing_shows_the_key_or_a_password_in_the_address() -> None:
    with OpenAIChat("m1", base_url="http://me:hunter2@127.0.0.1:1/v1", api_key=KEY) as llm:
        assert repr(llm) == "OpenAIChat(model='m1', base_url='http://127.0.0.1:1/v1')"
        assert "hunter2" not in llm.base_url


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "temperature=None"),
        (401, "check api_key"),
        (403, "check api_key"),
        (404, "check the model's name"),
        (429, "wait and ask again"),
        (500, "log of the server"),
    ],
)
def test_refusals_name_the_remedy_and_never_the_key(status: int, remedy: str) -> None:
    message = failure(Reply(f"no {KEY} here", status=status), api_key=KEY)
    assert f"answered {status}" in message
    assert "no *** here" in message
    assert remedy in message


def test_the_key_is_not_in_a_printed_traceback() -> None:
    with (
        LLMServer(Reply(f"bad {KEY}", status=401)) as server,
        OpenAIChat("m1", base_url=server.base_url, api_key=KEY, max_retries=0) as llm,
        pytest.raises(LLMError) as caught,
    ):
        llm.complete(ASK)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        with (
            OpenAIChat("m1", base_url=url, max_retries=0) as llm,
            pytest.raises(LLMError, match=rf"'m1' at {url} cannot be reached: start the server, or check base_url"),
        ):
            llm.complete(ASK)


def test_a_server_that_is_too_slow() -> None:
    assert "sent nothing for 0.2 s: raise timeout" in failure(Reply("late", delay=5), timeout=0.2)
    assert "sent nothing for 0.2 s: raise timeout" in failure(Reply("late and slow", pause=5), timeout=0.2)


def test_a_connection_that_breaks_in_the_middle_is_an_error_after_the_pieces() -> None:
    with LLMServer(Reply("Paris is the capital", break_after=2)) as server:
        with OpenAIChat("m1", base_url=server.base_url, max_retries=0) as llm:
            stream = llm.stream(ASK)
            assert next(stream) + next(stream) == "Paris is t"
            with pytest.raises(LLMError, match=r"'m1' at http://127\.0\.0\.1:\d+/v1 broke off .*ask again"):
                next(stream)
        assert len(server.requests) == 1


def test_a_stream_that_ends_without_a_reason_is_an_error() -> None:
    assert "broke off in the middle" in failure(Reply("Paris is", finish_reason=None))


def sent(*chunks: object) -> Reply:
    """A stream of chunks just as they are."""
    return Reply(body="".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode())


def piece(content: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": content}}]}


STOP: dict[str, object] = {"choices": [{"index": 0, "finish_reason": "stop"}]}


def test_what_a_server_leaves_out_of_its_chunks_is_nothing() -> None:
    with (
        LLMServer(sent({"choices": None}, piece("Paris"), {"usage": {}}, piece(None), STOP)) as server,
        OpenAIChat("m1", base_url=server.base_url) as llm,
    ):
        assert llm.complete(ASK) == "Paris"


@pytest.mark.parametrize("chunk", [piece(["Paris"]), piece(5), [1], "Paris", None, {"choices": 5}])
def test_chunks_of_another_form_are_an_error(chunk: object) -> None:
    assert "sent what is no chat completion" in failure(sent(chunk, STOP))


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", {"error": {"message": "no model m1"}}])
def test_what_is_no_stream_at_all_is_an_error(body: object) -> None:
    assert "sent no streamed chat completion: check that base_url ends in /v1" in failure(Reply(body=body))


def test_lone_surrogates_are_neither_sent_nor_given_out_and_pairs_are_joined() -> None:
    with (
        LLMServer(sent(piece("\ud83e"), piece("\udd86 \ud800"), piece("!\ud800"), STOP)) as server,
        OpenAIChat("m1", base_url=server.base_url) as llm,
    ):
        assert llm.complete([Message("user", "\udcff?")]) == "\U0001f986 \ufffd!\ufffd"
        assert server.requests[0].prompt == "\ufffd?"


def test_a_reply_cut_short_is_an_error() -> None:
    assert "at 5 tokens: raise max_tokens" in failure(Reply("Paris is", finish_reason="length"), max_tokens=5)
    assert "content filter" in failure(Reply("Paris", finish_reason="content_filter"))


def test_a_rate_limit_is_tried_again() -> None:
    with LLMServer([Reply("slow down", status=429), "Paris"]) as server:
        with OpenAIChat("m1", base_url=server.base_url, max_retries=1) as llm:
            assert llm.complete(ASK) == "Paris"
        assert len(server.requests) == 2


def test_a_stream_may_be_left_in_the_middle(server: LLMServer) -> None:
    with OpenAIChat("m1", base_url=server.base_url) as llm:
        stream = llm.stream(ASK)
        next(stream)
        stream.close()
        assert llm.complete(ASK) == "Paris is the capital [1]."


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r'pip install "m3rag\[openai\]"'):
        OpenAIChat("m1", base_url="http://127.0.0.1:1/v1")


def test_importing_the_names_loads_nothing_heavy() -> None:
    code = (
        "import sys, m3rag.answering as a; a.OpenAIChat, a.Generative, a.Extractive; "
        "print(sorted({'openai', 'torch', 'pydantic'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("address", ["localhost:1/v1", "http://", "http://[::1", "http://h:99999/v1", "ftp://h", " "])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(LLMError, match=r"'m1'.*is none: give base_url"):
        OpenAIChat("m1", base_url=address)


def test_what_may_be_secret_in_an_address_is_not_shown() -> None:
    with pytest.raises(LLMError, match=r"the address of the model 'm1', 'h:1/v1', is none"):
        OpenAIChat("m1", base_url="user:p@ss@h:1/v1?key=hush")
    with OpenAIChat("m1", base_url="http://user:pass@127.0.0.1:1/v1?key=hush") as llm:
        assert llm.base_url == "http://127.0.0.1:1/v1"
