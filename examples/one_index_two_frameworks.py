"""One index, whichever door: files by m3rag, nodes by LlamaIndex, found by both frameworks.

Run: python examples/one_index_two_frameworks.py   (needs `pip install "m3rag[langchain,llama-index]"`)
"""

import tempfile
from pathlib import Path

from llama_index.core.schema import TextNode

from m3rag import KnowledgeBase
from m3rag.langchain import M3Retriever as LangChainRetriever
from m3rag.llama_index import M3Retriever as LlamaIndexRetriever
from m3rag.llama_index import M3VectorStore


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "files")
        files.mkdir()
        (files / "ducks.txt").write_text("Ducks eat water plants and insects.\n", encoding="utf-8")
        with KnowledgeBase(Path(folder, "index"), model="mini") as kb:
            kb.ingest(files)
            M3VectorStore(kb).add([TextNode(id_="brot", text="Brot wird aus Mehl gebacken.", metadata={"lang": "de"})])
            print("documents:", [document.id for document in kb.documents()])

            for question in ("What do ducks eat?", "What is bread made of?"):
                (document,) = LangChainRetriever(knowledge_base=kb, k=1).invoke(question)
                (node,) = LlamaIndexRetriever(kb, similarity_top_k=1).retrieve(question)
                print(question)
                print("  LangChain:", document.metadata["document_id"], "|", document.page_content)
                print("  LlamaIndex:", node.metadata["document_id"], "|", node.text)


if __name__ == "__main__":
    main()
