from __future__ import annotations

import asyncio
import copy
import doctest
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from m3rag.encoder import microbatch, shared_calls
from m3rag.encoder.cache import MemoryCache
from m3rag.encoder.cached import CachedEncoder
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.microbatch import AsyncEncoding, MicroBatcher
from m3rag.errors import ConfigurationError, InputError, ModelError
from m3rag.output import M3Output
from m3rag.testing import HashEncoder

WAIT = 60  # a bound for what takes milliseconds
TEXTS = [f"question {i} about ducks and the ponds they swim on" for i in range(50)]


class AsyncHash(AsyncEncoding, HashEncoder):
    """Records its passes; each waits for the gate; a text with `poison` fails its pass."""

    def __init__(self, *, is_open: bool = True) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[str]]] = []
        self.started = threading.Event()
        self.gate = threading.Event()
        if is_open:
            self.gate.set()

    def _pass(self, kind: str, texts: Sequence[str]) -> M3Output:
        self.calls.append((kind, list(texts)))
        self.started.set()
        assert self.gate.wait(WAIT)
        if any("poison" in text for text in texts):
            raise ModelError("a poisoned pass")
        return super().encode_documents(texts)

    def encode_queries(self, texts: Sequence[str]) -> M3Output:
        return self._pass("query", texts)

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        return self._pass("document", texts)

    def encode_dense(self, texts: Sequence[str], *, role: str) -> npt.NDArray[np.float32]:
        return self._pass(f"dense {role}", texts).dense

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in {"started", "gate"}}


class AsyncM3(M3Encoder, AsyncEncoding):
    passes = 0

    def encode_queries(self, *args: Any, **options: Any) -> M3Output:
        self.passes += 1
        return super().encode_queries(*args, **options)


def assert_equal(found: M3Output, expected: M3Output, *, atol: float = 0) -> None:
    assert np.allclose(found.dense, expected.dense, rtol=0, atol=atol)
    assert np.allclose(found.lexical.toarray(), expected.lexical.toarray(), rtol=0, atol=atol)
    assert np.allclose(found.colbert.astype(np.float32), expected.colbert.astype(np.float32), rtol=0, atol=atol)
    assert np.array_equal(found.offsets, expected.offsets)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(0.001)


async def behind_a_pass(encoder: AsyncHash, *waiting: Awaitable[Any]) -> list[Any]:
    """Start a pass over `first`, let the others wait for it, open the gate; their results or errors."""
    first = asyncio.ensure_future(encoder.aencode_queries(["first"]))
    await until(encoder.started.is_set)
    others = [asyncio.ensure_future(w) for w in waiting]
    await asyncio.sleep(0)  # all of them stand in line now
    encoder.gate.set()
    results = await asyncio.gather(*others, return_exceptions=True)
    assert len(await first) == 1
    return results


async def test_fifty_waiting_callers_share_one_pass() -> None:
    encoder = AsyncHash(is_open=False)
    found = await behind_a_pass(encoder, *(encoder.aencode_queries([text]) for text in TEXTS))
    assert encoder.calls == [("query", ["first"]), ("query", TEXTS)]
    for output, text in zip(found, TEXTS, strict=True):
        assert_equal(output, HashEncoder().encode_queries([text]))


async def test_the_real_encoder_gives_concurrent_callers_what_it_gives_one(tiny_checkpoint: Path) -> None:
    encoder = AsyncM3(str(tiny_checkpoint), device="cpu", colbert_dtype="float32")
    groups = [TEXTS[i : i + 1 + i % 3] for i in range(50)]
    expected = [encoder.encode_queries(group) for group in groups]
    encoder.passes = 0
    found = await asyncio.gather(*(encoder.aencode_queries(group) for group in groups))
    assert encoder.passes <= 10
    for output, alone in zip(found, expected, strict=True):
        assert_equal(output, alone, atol=1e-5)
    documents, dense, nothing = await asyncio.gather(
        encoder.aencode_documents(TEXTS[:3]),
        encoder.aencode_dense(TEXTS[:3], role="query"),
        encoder.aencode_queries([]),
    )
    assert_equal(documents, encoder.encode_documents(TEXTS[:3]), atol=1e-5)
    assert np.allclose(dense, encoder.encode_queries(TEXTS[:3]).dense, atol=1e-5)
    assert nothing.dense.shape == (0, 64)
    short = await asyncio.gather(*(encoder.aencode_queries(["ducks " * 20], max_length=n) for n in (5, 9)))
    assert [len(output.colbert) for output in short] == [4, 8]


