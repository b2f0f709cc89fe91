"""MCLS against a direct implementation: one text at a time, on transformers' own backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from m3rag.encoder import M3Encoder


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu", mcls=True, colbert_dtype="float32")


def test_equals_a_direct_implementation(tiny_checkpoint: Path, encoder: M3Encoder) -> None:
    backbone = AutoModel.from_pretrained(tiny_checkpoint, add_pooling_layer=False).eval()
    plain = M3Encoder(str(tiny_checkpoint), device="cpu")
    texts = ["", "ducks swim", *("several ducks swim on the pond " * n for n in (40, 43, 200, 1300))]
    output = encoder.encode_documents(texts)
    for i, text in enumerate(texts):
        content = plain.pack([text], role="document").ids[1:-1].tolist()
        content = content[: (8192 - 1) * 256 // 257]
        ids: list[int] = []
        marks: list[int] = []
        for start in range(0, max(len(content), 1), 256):
            marks.append(len(ids))
            ids += [0, *content[start : start + 256]]
        ids.append(2)
        assert len(ids) <= 8192
        with torch.inference_mode():
            states = backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]
            dense = torch.nn.functional.normalize(states[marks].mean(0), dim=0).numpy()
            rest = [at for at in range(len(ids)) if at not in marks]
            vectors = torch.nn.functional.normalize(encoder.network.colbert_linear(states[rest]), dim=1).numpy()
        assert np.abs(output.dense[i] - dense).max() <= 1e-5
        assert np.abs(output.colbert_of(i) - vectors).max() <= 1e-5
        assert 0 not in output[i].lexical.indices


def test_a_short_text_has_one_cls_as_always(tiny_checkpoint: Path, encoder: M3Encoder) -> None:
    plain = M3Encoder(str(tiny_checkpoint), device="cpu", colbert_dtype="float32")
    a, b = encoder.encode_documents(["ducks swim"]), plain.encode_documents(["ducks swim"])
    assert np.abs(a.dense - b.dense).max() <= 1e-6
    assert np.abs(a.colbert - b.colbert).max() <= 1e-6


def test_token_spans_go_with_the_token_vectors(encoder: M3Encoder) -> None:
    for text in ("ducks swim", "several ducks swim on the pond " * 1500):
        assert len(encoder.token_spans(text)) == len(encoder.encode_documents([text]).colbert)
