"""Train an M3 model: its heads, deltas of its backbone, or all of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m3rag.encoder.checkpoint import ModelName
from m3rag.encoder.device import choose_device
from m3rag.training import distributed
from m3rag.training.batches import Draw
from m3rag.training.data import Example, known_positives
from m3rag.training.encoding import Encoding, Prepared, encoding_for
from m3rag.training.held_out import measure
from m3rag.training.loss import leg_loss, m3_losses
from m3rag.training.parts import Parts, part, read
from m3rag.training.precision import autocast
from m3rag.training.representation import leg_scores
from m3rag.training.run import Report, Run
from m3rag.training.saving import require_free, write_model
from m3rag.training.schedule import most_tokens
from m3rag.training.settings import TrainingSettings
from m3rag.training.step_data import StepData
from m3rag.training.trainee import load_trainee

log = logging.getLogger(__name__)


def train(
    data: Path | str | Sequence[Example],
    base: ModelName,
    out: Path | str,
    *,
    settings: TrainingSettings | None = None,
    device: str | None = None,
    on_progress: Callable[[Report], None] | None = None,
    on_prepare: Prepared | None = None,
) -> Path:
    """Train a model and save it.

    A run that was killed goes on where it last saved, when started again with the same arguments, and
    ends with the weights of a run that was not (on one CPU, to the bit). Its state lies in
    `OUT.training` beside the output folder until that is whole.

    Under `torchrun` every worker takes its part of each batch, and all passages are negatives of all.

    Args:
        data: A `.jsonl` file, a folder of them, or examples.
        base: What to start from: `mini`, a hub id such as `BAAI/bge-m3`, or a folder.
        out: The folder of the trained model; missing or empty.
        settings: The run.
        device: As torch names it; a GPU if there is one.
        on_progress: Called before the first step and after each one.
        on_prepare: Called with the number of texts done and of all, while a frozen backbone is run over them.

    Returns:
        `out`, as a path.

    Raises:
        InputError: If the data holds no examples or a bad line, `out` holds something, or another run trains to it.
        ConfigurationError: If a setting is out of range, or another run's state is in the way.
        ModelError: If the base cannot be had or loaded.
        ImportError: If `lora` is wanted and peft is not installed.
    """
    settings = settings or TrainingSettings()
    base, out = os.fspath(base), Path(out)
    require_free(out)
    # Every text that a frozen backbone is run over costs time and memory, shown or not.
    most = settings.negatives if settings.method == "heads" else None
    parts = part(read(data, settings, negatives=most), settings)
    objective = M3Objective(base, parts, settings, device=choose_device(device), on_prepare=on_prepare)
    return Run(objective, parts, base, out, settings=settings).finish(on_progress)


class M3Objective:
    """The three legs of a model, by the losses of M3; arguments and errors as in `train`."""

    encoding: Encoding
    record: dict[str, Any]

    def __init__(
        self,
        base: str,
        parts: Parts,
        settings: TrainingSettings,
        *,
        device: torch.device,
        on_prepare: Prepared | None = None,
    ) -> None:
        self.parts, self.settings, self.on_prepare = parts, settings, on_prepare
        self.texts = parts.texts
        self.numbers = {text: i for i, text in enumerate(self.texts)}
        self.known = known_positives(parts.learn)
        self.record = {}
        self.autocast = autocast(settings.precision, device)
        torch.manual_seed(settings.seed)
        self.trainee = load_trainee(base, settings, device=device)

    def prepare(self) -> None:
        """Run a frozen backbone over all texts; start new heads."""
        started = time.monotonic()
        questions = [example.query for example in (*self.parts.learn, *self.parts.held)]
        self.encoding = encoding_for(self.trainee, questions, self.texts, self.settings, progress=self.on_prepare)
        log.info("ready after %.0f s", time.monotonic() - started)

    @property
    def least(self) -> int:
        """A question without a negative learns from the passages of another alone."""
        alone = self.settings.negatives == 0 or not all(example.negatives for example in self.parts.learn)
        return 2 if alone else 1

    def lengths(self) -> list[int]:
        """Most tokens of each example in a step."""
        examples = self.parts.learn
        of_text = dict(zip(self.texts, self.trainee.pack(self.texts, "document").lengths.tolist(), strict=True))
        of_question = self.trainee.pack([example.query for example in examples], "query").lengths.tolist()
        rows = zip(of_question, examples, strict=True)
        return [n + most_tokens(e, of_text, negatives=self.settings.negatives) for n, e in rows]

    def losses(self, drawn: Sequence[Draw]) -> dict[str, Tensor]:
        """What is minimised, then the contrastive loss of each leg and of the three together."""
        settings = self.settings
        step = StepData.of(self.parts.learn, drawn, self.numbers, known=self.known, teacher=settings.teacher)
        with self.autocast:
            queries = self.encoding.queries(step.queries)
            passages = self.encoding.passages(step.passages)
        own = torch.tensor(step.passages, dtype=torch.int64, device=self.trainee.device)
        columns = distributed.gather_rows(own)
        targets = step.targets(columns)
        scores = leg_scores(queries, distributed.gather_texts(passages)).scaled(settings.temperature)
        return m3_losses(
            scores.masked(step.hidden(columns, targets)),
            targets,
            distill=settings.distill,
            loss=leg_loss(settings.loss),
            teacher=step.teacher(columns),
        )._asdict()

    def measure(self) -> dict[str, float]:
        """nDCG@10 of each leg and of the three together."""
        with self.autocast:
            return measure(self.encoding, self.parts.held, self.numbers, len(self.parts.learn))

    def write(self, folder: Path) -> None:
        """The checkpoint in FlagEmbedding's layout."""
        write_model(self.trainee, folder, merge=self.settings.merge)