async def test_a_cached_encoder_takes_the_same_mixin() -> None:
    class AsyncCached(CachedEncoder, AsyncEncoding):
        pass

    inner = AsyncHash(is_open=False)
    encoder = AsyncCached(inner, MemoryCache())
    first = asyncio.ensure_future(encoder.aencode_queries(["a"]))
    await until(inner.started.is_set)
    others = asyncio.gather(*(encoder.aencode_queries([text]) for text in "abab"))
    await asyncio.sleep(0)
    inner.gate.set()
    assert [len(output) for output in (await first, *(await others))] == [1] * 5
    assert [texts for _, texts in inner.calls if texts] == [["a"], ["b"]]


async def test_only_the_same_role_and_kind_is_joined() -> None:
    encoder = AsyncHash(is_open=False)
    found = await behind_a_pass(
        encoder,
        encoder.aencode_documents(["a"]),
        encoder.aencode_dense(["b", "c"], role="query"),
        encoder.aencode_dense(["d"], role="document"),
        encoder.aencode_documents(["e"]),
        encoder.aencode_dense(["f"], role="query"),
    )
    assert encoder.calls[1:] == [
        ("document", ["a", "e"]),
        ("dense query", ["b", "c", "f"]),
        ("dense document", ["d"]),
    ]
    assert [len(output) for output in found] == [1, 2, 1, 1, 1]
    assert np.array_equal(found[1], HashEncoder().encode_queries(["b", "c"]).dense)
    assert np.array_equal(found[4], HashEncoder().encode_queries(["f"]).dense)


@pytest.mark.parametrize("limits", [{"max_texts": 4}, {"max_chars": 4}])
async def test_a_pass_keeps_to_its_limits(limits: dict[str, int]) -> None:
    encoder = AsyncHash(is_open=False)
    encoder.batcher = MicroBatcher(**limits)
    await behind_a_pass(encoder, *(encoder.aencode_queries([letter]) for letter in "abcdefghij"))
    assert [texts for _, texts in encoder.calls[1:]] == [list("abcd"), list("efgh"), list("ij")]


async def test_a_caller_with_many_texts_lets_others_have_their_turn() -> None:
    encoder = AsyncHash(is_open=False)
    encoder.batcher = MicroBatcher(max_texts=2, max_chars=10)
    many = ["a", "b", "c", "a text longer than the limit", "d", "", ""]
    found, _ = await behind_a_pass(encoder, encoder.aencode_documents(many), encoder.aencode_queries(["urgent"]))
    assert_equal(found, HashEncoder().encode_documents(many))
    assert [texts for _, texts in encoder.calls[1:]] == [["a", "b"], ["urgent"], ["c"], [many[3]], ["d", ""], [""]]


async def test_many_dense_vectors_come_in_order() -> None:
    encoder = AsyncHash()
    encoder.batcher = MicroBatcher(max_texts=7)
    found = await encoder.aencode_dense(TEXTS, role="document")
    assert np.array_equal(found, HashEncoder().encode_documents(TEXTS).dense)
    assert len(encoder.calls) == 8


async def test_no_texts_give_an_empty_output_joined_or_not() -> None:
    encoder = AsyncHash(is_open=False)
    found = await behind_a_pass(encoder, encoder.aencode_queries([]), encoder.aencode_queries(["a"]))
    assert [len(output) for output in found] == [0, 1]
    assert (await encoder.aencode_dense([], role="query")).shape == (0, 32)


