"""What docs/migrate.md tells people to write, run: after always, before where its packages are installed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DOC = (Path(__file__).parents[2] / "docs" / "migrate.md").read_text(encoding="utf-8")

Names = dict[str, Any]
Run = Callable[[str], Names]


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


INTRO, *SECTIONS = re.split(r"^## ", DOC, flags=re.MULTILINE)
(SHARED,) = blocks(INTRO)
PAIRS = {section.partition("\n")[0]: blocks(section) for section in SECTIONS}
EMBEDDINGS, COMMUNITY, INDEX, ENSEMBLE, FLAG, CHROMA = PAIRS

NOISE = ("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
"""Of what is left behind."""


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if find_spec(package.partition(".")[0]) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


@pytest.fixture(scope="module")
def run(published: Path, tiny_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a block behind the shared one, once, in a folder of its own, and gives the names it leaves."""

    @cache
    def run(block: str) -> Names:
        for name, folder in (("BAAI/bge-m3", published), ("BAAI/bge-reranker-v2-m3", tiny_reranker)):
            block = block.replace(f'"{name}"', repr(str(folder)))
        names: Names = {}
        exec(compile(f"{SHARED}\n{block}", "migrate.md", "exec"), names)
        left.append(names)
        return names

    left: list[Names] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("migrate"))
        yield run
        for names in left:
            if store := names.get("store"):
                getattr(store, "client", store).close()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The tiny checkpoint with what BAAI/bge-m3 has beside it, for sentence-transformers."""
    folder = tmp_path_factory.mktemp("published") / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 64, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tiny_reranker(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    folder = tmp_path_factory.mktemp("tiny-reranker")
    torch.manual_seed(3)
    config = XLMRobertaConfig.from_pretrained(tiny_checkpoint, num_labels=1)
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_checkpoint / name, folder)
    return folder


def test_every_section_shows_a_before_and_an_after() -> None:
    assert len(PAIRS) == 6
    for before, after in PAIRS.values():
        assert "m3rag" in after
        for block in (before, after):
            compile(block, "migrate.md", "exec")
            assert len(block.splitlines()) <= 12


@needs("FlagEmbedding")
@pytest.mark.filterwarnings(*NOISE)
def test_embeddings_are_those_of_the_reference(run: Run) -> None:
    after = run(PAIRS[EMBEDDINGS][1])
    reference = run(PAIRS[FLAG][0])["model"]
    assert np.allclose(after["vector"], reference.encode_queries("What do ducks eat?")["dense_vecs"], atol=1e-5)
    (found,) = after["found"]
    assert found.page_content in after["texts"][:2]


@needs("langchain_huggingface")
@pytest.mark.filterwarnings(*NOISE)
def test_embeddings_before(run: Run) -> None:
    before, after = map(run, PAIRS[EMBEDDINGS])
    assert np.allclose(before["vector"], after["vector"], atol=1e-5)


def test_community(run: Run) -> None:
    after = run(PAIRS[COMMUNITY][1])
    assert len(after["reranked"]) == 2
    scores = [document.metadata["relevance_score"] for document in after["reranked"]]
    assert scores == sorted(scores, reverse=True)
    assert {document.page_content for document in after["reranked"]} <= set(after["texts"])


@needs("langchain_community", "langchain_classic")
@pytest.mark.filterwarnings(*NOISE)
def test_community_before(run: Run) -> None:
    before, after = map(run, PAIRS[COMMUNITY])
    question = "What do ducks eat?"
    assert np.allclose(before["embeddings"].embed_query(question), after["embeddings"].embed_query(question), atol=1e-5)
    reranked = before["reranker"].compress_documents(before["documents"], question)
    assert [d.page_content for d in reranked] == [d.page_content for d in after["reranked"]]


@needs("FlagEmbedding")
@pytest.mark.filterwarnings(*NOISE)
def test_the_index_gives_the_scores_of_bgem3index(run: Run) -> None:
    pytest.importorskip("llama_index.indices.managed.bge_m3", exc_type=ImportError)
    before, after = map(run, PAIRS[INDEX])
    assert [node.node_id for node in after["found"]] == [node.node_id for node in before["found"]]
    scores = [[node.score for node in names["found"]] for names in (before, after)]
    assert np.allclose(*scores, atol=1e-3)  # token vectors are kept in float16
    with pytest.raises(NotImplementedError):
        before["index"].insert_nodes(before["nodes"][:1])


def test_the_index_takes_and_gives_up_nodes(run: Run) -> None:
    after = run(PAIRS[INDEX][1])
    assert len(after["found"]) == 2
    assert Path("my-nodes").is_dir()
    assert sorted(chunk.id for chunk in after["store"].client.get(["0", "1", "2", "3"])) == ["0", "1", "2"]


def test_the_ensemble(run: Run) -> None:
    after = run(PAIRS[ENSEMBLE][1])
    found = [(document.page_content, document.metadata) for document in after["found"]]
    assert len(found) == 2
    assert ("Ducks eat water plants.", {"number": 0}) in found
    (by_words,) = after["store"].similarity_search("ducks", k=1, alpha=0.0, fusion="rrf")
    assert by_words.page_content == "Ducks eat water plants."


@needs("langchain_community", "langchain_classic", "rank_bm25")
@pytest.mark.filterwarnings(*NOISE)
def test_the_ensemble_before(run: Run) -> None:
    before = run(PAIRS[ENSEMBLE][0])
    assert before["retriever"].invoke("ducks")


@needs("FlagEmbedding")
@pytest.mark.filterwarnings(*NOISE)
def test_flag_embedding_gives_the_same_numbers(run: Run) -> None:
    before, after = (run(block)["output"] for block in PAIRS[FLAG])
    assert np.allclose(before["dense_vecs"], after["dense_vecs"], atol=1e-5)
    for ours, theirs in zip(after["lexical_weights"], before["lexical_weights"], strict=True):
        assert ours == pytest.approx({token: float(weight) for token, weight in theirs.items()}, abs=1e-5)
    for ours, theirs in zip(after["colbert_vecs"], before["colbert_vecs"], strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


@needs("langchain_chroma")
def test_chroma(run: Run) -> None:
    before, after = map(run, PAIRS[CHROMA])
    (hit,) = after["found"]
    stored = before["chroma"].get()
    assert dict(zip(stored["ids"], stored["documents"], strict=True))[hit.chunk.id] == hit.chunk.text
    assert sorted(stored["documents"]) == sorted(before["texts"])
