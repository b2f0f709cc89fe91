"""Search across languages: the question in one, the passage that answers it in another.

Run: python examples/cross_lingual_search.py ["Your question"]   (no download, no key)
"""

import argparse
from pathlib import Path

from m3rag import KnowledgeBase

QUESTIONS = [
    "Who founded the Debian project?",  # in a German PDF
    "Was fressen Enten?",  # in an English web page
    "Что такое CORS?",  # in a Spanish Markdown file
    "What does Article 1 of the Universal Declaration of Human Rights say?",  # in Korean and Ukrainian
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument("--documents", type=Path, default=Path(__file__).parent / "documents")
    parser.add_argument("--index", default="example-index")
    options = parser.parse_args()

    with KnowledgeBase(options.index) as kb:
        kb.ingest(options.documents)
        for question in options.questions:
            print(question)
            for mode in ("dense", "lexical", "all"):  # words alone hardly cross languages; meaning does
                for hit in kb.search(question, mode=mode, k=1):
                    text = " ".join(hit.chunk.text.split())[:70]
                    print(f"  {mode:8} {hit.score:.2f}  {hit.chunk.document_id}: {text}")


if __name__ == "__main__":
    main()
