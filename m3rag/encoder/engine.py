"""Packed texts in, finished representations out, batch by batch, on one device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from m3rag.encoder.batching import Batch, Rows, plan_batches
from m3rag.encoder.device import is_out_of_memory
from m3rag.encoder.finite import require_finite
from m3rag.encoder.forks import OfThisProcess
from m3rag.encoder.lexical import MAX_TEXTS, TokenWeights, max_per_token
from m3rag.encoder.model import Representations
from m3rag.encoder.transfer import ToHost
from m3rag.errors import ModelError
from m3rag.output import FloatArray


class Encoded(NamedTuple):
    """A finished batch, in main memory.

    dense `(texts, d)` float32; lexical, the batch's entries; colbert `(kept tokens, c)`.
    """

    dense: npt.NDArray[np.float32]
    lexical: TokenWeights
    colbert: FloatArray

    def require_finite(self, model: str) -> None:
        """Raise `ModelError` if a number is an infinity or NaN: damaged weights, or too large for float16."""
        require_finite(model, self.dense, self.lexical.weights, self.colbert)


class Finish(NamedTuple):
    """What is done to a forward pass's results, the same on every device."""

    unused_ids: npt.NDArray[np.int64]
    colbert_dtype: torch.dtype = torch.float16
    truncate_dim: int | None = None
    normalize: bool = True


class Network(Protocol):
    """What computes a batch: torch or ONNX Runtime."""

    def __call__(self, batch: Batch) -> Representations:
        """One forward pass."""


class Engine(Protocol):
    """What computes all batches: one device, or several."""

    def run(self, texts: Batch) -> Iterator[tuple[Rows, Encoded]]:
        """Compute every text once; yields (text numbers, their representations) in any order."""

    def token_weights(self, text: Batch) -> npt.NDArray[np.float32]:
        """The lexical weight of each kept token of one text, before maxima."""

    def close(self) -> None:
        """Let go of what would outlive it; a later call may take it up again."""


class DeviceEngine:
    """One network on one device.

    Safe to share between threads: the forward pass is locked, batch by batch. A process that was forked since can
    use it with one thread of torch.

    Args:
        network: What computes a batch.
        device: Where; for what it is told of in errors.
        batch_tokens: Most tokens of a forward pass.
        finish: What is done to its results.
    """

    def __init__(self, network: Network, *, device: torch.device, batch_tokens: int, finish: Finish) -> None:
        self.network = network
        self.device = device
        self.batch_tokens = batch_tokens
        self.finish = finish
        self._process = OfThisProcess(device)

    def require_threads(self) -> None:
        """As `OfThisProcess.require_threads`."""
        self._process.require_threads()

    def run(self, texts: Batch) -> Iterator[tuple[Rows, Encoded]]:
        """Compute every text once.

        Yields:
            Text numbers and their representations, the longest texts first.

        Raises:
            ModelError: If one text alone does not fit in memory, or the process was forked, as in `require_threads`.
        """
        todo = plan_batches(texts.lengths, batch_tokens=self.batch_tokens, max_texts=MAX_TEXTS)[::-1]
        under_way: tuple[Rows, _Results] | None = None
        while todo:
            rows = todo.pop()
            try:
                results = self._start(texts.take(rows))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise ModelError(
                        f"one text of {texts.lengths[rows[0]]} tokens does not fit in the memory of {self.device}: "
                        "lower max_length"
                    ) from error
                todo += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
                continue
            # Handed on one batch late, so that a GPU computes the next while this one is put away.
            if under_way is not None:
                yield under_way[0], under_way[1].wait()
            under_way = rows, results
        if under_way is not None:
            yield under_way[0], under_way[1].wait()

    def token_weights(self, text: Batch) -> npt.NDArray[np.float32]:
        """The lexical weight of each kept token of one text, before maxima: `(kept tokens,)`."""
        self.require_threads()
        with self._process.lock, torch.inference_mode():
            weights: npt.NDArray[np.float32] = self.network(text).lexical.cpu().numpy()
        return weights

    def close(self) -> None:
        """Nothing of it outlives it."""

    def _start(self, batch: Batch) -> _Results:
        self.require_threads()
        with self._process.lock, torch.inference_mode():
            dense, lexical, colbert = self.network(batch)
            dense = dense[:, : self.finish.truncate_dim]
            if self.finish.normalize:
                dense, colbert = F.normalize(dense, dim=-1), F.normalize(colbert, dim=-1)
            tensors = ToHost(dense, lexical, colbert.to(self.finish.colbert_dtype))
        return _Results(batch, tensors, self.finish.unused_ids)


class _Results:
    """Results on their way from the device."""

    def __init__(self, batch: Batch, tensors: ToHost, unused_ids: npt.NDArray[np.int64]) -> None:
        self._batch = batch
        self._unused_ids = unused_ids
        self._tensors = tensors

    def wait(self) -> Encoded:
        dense, lexical, colbert = (tensor.numpy() for tensor in self._tensors.wait())
        ids, owners = self._batch.ids[self._batch.keep], self._batch.owners[self._batch.keep]
        used = ~np.isin(ids, self._unused_ids)
        return Encoded(dense, max_per_token(owners[used], ids[used], lexical[used]), colbert)
