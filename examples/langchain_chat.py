"""LangChain chat over files: history, streamed answers, checked citations.

pip install "m3rag[langchain]" langchain-openai
OPENAI_API_KEY=... python examples/langchain_chat.py
python examples/langchain_chat.py --base-url http://localhost:11434/v1 --model llama3.2  # Ollama
"""

import argparse
from pathlib import Path

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI

from m3rag import KnowledgeBase
from m3rag.langchain import M3Retriever, create_rag_chain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=Path, default=Path(__file__).parent / "documents")
    parser.add_argument("--index", default="example-index")
    parser.add_argument("--model", default="gpt-5-mini")
    parser.add_argument("--base-url", help="a server of your own that speaks OpenAI's protocol; it needs no key")
    options = parser.parse_args()
    server = {"base_url": options.base_url, "api_key": "none"} if options.base_url else {}

    with KnowledgeBase(options.index) as knowledge_base:
        knowledge_base.ingest(options.documents)
        retriever = M3Retriever(knowledge_base=knowledge_base, k=5)
        chain = create_rag_chain(ChatOpenAI(model=options.model, **server), retriever, page_of=knowledge_base.page_of)
        history: list[BaseMessage] = []
        while question := input("\nAsk (nothing ends): ").strip():
            answer = ""
            for part in chain.stream({"question": question, "chat_history": history}):
                answer += part.get("answer", "")
                print(part.get("answer", ""), end="", flush=True)
                for citation in part.get("citations", []):
                    print(f"\n  [{citation['extras']['number']}] {citation['title']}: “{citation['cited_text']}”")
            history += [HumanMessage(question), AIMessage(answer)]


if __name__ == "__main__":
    main()
