"""tune: the weights of the three legs, learned on a user's own labelled questions.

The weights that are best on the questions at hand are always at least as good there as any others:
that says nothing. So what they are worth is measured by cross-validation, each question under
weights learned without it, and they are taken only if the interval of the gain lies above 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from numbers import Real
from typing import Any, Literal

import numpy as np

from m3rag.encoder.inputs import require_whole
from m3rag.errors import ConfigurationError, InputError
from m3rag.evaluation.labelled import LabelledQuestion, distinct
from m3rag.evaluation.metrics import per_query
from m3rag.evaluation.tune_candidates import Judged, collect
from m3rag.evaluation.tune_interval import Interval, bootstrap, questions_needed
from m3rag.evaluation.tune_rerank import reranked
from m3rag.evaluation.tune_search import Fold, Table, as_rows
from m3rag.reranking.protocol import Reranker
from m3rag.retrieval import HybridRetriever, Mode
from m3rag.retrieval.options import require_reranker
from m3rag.scoring import PRESETS, Weights
from m3rag.types import LEGS

LEAST_QUESTIONS = 30
"""Below this a bootstrap interval of a skewed mean is no longer to be trusted, whatever was seen."""

WORTHWHILE = 0.02
"""The least gain of a metric worth having: an interval that holds both 0 and this says nothing."""

Verdict = Literal["learned", "default", "too few"]
"""What to use: the learned weights, the default ones, or the default ones for want of questions."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TuneResult:
    """What was learned, and what it is worth.

    Attributes:
        verdict: `learned` if the interval of the gain lies above 0. Else `default`, or `too few` if the
            interval holds `WORTHWHILE` as well as 0: then these questions cannot tell.
        learned: The weights learned on all questions.
        default: What they were compared with.
        metric: Such as `ndcg@10`.
        score: Mean over the questions, each under weights learned without it.
        default_score: Mean under the default weights.
        gain: The mean of the paired differences of these two, with its bootstrap interval.
        baselines: Name to mean over the questions, under each preset, each leg alone and all equal.
        learned_score: Mean under `learned` on the questions it was learned on: too good to be true.
        folds: The parts of the cross-validation.
        questions: How many were used, each text once.
        needed: How many would make the interval narrower than `WORTHWHILE`.
        skipped: Ids of the questions left out, since nothing relevant to them is in the index.
        rerank: Whether to rerank: whether the interval of its gain lies above 0; None without a reranker.
        rerank_gain: What reranking adds to the weights of the verdict, on questions held out.
    """

    verdict: Verdict
    learned: Weights
    default: Weights
    metric: str
    score: float
    default_score: float
    gain: Interval
    baselines: Mapping[str, float]
    learned_score: float
    folds: tuple[Fold, ...]
    questions: int
    needed: int
    skipped: tuple[str, ...] = ()
    rerank: bool | None = None
    rerank_gain: Interval | None = None

    @property
    def weights(self) -> Weights:
        """The weights to use: the learned ones only if they help."""
        return self.learned if self.verdict == "learned" else self.default

    def settings(self, *, date: str, force: bool = False, reranker: str = "") -> dict[str, Any]:
        """What a collection is to remember, for `Store.update_settings`; nothing where nothing was learned.

        Args:
            date: When, as ISO 8601.
            force: Remember the learned weights even if they do not help.
            reranker: The name of the reranker that was tried.

        Returns:
            `weights` and `tuned` (their record) if the weights are to be used; `rerank` if a reranker
            was tried.
        """
        record = {"date": date, "metric": self.metric, "questions": self.questions}
        settings: dict[str, Any] = {}
        if force or self.verdict == "learned":
            settings["weights"] = text_of(self.learned)
            settings["tuned"] = {
                **record,
                "verdict": self.verdict,
                "score": self.score,
                "default": text_of(self.default),
                "default_score": self.default_score,
                "gain": asdict(self.gain),
            }
        if self.rerank_gain is not None:
            settings["rerank"] = {
                **record,
                "helps": self.rerank,
                "reranker": reranker,
                "gain": asdict(self.rerank_gain),
            }
        return settings


