"""LangChain quickstart: index files, retrieve, rerank.

pip install "m3rag[langchain]"
python examples/langchain_quickstart.py "¿Qué es CORS?"
"""

import argparse
from pathlib import Path

from m3rag import KnowledgeBase
from m3rag.langchain import M3Reranker, M3Retriever


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", nargs="?", default="Why do ducks' feathers not get wet?")
    parser.add_argument("--documents", type=Path, default=Path(__file__).parent / "documents")
    parser.add_argument("--index", default="example-index")
    options = parser.parse_args()

    with KnowledgeBase(options.index) as knowledge_base:  # the embedded model `mini`: no download, no key
        knowledge_base.ingest(options.documents)  # a second time, only what has changed
        retriever = M3Retriever(knowledge_base=knowledge_base, k=10, explain=True)
        reranker = M3Reranker(encoder=knowledge_base.encoder, top_n=3)
        found = reranker.compress_documents(retriever.invoke(options.question), options.question)

        for document in found:
            of = document.metadata
            page = f", page {of['page']}" if "page" in of else ""
            words = ", ".join(match["token"] for match in of["explanation"])
            print(f"{of['relevance_score']:.3f}  {of['source']}{page}  (shared words: {words})")
            print(f"       {' '.join(document.page_content.split())[:100]}")


if __name__ == "__main__":
    main()
