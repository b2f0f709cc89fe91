"""The chain, and a retriever as a tool, with langchain-openai against a server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import create_retriever_tool

from m3rag import KnowledgeBase
from m3rag.langchain import ANSWER_TAG, M3Retriever, create_rag_chain
from m3rag.settings import Settings
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMRequest, LLMServer, Reply

openai = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Iterator[M3Retriever]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "ducks.txt").write_text("Ducks swim on ponds.", encoding="utf-8")
    (folder / "trains.txt").write_text("Trains run on rails.", encoding="utf-8")
    with KnowledgeBase(tmp_path_factory.mktemp("kb") / "index", encoder=HashEncoder(), settings=Settings()) as opened:
        opened.ingest(folder)
        yield M3Retriever(knowledge_base=opened, k=1)


def script(request: LLMRequest) -> str:
    return "Where do ducks swim?" if '"conversation"' in request.prompt else "They swim on ponds [1]. So [2]."


def chat(server: LLMServer) -> Any:
    return openai.ChatOpenAI(model="any", base_url=server.base_url, api_key="none", max_retries=0)


async def test_the_chain_streams_from_chatopenai(retriever: M3Retriever) -> None:
    given = {"question": "And where?", "chat_history": [HumanMessage("Ducks?"), AIMessage("Birds.")]}
    with LLMServer(script) as server:
        chain = create_rag_chain(chat(server), retriever)
        parts = list(chain.stream(given))
        awaited = [part async for part in chain.astream(given)]
        events = [e async for e in chain.astream_events(given, version="v2", include_tags=[ANSWER_TAG])]
        prompts = [request.prompt for request in server.requests]
    assert [part.get("answer") for part in parts] == [part.get("answer") for part in awaited]
    assert sum("answer" in part for part in parts) > 3
    assert "".join(part.get("answer", "") for part in parts) == "They swim on ponds [1]. So."
    assert [c["cited_text"] for part in parts for c in part.get("citations", ())] == ["Ducks swim on ponds."]
    assert [part["sources"][0].id for part in parts if "sources" in part] == [retriever.invoke("ducks")[0].id]
    assert "Question: Where do ducks swim?" in prompts[1]
    streamed = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
    assert "".join(streamed) == "They swim on ponds [1]. So [2]."


@pytest.mark.filterwarnings("ignore:This API is in beta")
@pytest.mark.parametrize("made", ["as_tool", "create_retriever_tool"])
def test_an_agent_calls_the_retriever_as_a_tool(retriever: M3Retriever, made: str) -> None:
    described = {"name": "birds", "description": "Searches the files."}
    tool = retriever.as_tool(**described) if made == "as_tool" else create_retriever_tool(retriever, **described)
    (argument,) = tool.args

    def agent(request: LLMRequest) -> Reply:
        last = request.body["messages"][-1]
        if last["role"] == "tool":
            return Reply(f"Read: {last['content']}")
        call = {"name": "birds", "arguments": json.dumps({argument: "ducks on ponds"})}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": call}],
        }
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return Reply(body={"id": "c", "object": "chat.completion", "created": 0, "model": "any", "choices": [choice]})

    with LLMServer(agent) as server:
        model = chat(server).bind_tools([tool])
        messages: list[BaseMessage] = [HumanMessage("Where do ducks swim?")]
        for _ in range(3):
            said = model.invoke(messages)
            messages.append(said)
            if not said.tool_calls:
                break
            messages += [tool.invoke(call) for call in said.tool_calls]
        assert server.requests[0].body["tools"][0]["function"]["name"] == "birds"
    assert isinstance(messages[2], ToolMessage)
    assert "Ducks swim on ponds." in messages[-1].text