def tune(
    retriever: HybridRetriever,
    questions: Sequence[LabelledQuestion],
    *,
    metric: str = "ndcg@10",
    folds: int = 5,
    seed: int = 0,
    default: Weights | str = "miracl",
    level: float = 0.95,
    skip_missing: bool = False,
    reranker: Reranker | None = None,
    rerank_top_n: int = 50,
    progress: Progress | None = None,
) -> TuneResult:
    """Learn the weights of mode `all` and fusion `weighted` on labelled questions.

    What is ranked for a question is what its labels name: documents (or pages), each with the score of
    its best chunk, or chunks. Nothing is written; `result.settings()` is what a collection may remember.

    Args:
        retriever: Where to search; its `candidates` and `rerank_depth` hold, its own weights do not.
        questions: At least `LEAST_QUESTIONS`; each text counts once.
        metric: `ndcg`, `recall`, `mrr`, `map` or `hit` with a cut-off, such as `ndcg@10`.
        folds: Parts of the cross-validation, >= 2.
        seed: Of the folds and of the bootstrap; the same seed gives the same result.
        default: The weights to be beaten. Of weights that do equally well, those nearest to it are taken.
        level: Of the intervals, in (0, 1).
        skip_missing: Leave out what is not in the index, instead of refusing.
        reranker: To learn whether it helps.
        rerank_top_n: How many chunks of the fused order it is given.
        progress: Called with the stage (`questions`, `reranked`) and the numbers done and of all.

    Raises:
        InputError: If there are too few questions, the metric is unknown, the reranker is none, or something
            relevant is not in the index.
        ConfigurationError: If an option is out of range, or the model lacks one of the three legs.
    """
    default, asked = Weights.parse(default), distinct(questions)
    _check(folds=folds, seed=seed, level=level, rerank_top_n=rerank_top_n)
    require_reranker(reranker)
    per_query({}, {}, [metric])  # says what is wrong with the metric's name
    require_enough(asked)
    Mode.ALL.check(retriever.encoder.info)
    judged, skipped = collect(retriever, asked, skip_missing=skip_missing, progress=_stage(progress, "questions"))
    require_enough([question.question for question in judged], left_out=len(skipped))
    table = Table.of(judged, default, metric=metric)
    told, held_out, used = table.cross_validate(folds=folds, seed=seed)
    before = table.values[:, 0]
    gain = bootstrap(held_out - before, level=level, seed=seed)
    best = table.best()
    verdict = _verdict(gain, moved=best != 0)
    rerank_gain = None
    if reranker is not None:
        weights, plain = (used, held_out) if verdict == "learned" else ([default] * len(judged), before)
        after = reranked(
            judged, weights, reranker, retriever.store,
            metric=metric, top_n=rerank_top_n, progress=_stage(progress, "reranked"),
        )  # fmt: skip
        rerank_gain = bootstrap(after - plain, level=level, seed=seed)
    return TuneResult(
        verdict=verdict,
        learned=table.weights[best],
        default=default,
        metric=metric,
        score=float(held_out.mean()),
        default_score=float(before.mean()),
        gain=gain,
        baselines=_baselines(judged, metric),
        learned_score=float(table.values[:, best].mean()),
        folds=tuple(told),
        questions=len(judged),
        needed=max(LEAST_QUESTIONS, questions_needed(gain, len(judged), WORTHWHILE)),
        skipped=tuple(skipped),
        rerank=None if rerank_gain is None else rerank_gain.low > 0,
        rerank_gain=rerank_gain,
    )


def require_enough(questions: Sequence[LabelledQuestion], *, left_out: int = 0) -> None:
    """Refuse too few questions, each text counted once.

    Raises:
        InputError: If there are fewer than `LEAST_QUESTIONS`; the message says how many are needed.
    """
    there = len({question.query for question in questions})
    if there < LEAST_QUESTIONS:
        more = f" ({left_out} were left out, since nothing relevant to them is in the index)" if left_out else ""
        raise InputError(
            f"{there} labelled questions{more} are too few to learn weights from: {LEAST_QUESTIONS} are needed at "
            "least, and a few hundred to see a small gain"
        )


def text_of(weights: Weights) -> str:
    """Weights as settings and the command line have them, `dense/lexical/colbert`."""
    return "/".join(f"{weights.of(leg):.6g}" for leg in LEGS)


def _check(*, folds: int, seed: int, level: float, rerank_top_n: int) -> None:
    require_whole("folds", folds)
    require_whole("seed", seed, least=0)
    require_whole("rerank_top_n", rerank_top_n, least=1)
    if not 2 <= folds <= LEAST_QUESTIONS:
        raise ConfigurationError(f"folds must be 2 to {LEAST_QUESTIONS}, got {folds}")
    if not (isinstance(level, Real) and 0 < level < 1):
        raise ConfigurationError(f"level must lie between 0 and 1, such as .95, got {level!r}")


def _stage(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else partial(progress, stage)


def _verdict(gain: Interval, *, moved: bool) -> Verdict:
    if gain.low > 0 and moved:
        return "learned"
    return "too few" if gain.low <= 0 and gain.high >= WORTHWHILE else "default"


def _baselines(judged: Sequence[Judged], metric: str) -> dict[str, float]:
    named = {
        **PRESETS,
        "equal": Weights(1, 1, 1),
        "dense": Weights(1, 0, 0),
        "lexical": Weights(0, 1, 0),
        "colbert": Weights(0, 0, 1),
    }
    values = np.array([question.values(as_rows(list(named.values())), metric) for question in judged])
    return dict(zip(named, values.mean(axis=0).tolist(), strict=True))
