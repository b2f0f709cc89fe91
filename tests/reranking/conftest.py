"""Small random rerankers in the layouts that real ones have."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Path]

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="session")
def make_xlmr(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes the layout of BAAI/bge-reranker-v2-m3: XLMRobertaForSequenceClassification, the real vocabulary."""
    torch = pytest.importorskip("torch")
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    def make(*, labels: int = 1) -> Path:
        folder = tmp_path_factory.mktemp("tiny-reranker")
        torch.manual_seed(11)
        config = XLMRobertaConfig(
            vocab_size=250002,
            max_position_embeddings=8194,
            type_vocab_size=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            layer_norm_eps=1e-5,
            num_labels=labels,
            **SIZES,
        )
        XLMRobertaForSequenceClassification(config).save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_checkpoint / file, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def xlmr(make_xlmr: Make) -> Path:
    return make_xlmr()


@pytest.fixture(scope="session")
def make_wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """Makes a classifier with BERT's own kind of tokenizer, which tells question and passage apart by type."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz?.,的鸭"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), "ducks", "swim"]
    vocab = {word: i for i, word in enumerate(words)}

    def make(config: Any) -> Path:
        folder = tmp_path_factory.mktemp("tiny-wordpiece")
        tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, **{f"{k}_token": v for k, v in names.items()}
        ).save_pretrained(folder)
        config.vocab_size = len(vocab)
        torch.manual_seed(12)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def bert(make_wordpiece: Callable[[Any], Path]) -> Path:
    from transformers import BertConfig

    return make_wordpiece(BertConfig(**SIZES, num_labels=1, max_position_embeddings=128))


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RobertaForSequenceClassification with a byte-level vocabulary of bytes alone."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

    folder = tmp_path_factory.mktemp("tiny-roberta")
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{f"{k}_token": v for k, v in names.items()}).save_pretrained(
        folder
    )
    torch.manual_seed(13)
    config = RobertaConfig(
        **SIZES, vocab_size=len(pieces), num_labels=1, max_position_embeddings=130, type_vocab_size=1, pad_token_id=1
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder
