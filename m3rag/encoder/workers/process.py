"""A process that computes on one device: its main function, and the messages it exchanges with the parent."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import torch

from m3rag import errors
from m3rag.encoder.device import choose_device
from m3rag.encoder.engine import DeviceEngine, Finish, Network
from m3rag.encoder.workers.block import Block, Layout, Written
from m3rag.errors import M3RagError


class Loader(Protocol):
    """What loads the network in the worker; pickled on its way there."""

    def __call__(self, *, device: torch.device) -> Network:
        """The network on a device."""


class Setup(NamedTuple):
    """What a worker is to be: a `DeviceEngine` in a process of its own."""

    device: torch.device
    load: Loader
    batch_tokens: int
    finish: Finish
    threads: int


class Started(NamedTuple):
    """From the worker: the main script is imported, the network comes next."""


class Ready(NamedTuple):
    """From the worker: the network is loaded; or the blocks are open."""


class Blocks(NamedTuple):
    """To the worker: shards will come in these blocks from now on."""

    names: list[str]


class Shard(NamedTuple):
    """To the worker: compute the texts in a block, or only the weight of each of their tokens.

    The answer is a `Written`; answers come in the order of the shards.
    """

    slot: int
    layout: Layout
    token_weights: bool


class Failure(Exception):
    """Why a worker ended: the class of `m3rag.errors` to raise, its message, the worker's traceback if it had one.

    Raised between threads of the crew, sent by workers; callers get what `error` makes of it.
    """

    def __init__(self, kind: str, message: str, trace: str = "") -> None:
        super().__init__(kind, message, trace)
        self.kind, self.message, self.trace = kind, message, trace

    @classmethod
    def of(cls, error: BaseException, device: torch.device) -> Failure:
        """What went wrong on a device; free of the frames in which it was raised."""
        if isinstance(error, Failure):
            return cls(error.kind, error.message, error.trace)
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        ours = isinstance(error, M3RagError) and hasattr(errors, type(error).__name__)
        kind = type(error).__name__ if ours else "ModelError"
        told = str(error) if ours else f"{type(error).__name__}: {error}"
        return cls(kind, f"the worker on {device} failed: {told}", trace)

    def error(self) -> M3RagError:
        """The exception for a caller, a new one for each."""
        error: M3RagError = getattr(errors, self.kind)(self.message)
        if self.trace:
            error.__cause__ = WorkerTraceback(self.trace)
        return error


class WorkerTraceback(Exception):
    """The traceback of a worker, as text."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def work(connection: Connection[Any, Any], setup: Setup) -> None:
    """Answer the parent until it, or what this process computes, ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        connection.send(Started())
        _answer(connection, setup)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        with suppress(OSError):  # unless it is the parent that is gone
            connection.send(Failure.of(error, setup.device))


def _answer(connection: Connection[Any, Any], setup: Setup) -> None:
    torch.set_num_threads(setup.threads)
    device = choose_device(str(setup.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    engine = DeviceEngine(
        setup.load(device=device), device=device, batch_tokens=setup.batch_tokens, finish=setup.finish
    )
    connection.send(Ready())
    blocks: list[Block] = []
    while True:
        request = connection.recv()
        if isinstance(request, Blocks):
            for block in blocks:
                block.close()
            blocks = [Block.attach(name) for name in request.names]
            connection.send(Ready())
        else:
            connection.send(_compute(engine, blocks[request.slot], request))


def _compute(engine: DeviceEngine, block: Block, shard: Shard) -> Written:
    texts = block.texts(shard.layout)
    done = Written()
    if shard.token_weights:
        block.put_weights(shard.layout, engine.token_weights(texts))
        return done
    for rows, encoded in engine.run(texts):
        done = block.put_encoded(shard.layout, done, rows, encoded)
    return done


def _end_with_parent() -> None:
    # A worker in the midst of a shard would read the end of its connection only when that is computed.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C, not even while they import torch."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # It would end the blocking if it were started inside.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
