"""A LlamaIndex chat engine over files: streamed, with its sources before the text and checked citations.

Run: python examples/llama_index_chat_engine.py   (pip install "m3rag[llama-index]"; `llm=` has a model write)
"""

import asyncio
import tempfile
from pathlib import Path

from m3rag import KnowledgeBase
from m3rag.llama_index import M3ChatEngine, create_chat_engine

FILES = {
    "ducks.md": "# Birds\n\n## Ducks\n\nDucks eat water plants, seeds and insects.\n",
    "trains.md": "# Railways\n\nThe first public railway with steam locomotives opened in 1825.\n",
}


async def say(engine: M3ChatEngine, message: str) -> None:
    response = await engine.astream_chat(message)
    print("you:", message, "| looked at:", [node.metadata["document_id"] for node in response.source_nodes])
    print("m3rag: ", end="")
    async for piece in response.async_response_gen():
        print(piece, end="", flush=True)
    print()
    for citation in response.metadata["citations"]:
        print(f"  [{citation['number']}] {citation['document_id']}: {citation['quote']}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "files")
        files.mkdir()
        for name, text in FILES.items():
            (files / name).write_text(text, encoding="utf-8")
        with KnowledgeBase(Path(folder, "index"), model="mini") as kb:
            kb.ingest(files)
            engine = create_chat_engine(kb, k=2)  # llm=OpenAI("gpt-4o") of LlamaIndex's, or any other
            await say(engine, "What do ducks eat?")
            await say(engine, "When did the first railway open?")
            print("remembered:", len(engine.chat_history), "messages")


if __name__ == "__main__":
    asyncio.run(main())
