"""The workers of a pool while they live: one thread feeds each, all from one queue."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from m3rag.encoder.workers.handle import SLOTS, Task, Worker
from m3rag.encoder.workers.process import Failure, Setup, no_interrupts
from m3rag.errors import ConfigurationError


class Crew:
    """Workers that were started together and end together.

    Nothing here takes a lock, since a garbage collection may end the crew in the midst of anything.

    Args:
        setups: One for each worker.

    Attributes:
        failure: Why the crew ended, or None.

    Raises:
        ConfigurationError: If processes cannot be started here.
    """

    def __init__(self, setups: Sequence[Setup]) -> None:
        self.failure: Failure | None = None
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._owner = os.getpid()
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []
        try:
            with no_interrupts():
                for setup in setups:
                    self._workers.append(Worker(setup))
            for worker in self._workers:
                thread = threading.Thread(target=self._feed, args=(worker,), name=worker.process.name, daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException as error:
            self._abandon()
            if isinstance(error, RuntimeError | AssertionError):  # how multiprocessing refuses
                raise ConfigurationError(
                    f"workers cannot be started in this process: {' '.join(str(error).split())}; choose one device, or "
                    'if this is a script, put what it does under `if __name__ == "__main__":`'
                ) from error
            raise

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def alive(self) -> bool:
        """Whether it takes tasks, in this process (a fork's child has no threads of it)."""
        return (
            self.failure is None
            and self._owner == os.getpid()
            and all(worker.process.is_alive() for worker in self._workers)
        )

    def submit(self, task: Task) -> None:
        """Have a shard computed; its job gets the answer.

        Raises:
            M3RagError: If the crew has ended.
        """
        self._tasks.put(task)
        if self.failure is not None:
            raise self.failure.error()

    def stop(self, failure: Failure) -> None:
        """End the workers; every task that is not done is answered with the failure."""
        self.failure = self.failure or failure
        for worker in self._workers:
            worker.process.terminate()
        self._tasks.put(None)

    def close(self) -> None:
        """End the workers and wait until they are gone."""
        if self._owner != os.getpid():
            return
        self.stop(Failure("ModelError", "the workers were stopped while texts were being encoded"))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _abandon(self) -> None:
        self.close()
        for worker in self._workers[len(self._threads) :]:
            worker.end()

    def _feed(self, worker: Worker) -> None:
        try:
            worker.wait_ready()
            while self._advance(worker):
                pass
        except Exception as error:  # noqa: BLE001 - handed to every caller
            self.stop(Failure.of(error, worker.device))
        assert self.failure is not None
        for task in worker.pending:
            task.job.answers.put(self.failure)
        while (waiting := self._take(wait=True)) is not None:
            waiting.job.answers.put(self.failure)
        worker.end()

    def _advance(self, worker: Worker) -> bool:
        """Send one shard or collect one; False when the crew has ended."""
        pending = worker.pending
        # Near a job's end nothing is taken ahead: another worker could begin it at once.
        if not pending or (len(pending) < SLOTS and pending[-1].left >= len(self)):
            task = self._take(wait=not pending)
            if task is not None:
                worker.submit(task)
                return True
            if not pending:
                return False
        worker.collect()
        return True

    def _take(self, *, wait: bool) -> Task | None:
        """The next task; None if the crew has ended, or nothing is there and `wait` is off."""
        while True:
            try:
                task = self._tasks.get(block=wait)
            except Empty:
                return None
            if task is None:
                self._tasks.put(None)  # for the other threads
                return None
            if not task.job.cancelled:
                return task
