"""What `m3rag eval` measures on: the questions, the index they are asked of, and the systems of the table."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3rag.cli.console import note

if TYPE_CHECKING:
    from m3rag.evaluation.questions import EvalQuestion
    from m3rag.evaluation.searching import System
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.retrieval import HybridRetriever, Mode
    from m3rag.settings import Settings

DEFAULT_MODES = ("dense", "lexical", "colbert", "dense+lexical", "all", "bm25")

PAPER_CANDIDATES, PAPER_DEPTH = 1000, 200
"""How many passages the paper unites from each leg, and how many it gives a ColBERT score (section 4)."""


@dataclass(frozen=True)
class Data:
    """What was given to `m3rag eval`.

    Attributes:
        path: As given.
        questions: In the order of the file.
        corpus: Passages that come with them; None where the questions are about an index.
    """

    path: str
    questions: Sequence[EvalQuestion]
    corpus: Mapping[str, str] | None

    @property
    def hash(self) -> str:
        """Of questions, labels and corpus: two reports of one hash may be compared."""
        from m3rag.evaluation.corpus import hash_of

        texts = {question.id: json.dumps(asdict(question), sort_keys=True) for question in self.questions}
        return hash_of({"questions": hash_of(texts), "corpus": hash_of(self.corpus) if self.corpus is not None else ""})


def load_data(
    path: Path, *, corpus: Path | None, split: str, sample: int | None, seed: int, skip_missing: bool
) -> Data:
    """Read questions, and the passages that come with them.

    Raises:
        InputError: If a file is missing or malformed, or a folder in BEIR's form is given a corpus too.
    """
    import numpy as np

    from m3rag.errors import InputError
    from m3rag.evaluation.datasets import load_beir, load_corpus
    from m3rag.evaluation.questions import load_eval_questions, questions_of

    texts: dict[str, str] | None
    if path.is_dir():
        if corpus is not None:
            raise InputError(f"{path} is a folder with a corpus of its own: leave out --corpus")
        dataset = load_beir(path, split=split, absent=skip_missing)
        questions, texts = questions_of(dataset), dict(dataset.corpus)
    else:
        questions, texts = load_eval_questions(path), None if corpus is None else load_corpus(corpus)
    if sample is not None and sample < len(questions):
        drawn = np.random.default_rng(seed).permutation(len(questions))[:sample]
        questions = [questions[i] for i in sorted(drawn.tolist())]
    return Data(str(path), questions, texts)


@contextmanager
def opened(data: Data, settings: Settings, *, cache: Path | None, chunk_tokens: int | None) -> Iterator[KnowledgeBase]:
    """The index of the settings; where the data have a corpus, one that `take_corpus` is to fill, or the cache's."""
    from m3rag.collection import Collection
    from m3rag.evaluation.corpus import corpus_name
    from m3rag.knowledge_base import KnowledgeBase

    if data.corpus is None:
        with KnowledgeBase(settings=settings) as kb:
            kb.store  # noqa: B018  # a missing index is said before a model is loaded
            yield kb
        return
    with Collection(":memory:", settings=settings) as loading:
        encoder = loading.encoder
    name = corpus_name(encoder, data.corpus, chunk_tokens=chunk_tokens)
    with tempfile.TemporaryDirectory(prefix="m3rag-eval-") as temporary:
        place = (cache.expanduser() if cache is not None else Path(temporary)) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with KnowledgeBase(place, settings=settings, encoder=encoder) as kb:
            yield kb


def retriever_of(kb: KnowledgeBase, *, candidates: int | None, rerank_depth: int | None) -> HybridRetriever:
    """A retriever over the index, with the BM25 leg where it is installed."""
    from m3rag.retrieval import HybridRetriever

    store = kb.store
    leg = None
    if has_bm25():
        from m3rag.bm25 import BM25Leg

        leg = BM25Leg()
    return HybridRetriever(
        kb.encoder,
        store,
        bm25=leg,
        weights=kb.settings.weights,
        candidates=candidates,
        rerank_depth=rerank_depth,
        grows=False,  # a report names the depths that its figures are of
    )


