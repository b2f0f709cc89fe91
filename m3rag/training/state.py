"""The state of a run on disk, from which a killed run goes on to the same weights."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m3rag.errors import ConfigurationError, ModelError
from m3rag.training import distributed
from m3rag.training.backbone import Subject
from m3rag.training.saving import writing

STATE_FILE = "state.pt"


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes two runs the same: base, data and settings, in words and as one hash."""

    described: dict[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of the description."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()


def save_state(
    folder: Path,
    trainee: Subject,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    seconds: float,
    loss: dict[str, float],
    identity: Identity,
) -> None:
    """Write the state in place of the one before, in one atomic rename; every worker calls it, the first writes.

    Args:
        folder: The run's working folder.
        trainee: Its moving weights are kept.
        optimizer: Kept whole.
        step: Steps done.
        seconds: Time they took.
        loss: Of the last of them.
        identity: Of the run.

    Raises:
        InputError: If the folder cannot be written.
    """
    on_gpu = trainee.device.type == "cuda"
    # Each worker draws its own dropout.
    rng = distributed.stacked(torch.get_rng_state(), trainee.device)
    cuda_rng = distributed.stacked(torch.cuda.get_rng_state(trainee.device), trainee.device) if on_gpu else None
    if distributed.rank() != 0:
        return
    state = {
        "identity": json.dumps(identity.described, sort_keys=True),
        "step": step,
        "seconds": seconds,
        "loss": loss,
        "weights": {name: parameter.detach().cpu() for name, parameter in trainee.trained.items()},
        "optimizer": optimizer.state_dict(),
        "rng": rng,
        "cuda_rng": cuda_rng,
    }
    part = folder / f"{STATE_FILE}.part"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / STATE_FILE)


def load_state(
    folder: Path, trainee: Subject, optimizer: torch.optim.Optimizer, *, identity: Identity
) -> tuple[int, float, dict[str, float] | None]:
    """Put a saved state back, if there is one.

    Returns:
        Steps done, the seconds they took and the loss of the last; `(0, 0, None)` where nothing was saved.

    Raises:
        ConfigurationError: If the state is of another run; what differs is named.
        ModelError: If it is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return 0, 0.0, None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved: dict[str, Any] = json.loads(state["identity"])
    except Exception as error:  # torch raises whatever the damage brings about
        raise ModelError(f"{path} is damaged ({type(error).__name__}): remove {folder} to start anew") from error
    if Identity(saved).hash != identity.hash:
        wanted = identity.described
        changed = sorted(key for key in {*saved, *wanted} if saved.get(key) != wanted.get(key))
        told = ", ".join(f"{key} {saved.get(key)!r}, now {wanted.get(key)!r}" for key in changed)
        raise ConfigurationError(
            f"{folder} holds the state of another run ({told}): finish that one, give another --out, "
            f"or remove {folder} to start anew"
        )
    weights: dict[str, Tensor] = state["weights"]
    with torch.no_grad():
        for name, parameter in trainee.trained.items():
            parameter.copy_(weights[name])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"][distributed.rank()].clone())  # torch reads past a view
    if state["cuda_rng"] is not None and trainee.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"][distributed.rank()].clone(), trainee.device)
    return int(state["step"]), float(state["seconds"]), state.get("loss")
