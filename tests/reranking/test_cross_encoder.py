from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, ElectraConfig

from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.reranking import CrossEncoderReranker, Reranker
from m3rag.reranking.pairs import Pair
from m3rag.types import Chunk, Hit, LegRanks, LegScores

PASSAGES = ["Ducks swim.", "", "Ducks swim on ponds and rivers. " * 9, "🦆", "鸭子会游泳。", "Ducks swim."]
PAIRS = [("Do ducks swim?", passage) for passage in PASSAGES]


def reranker_of(folder: Path, **options: object) -> CrossEncoderReranker:
    return CrossEncoderReranker(str(folder), device="cpu", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reranker(xlmr: Path) -> CrossEncoderReranker:
    return reranker_of(xlmr)


def hit_of(i: int, text: str, *, key: str | None = None, headings: tuple[str, ...] = ()) -> Hit:
    chunk = Chunk(id=key or f"c{i}", document_id="d", text=text, start=0, end=len(text), headings=headings)
    return Hit(chunk, 1.0 / (i + 1), LegScores(dense=0.5, lexical=0.1), LegRanks(dense=i + 1), found_by=("dense",))


def test_the_best_hit_comes_first_and_the_other_scores_stay(reranker: CrossEncoderReranker) -> None:
    hits = [hit_of(i, text) for i, text in enumerate(PASSAGES[:5])]
    given = list(hits)
    as_any: Reranker = reranker
    found = as_any.rerank("Do ducks swim?", hits)
    scores = reranker.compute_score([("Do ducks swim?", hit.chunk.text) for hit in hits])
    assert [hit.chunk.id for hit in found] == [f"c{i}" for i in np.argsort(-scores)]
    assert [hit.score for hit in found] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)
    assert all(hit.scores == LegScores(dense=0.5, lexical=0.1, rerank=hit.score) for hit in found)
    assert {hit.chunk.id: hit.ranks for hit in found} == {hit.chunk.id: hit.ranks for hit in hits}
    assert all(hit.found_by == ("dense",) for hit in found)
    assert hits == given


def test_ties_are_broken_by_id_and_k_cuts(xlmr: Path) -> None:
    hits = [hit_of(i, "Ducks swim.", key=key) for i, key in enumerate(["b", "ä", "a", "B"])]
    found = reranker_of(xlmr, batch_tokens=1).rerank("Do ducks swim?", hits, k=3)
    assert [hit.chunk.id for hit in found] == ["B", "a", "b"]


def test_the_same_passage_has_the_same_score_wherever_it_falls_in_a_batch(xlmr: Path) -> None:
    texts = ["Ducks swim.", "Do ducks?", "Ducks swim.", "Ducks swim on ponds. " * 3] * 9
    hits = [hit_of(i, text, key=f"{99 - i}") for i, text in enumerate(texts)]
    for batch_tokens in (40, 100, 1000):
        found = reranker_of(xlmr, batch_tokens=batch_tokens).rerank("Do ducks swim?", hits)
        same = [hit for hit in found if hit.chunk.text == "Ducks swim."]
        assert len({hit.score for hit in same}) == 1
        assert [hit.chunk.id for hit in same] == sorted(hit.chunk.id for hit in same)


def test_hits_beyond_top_n_follow_as_they_were(xlmr: Path) -> None:
    hits = [hit_of(i, text) for i, text in enumerate(PASSAGES)]
    three = reranker_of(xlmr, top_n=3)
    found = three.rerank("Do ducks swim?", hits)
    assert {hit.chunk.id for hit in found[:3]} == {"c0", "c1", "c2"}
    assert found[3:] == hits[3:]
    assert len(three.rerank("Do ducks swim?", hits, k=2)) == 2
    assert len(reranker_of(xlmr, top_n=99).rerank("Do ducks swim?", hits, k=99)) == 6


def test_the_model_reads_the_headings_too(reranker: CrossEncoderReranker) -> None:
    bare, headed = (reranker.rerank("q", [hit_of(0, "Ducks swim.", headings=path)])[0] for path in ((), ("Birds",)))
    assert headed.score == pytest.approx(reranker.compute_score([("q", "Birds\nDucks swim.")])[0], abs=1e-5)
    assert headed.score != bare.score


