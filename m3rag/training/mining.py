"""Hard negatives: passages that our own search takes for an answer, and that are none."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np

from m3rag.errors import ConfigurationError
from m3rag.output import M3Output
from m3rag.retrieval import HybridRetriever, Mode
from m3rag.scoring import LEG_SCORES, Weights, fuse
from m3rag.training.data import Example, known_positives
from m3rag.types import MOST, Hit

Teacher = Callable[[Sequence[tuple[str, str]]], Any]
"""`(question, passage)` pairs to a score each, such as `CrossEncoderReranker.compute_score`."""

AT_ONCE = 32
"""Questions encoded and, by the teacher, judged together."""

SHORTEST_PART = 20
"""Normalised characters from which a passage inside another is taken for a part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningSettings:
    """Which passages found become negatives.

    Attributes:
        negatives: Of each question at most; >= 1.
        first: The rank, from 1, of the first passage that may be one.
        last: The rank of the last.
        mode: Of the search, one without BM25.
        share: A negative scores at most this part of the question's best positive, (0, 1]; None for no
            such bound. .95 was best in arXiv 2407.15831.
        margin: And at least so much less than it, on the scale of the search's score; None for no bound.
        teacher_margin: The same by the teacher's scores, where there is a teacher.
        random: Draw among what is left of the range, instead of taking the best.
        keep: Put the negatives that the data has before those mined.
        seed: Of the draw.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    negatives: int = 7
    first: int = 1
    last: int = 100
    mode: str = "all"
    share: float | None = 0.95
    margin: float | None = None
    teacher_margin: float = 0.0
    random: bool = False
    keep: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        whole = all(type(number) is int for number in (self.negatives, self.first, self.last, self.seed))
        if not (whole and self.negatives >= 1 and 1 <= self.first <= self.last <= MOST and self.seed >= 0):
            raise ConfigurationError(
                f"negatives and first must be at least 1, last at least first and at most {MOST:,}, seed at least 0, "
                f"all of them whole numbers; got negatives {self.negatives}, first {self.first}, last {self.last}, "
                f"seed {self.seed}"
            )
        for name, margin in (("margin", self.margin), ("teacher_margin", self.teacher_margin)):
            if margin is not None and not math.isfinite(margin):
                raise ConfigurationError(f"{name} is {margin}, must be finite; leave it out for no bound")
        if self.share is not None and not 0 < self.share <= 1:
            raise ConfigurationError(f"share is {self.share}, must be above 0 and at most 1; leave it out for no bound")
        if Mode.parse(self.mode).needs_bm25:
            raise ConfigurationError(
                f"mode {self.mode!r} has BM25 scores, which cannot be compared with a positive's: choose dense, "
                "lexical, colbert, dense+lexical or all"
            )


def mine(
    examples: Iterable[Example],
    retriever: HybridRetriever,
    *,
    settings: MiningSettings | None = None,
    teacher: Teacher | None = None,
    known: Mapping[tuple[str, str], frozenset[str]] | None = None,
) -> Iterator[Example]:
    """Find hard negatives of each example by searching an index.

    A passage is left out that is one of the question's positives, holds one, is part of one, holds one of the
    example's `answers`, or scores too near the best positive (`share`, `margin`), be it in the search or
    by the teacher. It costs a search a question; no matrix of all questions and passages is made.

    Args:
        examples: Whose negatives to find.
        retriever: Searches the passages.
        settings: Which become negatives.
        teacher: Also judges the passages; its scores are kept in the examples, to be distilled.
        known: The positives of each question, as `known_positives` has them; by default those of the examples.

    Yields:
        Each example with the negatives found, hardest first, in the order given.
    """
    wanted = settings or MiningSettings()
    if known is None:
        examples = list(examples)
        known = known_positives(examples)
    rest = iter(examples)
    while block := list(islice(rest, AT_ONCE)):
        found = _found(block, retriever, wanted, known)
        for example, texts in zip(block, found, strict=True):
            yield _judged(example, texts, wanted, teacher)


def _found(
    block: Sequence[Example],
    retriever: HybridRetriever,
    settings: MiningSettings,
    known: Mapping[tuple[str, str], frozenset[str]],
) -> list[list[str]]:
    """The texts that may be negatives, best first."""
    mode = Mode.parse(settings.mode)
    weights = Weights.parse(retriever.weights, legs=mode.legs) if len(mode.legs) > 1 else Weights(1, 1, 1)
    queries = retriever.encoder.encode_queries([example.query for example in block])
    counts = np.cumsum([0, *(len(example.positives) for example in block)])
    positives = retriever.encoder.encode_documents([text for example in block for text in example.positives])
    found = []
    for i, example in enumerate(block):
        hits = retriever.search_output(
            queries[i], text=example.query, mode=mode, k=settings.last, fusion="weighted", weights=weights
        )
        best = _best_score(queries[i], positives[int(counts[i]) : int(counts[i + 1])], mode, weights)
        answering = known[example.source, example.query]
        found.append(_allowed(example, answering, hits[settings.first - 1 :], best, settings))
    return found


def _best_score(query: M3Output, positives: M3Output, mode: Mode, weights: Weights) -> float:
    """The best positive's score as a search would give it, whether or not it is in the index."""
    fused = fuse({leg: LEG_SCORES[leg](query, positives) for leg in mode.model_legs}, weights)
    return float(fused.max())


