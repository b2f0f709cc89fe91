"""Train M3 models and rerankers: the paper's losses, batches, hard negatives, and a trainer that survives a kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3rag._lazy import lazy_names

if TYPE_CHECKING:
    from m3rag.training.data import Example, load_examples
    from m3rag.training.mining import MiningSettings, mine
    from m3rag.training.reranker import train_reranker
    from m3rag.training.run import Report
    from m3rag.training.settings import RerankerSettings, TrainingSettings
    from m3rag.training.trainer import train

__all__ = [
    "Example",
    "MiningSettings",
    "Report",
    "RerankerSettings",
    "TrainingSettings",
    "load_examples",
    "mine",
    "train",
    "train_reranker",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Example": "m3rag.training.data",
        "MiningSettings": "m3rag.training.mining",
        "Report": "m3rag.training.run",
        "RerankerSettings": "m3rag.training.settings",
        "TrainingSettings": "m3rag.training.settings",
        "load_examples": "m3rag.training.data",
        "mine": "m3rag.training.mining",
        "train": "m3rag.training.trainer",
        "train_reranker": "m3rag.training.reranker",
    },
)
