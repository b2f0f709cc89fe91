"""LlamaIndex over m3rag: documents in, hybrid retrieval, an answer with checked citations.

Run: python examples/llama_index_quickstart.py   (needs `pip install "m3rag[llama-index]"`, no download, no key)
"""

import tempfile

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from m3rag import KnowledgeBase
from m3rag.llama_index import M3NodeParser, M3VectorStore, create_query_engine

DOCUMENTS = [
    Document(id_="ducks", text="Ducks eat water plants, seeds and insects.", metadata={"lang": "en"}),
    Document(id_="brot", text="Brot wird aus Mehl, Wasser, Salz und Hefe gebacken.", metadata={"lang": "de"}),
    Document(id_="trenes", text="Los trenes circulan sobre raíles entre las ciudades.", metadata={"lang": "es"}),
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, KnowledgeBase(folder + "/index", model="mini") as kb:
        store = M3VectorStore(kb)
        index = VectorStoreIndex.from_documents(
            DOCUMENTS,
            storage_context=StorageContext.from_defaults(vector_store=store),
            transformations=[M3NodeParser(encoder=kb.encoder)],
            embed_model=store.embed_model,  # the store encodes by itself, once
        )
        hybrid = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=1)
        print("hybrid:", hybrid.retrieve("What is bread made of?")[0].text)

        german = MetadataFilters(filters=[MetadataFilter(key="lang", value="de")])
        print("filtered:", index.as_retriever(filters=german).retrieve("ducks")[0].node.ref_doc_id)

        # Any LLM of LlamaIndex's may be given; without one the answer is quoted from the documents.
        response = create_query_engine(kb).query("What do ducks eat?")
        print("answer:", response)
        print("cited:", [citation["document_id"] for citation in response.metadata["citations"]])


if __name__ == "__main__":
    main()