def _allowed(
    example: Example, known: Iterable[str], hits: Sequence[Hit], best: float, settings: MiningSettings
) -> list[str]:
    # A share of what is not above 0 would let through what scores above it.
    bounds = [min(best, best * settings.share)] if settings.share is not None else []
    bounds += [best - settings.margin] if settings.margin is not None else []
    limit = min(bounds, default=np.inf)
    positives = [_plain(text) for text in known]
    answers = [plain for answer in example.answers if (plain := _plain(answer))]
    seen: dict[str, str] = {}
    for hit in hits:
        # What the encoder sees of a chunk, headings and all, is what a model is to learn from.
        plain, bare = _plain(hit.chunk.encoded_text), _plain(hit.chunk.text)
        is_answer = any(answer in plain for answer in answers) or any(_same(bare, text) for text in positives)
        if plain and hit.score <= limit and not is_answer:
            seen.setdefault(plain, hit.chunk.encoded_text)
    return list(seen.values())


def _same(text: str, positive: str) -> bool:
    shorter, longer = sorted((text, positive), key=len)
    return text == positive or (len(shorter) >= SHORTEST_PART and shorter in longer)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _judged(example: Example, texts: list[str], settings: MiningSettings, teacher: Teacher | None) -> Example:
    kept = list(example.negatives) if settings.keep else []
    known = {_plain(text) for text in kept}
    texts = [text for text in texts if _plain(text) not in known]
    if teacher is None:
        chosen = _chosen(example, texts, settings)
        return replace(example, negatives=(*kept, *chosen), positive_scores=(), negative_scores=())
    judged = [*example.positives, *kept, *texts]
    scores = [float(score) for score in teacher([(example.query, text) for text in judged])]
    of_positives = tuple(scores[: len(example.positives)])
    by_text = dict(zip(judged, scores, strict=True))
    limit = max(of_positives) - settings.teacher_margin
    negatives = (*kept, *_chosen(example, [text for text in texts if by_text[text] < limit], settings))
    of_negatives = tuple(by_text[text] for text in negatives)
    return replace(example, negatives=negatives, positive_scores=of_positives, negative_scores=of_negatives)


def _chosen(example: Example, texts: list[str], settings: MiningSettings) -> list[str]:
    if not settings.random:
        return texts[: settings.negatives]
    digest = sha256(example.query.encode("utf-8", "backslashreplace")).digest()
    rng = np.random.default_rng([settings.seed, int.from_bytes(digest[:8], "big")])
    drawn = rng.permutation(len(texts))[: settings.negatives]
    return [texts[i] for i in sorted(drawn)]
