"""Our scores are those of plain transformers, and of FlagEmbedding's FlagReranker, on random weights."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from m3rag.reranking import CrossEncoderReranker

TOLERANCE = 1e-5

ODD = [
    ("Do ducks swim?", ""),
    ("", "Ducks swim."),
    ("", ""),
    (" \n\t ", "  ducks   swim\u3000here "),
    ("🦆", "🦆🦆 émoji 👩‍👩‍👧 \u0301"),
    ("鸭子会游泳吗？", "鸭子会游泳。" * 20),
    ("<mask> in the middle", "</s> <s> <unk> specials as text"),
    ("what <pad> is a duck", "<pad> a bird <pad><pad> that swims"),
    ("x" * 300, "y" * 3000),
    ("long question " * 80, "short passage"),
    ("long question " * 80, "long passage " * 400),
    ("short question", "long passage " * 400),
]


def plain_scores(
    folder: Path, pairs: Sequence[tuple[str, str]], *, max_length: int, types: bool = True
) -> npt.NDArray[np.float32]:
    """transformers alone, pair by pair, the question cut to 3/4 of the length before."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for query, passage in pairs:
        contents = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (query, passage)]
        cut = contents[0][: max_length * 3 // 4]
        # One pair alone, not in a list, would be taken for a single text where its passage is empty.
        given = dict(tokenizer([(query, passage)], return_token_type_ids=True))
        if len(given["input_ids"][0]) > max_length:
            before, between, after = specials_of(tokenizer)
            room = max_length - len(before) - len(between) - len(after) - len(cut)
            second = contents[1][:room]
            ids = [*before, *cut, *between, *second, *after]
            kinds = [0] * len([*before, *cut, *between]) + [1] * len([*second, *after])
            given = {"input_ids": [ids], "token_type_ids": [kinds]}
        if not types:
            del given["token_type_ids"]
        with torch.inference_mode():
            scores.append(model(**{name: torch.tensor(value) for name, value in given.items()}).logits[0].numpy())
    return np.array(scores, np.float32)


def specials_of(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    return [cls], [sep] if tokenizer.cls_token == "[CLS]" else [sep, sep], [sep]


@pytest.fixture(scope="module")
def pairs(multilingual_texts: list[str]) -> list[tuple[str, str]]:
    by_length = sorted(multilingual_texts, key=len)
    return [*zip(by_length[:60], multilingual_texts[-60:], strict=True), *ODD]


@pytest.fixture(scope="module")
def flag_reranker(xlmr: Path) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding import FlagReranker

        yield FlagReranker(str(xlmr), use_fp16=False, devices="cpu")


@pytest.mark.parametrize("max_length", [64, 512])
def test_scores_are_those_of_plain_transformers(xlmr: Path, pairs: list[tuple[str, str]], max_length: int) -> None:
    expected = plain_scores(xlmr, pairs, max_length=max_length, types=False)[:, 0]
    found = CrossEncoderReranker(str(xlmr), device="cpu", max_length=max_length).compute_score(pairs)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= TOLERANCE
    assert np.ptp(expected) > 0.1  # the scores tell pairs apart, so that their equality means something


def survives(tokenizer: Any, text: str) -> bool:
    """Whether a text comes through FlagEmbedding's way on transformers 5, which decodes tokens and tokenises again.

    An empty passage does not: there it leaves out the separators too, which neither the models' training nor a batch
    of plain transformers does.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return bool(ids) and tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("max_length", [64, 512])
def test_scores_are_those_of_flag_reranker(
    xlmr: Path, flag_reranker: Any, pairs: list[tuple[str, str]], max_length: int, normalize: bool
) -> None:
    kept = [pair for pair in pairs if all(survives(flag_reranker.tokenizer, text) for text in pair)]
    assert len(pairs) - len(kept) <= 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = flag_reranker.compute_score(kept, batch_size=4, max_length=max_length, normalize=normalize)
    reranker = CrossEncoderReranker(str(xlmr), device="cpu", max_length=max_length, normalize=normalize)
    assert np.abs(reranker.compute_score(kept) - expected).max() <= TOLERANCE


def test_bert_sees_which_token_belongs_to_which_text(bert: Path) -> None:
    pairs = [
        ("ducks swim?", "ducks, ducks."),
        ("的 a", ""),
        ("", "鸭"),
        ("ducks " * 90, "swim " * 90),
        ("q", "z" * 300),
    ]
    expected = plain_scores(bert, pairs, max_length=64)[:, 0]
    without_types = plain_scores(bert, pairs, max_length=64, types=False)[:, 0]
    found = CrossEncoderReranker(str(bert), device="cpu", max_length=64).compute_score(pairs)
    assert np.abs(found - expected).max() <= TOLERANCE
    assert np.abs(found - without_types).max() > 100 * TOLERANCE


def test_roberta(roberta: Path) -> None:
    pairs = [
        ("ducks swim?", "ducks, ducks."),
        ("的 a", ""),
        ("", "鸭🦆"),
        ("ducks " * 90, "swim " * 90),
        ("q", "z" * 300),
    ]
    expected = plain_scores(roberta, pairs, max_length=128, types=False)[:, 0]
    found = CrossEncoderReranker(str(roberta), device="cpu", max_length=128).compute_score(pairs)
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize("kind", ["electra", "distilbert", "deberta-v2", "modernbert", "mpnet"])
def test_other_architectures_come_from_transformers(kind: str, make_wordpiece: Callable[[Any], Path]) -> None:
    from transformers import AutoConfig

    sizes: dict[str, Any] = {"num_labels": 1, "max_position_embeddings": 130, "initializer_range": 0.2}
    if kind == "distilbert":
        sizes |= {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
    else:
        sizes |= {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    specials = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    folder = make_wordpiece(AutoConfig.for_model(kind, **sizes, **(specials if kind != "distilbert" else {})))
    pairs = [
        ("ducks swim?", "ducks, ducks."),
        ("的 a", ""),
        ("", "鸭"),
        ("ducks " * 90, "swim " * 90),
        ("q", "z" * 300),
    ]
    expected = plain_scores(folder, pairs, max_length=96, types=kind == "electra")[:, 0]
    found = CrossEncoderReranker(str(folder), device="cpu", max_length=96).compute_score(pairs)
    assert np.abs(found - expected).max() <= TOLERANCE


def test_of_two_labels_the_score_is_the_log_odds_of_the_second(make_xlmr: Callable[..., Path]) -> None:
    folder = make_xlmr(labels=2)
    logits = plain_scores(folder, ODD, max_length=64, types=False)
    found = CrossEncoderReranker(str(folder), device="cpu", max_length=64).compute_score(ODD)
    assert np.abs(found - (logits[:, 1] - logits[:, 0])).max() <= TOLERANCE
    softmax = torch.softmax(torch.from_numpy(logits), dim=1)[:, 1].numpy()
    likely = CrossEncoderReranker(str(folder), device="cpu", max_length=64, normalize=True).compute_score(ODD)
    assert np.abs(likely - softmax).max() <= TOLERANCE