def modes_of(modes: str) -> list[Mode]:
    """The modes named, each once.

    Raises:
        ConfigurationError: If one is unknown.
        ImportError: If one needs the extra `bm25`, which is not installed.
    """
    from m3rag.retrieval import Mode

    chosen = list(dict.fromkeys(Mode.parse(name.strip()) for name in modes.split(",")))
    if any(mode.needs_bm25 for mode in chosen):
        from m3rag.bm25.backends import require_backend

        require_backend("bm25s")
    return chosen


def systems_of(kb: KnowledgeBase, chosen: Sequence[Mode] | None, reranker: str | None) -> list[System]:
    """The rows of the table: the modes, and the last of the model's own with the reranker.

    Raises:
        ModelError: If the reranker cannot be had.
        ConfigurationError: If it is `colbert`, and the model has no token vectors.
    """
    from m3rag.evaluation.searching import System
    from m3rag.reranking.named import reranker_named
    from m3rag.retrieval import Mode

    if chosen is None:
        legs = kb.encoder.info.legs
        chosen = [Mode(name) for name in DEFAULT_MODES if set(Mode(name).model_legs) <= set(legs)]
        if not has_bm25():
            note('the baseline BM25 is left out: pip install "m3rag[bm25]"')
            chosen = [mode for mode in chosen if not mode.needs_bm25]
    systems = [System(name=mode.value, mode=mode, weights=_weights(kb, mode)) for mode in chosen]
    found = reranker_named(reranker, kb.encoder)  # a corpus may not be in its store yet: see `with_vectors`
    if found is not None:
        mode = next((mode for mode in reversed(chosen) if not mode.needs_bm25), chosen[-1])
        name = f"{mode.value}, reranked"
        systems.append(System(name=name, mode=mode, weights=_weights(kb, mode), reranker=found))
    return systems


def with_vectors(system: System, kb: KnowledgeBase) -> System:
    """The row; where it is reranked by token vectors, by those of the index, which else were computed again."""
    from m3rag.reranking.colbert import ColbertReranker

    if not isinstance(system.reranker, ColbertReranker):
        return system
    return replace(system, reranker=ColbertReranker(kb.encoder, kb.store))


def paper_systems(weights: str) -> list[System]:
    """The paper's five rows, with its weights of a task (`miracl`, `mkqa` or `mldr`)."""
    from m3rag.evaluation.searching import System
    from m3rag.retrieval import Mode
    from m3rag.scoring import Weights

    # The paper reranks Dense's best with the multi-vectors: an order by the dense score alone (the lexical weight
    # is 0), of which no more is left in the end than a way to break ties.
    reranked = Weights(1e-9, 0.0, 1.0)
    return [
        System(name="Dense", mode=Mode.DENSE),
        System(name="Sparse", mode=Mode.LEXICAL),
        System(name="Multi-vec", mode=Mode.ALL, weights=reranked),
        System(name="D+S", mode=Mode.DENSE_LEXICAL, weights=weights),
        System(name="All", mode=Mode.ALL, weights=weights),
    ]


def has_bm25() -> bool:
    """Whether the extra `bm25` is installed."""
    return importlib.util.find_spec("bm25s") is not None


def context_of(data: Data, kb: KnowledgeBase, retriever: HybridRetriever, depth: int, **options: Any) -> dict[str, Any]:
    """What stands in a report beside its figures."""
    from m3rag.evaluation.report import versions

    model = retriever.store.manifest.model
    candidates, rerank_depth = retriever.depths(depth)
    return {
        "versions": versions(),
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "index": str(kb.place) if data.corpus is None else None,
        "chunks": retriever.store.count(),
        "data": {"path": data.path, "hash": data.hash, "questions": len(data.questions)},
        "settings": {
            "candidates": candidates,
            "rerank_depth": rerank_depth,
            "answer_passages": kb.settings.answer_passages,
            "llm": kb.settings.llm.model,
            **options,
        },
    }


def _weights(kb: KnowledgeBase, mode: Mode) -> str | None:
    if len(mode.legs) == 1:  # that leg, whatever its weight
        return None
    # As a search of the index has it: what a person set, else what was learned, which is for mode all alone.
    if "weights" in kb.settings.model_fields_set or mode.value != "all" or not kb.exists:
        return kb.settings.weights
    return str(kb.store.settings.get("weights", kb.settings.weights))
