"""Train an M3 model: its heads, deltas of its backbone, or all of it."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from m3rag._version import __version__
from m3rag.encoder.device import choose_device
from m3rag.errors import InputError
from m3rag.training import distributed
from m3rag.training.batches import draw
from m3rag.training.data import Example, load_examples
from m3rag.training.encoding import Encoding, Prepared, encoding_for
from m3rag.training.held_out import measure, split_held_out
from m3rag.training.loss import M3Loss, leg_loss, m3_losses
from m3rag.training.precision import autocast
from m3rag.training.representation import leg_scores
from m3rag.training.saving import require_free, save_model
from m3rag.training.schedule import plan_run, rate_share
from m3rag.training.settings import TrainingSettings
from m3rag.training.state import Identity, load_state, save_state
from m3rag.training.step_data import StepData
from m3rag.training.trainee import load_trainee

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """Where a run stands after a step; step 0 is before the first.

    Attributes:
        step: Steps done.
        steps: Of how many.
        loss: What is minimised, then the contrastive loss of each leg and of the three together; None at step 0.
        held_out: nDCG@10 of each leg on the held-out questions, where they were measured.
        seconds: Since the start, those before a kill included.
    """

    step: int
    steps: int
    loss: dict[str, float] | None
    held_out: dict[str, float] | None
    seconds: float


def train(
    data: Path | Sequence[Example],
    base: str,
    out: Path,
    *,
    settings: TrainingSettings | None = None,
    device: str | None = None,
    on_progress: Callable[[Report], None] | None = None,
    on_prepare: Prepared | None = None,
) -> Path:
    """Train a model and save it.

    A run that was killed goes on where it last saved, when started again with the same arguments, and
    ends with the weights of a run that was not (on one device, to the bit). Its state lies in
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
        `out`.

    Raises:
        InputError: If the data holds no examples or a bad line, or `out` holds something.
        ConfigurationError: If a setting is out of range, or another run's state is in the way.
        ModelError: If the base cannot be had or loaded.
        ImportError: If `lora` is wanted and peft is not installed.
    """
    run = Run(data, base, out, settings=settings or TrainingSettings(), device=device, on_prepare=on_prepare)
    for report in run.steps():
        if on_progress is not None:
            on_progress(report)
    run.save()
    return out


class Run:
    """One run of training, step by step; arguments and errors as in `train`."""

    def __init__(
        self,
        data: Path | Sequence[Example],
        base: str,
        out: Path,
        *,
        settings: TrainingSettings,
        device: str | None = None,
        on_prepare: Prepared | None = None,
    ) -> None:
        require_free(out)
        self.on_prepare = on_prepare
        self.settings, self.out, self.base = settings, out, base
        self.work = out.with_name(f"{out.name}.training")
        examples = self._load(data)
        self.learn, self.held = split_held_out(examples, per_source=settings.held_out)
        if len(self.learn) < max(2, distributed.world_size()):
            raise InputError(f"{len(self.learn)} examples are too few to train on: give at least 2, and one a worker")
        silent = next((e.query for e in self.learn if not e.has_teacher), None)
        if settings.teacher and silent is not None:
            raise InputError(
                f"no pos_scores and neg_scores of the question {silent!r}: leave teacher out, or let one judge all "
                "with `m3rag mine --keep --teacher MODEL`"
            )
        shown = (text for e in [*self.learn, *self.held] for text in (*e.positives, *e.negatives))
        self.numbers = {text: i for i, text in enumerate(dict.fromkeys(shown))}
        where = choose_device(device)
        self.autocast = autocast(settings.precision, where)
        torch.manual_seed(settings.seed)
        self.trainee = load_trainee(base, settings, device=where)
        self.identity = Identity(self._described(examples))
        self.started = time.monotonic()
        self.last: Report | None = None

    def steps(self) -> Iterator[Report]:
        """Train, from where an earlier run left off."""
        settings = self.settings
        questions, texts = [e.query for e in (*self.learn, *self.held)], list(self.numbers)
        encoding = encoding_for(self.trainee, questions, texts, settings, progress=self.on_prepare)
        log.info("ready after %.0f s", time.monotonic() - self.started)
        plan = plan_run(self.trainee, self.learn, texts, settings, workers=distributed.world_size())
        optimizer = torch.optim.AdamW(
            self.trainee.trained.values(), lr=settings.rate, weight_decay=settings.weight_decay
        )
        done, before = load_state(self.work, self.trainee, optimizer, identity=self.identity)
        self.started -= before
        if done in {0, len(plan)}:
            yield self._report(done, len(plan), None, encoding)
        for step, (epoch, batch) in enumerate(plan[done:], done + 1):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * rate_share(step, len(plan), warmup=settings.warmup)
            loss = self._step(encoding, epoch, batch, optimizer)
            if step % settings.save_every == 0 and distributed.rank() == 0:
                seconds = time.monotonic() - self.started
                save_state(self.work, self.trainee, optimizer, step=step, seconds=seconds, identity=self.identity)
            yield self._report(step, len(plan), loss, encoding)

    def save(self) -> None:
        """Save the model, and forget the run's state."""
        if distributed.rank() == 0:
            save_model(self.trainee, self.out, work=self.work / "model", record=self._record())
            shutil.rmtree(self.work, ignore_errors=True)

    def _load(self, data: Path | Sequence[Example]) -> list[Example]:
        if not isinstance(data, Path):
            return list(data)
        # Every text that a frozen backbone is run over costs time and memory, shown or not.
        most = self.settings.negatives if self.settings.method == "heads" else None
        return load_examples(data, per_source=self.settings.per_source, negatives=most, seed=self.settings.seed)

    def _step(
        self, encoding: Encoding, epoch: int, batch: list[int], optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        settings, world = self.settings, distributed.world_size()
        mine = batch[distributed.rank() :: world]
        drawn = draw(self.learn, mine, negatives=settings.negatives, seed=settings.seed, epoch=epoch)
        step = StepData.of(self.learn, drawn, self.numbers, teacher=settings.teacher)
        self.trainee.network.train()
        loss = self._loss(encoding, step)
        # Each worker's mean counts by its questions, so that the sum of the gradients is that of the whole batch.
        share = len(mine) / len(batch)
        optimizer.zero_grad(set_to_none=True)
        (loss.total * share).backward()  # type: ignore[no-untyped-call]
        moving = list(self.trainee.trained.values())
        distributed.sum_gradients(moving)
        torch.nn.utils.clip_grad_norm_(moving, settings.max_grad_norm)
        optimizer.step()
        means = distributed.total(torch.stack(loss) * share)
        return dict(zip(M3Loss._fields, means.tolist(), strict=True))

    def _loss(self, encoding: Encoding, step: StepData) -> M3Loss:
        with self.autocast:
            queries = encoding.queries(step.queries)
            passages = encoding.passages(step.passages)
        own = torch.tensor(step.passages, dtype=torch.int64, device=self.trainee.device)
        columns = distributed.gather_rows(own)
        targets = step.targets(columns)
        scores = leg_scores(queries, distributed.gather_texts(passages)).scaled(self.settings.temperature)
        return m3_losses(
            scores.masked(step.hidden(columns, targets)),
            targets,
            distill=self.settings.distill,
            loss=leg_loss(self.settings.loss),
            teacher=step.teacher(columns),
        )

    def _report(self, step: int, steps: int, loss: dict[str, float] | None, encoding: Encoding) -> Report:
        every = self.settings.evaluate_every
        due = step in {0, steps} or (every > 0 and step % every == 0)
        measured = None
        if due and self.held:
            self.trainee.network.eval()
            with self.autocast:
                measured = measure(encoding, self.held, self.numbers, len(self.learn))
        self.last = Report(step, steps, loss, measured, time.monotonic() - self.started)
        return self.last

    def _described(self, examples: Sequence[Example]) -> dict[str, Any]:
        digest = hashlib.sha256()
        for example in examples:
            digest.update(repr(example).encode("utf-8", "backslashreplace"))
        settings = {key: value for key, value in asdict(self.settings).items() if key not in NO_WEIGHT}
        base = self.trainee.checkpoint.fingerprint()
        return {"base": base, "data": digest.hexdigest(), "workers": distributed.world_size(), **settings}

    def _record(self) -> dict[str, Any]:
        last = self.last
        return {
            "m3rag": __version__,
            "base": self.base,
            "base_fingerprint": self.identity.described["base"],
            "data_sha256": self.identity.described["data"],
            "examples": len(self.learn),
            "held_out_examples": len(self.held),
            "passages": len(self.numbers),
            "workers": distributed.world_size(),
            "settings": asdict(self.settings),
            "steps": last.steps if last else 0,
            "last_loss": last.loss if last else None,
            "held_out_ndcg@10": last.held_out if last else None,
            "seconds": round(time.monotonic() - self.started),
        }


NO_WEIGHT = ("save_every", "evaluate_every", "sub_batch_tokens")
"""Settings that change no weight, and may differ when a killed run is taken up again."""
