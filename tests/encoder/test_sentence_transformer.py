"""SentenceTransformerEncoder against the library itself, and against the embedded model's own encoder."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m3rag.encoder.cache import MemoryCache
from m3rag.encoder.cached import CachedEncoder
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.sentence_transformer import SentenceTransformerEncoder
from m3rag.errors import ConfigurationError, InputError, ModelError

from .sentence_models import save_mini, save_small, save_tiny

TEXTS = ["Ducks swim on ponds.", "", "Les canards nagent.", "鸭子在游泳。" * 20, " \n", "half a pair \ud800", "Enten"]


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tiny_checkpoint, tmp_path_factory.mktemp("st") / "tiny")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SentenceTransformerEncoder:
    return load(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("st") / "small")


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """The small model once more, for tests that change it."""
    shutil.copytree(small, tmp_path / "copy")
    return tmp_path / "copy"


def load(folder: Path, **options: Any) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(str(folder), device="cpu", local_files_only=True, **options)


def test_the_embedded_model_gives_the_same_by_either_encoder(tmp_path: Path, multilingual_texts: list[str]) -> None:
    texts = [*multilingual_texts[::20], *TEXTS]
    encoder, mini = load(save_mini(tmp_path / "mini")), M3Encoder("mini", device="cpu")
    assert encoder.max_length == mini.max_length == 512
    for role in ("query", "document"):
        assert np.abs(encoder.encode_dense(texts, role=role) - mini.encode_dense(texts, role=role)).max() < 1e-5
    for text in [*texts, "\n\n".join(texts)]:
        assert np.array_equal(encoder.word_spans(text), mini.word_spans(text))


def test_an_output_has_the_dense_leg_and_no_other(encoder: SentenceTransformerEncoder) -> None:
    output = encoder.encode_documents(TEXTS)
    assert output.dense.shape == (len(TEXTS), 64)
    assert output.dense.dtype == np.float32
    assert np.linalg.norm(output.dense, axis=1) == pytest.approx(1, abs=1e-6)
    assert (output.lexical.shape, output.colbert.shape) == ((len(TEXTS), 0), (0, 0))
    assert encoder.info.legs == ("dense",)
    assert (encoder.info.dense_dim, encoder.info.vocab_size, encoder.info.colbert_dim) == (64, 0, 0)
    assert encoder.token_spans("Ducks swim.").shape == (0, 2)
    with pytest.raises(ConfigurationError, match="no lexical weights"):
        encoder.token(5)
    assert encoder.encode_queries([]).dense.shape == (0, 64)


def test_questions_and_passages_get_the_prompts_of_the_model(folder: Path, encoder: SentenceTransformerEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(folder), device="cpu")
    texts = [text for text in TEXTS if "\ud800" not in text]
    queries, documents = encoder.encode_queries(texts).dense, encoder.encode_documents(texts).dense
    assert np.allclose(queries, library.encode_query(texts, normalize_embeddings=True), atol=1e-5)
    assert np.allclose(documents, library.encode_document(texts, normalize_embeddings=True), atol=1e-5)
    assert np.allclose(queries, library.encode([f"query: {t}" for t in texts], normalize_embeddings=True), atol=1e-5)
    assert np.abs(queries - documents).max() > 1e-2


def test_instructions_take_the_place_of_the_prompts(folder: Path, encoder: SentenceTransformerEncoder) -> None:
    other = load(folder, query_instruction="", document_instruction="query: ")
    assert np.allclose(other.encode_documents(TEXTS).dense, encoder.encode_queries(TEXTS).dense, atol=1e-5)
    plain = other.encode_queries(["query: Enten"]).dense
    assert np.allclose(plain, encoder.encode_queries(["Enten"]).dense, atol=1e-5)


def test_batches_change_nothing_and_progress_counts_texts(
    folder: Path, encoder: SentenceTransformerEncoder, multilingual_texts: list[str]
) -> None:
    small = load(folder, batch_size=2)
    texts = multilingual_texts[:70]
    done: list[int] = []
    dense = small.encode_dense(texts, role="document", progress=done.append)
    assert np.allclose(dense, encoder.encode_dense(texts, role="document"), atol=1e-5)
    assert done == [32, 32, 6]
    alone = np.concatenate([small.encode_documents([text]).dense for text in texts[:5]])
    assert np.allclose(dense[:5], alone, atol=1e-5)


def test_vectors_cut_short_or_not_normalised(folder: Path, encoder: SentenceTransformerEncoder) -> None:
    raw = load(folder, normalize=False).encode_documents(TEXTS).dense
    lengths = np.linalg.norm(raw, axis=1)
    assert np.abs(lengths - 1).min() > 0.1
    assert np.allclose(raw / lengths[:, None], encoder.encode_documents(TEXTS).dense, atol=1e-5)
    short = load(folder, truncate_dim=16)
    assert short.info.dense_dim == 16
    expected = raw[:, :16] / np.linalg.norm(raw[:, :16], axis=1, keepdims=True)
    assert np.allclose(short.encode_documents(TEXTS).dense, expected, atol=1e-5)


def test_numbers_of_numpy_are_pythons(small: Path) -> None:
    options = {"max_length": 16, "truncate_dim": 8, "batch_size": 4}
    numpys = load(small, **{name: np.int64(value) for name, value in options.items()})
    assert numpys.info == load(small, **options).info


def test_a_pickled_encoder_loads_the_same_model(small: Path) -> None:
    encoder = load(small, max_length=16, truncate_dim=8, query_instruction="q: ")
    other = pickle.loads(pickle.dumps(CachedEncoder(encoder, MemoryCache())))  # noqa: S301
    assert other.info == encoder.info
    assert np.array_equal(other.encode_queries(TEXTS).dense, encoder.encode_queries(TEXTS).dense)


def test_long_texts_are_cut_and_said_to_be(
    folder: Path, encoder: SentenceTransformerEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    assert encoder.max_length == 8192  # of 8194 positions, the first two stand for padding
    assert encoder.encode_documents(["canard " * 9000]).dense.shape == (1, 64)
    assert "1 of 1 texts are longer than max_length=8192" in caplog.text
    caplog.clear()
    text = TEXTS[3]
    with caplog.at_level(logging.WARNING):
        cut = load(folder, max_length=12, document_instruction="").encode_documents([text, "Enten"])
    assert "1 of 2 texts" in caplog.text
    end = encoder.word_spans(text)[9, 1]  # ten tokens and two specials
    plain = load(folder, document_instruction="").encode_documents([text[:end]])
    assert np.allclose(cut.dense[0], plain.dense[0], atol=1e-5)


def test_threads_may_share_it(encoder: SentenceTransformerEncoder, multilingual_texts: list[str]) -> None:
    parts = [multilingual_texts[i : i + 5] for i in range(0, 40, 5)]
    alone = [encoder.encode_documents(part).dense for part in parts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda part: encoder.encode_documents(part).dense, parts))
        spans = list(pool.map(encoder.word_spans, multilingual_texts[:40]))
    assert np.allclose(np.concatenate(alone), np.concatenate(together), atol=1e-5)
    assert all(np.array_equal(encoder.word_spans(t), s) for t, s in zip(multilingual_texts, spans, strict=False))


def test_a_model_that_looks_words_up(tmp_path: Path, folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    module = StaticEmbedding(tokenizer, embedding_dim=8)
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(tmp_path / "static"))
    encoder = load(tmp_path / "static")
    assert encoder.max_length == sys.maxsize
    dense = encoder.encode_documents(["Ducks swim.", "", "swim Ducks"]).dense
    assert np.linalg.norm(dense, axis=1) == pytest.approx([1, 0, 1], abs=1e-6)
    assert len(encoder.word_spans("Ducks swim.")) == 7
    with pytest.raises(ConfigurationError, match="leave max_length out"):
        load(tmp_path / "static", max_length=10)


def test_the_fingerprint_is_that_of_the_numbers(small: Path, copy: Path) -> None:
    own = load(small).info.fingerprint
    (copy / "README.md").write_text("Another card.")
    (copy / "onnx").mkdir()
    (copy / "onnx" / "config.json").write_text("{}")
    assert load(copy, batch_size=3).info.fingerprint == own
    options: list[dict[str, Any]] = [
        {"max_length": 20},
        {"query_instruction": ""},
        {"document_instruction": ""},
        {"truncate_dim": 8},
        {"normalize": False},
    ]
    assert len({own, *(load(small, **one).info.fingerprint for one in options)}) == len(options) + 1
    prompts = copy / "config_sentence_transformers.json"
    changed = json.loads(prompts.read_text()) | {"prompts": {"query": "Q: "}}
    prompts.write_text(json.dumps(changed))
    reworded = load(copy).info.fingerprint
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("mean", "cls"))
    repooled = load(copy).info.fingerprint
    _change_weights(copy, lambda name, tensor: tensor + 1e-3)
    assert len({own, reworded, repooled, load(copy).info.fingerprint}) == 4


def test_a_model_of_the_hub_is_found_in_its_cache(small: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    repository = copy.parent / "cache" / "models--some--model"
    revision = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    shutil.copytree(copy, repository / "snapshots" / revision)
    cached = SentenceTransformerEncoder(
        "some/model", device="cpu", cache_folder=str(repository.parent), local_files_only=True
    )
    assert cached.info.name == "some/model"
    direct = load(small)
    assert cached.info.fingerprint == direct.info.fingerprint
    assert np.array_equal(cached.encode_queries(TEXTS).dense, direct.encode_queries(TEXTS).dense)


def test_a_network_that_overflows_is_no_model(copy: Path) -> None:
    _change_weights(copy, lambda name, tensor: tensor * float("nan") if "LayerNorm.weight" in name else tensor)
    with pytest.raises(ModelError, match=r"infinity or NaN.*dtype='float32'"):
        load(copy).encode_documents(["Ducks"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 2}, "max_length 2 is out of range for .*: choose 3 to 64"),
        ({"max_length": 65}, "max_length 65 is out of range"),
        ({"truncate_dim": 0}, "truncate_dim must be at least 1, got 0"),
        ({"truncate_dim": 33}, "truncate_dim 33 is out of range for .*: choose 1 to 32"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"dtype": "int3"}, "dtype 'int3' is unknown"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ],
)
def test_what_cannot_be_done_is_named(small: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SentenceTransformerEncoder(str(small), **{"device": "cpu", **options})


def test_what_is_no_model_is_named(tiny_checkpoint: Path, copy: Path) -> None:
    # A bare transformer: whoever guesses its pooling gets vectors that mean nothing.
    with pytest.raises(ModelError, match=r"no modules\.json.*Pooling"):
        load(tiny_checkpoint)
    with pytest.raises(ModelError, match=r"'some/model'.*hf download some/model"):
        load(Path("some/model"))
    with pytest.raises(ModelError, match=r"hf download sentence-transformers/all-nothing"):
        load(Path("all-nothing"))
    with pytest.raises(InputError, match="name is empty"):
        SentenceTransformerEncoder(" ")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(copy)


def test_tokens_without_a_place_in_the_text_are_no_use(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    SentenceTransformer(modules=[BoW(vocab=["duck", "pond"])], device="cpu").save_pretrained(str(tmp_path / "bow"))
    with pytest.raises(ModelError, match=r"does not tell where its tokens stand.*fast tokenizer"):
        load(tmp_path / "bow")


@pytest.mark.parametrize(
    ("texts", "role", "message"),
    [
        ("Ducks", "query", "got one string: 'Ducks'"),
        (["a", 3], "query", "text 1 is a int"),
        (["a"], "passage", "role is 'passage', must be query or document"),
    ],
)
def test_bad_input_is_named(encoder: SentenceTransformerEncoder, texts: Any, role: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder.encode_dense(texts, role=role)


def test_a_missing_package_names_the_extra(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'pip install "m3rag\[sentence-transformers\]"'):
        load(small)


def _change_weights(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    changed = {name: change(name, tensor).contiguous() for name, tensor in tensors.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
