"""A random M3 model with a vocabulary of a hundred words, which trains in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from m3rag.training.data import Example

ANIMALS = ["duck", "swan", "heron", "otter", "beaver", "pike", "carp", "newt", "toad", "crane"]
PLACES = ["pond", "river", "lake", "marsh", "delta", "spring", "canal", "harbour", "reef", "bay"]
COLOURS = ["red", "blue", "green", "white", "black", "grey", "brown", "pink"]
OTHERS = ["where", "which", "is", "the", "in", "lives", "a", "colour", "of", "not", "here", "does", "swim", "query:"]
WORDS = [*ANIMALS, *PLACES, *COLOURS, *OTHERS, "passage:"]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
HIDDEN = 16


def write_checkpoint(folder: Path) -> Path:
    torch.manual_seed(3)
    config = XLMRobertaConfig(
        vocab_size=len(SPECIALS) + len(WORDS),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        initializer_range=0.4,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    for name, outputs in (("sparse_linear.pt", 1), ("colbert_linear.pt", HIDDEN)):
        torch.save(torch.nn.Linear(HIDDEN, outputs).half().state_dict(), folder / name)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path, *, passage_type: int = 0) -> None:
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<s> $A </s> </s> $B:{passage_type} </s>:{passage_type}",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.save(str(folder / "raw.json"))
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "raw.json"), **{f"{key}_token": token for key, token in names.items()}
    )
    fast.save_pretrained(folder)
    (folder / "raw.json").unlink()


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the layout of BAAI/bge-m3."""
    return write_checkpoint(tmp_path_factory.mktemp("small-m3"))


@pytest.fixture(scope="session")
def small_mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the layout of `mini`: mean pooling, prefixes, both heads in one file."""
    folder = write_checkpoint(tmp_path_factory.mktemp("small-mini"))
    heads = {}
    for name in ("sparse_linear", "colbert_linear"):
        path = folder / f"{name}.pt"
        heads |= {f"{name}.{k}": v.contiguous() for k, v in torch.load(path, weights_only=True).items()}
        path.unlink()
    save_file(heads, folder / "heads.safetensors")
    recipe = {"pooling": "mean", "query_prefix": "query: ", "document_prefix": "passage: ", "max_length": 32}
    (folder / "m3rag.json").write_text(json.dumps(recipe), encoding="utf-8")
    return folder


def write_bert(folder: Path, kind: str, **options: Any) -> Path:
    """A BERT of a class of transformers; the passage of a pair has the type 1."""
    torch.manual_seed(4)
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(
        **sizes, vocab_size=len(SPECIALS) + len(WORDS), max_position_embeddings=64, initializer_range=0.4, **options
    )
    pooling = {"add_pooling_layer": False} if kind == "bare" else {}
    kinds = {"bare": BertModel, "model": BertModel, "classifier": BertForSequenceClassification}
    kinds[kind](config, **pooling).save_pretrained(folder)
    write_tokenizer(folder, passage_type=1)
    return folder


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with its pooler."""
    return write_bert(tmp_path_factory.mktemp("small-bert"), "model")


@pytest.fixture(scope="session")
def small_bert_bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT without a pooler, its word table in float16, as that of `mini`."""
    folder = write_bert(tmp_path_factory.mktemp("small-bert-bare"), "bare")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def small_bert_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with a classifier of one label."""
    return write_bert(tmp_path_factory.mktemp("small-bert-reranker"), "classifier", num_labels=1)


@pytest.fixture(scope="session")
def small_two_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with a classifier of two."""
    return write_bert(tmp_path_factory.mktemp("small-two-labels"), "classifier", num_labels=2)


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Where each animal lives: 100 questions, all of one source."""
    return [
        Example(
            f"where lives the {colour} {animal}",
            (f"the {colour} {animal} does swim in the {place}",),
            (f"the {colour} {other} is in the {place}", f"which {animal} is not here"),
            "birds",
        )
        for i, animal in enumerate(ANIMALS)
        for j, colour in enumerate(COLOURS)
        for place, other in [(PLACES[(3 * i + j) % 10], ANIMALS[(i + j + 1) % 10])]
    ]


@pytest.fixture
def data(tmp_path: Path, examples: list[Example]) -> Path:
    """The same as a folder of jsonl."""
    folder = tmp_path / "data"
    folder.mkdir()
    for source, part in (("birds", examples[::2]), ("fish", examples[1::2])):
        rows = [{"query": e.query, "pos": e.positives, "neg": e.negatives} for e in part]
        (folder / f"{source}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder
