"""A search server in a few lines: callers at the same time share the model's forward passes.

Run: python examples/async_server.py   (needs `pip install "m3rag[app]"`; `m3rag serve` is the complete one)
then: curl "http://127.0.0.1:8000/search?question=What+do+ducks+eat?"
"""

import argparse
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException

from m3rag import KnowledgeBase
from m3rag.errors import InputError


def make_app(kb: KnowledgeBase) -> FastAPI:
    app = FastAPI(title="m3rag example")

    @app.get("/search")
    async def search(question: str, k: int = 3) -> list[dict[str, Any]]:
        try:
            hits = await kb.asearch(question, k=k)  # never blocks the event loop
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        return [{"document": hit.chunk.document_id, "score": hit.score, "text": hit.chunk.text} for hit in hits]

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=Path, default=Path(__file__).parent / "documents")
    parser.add_argument("--index", default="example-index")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    with KnowledgeBase(options.index) as kb:
        kb.ingest(options.documents)
        uvicorn.run(make_app(kb), port=options.port)


if __name__ == "__main__":
    main()
