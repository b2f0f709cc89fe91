"""Tokenised pairs in, relevance out, batch by batch, on one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from m3rag.encoder.batching import Rows, plan_batches
from m3rag.encoder.device import is_out_of_memory
from m3rag.encoder.forks import OfThisProcess
from m3rag.encoder.transfer import ToHost
from m3rag.errors import ModelError
from m3rag.reranking.classifier import Classifier
from m3rag.reranking.pairs import Pair

Scores = npt.NDArray[np.float32]


class PairScorer:
    """One classifier on one device.

    Safe to share between threads: the forward pass is locked, batch by batch. A process that was forked since can
    use it with one thread of torch.

    Args:
        classifier: What computes a batch.
        device: Where; for what it is told of in errors.
        batch_tokens: Most tokens of a forward pass.
    """

    def __init__(self, classifier: Classifier, *, device: torch.device, batch_tokens: int) -> None:
        self.classifier = classifier
        self.device = device
        self.batch_tokens = batch_tokens
        self._process = OfThisProcess(device)

    def run(self, pairs: Sequence[Pair]) -> Iterator[tuple[Rows, Scores]]:
        """Compute every pair once.

        Yields:
            Pair numbers and their scores, the longest pairs first.

        Raises:
            ModelError: If one pair alone does not fit in memory, a score is no number, or the process was forked, as
                in `OfThisProcess.require_threads`.
        """
        lengths = np.array([len(pair.ids) for pair in pairs], np.int64)
        todo = plan_batches(lengths, batch_tokens=self.batch_tokens)[::-1]
        under_way: tuple[Rows, ToHost] | None = None
        while todo:
            rows = todo.pop()
            try:
                logits = self._start([pairs[row] for row in rows])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise ModelError(
                        f"one pair of {lengths[rows[0]]} tokens does not fit in the memory of {self.device}: "
                        "lower max_length"
                    ) from error
                todo += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
                continue
            # Fetched one batch late, so that a GPU computes while the next batch is laid out.
            if under_way is not None:
                yield under_way[0], relevance(*under_way[1].wait())
            under_way = rows, logits
        if under_way is not None:
            yield under_way[0], relevance(*under_way[1].wait())

    def _start(self, pairs: Sequence[Pair]) -> ToHost:
        self._process.require_threads()
        with self._process.lock, torch.inference_mode():
            return ToHost(self.classifier(pairs))


def relevance(logits: Tensor) -> Scores:
    """One score a pair: the only logit, or of two labels the log-odds of the second.

    Args:
        logits: `(pairs, 1)` or `(pairs, 2)` float32.

    Returns:
        `(pairs,)` float32; its sigmoid is the probability that the passage is relevant, of two
        labels the softmax of the second.

    Raises:
        ModelError: If a score is no finite number.
    """
    scores: Scores = (logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]).numpy()
    if not np.isfinite(scores).all():
        raise ModelError("the model's scores are no finite numbers, as happens in float16: give dtype='float32'")
    return scores