async def test_a_cancelled_caller_is_dropped_and_disturbs_nobody() -> None:
    encoder = AsyncHash(is_open=False)
    running = asyncio.ensure_future(encoder.aencode_queries(["running"]))
    await until(encoder.started.is_set)
    waiting = [asyncio.ensure_future(encoder.aencode_queries([text])) for text in ("a", "gone", "b")]
    await asyncio.sleep(0)
    running.cancel()
    waiting[1].cancel()
    results = await asyncio.gather(running, waiting[1], return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    encoder.gate.set()
    for output, text in zip(await asyncio.gather(waiting[0], waiting[2]), "ab", strict=True):
        assert_equal(output, HashEncoder().encode_queries([text]))
    assert [texts for _, texts in encoder.calls] == [["running"], ["a", "b"]]


async def test_a_cancelled_caller_of_many_texts_stops_at_once() -> None:
    encoder = AsyncHash(is_open=False)
    encoder.batcher = MicroBatcher(max_texts=1)
    caller = asyncio.ensure_future(encoder.aencode_queries(TEXTS))
    await until(encoder.started.is_set)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    encoder.gate.set()
    assert len(await encoder.aencode_queries(["next"])) == 1
    assert [texts for _, texts in encoder.calls] == [TEXTS[:1], ["next"]]


async def test_only_the_guilty_caller_fails() -> None:
    encoder = AsyncHash(is_open=False)
    good, bad, fine = await behind_a_pass(
        encoder,
        encoder.aencode_queries(["a"]),
        encoder.aencode_queries(["b", "poison"]),
        encoder.aencode_queries(["c"]),
    )
    assert isinstance(bad, ModelError)
    assert_equal(good, HashEncoder().encode_queries(["a"]))
    assert_equal(fine, HashEncoder().encode_queries(["c"]))
    assert [texts for _, texts in encoder.calls[1:]] == [["a", "b", "poison", "c"], ["a"], ["b", "poison"], ["c"]]
    assert len(await encoder.aencode_queries(["afterwards"])) == 1


async def test_a_pass_that_raises_stop_iteration_leaves_nobody_waiting() -> None:
    class Ended(AsyncHash):
        def encode_queries(self, texts: Sequence[str]) -> M3Output:
            raise StopIteration

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        await asyncio.wait_for(Ended().aencode_queries(["a"]), WAIT)


async def test_an_output_of_the_wrong_length_is_an_error_and_not_someone_elses_rows() -> None:
    class Short(AsyncHash):
        def encode_queries(self, texts: Sequence[str]) -> M3Output:
            return super().encode_queries(texts)[1:]

    with pytest.raises(RuntimeError, match="gave 1 rows for 2 texts"):
        await Short().aencode_queries(["a", "b"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("ducks", "got one string: 'ducks'"),
        (["ducks", None], "text 1 is a NoneType"),
        ({"ducks"}, "got a set; make it one with list"),
    ],
)
async def test_bad_input_never_reaches_a_pass(texts: Any, message: str) -> None:
    encoder = AsyncHash()
    for call in (encoder.aencode_queries(texts), encoder.aencode_documents(texts)):
        with pytest.raises(InputError, match=message):
            await call
    with pytest.raises(InputError, match=message):
        await encoder.aencode_dense(texts, role="query")
    assert encoder.calls == []


async def test_what_the_caller_does_to_its_list_while_it_waits_does_not_matter() -> None:
    encoder = AsyncHash(is_open=False)
    texts = ["a"]
    waiting = encoder.aencode_queries(texts)

    async def clear() -> None:
        texts.clear()

    found, _ = await behind_a_pass(encoder, waiting, clear())
    assert len(found) == 1


async def test_the_loop_goes_on_while_a_pass_runs() -> None:
    encoder = AsyncHash(is_open=False)
    caller = asyncio.ensure_future(encoder.aencode_queries(["slow"]))
    await until(encoder.started.is_set)
    heartbeats = 0
    for _ in range(1000):
        await asyncio.sleep(0)
        heartbeats += not caller.done()
    assert heartbeats == 1000
    encoder.gate.set()
    assert len(await caller) == 1


def test_event_loops_of_several_threads_share_passes() -> None:
    encoder = AsyncHash(is_open=False)

    async def ask(texts: Sequence[str]) -> list[M3Output]:
        return await asyncio.gather(*(encoder.aencode_queries([text]) for text in texts))

    with ThreadPoolExecutor(2) as pool:
        loops = [pool.submit(asyncio.run, ask(texts)) for texts in (TEXTS[:25], TEXTS[25:])]
        assert encoder.started.wait(WAIT)
        worker = encoder.batcher._worker
        deadline = time.monotonic() + WAIT
        while sum(len(texts) for _, texts in encoder.calls) + worker._arrived.qsize() < 50:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        encoder.gate.set()
        found = [output for loop in loops for output in loop.result(WAIT)]
    assert len(encoder.calls) <= 2
    for output, text in zip(found, TEXTS, strict=True):
        assert_equal(output, HashEncoder().encode_queries([text]))


def test_one_event_loop_after_the_other() -> None:
    encoder = AsyncHash()
    for text in "abc":
        assert_equal(asyncio.run(encoder.aencode_queries([text])), HashEncoder().encode_queries([text]))


def test_a_loop_that_ended_early_leaves_the_next_one_alone() -> None:
    encoder = AsyncHash(is_open=False)
    given_up = []

    async def give_up() -> None:
        given_up.append(asyncio.ensure_future(encoder.aencode_queries(["slow"])))
        await until(encoder.started.is_set)

    asyncio.run(give_up())
    assert given_up[0].cancelled()
    encoder.gate.set()
    assert len(asyncio.run(encoder.aencode_queries(["next"]))) == 1


def test_threads_that_come_first_together_share_one_batcher() -> None:
    encoder = AsyncHash()
    barrier = threading.Barrier(8)

    def first(_: int) -> MicroBatcher:
        barrier.wait(WAIT)
        return encoder.batcher

    with ThreadPoolExecutor(8) as pool:
        assert len({id(batcher) for batcher in pool.map(first, range(8))}) == 1


async def test_an_idle_batcher_may_hold_the_first_request_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(shared_calls, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    encoder = AsyncHash()
    encoder.batcher = MicroBatcher(max_wait_s=50)
    callers = []
    for letter, now in (("a", 0.0), ("b", 10.0), ("c", 51.0)):
        clock[0] = now
        callers.append(asyncio.ensure_future(encoder.aencode_queries([letter])))
        await until(lambda: encoder.started.is_set() or len(encoder.batcher._worker._waiting) == len(callers))
    await asyncio.gather(*callers)
    assert encoder.calls == [("query", ["a", "b", "c"])]


async def test_rows_of_a_joined_pass_do_not_keep_the_others_in_memory() -> None:
    encoder = AsyncHash(is_open=False)
    one, two, dense, _ = await behind_a_pass(
        encoder,
        encoder.aencode_queries(["a b"]),
        encoder.aencode_queries(["c", "d"]),
        encoder.aencode_dense(["e"], role="query"),
        encoder.aencode_dense(["f"], role="query"),
    )
    arrays = [one.dense, one.colbert, one.lexical.data, two.dense, two.colbert, two.lexical.data, dense]
    for array in arrays:
        assert array.base is None or array.base.nbytes == array.nbytes


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "m3rag-encode"]


async def test_the_thread_ends_when_idle_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_calls, "IDLE_S", 0.01)
    encoder = AsyncHash()
    for _ in range(2):
        before = set(threads())
        assert len(await encoder.aencode_queries(["a"])) == 1
        await until(lambda before=before: not set(threads()) - before)  # type: ignore[misc]


