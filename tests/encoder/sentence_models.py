"""Real models of sentence-transformers, made on the spot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from m3rag.encoder.mini import ensure_mini

COMMONEST = 20_000
PROMPTS = {"query": "query: ", "document": "passage: "}


def save_tiny(checkpoint: Path, folder: Path) -> Path:
    """A random XLM-R with mean pooling, as the library writes it.

    Of the real vocabulary it has the commonest pieces: the library takes five seconds to load all.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    backbone = folder.with_name(f"{folder.name}-backbone")
    backbone.mkdir()
    described = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"]["vocab"] = described["model"]["vocab"][:COMMONEST]
    described["added_tokens"] = [token for token in described["added_tokens"] if token["id"] < COMMONEST]
    _write(backbone / "tokenizer.json", described)
    shutil.copy(checkpoint / "tokenizer_config.json", backbone)
    torch.manual_seed(7)
    # One more than the pieces: the mask, which the library adds.
    config = XLMRobertaConfig.from_pretrained(checkpoint, vocab_size=COMMONEST + 1)
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(backbone)
    return _save(str(backbone), folder, size=64)


def save_small(folder: Path) -> Path:
    """A random BERT that knows a hundred characters, for tests that load a model many times."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    backbone = folder.with_name(f"{folder.name}-backbone")
    backbone.mkdir()
    characters = [chr(code) for code in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (backbone / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    BertTokenizerFast(vocab=str(backbone / "vocab.txt")).save_pretrained(backbone)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(backbone)
    return _save(str(backbone), folder, size=32)


def _save(backbone: str, folder: Path, *, size: int) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    modules: list[Any] = [Transformer(backbone), Pooling(size, "mean")]
    SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu").save_pretrained(str(folder))
    return folder


def save_mini(folder: Path) -> Path:
    """The embedded model's own backbone, multilingual-e5-small, in the layout of sentence-transformers."""
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (folder / name).symlink_to(ensure_mini() / name)
    modules = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
    paths = ["", "1_Pooling"]
    _write(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": paths[i], "type": kind} for i, kind in enumerate(modules)],
    )
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True})
    _write(folder / "config_sentence_transformers.json", {"prompts": PROMPTS})
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 512,
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "cls_token": "<s>",
            "sep_token": "</s>",
        },
    )
    return folder


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
