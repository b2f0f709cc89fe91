"""Train a cross-encoder: a backbone and one classifier that read question and passage together."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from m3rag.encoder.checkpoint import ModelName
from m3rag.encoder.device import choose_device
from m3rag.encoder.encoder import BATCH_TOKENS
from m3rag.errors import InputError
from m3rag.reranking.pairs import TextPair
from m3rag.reranking.scorer import PairScorer, Scores
from m3rag.training.batches import Draw
from m3rag.training.data import Example
from m3rag.training.loss import MASKED, Teacher, info_nce, teacher_loss
from m3rag.training.parts import Parts, part, read
from m3rag.training.precision import autocast
from m3rag.training.reranker_held_out import candidates, measure_reranker
from m3rag.training.reranker_saving import write_reranker
from m3rag.training.reranker_trainee import load_reranker_trainee
from m3rag.training.run import Report, Run
from m3rag.training.saving import require_free
from m3rag.training.schedule import most_tokens
from m3rag.training.settings import RerankerSettings

log = logging.getLogger(__name__)


def train_reranker(
    data: Path | str | Sequence[Example],
    base: ModelName,
    out: Path | str,
    *,
    settings: RerankerSettings | None = None,
    device: str | None = None,
    on_progress: Callable[[Report], None] | None = None,
) -> Path:
    """Train a cross-encoder and save it, with FlagEmbedding's loss for rerankers.

    Each question of a step has one of its positives and some of its negatives: cross-entropy of their
    scores, the positive being right. Examples without negatives are left out, and counted in the log and in
    `training.json`. A killed run goes on as that of `m3rag.training.train` does; the result loads in
    `CrossEncoderReranker` and in transformers.

    Held-out questions are measured on their own passages and ten others of their source; see
    `m3rag.training.reranker_held_out.candidates`.

    Args:
        data: A `.jsonl` file, a folder of them, or examples.
        base: What to start from: `mini`, a hub id such as `BAAI/bge-m3` or `BAAI/bge-reranker-v2-m3`, or a
            folder. A classifier that it has is trained on; else it gets a new one.
        out: The folder of the trained model; missing or empty.
        settings: The run.
        device: As torch names it; a GPU if there is one.
        on_progress: Called before the first step and after each one.

    Returns:
        `out`, as a path.

    Raises:
        InputError: If the data holds no examples with negatives or a bad line, `out` holds something, or another run
            trains to it.
        ConfigurationError: If a setting is out of range, or another run's state is in the way.
        ModelError: If the base cannot be had or loaded, or has more than one label.
        ImportError: If `lora` is wanted and peft is not installed.
    """
    settings = settings or RerankerSettings()
    base, out = os.fspath(base), Path(out)
    require_free(out)
    examples = read(data, settings)
    useful = [example for example in examples if example.negatives]
    left_out = len(examples) - len(useful)
    if not useful:
        raise InputError("no example has negatives, from which a reranker learns: find some with `m3rag mine`")
    if left_out:
        log.warning("%d of %d examples have no negatives and are left out", left_out, len(examples))
    parts = part(useful, settings)
    objective = RerankerObjective(base, parts, settings, device=choose_device(device))
    objective.record["without_negatives"] = left_out
    return Run(objective, parts, base, out, settings=settings).finish(on_progress)


class RerankerObjective:
    """One score of question and passage; arguments and errors as in `train_reranker`."""

    record: dict[str, Any]

    def __init__(self, base: str, parts: Parts, settings: RerankerSettings, *, device: torch.device) -> None:
        self.parts, self.settings = parts, settings
        self.record = {}
        self.autocast = autocast(settings.precision, device)
        torch.manual_seed(settings.seed)
        self.trainee = load_reranker_trainee(base, settings, device=device)
        self.asked = candidates(parts.held, parts.learn, seed=settings.seed)
        self.scorer = PairScorer(
            self.trainee.network, device=device, batch_tokens=BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"])
        )

    def prepare(self) -> None:
        """Nothing is done beforehand."""

    @property
    def least(self) -> int:
        """A question learns from passages of its own."""
        return 1

    def lengths(self) -> list[int]:
        """Most tokens of each example in a step: its question stands before each of its passages."""
        trainee, examples, negatives = self.trainee, self.parts.learn, self.settings.negatives
        of_text = trainee.passage_lengths(self.parts.texts)
        of_question = trainee.question_lengths([example.query for example in examples])
        found = []
        for question, example in zip(of_question, examples, strict=True):
            pairs = 1 + min(negatives, len(example.negatives))
            tokens = most_tokens(example, of_text, negatives=negatives)
            found.append(min(tokens + pairs * (question + trainee.tokenizer.specials), pairs * trainee.max_length))
        return found

    def losses(self, drawn: Sequence[Draw]) -> dict[str, Tensor]:
        """What is minimised; with a teacher, the loss by the labels and by the teacher's scores too."""
        groups = [self._group(choice) for choice in drawn]
        questions = [self.parts.learn[choice.example].query for choice in drawn]
        pairs = [(query, text) for query, (texts, _) in zip(questions, groups, strict=True) for text in texts]
        with self.autocast:
            logits = self.trainee.logits(self.trainee.tokenize(pairs), sub_batch_tokens=self.settings.sub_batch_tokens)
        sizes = [len(texts) for texts, _ in groups]
        scores = pad_sequence(list(torch.split(logits, sizes)), batch_first=True, padding_value=MASKED)
        # The positive stands first.
        labels = info_nce(scores, torch.zeros(len(groups), dtype=torch.int64, device=scores.device))
        if not self.settings.teacher:
            return {"total": labels}
        judged = [torch.tensor(wanted, dtype=torch.float32, device=scores.device) for _, wanted in groups]
        wanted = pad_sequence(judged, batch_first=True, padding_value=-torch.inf)
        columns = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
        taught = teacher_loss(scores, Teacher(columns, wanted))
        return {"total": labels + taught, "labels": labels, "teacher": taught}

    def measure(self) -> dict[str, float]:
        """nDCG@10 of the few passages that each held-out question is given."""
        with self.autocast:
            return {"rerank": measure_reranker(self._scores, self.asked)}

    def write(self, folder: Path) -> None:
        """The checkpoint as transformers has it."""
        write_reranker(self.trainee, folder)

    def _group(self, choice: Draw) -> tuple[list[str], list[float]]:
        """A question's passages of a step, the positive first, and what a teacher thinks of them."""
        example = self.parts.learn[choice.example]
        texts = [example.positives[choice.positive], *(example.negatives[n] for n in choice.negatives)]
        if not self.settings.teacher:
            return texts, []
        scores = (example.negative_scores[n] for n in choice.negatives)
        return texts, [example.positive_scores[choice.positive], *scores]

    def _scores(self, pairs: Sequence[TextPair]) -> Scores:
        scores = np.empty(len(pairs), np.float32)
        for rows, found in self.scorer.run(self.trainee.tokenize(pairs)):
            scores[rows] = found
        return scores
