"""Chroma, adopted: a collection that LangChain fills becomes searchable with all three legs.

Run: python examples/chroma_adoption.py   (needs `pip install "m3rag[chroma,langchain]" langchain-chroma`)
"""

import tempfile
from pathlib import Path

import chromadb
from langchain_chroma import Chroma

from m3rag import KnowledgeBase, M3Encoder
from m3rag.langchain import M3Embeddings
from m3rag.store import ChromaStore


def fill(folder: Path, encoder: M3Encoder, **texts: str) -> None:
    """What is there already: your program, with vectors of whatever model; they are not looked at."""
    client = chromadb.PersistentClient(folder)
    Chroma("notes", M3Embeddings(encoder=encoder), client=client).add_texts(list(texts.values()), ids=list(texts))
    client.close()


def ask(folder: Path, encoder: M3Encoder, question: str) -> None:
    # Encodes what is new or changed into a file beside the collection, in which nothing changes.
    ChromaStore.adopt(folder, "notes", encoder=encoder).close()
    with KnowledgeBase(f"chroma:{folder}?collection=notes", encoder=encoder) as kb:
        (hit,) = kb.search(question, k=1)
        print(f"{question}  {hit.chunk.text}  dense {hit.scores.dense:.2f}, lexical {hit.scores.lexical:.2f}")


def main() -> None:
    encoder = M3Encoder("mini")  # or the name of another M3 model
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "chroma")
        fill(folder, encoder, ducks="Ducks eat water plants.", pump="Error E4711: the pump has no water.")
        ask(folder, encoder, "What does E4711 mean?")
        fill(folder, encoder, trains="Trains run on rails.")
        ask(folder, encoder, "What do trains run on?")


if __name__ == "__main__":
    main()
