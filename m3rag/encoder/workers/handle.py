"""The parent's end of a worker process: shards go in, answers come out, and its death is told of."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import wait
from queue import SimpleQueue
from signal import Signals
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from m3rag.encoder.batching import Batch, Rows
from m3rag.encoder.engine import Encoded
from m3rag.encoder.workers.block import Block, Layout, Written
from m3rag.encoder.workers.process import Blocks, Failure, Ready, Setup, Shard, Started, work

SLOTS = 2
"""Shards that a worker has at a time: one is computed while the other waits or is copied out."""

ROOM = 1.25
"""How much larger than needed a block is made, so that a somewhat larger shard needs no new one."""

START_SECONDS = 300
"""A worker that has not even begun to load by then is stuck in the main script, which it imports first."""

GRACE_SECONDS = 5

Answer = tuple[Rows, Encoded] | npt.NDArray[np.float32] | Failure


@dataclass(eq=False)
class Job:
    """One caller's texts; every task of it that was submitted is answered once.

    Attributes:
        texts: All of them.
        nbytes: Of the largest of its shards, in shared memory.
        token_weights: Whether the weight of each token is asked for, not the representations.
        cancelled: Set when the caller has gone: what was not begun is left out.
    """

    texts: Batch
    nbytes: int
    token_weights: bool = False
    cancelled: bool = False
    answers: SimpleQueue[Answer] = field(default_factory=SimpleQueue)

    def answer(self) -> Any:
        """Wait for the next answer.

        Raises:
            M3RagError: What a worker failed with.
        """
        answer = self.answers.get()
        if isinstance(answer, Failure):
            raise answer.error()
        return answer


class Task(NamedTuple):
    """A shard of a job: its texts, its sizes, and how many more shards the job has."""

    job: Job
    rows: Rows
    layout: Layout
    left: int


class Worker:
    """The parent's end of one worker process; used by one thread."""

    def __init__(self, setup: Setup) -> None:
        context = get_context("spawn")
        self.device = setup.device
        self.pending: deque[Task] = deque()
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, setup), name=f"m3rag {self.device}", daemon=True)
        self.process.start()
        theirs.close()
        self._started = False
        self._sent = 0
        self._capacity = 0
        self._blocks: list[Block] = []

    def wait_ready(self) -> None:
        """Wait until it has loaded the network.

        Raises:
            Failure: If it cannot.
        """
        self._receive(Started)
        self._started = True
        self._receive(Ready)

    def submit(self, task: Task) -> None:
        """Send a shard; fewer than `SLOTS` may be pending."""
        slot = self._sent % SLOTS
        self._sent += 1
        self.pending.append(task)
        if task.job.nbytes > self._capacity:
            while len(self.pending) > 1:
                self.collect()
            self._make_blocks(int(task.job.nbytes * ROOM))
        self._blocks[slot].put_texts(task.layout, task.job.texts.take(task.rows))
        self._send(Shard(slot, task.layout, task.job.token_weights))

    def collect(self) -> None:
        """Wait for the oldest pending shard and answer its task."""
        task = self.pending[0]
        written = self._receive(Written)
        block = self._blocks[(self._sent - len(self.pending)) % SLOTS]
        if task.job.token_weights:
            task.job.answers.put(block.weights(task.layout))
        else:
            rows, encoded = block.encoded(task.layout, written)
            task.job.answers.put((task.rows[rows], encoded))
        self.pending.popleft()

    def end(self) -> None:
        """See the process gone and free what it was given."""
        self.process.join(GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(GRACE_SECONDS)
        self._connection.close()
        self._drop_blocks()

    def _make_blocks(self, nbytes: int) -> None:
        self._drop_blocks()
        for _ in range(SLOTS):
            self._blocks.append(Block.create(nbytes))
        self._send(Blocks([block.name for block in self._blocks]))
        self._receive(Ready)
        # From here on they vanish with the processes, even if those are killed.
        for block in self._blocks:
            block.unlink()
        self._capacity = nbytes

    def _drop_blocks(self) -> None:
        while self._blocks:
            block = self._blocks.pop()
            block.unlink()
            block.close()

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._death() from error

    def _receive(self, kind: type) -> Any:
        ready = wait([self._connection, self.process.sentinel], None if self._started else START_SECONDS)
        if not ready:
            raise self._unimportable(f"was not there after {START_SECONDS} seconds")
        try:
            message = self._connection.recv() if self._connection.poll() else None
        except (EOFError, OSError) as error:
            raise self._death() from error
        if isinstance(message, Failure):
            raise message
        if not isinstance(message, kind):
            raise self._death()
        return message

    def _death(self) -> Failure:
        self.process.join(GRACE_SECONDS)
        code = self.process.exitcode
        if not self._started and code == 1:
            return self._unimportable("ended with exit code 1")
        end = (
            f"was killed by {Signals(-code).name}" if code is not None and code < 0 else f"ended with exit code {code}"
        )
        if end.endswith("SIGKILL"):
            end += ", as the system does when memory runs out"
        return Failure("ModelError", f"the worker on {self.device} {end}: lower batch_tokens or use fewer devices")

    def _unimportable(self, what: str) -> Failure:
        return Failure(
            "ConfigurationError",
            f"the worker on {self.device} {what}, while it imported the main script, as every worker must: that has "
            'to be a file with what it does under `if __name__ == "__main__":`',
        )
