"""What int8 costs, measured on real texts, and how much of that is too much."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.scoring import colbert_scores

FILE = "gate.json"

AT_LEAST = {"dense_cosine_min": 0.995, "lexical_top5": 0.95}
AT_MOST = {"colbert_ndcg_loss": 0.5}
"""Figures beyond these make an export worse than its speed is worth."""

MIN_QUESTIONS = 200
QUESTION_CHARACTERS = 80
DEPTH = 10


@dataclass(frozen=True, slots=True)
class Figures:
    """Representations in int8 beside those in float32.

    Attributes:
        texts: Passages compared.
        tokens: Their token vectors.
        questions: Questions that nDCG is the mean of.
        dense_cosine_min: Of a text's two dense vectors, the least of all texts.
        dense_cosine_mean: Likewise, the mean.
        token_cosine_mean: Of a token's two ColBERT vectors.
        lexical_top5: Of a text's five tokens with the largest weights, the share that still is among
            its five; mean of the texts.
        lexical_top5_texts: Share of the texts that have all five still.
        colbert_ndcg: nDCG@10 of ColBERT in float32, 0 to 100.
        colbert_ndcg_loss: By how many points it is lower in int8.
        smoothed: Whether channels were made even before they became bytes.
    """

    texts: int
    tokens: int
    questions: int
    dense_cosine_min: float
    dense_cosine_mean: float
    token_cosine_mean: float
    lexical_top5: float
    lexical_top5_texts: float
    colbert_ndcg: float
    colbert_ndcg_loss: float
    smoothed: bool = False

    def misses(self) -> list[str]:
        """The bounds that are not kept, in words; empty for a good export."""
        # "not >=" rather than "<": no number at all keeps no bound.
        low = [f"{n} {getattr(self, n):.4f} < {b}" for n, b in AT_LEAST.items() if not getattr(self, n) >= b]
        high = [f"{n} {getattr(self, n):.4f} > {b}" for n, b in AT_MOST.items() if not getattr(self, n) <= b]
        return low + high

    def write(self, folder: Path) -> None:
        """Keep the figures beside the export they are of."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Figures:
        """The figures that `write` kept."""
        return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))


class Trial(NamedTuple):
    """Texts to compare on, and pieces of them as questions for the ColBERT ranking.

    passages: the texts. questions: the pieces. answers: for each question the number of its text.
    """

    passages: list[str]
    questions: list[str]
    answers: list[int]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Trial:
        """Take two pieces of each text that is long enough.

        Raises:
            InputError: If there are too few questions to tell half a point of nDCG.
        """
        questions, answers = [], []
        for number, text in enumerate(texts):
            if len(text) >= 3 * QUESTION_CHARACTERS:
                starts = len(text) // 3 - QUESTION_CHARACTERS // 2, 2 * len(text) // 3 - QUESTION_CHARACTERS // 2
                questions += [text[start : start + QUESTION_CHARACTERS] for start in starts]
                answers += [number, number]
        if len(questions) < MIN_QUESTIONS:
            raise InputError(
                f"the texts to measure int8 on give {len(questions)} questions of at least {MIN_QUESTIONS}: "
                f"give {MIN_QUESTIONS // 2} or more texts of {3 * QUESTION_CHARACTERS} characters with --texts"
            )
        return cls(list(texts), questions, answers)


class Encoded(NamedTuple):
    """A trial's representations."""

    passages: M3Output
    questions: M3Output


def encode(encoder: Encoder, trial: Trial) -> Encoded:
    """Both sides of a trial."""
    return Encoded(encoder.encode_documents(trial.passages), encoder.encode_queries(trial.questions))


def compare(exact: Encoded, quantized: Encoded, *, answers: Sequence[int], smoothed: bool = False) -> Figures:
    """How far int8 is from float32.

    Args:
        exact: A trial in float32.
        quantized: The same in int8.
        answers: For each question the number of its passage.
        smoothed: What is noted of the export.
    """
    dense = _cosines(exact.passages.dense, quantized.passages.dense)
    kept = _top5_kept(exact.passages, quantized.passages)
    before, after = (_ndcg(side, answers) for side in (exact, quantized))
    return Figures(
        texts=len(exact.passages),
        tokens=len(exact.passages.colbert),
        questions=len(answers),
        dense_cosine_min=float(dense.min()),
        dense_cosine_mean=float(dense.mean()),
        token_cosine_mean=float(_cosines(exact.passages.colbert, quantized.passages.colbert).mean()),
        lexical_top5=float(kept.mean()),
        lexical_top5_texts=float((kept == 1).mean()),
        colbert_ndcg=before,
        colbert_ndcg_loss=before - after,
        smoothed=smoothed,
    )


def _cosines(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    cosines: npt.NDArray[np.float64] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines


def _top5_kept(exact: M3Output, quantized: M3Output) -> npt.NDArray[np.float64]:
    """For each text with lexical weights the share of its five heaviest tokens that stay so."""
    shares = []
    for before, after in zip(exact, quantized, strict=True):
        wanted = _top5(before)
        if wanted:
            shares.append(len(wanted & _top5(after)) / len(wanted))
    return np.array(shares)


def _top5(text: M3Output) -> set[int]:
    heaviest = np.lexsort((text.lexical.indices, -text.lexical.data))[:5]
    return set(text.lexical.indices[heaviest].tolist())


def _ndcg(encoded: Encoded, answers: Sequence[int]) -> float:
    """nDCG@10 in points, of questions that one passage each answers."""
    scores = colbert_scores(encoded.questions, encoded.passages)
    own = scores[np.arange(len(answers)), answers]
    ranks = (scores > own[:, None]).sum(1) + 1
    return float(100 * np.where(ranks <= DEPTH, 1 / np.log2(ranks + 1), 0).mean())
