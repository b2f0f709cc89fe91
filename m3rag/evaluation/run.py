"""Retrieval quality of an encoder by brute force: every passage is scored in every leg.

What comes out is a property of the model alone, without a store's approximations and without the
two stages of `m3rag.retrieval.HybridRetriever`, which only save work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3rag.bm25 import BM25Index, Tokenize
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.evaluation.corpus import chunked
from m3rag.evaluation.datasets import RetrievalSet
from m3rag.evaluation.metrics import DEFAULT_METRICS, aggregate, as_ranked
from m3rag.output import IntArray, M3Output
from m3rag.retrieval.mode import M3_MODES, Mode
from m3rag.scoring import LEG_SCORES, ScoreMatrix, Weights, fuse
from m3rag.types import LEGS, Leg

DEPTH = 100
"""How many passages of a query a run keeps."""

BLOCK = 256
"""Queries or passages scored at a time: it bounds the memory of similarities, never a result."""

Table = dict[str, dict[str, float]]
"""`{mode: {metric: value}}`."""


@dataclass(frozen=True)
class Passages:
    """An encoded corpus, to be shared by all sets that search the same passages.

    Attributes:
        texts: Passage id to text.
        output: The representations of their chunks, in the same order.
        starts: `(passages,)` where the chunks of each passage begin; None where each is one chunk.
    """

    texts: Mapping[str, str]
    output: M3Output
    starts: IntArray | None = None

    @classmethod
    def encode(
        cls,
        encoder: Encoder,
        texts: Mapping[str, str],
        *,
        block: int = 1024,
        progress: Callable[[int, int], None] | None = None,
    ) -> Passages:
        """Encode a corpus; a passage longer than the model takes is split, and scores by its best chunk.

        Args:
            encoder: The model.
            texts: Passage id to text; there must be one.
            block: Chunks handed to the encoder at a time.
            progress: Called after each block with the number of chunks done and of all.

        Raises:
            InputError: If there are no passages.
        """
        chunks = chunked(texts, encoder)
        outputs = []
        for start in range(0, len(chunks), block):
            outputs.append(encoder.encode_documents([chunk.text for chunk in chunks[start : start + block]]))
            if progress:
                progress(min(start + block, len(chunks)), len(chunks))
        owners = [chunk.document_id for chunk in chunks]
        starts = [i for i, owner in enumerate(owners) if i == 0 or owners[i - 1] != owner]
        return cls(texts, M3Output.concatenate(outputs), np.array(starts, np.int64))


def score_all(queries: M3Output, passages: M3Output, *, block: int = BLOCK) -> dict[Leg, ScoreMatrix]:
    """All three exact scores of all queries with all passages.

    Args:
        queries: `n` questions.
        passages: `m` passages.
        block: Passages scored at a time; only their token vectors are held in float32.

    Returns:
        For each leg `(n, m)` float32.
    """
    scores: dict[Leg, ScoreMatrix] = {leg: np.zeros((len(queries), len(passages)), np.float32) for leg in LEGS}
    for start in range(0, len(passages), block):
        part = passages[start : start + block]
        for leg in LEGS:
            scores[leg][:, start : start + block] = LEG_SCORES[leg](queries, part)
    return scores


def rankings(
    scores: Mapping[Leg, ScoreMatrix],
    mode: Mode,
    weights: Weights,
    ids: Sequence[str],
    *,
    starts: IntArray | None = None,
    depth: int = DEPTH,
) -> Iterator[dict[str, float]]:
    """For each query the best `depth` passages with their scores in a mode, `{passage id: score}`.

    As in a search, mode `lexical` finds only passages that share a token with the query.

    Args:
        scores: For each leg `(queries, chunks)`.
        mode: Which legs to fuse.
        weights: Of the legs.
        ids: Of the passages.
        starts: As in `Passages`: a passage has the score of its best chunk.
        depth: Most passages of a query.
    """
    order = np.argsort(np.array(ids))
    for of_chunks in fuse({leg: scores[leg] for leg in mode.model_legs}, weights):
        fused = of_chunks if starts is None else np.maximum.reduceat(of_chunks, starts)
        # Sorting positions that are in the order of the ids makes a stable sort break ties by id.
        best = order[np.argsort(-fused[order], kind="stable")[:depth]]
        yield as_ranked((ids[i], float(fused[i])) for i in best if mode is not Mode.LEXICAL or fused[i] > 0)


def evaluate(
    encoder: Encoder,
    dataset: RetrievalSet,
    *,
    passages: Passages | None = None,
    modes: Sequence[Mode | str] = M3_MODES,
    weights: Weights | str = "miracl",
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Table:
    """The quality of every mode on a labelled set.

    Args:
        encoder: The model.
        dataset: Passages, questions and judgements.
        passages: The set's corpus, already encoded by this model; encoded here by default.
        modes: Which modes, of those without BM25.
        weights: Of the legs in the fused modes; a mode of one leg is that leg whatever its weight.
        metrics: As in `m3rag.evaluation.metrics`.

    Returns:
        `{mode: {metric: mean over queries}}`.

    Raises:
        InputError: If `passages` are not the corpus of the set, or a metric is unknown.
        ConfigurationError: If a mode is unknown or looks at BM25, or its weights are all 0.
    """
    passages = passages or Passages.encode(encoder, dataset.corpus)
    if passages.texts != dataset.corpus:
        raise InputError(f"the passages given are not the corpus of {dataset.name!r}: encode its corpus")
    parsed, ids = [Mode.parse(mode) for mode in modes], list(passages.texts)
    for mode in parsed:
        if mode.needs_bm25:
            raise ConfigurationError(f"mode {mode.value!r} is not of the model alone: evaluate_bm25 gives the baseline")
        mode.check(encoder.info)
    runs: dict[Mode, dict[str, dict[str, float]]] = {mode: {} for mode in parsed}
    for query_ids, queries in _query_blocks(encoder, dataset.queries):
        scores = score_all(queries, passages.output)
        for mode in parsed:
            used = Weights.parse(weights, legs=mode.legs) if len(mode.legs) > 1 else Weights(1, 1, 1)
            ranked = rankings(scores, mode, used, ids, starts=passages.starts)
            runs[mode] |= dict(zip(query_ids, ranked, strict=True))
    return {mode.value: aggregate(run, dataset.qrels, metrics) for mode, run in runs.items()}


def evaluate_bm25(
    dataset: RetrievalSet, *, tokenize: Tokenize | None = None, metrics: Sequence[str] = DEFAULT_METRICS
) -> dict[str, float]:
    """The quality of BM25 on a labelled set, the baseline; needs the extra `bm25`.

    Args:
        dataset: Passages, questions and judgements.
        tokenize: As for `BM25Index`; the English pipeline by default.
        metrics: As in `m3rag.evaluation.metrics`.

    Returns:
        `{metric: mean over queries}`.

    Raises:
        ImportError: If bm25s is not installed.
        InputError: If a metric is unknown.
    """
    ids = list(dataset.corpus)
    index = BM25Index(tokenize=tokenize).fit(list(dataset.corpus.values()))
    found = index.search(list(dataset.queries.values()), k=DEPTH)
    ranked = zip(dataset.queries, found, strict=True)
    run = {key: as_ranked((ids[i], score) for i, score in hits) for key, hits in ranked}
    return aggregate(run, dataset.qrels, metrics)


def _query_blocks(encoder: Encoder, queries: Mapping[str, str]) -> Iterator[tuple[list[str], M3Output]]:
    ids, texts = list(queries), list(queries.values())
    # Encoded at once, since an encoder sorts by length to waste no padding.
    output = encoder.encode_queries(texts)
    for start in range(0, len(ids), BLOCK):
        yield ids[start : start + BLOCK], output[start : start + BLOCK]