def test_no_hits_and_no_pairs_are_no_error(reranker: CrossEncoderReranker) -> None:
    assert reranker.rerank("Do ducks swim?", []) == []
    assert reranker.compute_score([]).shape == (0,)
    assert reranker.compute_score([]).dtype == np.float32


def test_pairs_may_be_an_array(reranker: CrossEncoderReranker) -> None:
    assert np.array_equal(reranker.compute_score(np.array(PAIRS)), reranker.compute_score(PAIRS))


def test_what_cannot_be_scored_is_named(reranker: CrossEncoderReranker) -> None:
    with pytest.raises(InputError, match="in a list"):
        reranker.compute_score(("q", "p"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="in a list"):
        reranker.compute_score("q")  # type: ignore[arg-type]
    for wrong in (("q", None), ("q",), "qp", 7):
        with pytest.raises(InputError, match="pair 1 is"):
            reranker.compute_score([("q", "p"), wrong])  # type: ignore[list-item]
    with pytest.raises(InputError, match="query is empty"):
        reranker.rerank(" \n", [hit_of(0, "text")])
    with pytest.raises(InputError, match="k must be at least 1"):
        reranker.rerank("q", [hit_of(0, "text")], k=0)


@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
def test_scores_do_not_depend_on_the_batches_nor_the_order(
    xlmr: Path, reranker: CrossEncoderReranker, batch_tokens: int
) -> None:
    expected = [float(reranker.compute_score([pair])[0]) for pair in PAIRS]
    other = reranker_of(xlmr, batch_tokens=batch_tokens)
    assert other.compute_score(PAIRS) == pytest.approx(expected, abs=1e-5)
    assert other.compute_score(PAIRS[::-1]) == pytest.approx(expected[::-1], abs=1e-5)


def test_progress_tells_of_every_pair_longest_first(xlmr: Path) -> None:
    reranker = reranker_of(xlmr, batch_tokens=20)
    sizes: list[int] = []
    real = reranker.scorer.classifier

    class Watched:
        max_length = real.max_length
        labels = real.labels

        def __call__(self, pairs: Sequence[Pair]) -> torch.Tensor:
            sizes.extend(len(pair.ids) for pair in pairs)
            return real(pairs)

    reranker.scorer.classifier = Watched()
    done: list[int] = []
    reranker.compute_score(PAIRS, progress=done.append)
    assert sum(done) == len(PAIRS)
    assert len(done) > 1
    assert sizes == sorted(sizes, reverse=True)


def test_cut_pairs_are_counted_and_told_of_once(xlmr: Path, caplog: pytest.LogCaptureFixture) -> None:
    reranker = reranker_of(xlmr, max_length=20)
    with caplog.at_level(logging.WARNING, logger="m3rag"):
        reranker.compute_score(PAIRS)
    assert reranker.truncated_pairs == 1
    assert [record.getMessage().split(" are")[0] for record in caplog.records] == ["1 of 6 pairs"]


def test_lone_surrogates_are_scored(reranker: CrossEncoderReranker) -> None:
    assert np.isfinite(reranker.compute_score([("\ud800", "ducks \udfff")])).all()


def test_threads_share_it(xlmr: Path) -> None:
    reranker = reranker_of(xlmr, batch_tokens=30)
    expected = reranker.compute_score(PAIRS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(reranker.compute_score, [PAIRS] * 8):
            assert np.array_equal(found, expected)


def test_lengths_out_of_range_are_refused(xlmr: Path, bert: Path, reranker: CrossEncoderReranker) -> None:
    assert reranker.max_length == 512
    assert reranker_of(bert).max_length == 128
    assert reranker_of(xlmr, max_length=8192).query_max_length == 6144
    with pytest.raises(ConfigurationError, match="choose at most 8192"):
        reranker_of(xlmr, max_length=8193)
    for options in ({"max_length": 12}, {"max_length": 0}, {"query_max_length": 125}, {"query_max_length": 0}):
        with pytest.raises(ConfigurationError, match="leave no room"):
            reranker_of(bert, **options)
    for options in ({"max_length": "x"}, {"query_max_length": 2.5}, {"batch_tokens": "x"}):
        with pytest.raises(ConfigurationError, match="must be a whole number"):
            reranker_of(bert, **options)
    for options in ({"batch_tokens": 0}, {"top_n": 0}):
        with pytest.raises(ConfigurationError, match="at least 1"):
            reranker_of(bert, **options)


def test_a_pair_of_the_longest_length_has_positions(bert: Path) -> None:
    assert np.isfinite(reranker_of(bert, max_length=128).compute_score([("ducks", "swim " * 500)])).all()


@pytest.mark.parametrize(("model", "remedy"), [("mini", "BAAI/bge-reranker-v2-m3"), ("", "BAAI/bge-reranker-v2-m3")])
def test_what_is_no_name_of_a_reranker_is_told(model: str, remedy: str) -> None:
    with pytest.raises(ModelError, match=remedy):
        CrossEncoderReranker(model)


def test_a_model_that_cannot_be_had_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="hf download BAAI/bge-reranker-v2-m3") as caught:
        CrossEncoderReranker(cache_folder=str(tmp_path), local_files_only=True)
    assert "mini" not in str(caught.value)


def test_an_embedding_model_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=r"is a XLMRobertaModel, no reranker: give a sequence-classification"):
        reranker_of(tiny_checkpoint)


