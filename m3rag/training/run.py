"""A run of training, step by step, whatever is trained; it survives a kill."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from m3rag._alone import writing_alone
from m3rag._version import __version__
from m3rag.errors import ConfigurationError
from m3rag.training import distributed
from m3rag.training.backbone import Subject
from m3rag.training.batches import Draw, draw
from m3rag.training.parts import Parts
from m3rag.training.saving import publish
from m3rag.training.schedule import plan_run, rate_share
from m3rag.training.settings import RunSettings
from m3rag.training.state import Identity, load_state, save_state

NO_WEIGHT = ("save_every", "evaluate_every")
"""Settings that change no weight, and may differ when a killed run is taken up again."""


@dataclass(frozen=True, slots=True)
class Report:
    """Where a run stands after a step; step 0 is before the first.

    Attributes:
        step: Steps done.
        steps: Of how many.
        loss: `total`, which is minimised, then its parts; None at step 0.
        held_out: nDCG@10 on the held-out questions, of each leg or of the reranker, where they were measured.
        seconds: Since the start, those before a kill included.
    """

    step: int
    steps: int
    loss: dict[str, float] | None
    held_out: dict[str, float] | None
    seconds: float


class Objective(Protocol):
    """What is trained, and for what."""

    @property
    def trainee(self) -> Subject:
        """The network."""

    @property
    def record(self) -> dict[str, Any]:
        """What `training.json` says of it beside what it says of every run."""

    def prepare(self) -> None:
        """What is done once before the first step."""

    @property
    def least(self) -> int:
        """Fewest questions of a step from which each of them learns."""

    def lengths(self) -> list[int]:
        """Most tokens of each example to learn from in a step."""

    def losses(self, drawn: Sequence[Draw]) -> dict[str, Tensor]:
        """The loss of some examples, `total`, which is minimised, and its parts."""

    def measure(self) -> dict[str, float]:
        """nDCG@10 on the held-out examples, of which there is one at least."""

    def write(self, folder: Path) -> None:
        """Write the checkpoint into an empty folder."""


class Run:
    """One run of training.

    Args:
        objective: What is trained.
        parts: On what.
        base: The name of what it starts from.
        out: The folder of the trained model; free.
        settings: The run.
    """

    def __init__(self, objective: Objective, parts: Parts, base: str, out: Path, *, settings: RunSettings) -> None:
        self.objective, self.parts, self.base, self.out, self.settings = objective, parts, base, out, settings
        self.trainee = objective.trainee
        self.work = out.with_name(f"{out.name}.training")
        self.identity = Identity(self._described())
        self.started = time.monotonic()
        self.last: Report | None = None

    def finish(self, on_progress: Callable[[Report], None] | None) -> Path:
        """Train to the end, and save the model."""
        is_first = distributed.rank() == 0
        with writing_alone(self.work, another="another --out") if is_first else nullcontext():
            for report in self.steps():
                if on_progress is not None:
                    on_progress(report)
            if is_first:
                publish(self.objective.write, self.out, work=self.work / "model", record=self._record())
        if is_first:
            shutil.rmtree(self.work, ignore_errors=True)
        return self.out

    def steps(self) -> Iterator[Report]:
        """Train, from where an earlier run left off."""
        settings = self.settings
        self.objective.prepare()
        sources = [example.source for example in self.parts.learn]
        least = max(self.objective.least, distributed.world_size())
        plan = plan_run(sources, self.objective.lengths(), settings, least=least)
        optimizer = torch.optim.AdamW(
            self.trainee.trained.values(), lr=settings.rate, weight_decay=settings.weight_decay
        )
        done, before, loss = load_state(self.work, self.trainee, optimizer, identity=self.identity)
        self.started -= before
        if done in {0, len(plan)}:
            yield self._report(done, len(plan), loss)
        for step, (epoch, batch) in enumerate(plan[done:], done + 1):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * rate_share(step, len(plan), warmup=settings.warmup)
            loss = self._step(epoch, batch, optimizer)
            if step % settings.save_every == 0:
                seconds = time.monotonic() - self.started
                save_state(
                    self.work, self.trainee, optimizer, step=step, seconds=seconds, loss=loss, identity=self.identity
                )
            yield self._report(step, len(plan), loss)

    def _step(self, epoch: int, batch: list[int], optimizer: torch.optim.Optimizer) -> dict[str, float]:
        settings = self.settings
        mine = batch[distributed.rank() :: distributed.world_size()]
        drawn = draw(self.parts.learn, mine, negatives=settings.negatives, seed=settings.seed, epoch=epoch)
        self.trainee.network.train()
        losses = self.objective.losses(drawn)
        # Each worker's mean counts by its questions, so that the sum of the gradients is that of the whole batch.
        share = len(mine) / len(batch)
        optimizer.zero_grad(set_to_none=True)
        (losses["total"] * share).backward()  # type: ignore[no-untyped-call]
        moving = list(self.trainee.trained.values())
        distributed.sum_gradients(moving)
        norm = torch.nn.utils.clip_grad_norm_(moving, settings.max_grad_norm)
        if not (torch.isfinite(norm) and torch.isfinite(losses["total"])):
            raise ConfigurationError(
                f"the loss is {losses['total'].item():g}, its gradient {norm.item():g}: from there nothing is learned; "
                f"lower the learning rate ({settings.rate:g}), or look for damage in the base's weights"
            )
        optimizer.step()
        means = distributed.total(torch.stack(list(losses.values())) * share)
        return dict(zip(losses, means.tolist(), strict=True))

    def _report(self, step: int, steps: int, loss: dict[str, float] | None) -> Report:
        every = self.settings.evaluate_every
        due = step in {0, steps} or (every > 0 and step % every == 0)
        measured = None
        if due and self.parts.held:
            self.trainee.network.eval()
            measured = self.objective.measure()
        self.last = Report(step, steps, loss, measured, time.monotonic() - self.started)
        return self.last

    def _described(self) -> dict[str, Any]:
        # Each part of a step draws its own dropout.
        free = NO_WEIGHT if self.settings.dropout else (*NO_WEIGHT, "sub_batch_tokens")
        settings = {key: value for key, value in asdict(self.settings).items() if key not in free}
        base, workers = self.trainee.checkpoint.fingerprint(), distributed.world_size()
        return {"base": base, "data": self.parts.sha256, "workers": workers, **settings}

    def _record(self) -> dict[str, Any]:
        last = self.last
        return {
            "m3rag": __version__,
            "base": self.base,
            "base_fingerprint": self.identity.described["base"],
            "data_sha256": self.parts.sha256,
            "examples": len(self.parts.learn),
            "held_out_examples": len(self.parts.held),
            "passages": len(self.parts.texts),
            **self.objective.record,
            "workers": distributed.world_size(),
            "settings": asdict(self.settings),
            "steps": last.steps if last else 0,
            "last_loss": last.loss if last else None,
            "held_out_ndcg@10": last.held_out if last else None,
            "seconds": round(time.monotonic() - self.started),
        }
