"""bge-m3-lite over any checkpoint of BGE-M3's size, which it would otherwise fetch itself.

It computes with ONNX Runtime alone: the backbone as a graph that it fuses, tokens and heads in Python and numpy. Its
files are made here from the checkpoint's own weights, the graph by torch's exporter.

    pip install bge-m3-lite onnxscript
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

BACKBONE = "model_fused.onnx"
TOKENIZER = "sentencepiece.bpe.model"


def encode_by_lite(checkpoint: Path, *, max_length: int) -> Callable[[list[str]], object]:
    """All three representations of texts by bge-m3-lite, with its own defaults."""
    from bge_m3_lite import BGEM3Embedder, hub

    folder = checkpoint / "lite"
    if not (folder / BACKBONE).exists():
        _write_backbone(checkpoint, folder)
        _write_tokenizer(checkpoint, folder)
    files = {TOKENIZER: folder / TOKENIZER, **{file.name: checkpoint / file.name for file in hub.HEAD_FILES}}
    with patch.object(hub, "ensure_files", lambda *_, **__: files):
        embedder = BGEM3Embedder(model_path=folder / BACKBONE)
    return partial(embedder.encode, max_length=max_length, return_sparse=True, return_colbert_vecs=True)


def _write_backbone(checkpoint: Path, folder: Path) -> None:
    """The graph that `bge-m3-lite fuse` makes of an export like the one on the model hub."""
    import onnx
    import torch
    from bge_m3_lite.fuse import SHARED_DATA, fuse
    from transformers import AutoModel

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Only this attention comes out as the nodes that fusing looks for.
            self.network = AutoModel.from_pretrained(checkpoint, attn_implementation="eager", add_pooling_layer=False)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return states

    ids = torch.full((2, 9), 5)
    names = ["input_ids", "attention_mask", "token_embeddings"]
    shutil.rmtree(folder, ignore_errors=True)
    apart = folder / "apart"
    apart.mkdir(parents=True)
    torch.onnx.export(
        Backbone().eval(),
        (ids, torch.ones_like(ids)),
        str(apart / "model.onnx"),
        input_names=names[:2],
        output_names=names[2:],
        dynamic_axes={name: {0: "texts", 1: "longest"} for name in names},
        opset_version=14,
        dynamo=False,
    )
    graph = onnx.load(str(apart / "model.onnx"))
    onnx.save_model(graph, str(folder / "model.onnx"), save_as_external_data=True, location=SHARED_DATA)
    shutil.rmtree(apart)
    fuse(folder / "model.onnx")


def _write_tokenizer(checkpoint: Path, folder: Path) -> None:
    """SentencePiece's file of a `tokenizer.json`; without its table of characters, which few of the texts need."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    vocab = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    model = ModelProto()
    kinds = ModelProto.SentencePiece
    for piece, kind in (("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)):
        model.pieces.add(piece=piece, score=0.0, type=kind)
    for piece, score in vocab[4:-1]:  # behind <s>, <pad>, </s> and <unk>, and before <mask>
        model.pieces.add(piece=piece, score=score)
    (folder / TOKENIZER).write_bytes(model.SerializeToString())