@pytest.fixture
def copy(xlmr: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(xlmr, tmp_path / "copy"))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_sigmoid_orders_as_the_logits_do_where_it_tells_none_apart(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["classifier.out_proj.bias"] += 100
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    hits = [hit_of(i, f"passage {i}", key=str(9 - i)) for i in range(8)]
    by_logits, by_sigmoid = (reranker_of(copy, normalize=on).rerank("q", hits) for on in (False, True))
    assert [hit.chunk.id for hit in by_sigmoid] == [hit.chunk.id for hit in by_logits]
    assert len({hit.score for hit in by_logits}) == 8
    assert {hit.score for hit in by_sigmoid} == {hit.scores.rerank for hit in by_sigmoid} == {1.0}


def test_a_head_that_is_missing_is_named(tiny_checkpoint: Path, copy: Path) -> None:
    shutil.copy(tiny_checkpoint / "model.safetensors", copy)
    with pytest.raises(ModelError, match=r"lacks the head of a reranker .*classifier\.dense\.weight"):
        reranker_of(copy)


def test_the_older_weight_file_loads(reranker: CrossEncoderReranker, copy: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert np.array_equal(reranker_of(copy).compute_score(PAIRS), reranker.compute_score(PAIRS))


def test_more_than_two_labels_are_refused(make_xlmr: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="has 3 labels"):
        reranker_of(make_xlmr(labels=3))


def test_an_unknown_architecture_names_what_is_supported(copy: Path) -> None:
    change_config(copy, model_type="new", architectures=["NewForSequenceClassification"])
    with pytest.raises(ModelError, match=r"of type 'new', which cannot be loaded \(ValueError\).*xlm-roberta"):
        reranker_of(copy)


def test_weights_that_transformers_would_fill_at_random_are_refused(
    make_wordpiece: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import ElectraConfig

    folder = make_wordpiece(ElectraConfig(hidden_size=32, embedding_size=32, num_hidden_layers=1, num_labels=1))
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.out_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack classifier\.out_proj\.weight"):
        reranker_of(folder)


def test_a_damaged_tokenizer_is_named(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer\.json is no tokenizer\.json"):
        reranker_of(copy)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_a_token_without_a_vector_is_named(make_wordpiece: Callable[[Any], Path], family: str) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_labels": 1,
    }
    folder = make_wordpiece(BertConfig(**sizes) if family == "bert" else ElectraConfig(**sizes))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    vocab["geese"] = len(vocab)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    reranker = CrossEncoderReranker(folder, device="cpu")
    assert len(reranker.compute_score([("ducks?", "ducks swim")])) == 1
    with pytest.raises(
        ModelError, match=rf"has the token 'geese' with id {len(vocab) - 1}, its weights end at id {len(vocab) - 2}"
    ):
        reranker.compute_score([("ducks?", "geese swim")])


def test_a_tokenizer_that_does_not_part_the_texts_is_refused(copy: Path) -> None:
    path = copy / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"post_processor": None}))
    with pytest.raises(ModelError, match="no special token between question and passage"):
        reranker_of(copy)
