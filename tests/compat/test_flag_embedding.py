"""The drop-in class against the class it stands in for."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3rag.compat import BGEM3FlagModel
from m3rag.encoder import M3Encoder
from m3rag.errors import ConfigurationError, InputError

TOLERANCE = 1e-5
MODES = ["colbert", "sparse", "dense", "sparse+dense", "colbert+sparse+dense"]
ALL = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
# Loading a model and its vocabulary twice takes seconds, so that options are tried together.
MEAN = {
    "pooling_method": "mean",
    "truncate_dim": 24,
    "query_instruction_for_retrieval": "Find passages:",
    "query_instruction_format": "{}\\n{}",
    "passage_instruction_for_retrieval": "Passage",
    "passage_instruction_format": "<{}> {}",
    "query_max_length": 24,
    "passage_max_length": 48,
    "return_dense": False,
    "return_sparse": True,
}
LAST_TOKEN = {"pooling_method": "last_token", "normalize_embeddings": False, "truncate_dim": 1000}

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def reference_class() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from FlagEmbedding import BGEM3FlagModel as Reference
    return Reference


@pytest.fixture(scope="module")
def both(tiny_checkpoint: Path, reference_class: Any) -> Callable[..., tuple[Any, Any]]:
    """The reference and ours, with the same arguments."""
    made: dict[str, tuple[Any, Any]] = {}

    def make(**options: Any) -> tuple[Any, Any]:
        key = repr(sorted(options.items()))
        if key not in made:
            arguments = {"use_fp16": False, "devices": "cpu", **options}
            made[key] = tuple(cls(str(tiny_checkpoint), **arguments) for cls in (reference_class, BGEM3FlagModel))
        return made[key]

    return make


@pytest.fixture(scope="module")
def texts(multilingual_texts: list[str]) -> list[str]:
    return [*multilingual_texts[::20], "", " \n", "🦆🦆", "<mask> in the middle", "的" * 50]


@pytest.fixture(scope="module")
def pairs(multilingual_texts: list[str]) -> list[tuple[str, str]]:
    """Questions with passages, and passages with parts of themselves; some texts come twice."""
    questions, passages = multilingual_texts[16:20], multilingual_texts[:4]
    return [*zip(questions, passages, strict=True), *((p[: len(p) // 2], p) for p in passages)]


def quiet(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method(*arguments, **options)


def assert_same_dense(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE


def assert_same_weights(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    assert ours.keys() == theirs.keys()
    assert {type(weight) for weight in ours.values()} == {type(weight) for weight in theirs.values()}
    assert all(abs(ours[token] - theirs[token]) <= TOLERANCE for token in theirs)


def assert_same(ours: Any, theirs: Any, *, one: bool = False) -> None:
    assert list(ours) == list(theirs) == ["dense_vecs", "lexical_weights", "colbert_vecs"]
    for key, expected in theirs.items():
        if expected is None:
            assert ours[key] is None
        elif key == "dense_vecs":
            assert_same_dense(ours[key], expected)
        else:
            check = assert_same_weights if key == "lexical_weights" else assert_same_dense
            assert one or type(ours[key]) is type(expected) is list
            for got, wanted in zip(*(([v] if one else v) for v in (ours[key], expected)), strict=True):
                check(got, wanted)


def test_the_signatures_are_the_references(reference_class: Any) -> None:
    for name in (
        "__init__",
        "encode",
        "encode_queries",
        "encode_corpus",
        "compute_score",
        "compute_lexical_matching_score",
        "colbert_score",
        "convert_id_to_token",
        "stop_self_pool",
    ):
        theirs = inspect.signature(getattr(reference_class, name)).parameters
        ours = inspect.signature(getattr(BGEM3FlagModel, name)).parameters
        by_position = [p for p in theirs if p != "kwargs"]
        assert list(ours)[: len(by_position)] == by_position, name
        defaults = {p: theirs[p].default for p in by_position if p != "pooling_method"}
        assert {p: ours[p].default for p in defaults} == defaults, name


@pytest.mark.parametrize("options", [{}, MEAN, LAST_TOKEN], ids=["default", "mean", "last_token"])
@pytest.mark.parametrize("method", ["encode", "encode_queries", "encode_corpus"])
def test_texts_encode_as_in_the_reference(both: Make, texts: list[str], method: str, options: dict[str, Any]) -> None:
    theirs, ours = both(**options)
    some = texts if not options else texts[::4]
    expected = quiet(getattr(theirs, method), some, **ALL)
    assert_same(getattr(ours, method)(some, **ALL), expected)
    if options is MEAN:
        assert max(map(len, expected["colbert_vecs"])) + 1 == (24 if method == "encode_queries" else 48)
    one = getattr(ours, method)(some[0], **ALL)
    assert_same(one, quiet(getattr(theirs, method), some[0], **ALL), one=True)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"return_sparse": True},
        {"return_dense": False, "return_sparse": True},
        {"return_dense": False, "return_colbert_vecs": True},
    ],
)
def test_only_what_is_asked_for_is_given(both: Make, texts: list[str], asked: dict[str, bool]) -> None:
    theirs, ours = both()
    assert_same(ours.encode(texts, **asked), quiet(theirs.encode, texts, **asked))


def test_the_constructor_sets_what_is_asked_for(both: Make, texts: list[str]) -> None:
    theirs, ours = both(**MEAN)
    assert_same(ours.encode(texts), quiet(theirs.encode, texts))
    assert_same(ours.encode_queries(texts, return_dense=True), quiet(theirs.encode_queries, texts, return_dense=True))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_call_sets_its_length_and_no_batch_size_shows(both: Make, texts: list[str], batch_size: int) -> None:
    theirs, ours = both()
    expected = quiet(theirs.encode, texts, max_length=12, **ALL)
    assert_same(ours.encode(texts, batch_size, 12, **ALL), expected)


def test_an_instruction_may_come_with_the_call(both: Make, texts: list[str]) -> None:
    theirs, ours = both()
    told = {"instruction": "Summary of", "instruction_format": "{}: {}", **ALL}
    assert_same(ours.encode(texts, **told), quiet(theirs.encode, texts, **told))


def test_scores_are_of_whole_vectors(both: Make, pairs: list[tuple[str, str]]) -> None:
    for options in (MEAN, LAST_TOKEN):
        theirs, ours = both(**options)
        expected = quiet(theirs.compute_score, pairs[:3], batch_size=1)
        found = ours.compute_score(pairs[:3])
        assert all(found[mode] == pytest.approx(expected[mode], rel=TOLERANCE, abs=TOLERANCE) for mode in MODES)
        assert (np.abs(found["dense"]).max() > 2) == (options is LAST_TOKEN)


@pytest.mark.parametrize("weights", [None, [0.4, 0.2, 0.4], [1, 0, 0], [0, 0.5, 1]])
def test_scores_are_the_references(both: Make, pairs: list[tuple[str, str]], weights: list[float] | None) -> None:
    theirs, ours = both()
    # One pair a batch: the reference's padding would clamp negative ColBERT maxima.
    options = {"max_passage_length": 64, "max_query_length": 48, "weights_for_different_modes": weights}
    expected = quiet(theirs.compute_score, pairs, batch_size=1, **options)
    found = ours.compute_score(pairs, **options)
    assert list(found) == list(expected) == MODES
    for mode in MODES:
        assert all(type(score) is float for score in found[mode])
        assert found[mode] == pytest.approx(expected[mode], abs=TOLERANCE)
    assert np.count_nonzero(found["sparse"]) >= 3
    in_batches = ours.compute_score(pairs, batch_size=3, **options)
    assert all(in_batches[mode] == pytest.approx(found[mode], abs=1e-6) for mode in MODES)


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_one_pair_has_one_score_a_mode(both: Make, pairs: list[tuple[str, str]], kind: Any) -> None:
    theirs, ours = both()
    assert ours.compute_score(kind(pairs[0])) == pytest.approx(
        quiet(theirs.compute_score, kind(pairs[0])), abs=TOLERANCE
    )


def test_pairs_may_be_an_array(both: Make, pairs: list[tuple[str, str]]) -> None:
    theirs, ours = both()
    expected = quiet(theirs.compute_score, np.array(pairs[:3]), batch_size=1)
    found = ours.compute_score(np.array(pairs[:3]))
    assert all(found[mode] == pytest.approx(expected[mode], abs=TOLERANCE) for mode in MODES)


def test_a_mode_whose_weights_are_all_0_has_no_score(both: Make, pairs: list[tuple[str, str]]) -> None:
    theirs, ours = both()
    weights = [0, 0, 1]
    expected = quiet(theirs.compute_score, pairs[0], weights_for_different_modes=weights)
    found = ours.compute_score(pairs[0], weights_for_different_modes=weights)
    assert found == pytest.approx(expected, abs=TOLERANCE, nan_ok=True)
    assert np.isnan(found["sparse+dense"])


def test_negative_maxima_of_colbert_count_whatever_the_batch(
    tiny_checkpoint: Path, tmp_path: Path, reference_class: Any, texts: list[str]
) -> None:
    # Token vectors around 0 in few dimensions, so that some of them have nothing near them in a short passage.
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "centred")
    encoder = M3Encoder(str(tiny_checkpoint), device="cpu")
    torch.manual_seed(1)
    head = torch.nn.Linear(64, 4)
    with torch.inference_mode():
        middle = encoder.network.states(encoder.pack(texts, role="document")).mean(0)
        state = {"weight": head.weight.half(), "bias": -(head.weight @ middle).half()}
    torch.save(state, folder / "colbert_linear.pt")
    theirs, ours = (
        cls(str(folder), use_fp16=False, devices="cpu", colbert_dim=4) for cls in (reference_class, BGEM3FlagModel)
    )

    query, *passages = ours.encode([texts[0], *texts], return_colbert_vecs=True)["colbert_vecs"]
    alone = [float(theirs.colbert_score(query, passage)) for passage in passages]
    pairs = [(texts[0], text) for text in texts]
    assert ours.compute_score(pairs)["colbert"] == pytest.approx(alone, abs=TOLERANCE)
    assert quiet(theirs.compute_score, pairs, batch_size=1)["colbert"] == pytest.approx(alone, abs=TOLERANCE)
    # Should this fail, the reference has been mended, and our docstring says too much.
    assert quiet(theirs.compute_score, pairs)["colbert"] != pytest.approx(alone, abs=1e-3)


def test_lexical_matching_scores_are_the_references(both: Make, texts: list[str]) -> None:
    theirs, ours = both()
    weights = ours.encode(texts, return_sparse=True)["lexical_weights"]
    first, second = weights[:4], weights[2:9]
    expected = theirs.compute_lexical_matching_score(first, second)
    assert_same_dense(ours.compute_lexical_matching_score(first, second), expected)
    one = ours.compute_lexical_matching_score(first[2], second[0])
    assert one == pytest.approx(theirs.compute_lexical_matching_score(first[2], second[0]))
    assert ours.compute_lexical_matching_score({"1": 0.5}, {"2": 0.5}) == 0
    assert ours.compute_lexical_matching_score([], weights).shape == (0, len(weights))
    with pytest.raises(InputError, match="one of each"):
        ours.compute_lexical_matching_score(first[0], second)


def test_the_colbert_score_is_the_references_tensor(both: Make, texts: list[str]) -> None:
    theirs, ours = both()
    q, p = ours.encode(texts[:2], return_colbert_vecs=True)["colbert_vecs"]
    expected = theirs.colbert_score(q, p)
    found = ours.colbert_score(q, p)
    assert isinstance(found, torch.Tensor)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_tokens_read_as_in_the_reference(both: Make, texts: list[str]) -> None:
    theirs, ours = both()
    weights = ours.encode(texts, return_sparse=True)["lexical_weights"]
    expected = theirs.convert_id_to_token(weights)
    found = ours.convert_id_to_token(weights)
    assert [f.keys() for f in found] == [e.keys() for e in expected]
    assert sum(map(len, found)) > 100
    for form in (weights[0], weights[:1]):
        assert ours.convert_id_to_token(form).keys() == theirs.convert_id_to_token(form).keys()
    assert ours.convert_id_to_token([]) == []


def test_of_two_tokens_that_read_the_same_the_larger_weight_counts(both: Make) -> None:
    _, ours = both()
    tokens = {ours.encoder.token(i): i for i in range(1000)}
    token = next(t for t in tokens if f"▁{t}" in tokens)
    for weights in ((0.75, 0.25), (0.25, 0.75)):
        given = {str(tokens[token]): weights[0], str(tokens[f"▁{token}"]): weights[1]}
        assert ours.convert_id_to_token(given) == {token: 0.75}


def test_every_token_of_the_vocabulary_reads_as_in_the_reference(both: Make) -> None:
    theirs, ours = both()
    ids = range(0, 250_002, 7)
    found = [next(iter(ours.convert_id_to_token({str(i): 1.0}))) for i in ids]
    assert found == [theirs.tokenizer.decode([i]) for i in ids]


def test_nothing_gives_nothing(both: Make) -> None:
    _, ours = both()
    found = ours.encode([], **ALL)
    assert found["dense_vecs"].shape == (0, 64)
    assert (found["lexical_weights"], found["colbert_vecs"]) == ([], [])
    assert ours.encode([])["dense_vecs"].shape == (0, 64)
    assert ours.compute_score([]) == {mode: [] for mode in MODES}


def test_a_length_beyond_the_models_is_the_models(both: Make, tiny_checkpoint: Path) -> None:
    _, ours = both()
    text = "several ducks swim " * 3000
    found = ours.encode(text, max_length=20_000, **ALL)
    expected = M3Encoder(str(tiny_checkpoint), device="cpu", colbert_dtype="float32").encode_documents([text])
    assert len(found["colbert_vecs"]) == 8191
    assert np.abs(found["dense_vecs"] - expected.dense[0]).max() <= TOLERANCE


def test_several_devices_share_the_work_until_their_pool_is_stopped(
    tiny_checkpoint: Path, both: Make, texts: list[str]
) -> None:
    expected = both()[1].encode(texts, **ALL)
    model = BGEM3FlagModel(str(tiny_checkpoint), devices=["cpu", "cpu"])
    try:
        assert model.target_devices == ["cpu", "cpu"]
        assert_same(model.encode(texts, **ALL), expected)
        model.stop_self_pool()
        assert multiprocessing.active_children() == []
        assert_same(model.encode(texts[0], **ALL), both()[1].encode(texts[0], **ALL), one=True)
    finally:
        model.stop_self_pool()


def test_the_default_precision_on_a_cpu_is_float32(tiny_checkpoint: Path, both: Make) -> None:
    model = BGEM3FlagModel(str(tiny_checkpoint), use_fp16=True, use_bf16=True, devices=torch.device("cpu"))
    assert model.target_devices == ["cpu"]
    assert_same_dense(model.encode("ducks")["dense_vecs"], quiet(both()[0].encode, "ducks")["dense_vecs"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_has_the_references_dtypes(tiny_checkpoint: Path, reference_class: Any) -> None:
    theirs, ours = (cls(str(tiny_checkpoint), use_fp16=True, devices=0) for cls in (reference_class, BGEM3FlagModel))
    expected, found = quiet(theirs.encode, "ducks swim", **ALL), ours.encode("ducks swim", **ALL)
    for key in ("dense_vecs", "colbert_vecs"):
        assert found[key].dtype == expected[key].dtype
    kinds = [{type(w) for w in result["lexical_weights"].values()} for result in (found, expected)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"devices": []}, "empty list"),
        ({"devices": ["cpu", "meta"]}, "'meta' cannot be used"),
        ({"devices": 0.5}, "device is 0.5"),
        ({"truncate_dim": 2.5}, "truncate_dim must be a whole number"),
        ({"devices": "abacus"}, "abacus"),
        ({"colbert_dim": 32}, "colbert_dim=32.*64"),
        ({"pooling_method": "max"}, "pooling"),
        ({"truncate_dim": 0}, "truncate_dim"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tiny_checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BGEM3FlagModel(str(tiny_checkpoint), **{"devices": "cpu", **options})


def test_wrong_calls_are_refused(both: Make) -> None:
    _, ours = both()
    with pytest.raises(ConfigurationError, match="return_dense"):
        ours.encode("ducks", return_dense=False)
    with pytest.raises(ConfigurationError, match="batch_size"):
        ours.encode("ducks", batch_size=0)
    with pytest.raises(ConfigurationError, match="max_length"):
        ours.encode("ducks", max_length=0)
    with pytest.raises(ConfigurationError, match="max_length must be a whole number"):
        ours.encode("ducks", max_length="512")
    with pytest.raises(InputError, match="text 0 is a list"):
        ours.encode([["ducks", "geese"]])
    with pytest.raises(InputError, match="text 1"):
        ours.encode(["ducks", None])
    with pytest.raises(InputError, match="text 0"):
        ours.encode([None, 3], instruction="find: ")
    with pytest.raises(InputError, match="got a dict"):  # iterating over it would give its keys
        ours.encode_corpus({"x": "ducks", "y": "geese"})
    with pytest.raises(InputError, match="of 2 dimensions; give one column"):
        ours.encode_queries(np.array([["ducks", "geese"]]))
    with pytest.raises(InputError, match="got a NoneType"):
        ours.encode(None)
    with pytest.raises(InputError, match="pair 0"):
        ours.compute_score([["a", ["b"]]])
    with pytest.raises(InputError, match="pair 0"):
        ours.compute_score([("a", "b", "c")])
    with pytest.raises(InputError, match="pair 0"):
        ours.compute_score("ducks")
    with pytest.raises(ConfigurationError, match="three"):
        ours.compute_score(("a", "b"), weights_for_different_modes=[1, 1])
    with pytest.raises(ConfigurationError, match=">= 0"):
        ours.compute_score(("a", "b"), weights_for_different_modes=[1, -1, 1])
    with pytest.raises(TypeError, match="pad_to_multiple_of"):
        ours.encode("ducks", pad_to_multiple_of=8)