async def test_a_collected_encoder_takes_its_thread_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_calls, "IDLE_S", 1e6)
    before = set(threads())
    encoder = AsyncHash()
    gone = weakref.ref(encoder)
    assert len(await encoder.aencode_queries(["a"])) == 1
    assert len(set(threads()) - before) == 1
    del encoder
    await until(lambda: gc.collect() >= 0 and gone() is None and not set(threads()) - before)


def pickled(encoder: AsyncHash) -> AsyncHash:
    found: AsyncHash = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - it was made in this line
    return found


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_an_encoder_can_be_pickled_and_copied_after_use(duplicate: Callable[[AsyncHash], AsyncHash]) -> None:
    encoder = AsyncHash()
    encoder.batcher = MicroBatcher(max_texts=3, max_chars=300, max_wait_s=0.001)
    asyncio.run(encoder.aencode_queries(["a"]))
    other = duplicate(encoder)
    other.started, other.gate = encoder.started, encoder.gate
    assert len(asyncio.run(other.aencode_queries(["b"]))) == 1
    assert encoder.calls == [("query", ["a"])]
    assert other.batcher is not encoder.batcher
    assert (other.batcher.max_texts, other.batcher.max_chars, other.batcher.max_wait_s) == (3, 300, 0.001)


def test_a_shallow_copy_is_asked_for_itself() -> None:
    encoder = AsyncHash()
    asyncio.run(encoder.aencode_queries(["a"]))
    other = copy.copy(encoder)
    other.calls, other.started, other.gate = [], encoder.started, encoder.gate
    asyncio.run(other.aencode_queries(["b"]))
    assert (encoder.calls, other.calls) == ([("query", ["a"])], [("query", ["b"])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_texts": 0}, "max_texts=0"),
        ({"max_chars": 0}, "max_chars=0"),
        ({"max_wait_s": -1}, "0 to 60 seconds, got -1"),
        ({"max_wait_s": float("nan")}, "0 to 60 seconds, got nan"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MicroBatcher(**options)


def test_the_example_runs() -> None:
    result = doctest.testmod(microbatch)
    assert result.attempted > 0
    assert result.failed == 0


PROGRAM = """
import asyncio, atexit, contextlib, os, sys, threading, time
from m3rag.encoder import shared_calls
from m3rag.encoder.microbatch import AsyncEncoding
from m3rag.testing import HashEncoder

class Slow(AsyncEncoding, HashEncoder):
    started = threading.Event()
    def encode_queries(self, texts):
        self.started.set()
        self.work()
        return super().encode_queries(texts)
    def work(self):
        time.sleep(0.3)

encoder = Slow()
async def ask():
    await asyncio.gather(*(encoder.aencode_queries([text]) for text in "abcde"))
def ask_until_cancelled():
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(ask())
def ask_in_background():
    threading.Thread(target=ask_until_cancelled, daemon=True).start()
    assert encoder.started.wait(60)
"""


def run_python(program: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_interpreter_exits_while_requests_wait() -> None:
    assert run_python("ask_in_background()") == (0, "", "")


def test_the_interpreter_exits_while_torch_computes() -> None:
    program = """
import torch
torch.set_num_threads(1)
layer = torch.nn.TransformerEncoderLayer(256, 4, 512, batch_first=True).eval()
def work():
    end = time.monotonic() + 0.5
    with torch.inference_mode():
        while time.monotonic() < end:
            layer(torch.ones(4, 64, 256))
encoder.work = work
ask_in_background()
"""
    assert run_python(program) == (0, "", "")


def test_the_interpreter_exits_though_a_pass_never_ends() -> None:
    program = "shared_calls.EXIT_S = 0.1\nencoder.work = threading.Event().wait\nask_in_background()"
    assert run_python(program) == (0, "", "")


def test_who_asks_after_the_end_is_told() -> None:
    program = """
def late():
    try:
        asyncio.run(ask())
    except RuntimeError as error:
        print(error)
shared_calls.atexit.unregister(shared_calls._finish_workers)
atexit.register(late)
atexit.register(shared_calls._finish_workers)
asyncio.run(ask())
"""
    assert run_python(program) == (0, "the interpreter is exiting: texts can no longer be encoded\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_starts_its_own_thread() -> None:
    program = """
import warnings
warnings.simplefilter("ignore")
ask_in_background()
child = os.fork()
if not child:
    asyncio.run(ask())
    print("child")
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
asyncio.run(ask())
print("parent")
"""
    assert run_python(program) == (0, "child\nparent\n", "")
