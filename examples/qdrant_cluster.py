"""A Qdrant cluster: an index in several shards, each on two nodes, for any number of clients.

docker run -p 6333:6333 qdrant/qdrant   (one node; a cluster is started the same way for its clients)
python examples/qdrant_cluster.py http://localhost:6333 --shards 4 --replicas 2
The key of the server: M3RAG_INDEX_API_KEY. Needs `pip install "m3rag[qdrant]"`.
"""

import argparse
import os
from pathlib import Path

from m3rag import KnowledgeBase, M3Encoder
from m3rag.store import QdrantStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("question", nargs="?", default="Why do ducks' feathers not get wet?")
    parser.add_argument("--collection", default="m3rag-example")
    parser.add_argument("--documents", type=Path, default=Path(__file__).parent / "documents")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()

    encoder = M3Encoder("mini")
    # Only what is no default has to be said when a collection is made; a KnowledgeBase makes a plain one by itself.
    QdrantStore.open_or_create(
        options.server,
        encoder.info,
        collection=options.collection,
        api_key=os.environ.get("M3RAG_INDEX_API_KEY"),
        shard_number=options.shards,
        replication_factor=options.replicas,
        write_consistency_factor=options.replicas // 2 + 1,  # a write is acknowledged by most replicas
    ).close()
    with KnowledgeBase(f"{options.server}/{options.collection}", encoder=encoder) as kb:
        kb.ingest(options.documents)  # from several machines at once, if there is much
        for hit in kb.search(options.question, k=3):
            print(f"{hit.score:.3f}  {hit.chunk.document_id}  {' '.join(hit.chunk.text.split())[:80]}")


if __name__ == "__main__":
    main()
