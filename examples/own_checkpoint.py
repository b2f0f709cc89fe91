"""Your own checkpoint: what FlagEmbedding's trainer (or `m3rag train`) saved, measured beside another model.

Run: python examples/own_checkpoint.py FOLDER [--beside mini]
FOLDER holds config.json, model.safetensors, tokenizer.json, sparse_linear.pt and colbert_linear.pt.
"""

import argparse
from pathlib import Path

from m3rag import KnowledgeBase, M3Encoder
from m3rag.types import Chunk

TEXTS = {
    "ducks": "Ducks eat water plants, seeds and insects.",
    "brot": "Brot wird aus Mehl, Wasser, Salz und Hefe gebacken.",
    "trenes": "Los trenes circulan sobre raíles entre las ciudades.",
}
QUESTIONS = {"What do ducks eat?": "ducks", "Woraus ist Brot?": "brot", "¿Por dónde circulan los trenes?": "trenes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--beside", default="mini", help="`mini`, BAAI/bge-m3 or another folder")
    options = parser.parse_args()

    for name in (str(options.checkpoint), options.beside):
        encoder = M3Encoder(name)
        info = encoder.info
        print(f"{info.name}: dense {info.dense_dim}, ColBERT {info.colbert_dim}, {info.fingerprint[:12]}")
        # An index knows its model by the fingerprint of the weights, so each has its own.
        with KnowledgeBase(":memory:", encoder=encoder) as kb:
            kb.upsert([Chunk(id_, id_, text, 0, len(text)) for id_, text in TEXTS.items()])
            for mode in ("dense", "lexical", "colbert", "all"):
                best = {question: kb.search(question, k=1, mode=mode) for question in QUESTIONS}
                right = sum(bool(hits) and hits[0].chunk.id == QUESTIONS[question] for question, hits in best.items())
                print(f"  {mode}: {right} of {len(QUESTIONS)} found first")


if __name__ == "__main__":
    main()
