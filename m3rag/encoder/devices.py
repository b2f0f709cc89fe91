"""Several devices: a worker process for each, texts handed out in shards, results through shared memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from m3rag.encoder.batching import Batch, Rows, plan_batches
from m3rag.encoder.device import Device, choose_device, device_name
from m3rag.encoder.engine import Encoded, Finish
from m3rag.encoder.lexical import MAX_TEXTS
from m3rag.encoder.workers.block import Layout
from m3rag.encoder.workers.crew import Crew
from m3rag.encoder.workers.handle import Job, Task
from m3rag.encoder.workers.process import Loader, Setup
from m3rag.errors import ConfigurationError
from m3rag.types import ModelInfo

SHARD_BATCHES = 4
"""Most batches of a shard: enough to make handing it over cheap."""

AHEAD = 3
"""Shards a worker that a job may have under way or unread: two at the worker, one in the queue. More
would only be memory."""


def choose_devices(device: Device | Sequence[Device] | None) -> list[torch.device]:
    """These devices; see `choose_device` for one or none.

    Raises:
        ConfigurationError: If one cannot be used, or they are of several kinds.
    """
    if isinstance(device, str) or not isinstance(device, Sequence):
        return [choose_device(device)]
    names = [device_name(one) for one in device]
    if not names:
        raise ConfigurationError("device is an empty list: name the devices, or leave it out")
    if len(names) == 1:
        return [choose_device(names[0])]
    devices = [_check(name) for name in names]
    if len({chosen.type for chosen in devices}) > 1:
        raise ConfigurationError(f"the devices {', '.join(names)} are of several kinds: name devices of one")
    return devices


def _check(name: str) -> torch.device:
    if not name.startswith("cuda"):
        return choose_device(name)
    # Not by using it: that would cost half a gigabyte of each GPU in this process, which computes nothing.
    count = torch.cuda.device_count()
    if count and name in {"cuda", *(f"cuda:{i}" for i in range(count))}:
        return torch.device(name)
    raise ConfigurationError(
        f"device {name!r} cannot be used on this machine, which has {count} CUDA devices: "
        + (f"name some of cuda:0 to cuda:{count - 1}" if count else "try device='cpu'")
    )


def plan_shards(lengths: npt.NDArray[np.integer], *, batch_tokens: int, workers: int) -> list[Rows]:
    """Group texts into what a worker is handed at a time.

    Shards of several batches first, single ones last, so that all workers end at about the same time;
    the longest texts first.

    Args:
        lengths: `(n,)` tokens of each text.
        batch_tokens: Most tokens of a batch.
        workers: How many share the work.

    Returns:
        Index arrays that together hold each of `0..n-1` once.
    """
    share = -(-int(np.sum(lengths)) // workers)
    batches = plan_batches(lengths, batch_tokens=min(batch_tokens, max(share, 1)), max_texts=MAX_TEXTS)
    shards = []
    start = 0
    while start < len(batches):
        end = start + min(max((len(batches) - start) // (2 * workers), 1), SHARD_BATCHES)
        shards.append(np.concatenate(batches[start:end]))
        start = end
    return shards


class DevicePool:
    """One network on several devices, an `Engine`.

    The workers are started by the first call and serve the later ones; several threads may call at
    once. They are fresh interpreters, which import the main script: its work must stand under
    `if __name__ == "__main__":`. When a worker fails, all calls under way raise, all workers are stopped, and
    the next call starts new ones.

    Args:
        load: Loads the network in each worker, which has a copy of its own.
        devices: One for each worker; a device named twice has two.
        batch_tokens: Most tokens of a forward pass.
        finish: What is done to its results.
        info: The model's dimensions.
    """

    def __init__(
        self, load: Loader, *, devices: Sequence[torch.device], batch_tokens: int, finish: Finish, info: ModelInfo
    ) -> None:
        self._load = load
        self.devices = list(devices)
        self.batch_tokens = batch_tokens
        self.finish = finish
        self._info = info
        self._lock = threading.Lock()
        self._crew: Crew | None = None
        self._end: weakref.finalize[[], DevicePool] | None = None

    def run(self, texts: Batch) -> Iterator[tuple[Rows, Encoded]]:
        """Compute every text once.

        Yields:
            Text numbers and their representations, in the order in which shards are done.

        Raises:
            ModelError: If a worker cannot load the network, runs out of memory, or is killed.
            ConfigurationError: If workers cannot be started.
        """
        shards = plan_shards(texts.lengths, batch_tokens=self.batch_tokens, workers=len(self.devices))
        if shards:
            yield from self._answers(texts, shards)

    def token_weights(self, text: Batch) -> npt.NDArray[np.float32]:
        """The lexical weight of each kept token of one text, before maxima: `(kept tokens,)`."""
        (weights,) = self._answers(text, [np.arange(len(text))], token_weights=True)
        return cast("npt.NDArray[np.float32]", weights)

    def close(self) -> None:
        """Stop the workers; a later call starts them again."""
        with self._lock:
            if self._end is not None:
                self._end()

    def _answers(self, texts: Batch, shards: Sequence[Rows], *, token_weights: bool = False) -> Iterator[Any]:
        kept = texts.kept
        dtype = str(self.finish.colbert_dtype).removeprefix("torch.")
        layouts = [
            Layout(
                len(rows),
                int(texts.lengths[rows].sum()),
                int(kept[rows].sum()),
                self._info.dense_dim,
                self._info.colbert_dim,
                dtype,
            )
            for rows in shards
        ]
        job = Job(texts, max(layout.nbytes for layout in layouts), token_weights)
        crew = self._running()
        ahead = AHEAD * len(crew)
        try:
            for i, (rows, layout) in enumerate(zip(shards, layouts, strict=True)):
                if i >= ahead:
                    yield job.answer()
                crew.submit(Task(job, rows, layout, left=len(shards) - i - 1))
            for _ in shards[:ahead]:
                yield job.answer()
        finally:
            job.cancelled = True

    def _running(self) -> Crew:
        with self._lock:
            if self._crew is None or not self._crew.alive:
                if self._end is not None:
                    self._end()  # and with it the memory that its workers held
                threads = max(torch.get_num_threads() // len(self.devices), 1)
                self._crew = Crew(
                    [Setup(device, self._load, self.batch_tokens, self.finish, threads) for device in self.devices]
                )
                # At exit too; of the crew alone, since it must not keep the pool from being collected.
                self._end = weakref.finalize(self, self._crew.close)
            return self._crew
