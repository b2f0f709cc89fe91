"""A trained cross-encoder as a checkpoint folder in transformers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3rag.training.reranker_trainee import RerankerTrainee
from m3rag.training.saving import backbone_tensors, state_of, write_network

ONE_LABEL: Mapping[str, Any] = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
"""What `config.json` says of a classifier that gives one number."""

LAYOUTS: dict[str, tuple[str, str, str, str]] = {
    "bert": ("BertForSequenceClassification", "bert.", "bert.pooler.dense", "classifier"),
    "roberta": ("RobertaForSequenceClassification", "roberta.", "classifier.dense", "classifier.out_proj"),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", "roberta.", "classifier.dense", "classifier.out_proj"),
    "camembert": ("CamembertForSequenceClassification", "roberta.", "classifier.dense", "classifier.out_proj"),
}
"""Of each `model_type`: the class in transformers, where its backbone lies, and the two layers of its head."""


def write_reranker(trainee: RerankerTrainee, folder: Path) -> None:
    """Write a cross-encoder that loads in `CrossEncoderReranker` and in `AutoModelForSequenceClassification`.

    Tensors that were not trained stand in it as in the base, trained ones in float32.

    Args:
        trainee: The model; deltas of low rank are added into its matrices.
        folder: Where to.
    """
    architecture, prefix, dense, out = LAYOUTS[trainee.checkpoint.config()["model_type"]]
    network = trainee.network
    tensors = {prefix + name: tensor for name, tensor in backbone_tensors(trainee, network.backbone)}
    for name, layer in ((dense, network.dense), (out, network.out)):
        tensors |= {f"{name}.{part}": tensor for part, tensor in state_of(layer).items()}
    write_network(trainee, folder, tensors, {"architectures": [architecture], **ONE_LABEL})
