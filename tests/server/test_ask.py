"""Answers as a stream of events, and the end of the work when nobody listens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import httpx
import pytest

from m3rag.answering import OpenAIChat
from m3rag.answering.protocol import NO_ANSWER_TEXT, Message
from m3rag.server import create_app
from m3rag.server.streaming import Pump, with_pings
from m3rag.settings import ServeSettings
from m3rag.testing.llm_server import LLMServer, Reply

from .serving import WAIT_S, Halved, base, client_of, events_of, filled, serving

QUESTION = {"question": "What do ducks eat in ponds?"}


class Endless:
    """A language model that never comes to an end, and says when it was stopped."""

    name = "endless"

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.pieces = 0

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        try:
            while True:
                self.pieces += 1
                yield "ducks and "
                self.stopped.wait(0.002)
        finally:
            self.stopped.set()

    def complete(self, messages: Sequence[Message]) -> str:
        raise AssertionError("it would never end")


async def asked(client: httpx.AsyncClient, **body: object) -> list[tuple[str, dict[str, object]]]:
    response = await client.post("/api/ask", json={**QUESTION, **body})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"  # else nginx would give the answer whole, at its end
    return events_of(response.text)


async def test_sources_then_the_text_then_citations_then_the_end(client: httpx.AsyncClient) -> None:
    events = await asked(client)
    names = [name for name, _ in events]
    assert names[0] == "sources"
    assert names[-1] == "done"
    assert names == sorted(names, key=["sources", "token", "citation", "done"].index)
    sources, done = events[0][1], events[-1][1]
    assert sources["question"] == QUESTION["question"]
    assert done["answered"] is True
    assert "[1]" in str(done["text"])
    citations = [data for name, data in events if name == "citation"]
    assert [c["number"] for c in citations] == list(range(1, len(citations) + 1))
    texts = {hit["document_id"]: hit["text"] for hit in sources["hits"]}  # type: ignore[attr-defined, index]
    for c in citations:
        assert texts[c["document_id"]][c["start"] : c["end"]] == c["quote"]  # type: ignore[index]


async def test_an_empty_index_is_a_refusal_and_no_error() -> None:
    async with client_of(create_app(base(":memory:"), ServeSettings())) as client:
        events = await asked(client)
    assert [name for name, _ in events] == ["sources", "done"]
    assert events[0][1]["hits"] == []
    assert events[1][1] == {**events[1][1], "text": "There is no document yet: add one first.", "answered": False}


async def test_a_filter_that_nothing_passes_is_a_refusal(client: httpx.AsyncClient) -> None:
    events = await asked(client, filter={"document_id": "geese.txt"})
    assert [name for name, _ in events] == ["sources", "done"]
    assert events[1][1] == {**events[1][1], "text": NO_ANSWER_TEXT, "answered": False}


async def test_a_model_writes_and_leans_on_the_history() -> None:
    script = ["What do ducks eat?", "They eat pond weed [1]."]
    with LLMServer(script) as server, OpenAIChat("any", base_url=server.base_url) as llm:
        async with client_of(create_app(filled(llm=llm), ServeSettings())) as client:
            history = [{"question": "Do ducks swim?", "answer": "Yes [1]."}]
            events = await asked(client, question="And eat?", history=history)
            assert (await client.get("/api/status")).json()["llm"] == "any"
    assert events[0][1]["question"] == "What do ducks eat?"
    assert "".join(str(data["text"]) for name, data in events if name == "token") == "They eat pond weed [1]."
    assert [name for name, _ in events[-2:]] == ["citation", "done"]
    assert "Do ducks swim?" in server.requests[0].prompt


@pytest.mark.parametrize(
    "reply", [Reply("no such model", status=404), Reply("pond weed and snails", break_after=1), Reply("")]
)
async def test_a_model_that_fails_is_told_in_the_stream(reply: Reply) -> None:
    with LLMServer(reply) as server, OpenAIChat("any", base_url=server.base_url, api_key="sk-secret") as llm:
        async with client_of(create_app(filled(llm=llm), ServeSettings())) as client:
            response = await client.post("/api/ask", json=QUESTION)
    events = events_of(response.text)
    assert events[0][0] == "sources"
    name, error = events[-1]
    assert name == "error"
    assert error["message"]
    assert error["remedy"]
    assert "sk-secret" not in response.text
    assert "Traceback" not in response.text


async def test_a_hostile_answer_stays_data_on_one_line() -> None:
    hostile = "<script>alert(1)</script>\n\nevent: done\ndata: {}\n\n![](https://evil.example/x) [1]"
    with LLMServer(hostile) as server, OpenAIChat("any", base_url=server.base_url) as llm:
        async with client_of(create_app(filled(llm=llm), ServeSettings())) as client:
            events = await asked(client)
    assert [name for name, _ in events].count("done") == 1
    assert "".join(str(data["text"]) for name, data in events if name == "token") == hostile


async def test_half_a_surrogate_pair_of_a_language_model_is_passed_on() -> None:
    async with client_of(create_app(filled(llm=Halved()), ServeSettings())) as client:
        events = await asked(client)
    assert events[-1][0] == "done"
    assert "\ud83d" in "".join(str(data["text"]) for name, data in events if name == "token")


async def test_who_reads_slowly_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3rag.server.streaming.AHEAD", 4)
    made, closed = 0, threading.Event()

    def endless() -> Iterator[int]:
        nonlocal made
        try:
            while True:
                made += 1
                yield made
        finally:
            closed.set()

    items = Pump(endless).items()
    for taken in range(1, 20):
        assert await anext(items) == taken
        await asyncio.sleep(0.005)
        assert made <= taken + 5
    await items.aclose()
    assert await asyncio.to_thread(closed.wait, WAIT_S)


def test_a_client_that_goes_away_ends_the_work() -> None:
    llm = Endless()
    with serving(create_app(filled(llm=llm), ServeSettings())) as server, httpx.Client(base_url=server.url) as client:
        with client.stream("POST", "/api/ask", json=QUESTION, timeout=WAIT_S) as response:
            assert any("event: token" in line for line in response.iter_lines())
            assert not llm.stopped.is_set()
        assert llm.stopped.wait(WAIT_S)
        pieces = llm.pieces
        assert client.get("/health").status_code == 200
        assert llm.pieces == pieces


def test_a_server_that_ends_does_not_wait_for_a_stream_without_end() -> None:
    llm = Endless()
    app = create_app(filled(llm=llm), ServeSettings())
    with (
        serving(app) as server,
        httpx.Client(base_url=server.url) as client,
        client.stream("POST", "/api/ask", json=QUESTION, timeout=WAIT_S) as response,
    ):
        assert any("event: token" in line for line in response.iter_lines())
        server.stop()
        assert llm.stopped.wait(WAIT_S)


async def test_silence_is_filled_and_closing_closes() -> None:
    go, closed = asyncio.Event(), asyncio.Event()

    async def events():  # type: ignore[no-untyped-def]
        try:
            yield "first"
            await go.wait()
            yield "second"
            await asyncio.Event().wait()
        finally:
            closed.set()

    found = with_pings(events(), seconds=0.01)
    assert await anext(found) == "first"
    assert (await anext(found)).startswith(":")
    go.set()
    while (item := await anext(found)).startswith(":"):
        pass
    assert item == "second"
    await found.aclose()  # type: ignore[attr-defined]
    assert closed.is_set()


async def test_an_error_of_the_iterator_is_raised_where_it_is_awaited() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    items = Pump(broken).items()
    assert await anext(items) == 1
    with pytest.raises(ValueError, match="two"):
        await anext(items)
