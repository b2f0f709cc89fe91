"""Whatever the cache holds, the vectors are those of the encoder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from m3rag.encoder import cached
from m3rag.encoder.cache import EmbeddingCache, MemoryCache
from m3rag.encoder.cache_value import dense_of, from_values, to_values
from m3rag.encoder.cached import CachedEncoder
from m3rag.encoder.disk_cache import DiskCache
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.protocol import Encoder
from m3rag.errors import InputError
from m3rag.output import M3Output
from m3rag.testing import HashEncoder
from m3rag.types import ModelInfo

TEXTS = [
    "ducks swim",
    "",
    " ",
    "a much longer text about ducks that swim on ponds " * 9,
    "🦆",
    "Утки плавают",
    "鴨子會游泳",
    "half a pair \ud83e of surrogates",
    "\0",
    "ducks swim ",
]


class CountingEncoder(HashEncoder):
    """HashEncoder that remembers which texts it encoded, and may be told to wait or to fail."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.calls: list[list[str]] = []
        self.before: Callable[[], object] = lambda: None

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        if len(texts):
            self.calls.append(list(texts))
            self.before()
        return super().encode_documents(texts)

    @property
    def encoded(self) -> list[str]:
        return [text for call in self.calls for text in call]


@pytest.fixture(params=["memory", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddingCache]:
    if request.param == "memory":
        yield MemoryCache()
    else:
        with DiskCache(tmp_path / "embeddings.cache") as disk:
            yield disk


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu")


def same(a: M3Output, b: M3Output) -> bool:
    parts = [
        (a.dense, b.dense),
        (a.colbert, b.colbert),
        (a.offsets, b.offsets),
        (a.lexical.data, b.lexical.data),
    ]
    return (
        a.lexical.shape == b.lexical.shape
        and np.array_equal(a.lexical.indices, b.lexical.indices)
        and np.array_equal(a.lexical.indptr, b.lexical.indptr)
        and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in parts)
    )


# Exactness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("colbert_dtype", ["float16", "float32"])
def test_hits_are_the_encoders_vectors_bit_for_bit(
    tiny_checkpoint: Path, cache: EmbeddingCache, colbert_dtype: Any
) -> None:
    encoder = M3Encoder(str(tiny_checkpoint), device="cpu", colbert_dtype=colbert_dtype)
    through = CachedEncoder(encoder, cache)
    for method in ("encode_queries", "encode_documents"):
        expected = getattr(encoder, method)(TEXTS)
        assert expected.colbert.dtype == colbert_dtype
        assert same(getattr(through, method)(TEXTS), expected)
        assert same(getattr(through, method)(TEXTS), expected)
        assert same(getattr(through, method)(TEXTS[::-1]), expected[::-1])
        assert same(getattr(through, method)([]), getattr(encoder, method)([]))
    assert np.array_equal(through.encode_dense(TEXTS, role="document"), encoder.encode_dense(TEXTS, role="document"))
    stats = cache.stats()
    assert (stats.misses, stats.hits, stats.entries) == (2 * len(TEXTS), 5 * len(TEXTS), 2 * len(TEXTS))


def test_a_file_written_by_one_object_serves_the_next(tiny: M3Encoder, tmp_path: Path) -> None:
    with DiskCache(tmp_path / "embeddings.cache") as disk:
        expected = CachedEncoder(tiny, disk).encode_documents(TEXTS)
    with DiskCache(tmp_path / "embeddings.cache") as disk:
        assert same(CachedEncoder(tiny, disk).encode_documents(TEXTS), expected)
        assert disk.stats().misses == 0


@given(
    counts=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=6),
    dims=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dtype=st.sampled_from(["float16", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_values_round_trip(counts: list[tuple[int, int]], dims: tuple[int, int], dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    entries, rows = [e for e, _ in counts], [r for _, r in counts]
    tokens = [np.sort(random.choice(50, e, replace=False)) for e in entries]
    output = M3Output(
        dense=random.standard_normal((len(counts), dims[0])).astype(np.float32),
        lexical=csr_array(
            (random.random(sum(entries)).astype(np.float32), np.concatenate(tokens), np.cumsum([0, *entries])),
            shape=(len(counts), 50),
        ),
        colbert=random.standard_normal((sum(rows), dims[1])).astype(dtype),
        offsets=np.cumsum([0, *rows]).astype(np.int64),
    )
    values = to_values(output)
    assert same(from_values(values, vocab_size=50), output)
    assert all(np.array_equal(dense_of(value), dense) for value, dense in zip(values, output.dense, strict=True))
    assert same(from_values(values[-1:], vocab_size=50), output[-1])


def test_a_model_without_the_other_legs_is_cached_too(cache: EmbeddingCache) -> None:
    class Dense(HashEncoder):
        @property
        def info(self) -> ModelInfo:
            return replace(super().info, vocab_size=0, colbert_dim=0)

        def encode_documents(self, texts: Sequence[str]) -> M3Output:
            return M3Output.from_dense(super().encode_documents(texts).dense)

    encoder = Dense()
    through = CachedEncoder(encoder, cache)
    for _ in range(2):
        assert same(through.encode_documents(TEXTS), encoder.encode_documents(TEXTS))
        assert same(through.encode_documents([]), encoder.encode_documents([]))


# What is encoded, and what is not -----------------------------------------------------------------


def test_only_what_is_missing_is_encoded_and_order_is_kept(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    through = CachedEncoder(encoder, cache)
    through.encode_documents(["b", "d"])
    output = through.encode_documents(["a", "b", "c", "d", "e"])
    assert encoder.calls == [["b", "d"], ["a", "c", "e"]]
    assert same(output, HashEncoder().encode_documents(["a", "b", "c", "d", "e"]))


def test_a_text_that_repeats_is_encoded_once(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    texts = ["duck", "pond", "duck", "duck", "", ""]
    output = CachedEncoder(encoder, cache).encode_documents(texts)
    assert encoder.calls == [["duck", "pond", ""]]
    assert same(output, HashEncoder().encode_documents(texts))


def test_one_forward_pass_serves_all_three_legs_asked_one_by_one(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    through = CachedEncoder(encoder, cache)
    expected = HashEncoder().encode_documents(TEXTS)
    assert np.array_equal(through.encode_dense(TEXTS, role="document"), expected.dense)
    assert np.array_equal(through.encode_documents(TEXTS).lexical.data, expected.lexical.data)
    assert np.array_equal(through.encode_documents(TEXTS).colbert, expected.colbert)
    assert encoder.calls == [TEXTS]


def test_texts_that_only_look_alike_are_kept_apart(cache: EmbeddingCache) -> None:
    texts = ["é", "e\u0301", "\ud83e", "\udd86", "🦆", "\ufffd", "a", "a ", "a\0", ""]
    encoder = CountingEncoder()
    CachedEncoder(encoder, cache).encode_documents(texts)
    assert encoder.calls == [texts]


class Renamed(CountingEncoder):
    """The same vectors under another identity."""

    def __init__(self, *, fingerprint: str = "one", max_length: int = 512, dtype: str = "float16") -> None:
        super().__init__()
        self._info = replace(self._info, fingerprint=fingerprint)
        self._max_length = max_length
        self._dtype = dtype

    @property
    def max_length(self) -> int:
        return self._max_length

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        output = super().encode_documents(texts)
        return replace(output, colbert=output.colbert.astype(self._dtype))


@pytest.mark.parametrize("other", [{"fingerprint": "two"}, {"max_length": 511}, {"dtype": "float32"}])
def test_encoders_that_differ_do_not_share(cache: EmbeddingCache, other: dict[str, Any]) -> None:
    CachedEncoder(Renamed(), cache).encode_documents(["duck"])
    again, different = Renamed(), Renamed(**other)
    CachedEncoder(again, cache).encode_documents(["duck"])
    assert again.calls == []
    output = CachedEncoder(different, cache).encode_documents(["duck"])
    assert different.calls == [["duck"]]
    assert output.colbert.dtype == other.get("dtype", "float16")


def test_questions_and_passages_are_kept_apart(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    through = CachedEncoder(encoder, cache)
    through.encode_queries(["duck"])
    through.encode_documents(["duck"])
    through.encode_dense(["duck"], role="query")
    assert encoder.calls == [["duck"], ["duck"]]


def test_an_evicted_text_is_encoded_again(tmp_path: Path) -> None:
    encoder = CountingEncoder(dense_dim=2**18)  # 1 MiB a text
    with DiskCache(tmp_path / "embeddings.cache", max_bytes=2**22) as disk:
        through = CachedEncoder(encoder, disk)
        for text in "abcdef":
            through.encode_documents([text])
        through.encode_documents(["f"])
        through.encode_documents(["a"])
    assert encoder.encoded == [*"abcdef", "a"]


def test_a_length_given_with_the_call_is_kept_apart_and_handed_on(tiny: M3Encoder, cache: EmbeddingCache) -> None:
    through = CachedEncoder(tiny, cache)
    long = ["ducks swim on ponds " * 20]
    for length in (8, 16, None, tiny.max_length):
        output = through.encode_documents(long, max_length=length)
        assert same(output, tiny.encode_documents(long, max_length=length))
        assert len(output.colbert) == 7 if length == 8 else len(output.colbert) > 7
    assert np.array_equal(
        through.encode_dense(long, role="document", max_length=8),
        tiny.encode_dense(long, role="document", max_length=8),
    )
    assert cache.stats().entries == 3


# Long lists ---------------------------------------------------------------------------------------


def test_a_length_of_numpy_is_found_again_as_pythons(tiny_checkpoint: Path) -> None:
    lengths = np.array([16, 24])
    through = CachedEncoder(M3Encoder(str(tiny_checkpoint), device="cpu", max_length=lengths.max()), MemoryCache())
    for length in (lengths.max(), 24, None):
        through.encode_documents(TEXTS, max_length=length)
    assert (through.cache.stats().hits, through.cache.stats().misses) == (2 * len(TEXTS), len(TEXTS))


def test_a_long_list_is_encoded_in_slices(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "LOOKED_UP_AT_ONCE", 7)
    monkeypatch.setattr(cached, "ENCODED_AT_ONCE", 20)
    encoder = CountingEncoder()
    through = CachedEncoder(encoder, cache)
    texts = [f"duck number {i}" for i in range(100)]
    through.encode_documents(texts[::10])
    encoder.calls.clear()
    expected = HashEncoder().encode_documents(texts)
    assert np.array_equal(through.encode_dense(texts, role="document"), expected.dense)
    assert sorted(encoder.encoded) == sorted(set(texts) - set(texts[::10]))
    assert max(map(len, encoder.calls)) < 27
    assert len(encoder.calls) <= 5
    assert same(through.encode_documents(texts), expected)


def test_a_slice_is_bounded_in_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "CHARACTERS_AT_ONCE", 1000)
    encoder = CountingEncoder()
    texts = [f"{i} " + "duck " * 80 for i in range(20)]
    CachedEncoder(encoder, MemoryCache()).encode_dense(texts, role="document")
    assert [len(call) for call in encoder.calls] == [3] * 6 + [2]


class Discarding:
    """A cache that holds nothing and knows how many bytes were alive at once."""

    def __init__(self) -> None:
        self.most = 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {}

    def put(self, values: Any) -> None:
        self.most = max(self.most, sum(map(len, values.values())))

    def stats(self) -> Any:
        raise NotImplementedError


def test_dense_alone_does_not_hold_the_other_two(monkeypatch: pytest.MonkeyPatch) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    monkeypatch.setattr(cached, "LOOKED_UP_AT_ONCE", 10)
    monkeypatch.setattr(cached, "ENCODED_AT_ONCE", 10)
    texts = [f"{i} " + "duck " * 250 for i in range(300)]
    encoder = HashEncoder(colbert_dim=256)  # 128 KB of ColBERT a text, 38 MB in all
    through = CachedEncoder(encoder, Discarding())
    through.encode_dense(texts[:20], role="document")
    tracemalloc.start()
    try:
        through.encode_dense(texts, role="document")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 15_000_000


# Progress -----------------------------------------------------------------------------------------


def test_progress_counts_every_text_once_and_hits_first(tiny: M3Encoder, cache: EmbeddingCache) -> None:
    through = CachedEncoder(tiny, cache)
    done: list[int] = []
    through.encode_documents([*TEXTS, *TEXTS, "ducks swim"], progress=done.append)
    assert sum(done) == 2 * len(TEXTS) + 1
    done.clear()
    through.encode_documents(["new", *TEXTS, "newer", *TEXTS], progress=done.append)
    assert done[0] == 2 * len(TEXTS)
    assert sum(done) == 2 * len(TEXTS) + 2
    done.clear()
    through.encode_dense(["new", "new"], role="document", progress=done.append)
    assert done == [2]


def test_progress_of_an_encoder_that_reports_none_comes_by_slices(cache: EmbeddingCache) -> None:
    through = CachedEncoder(HashEncoder(), cache)
    done: list[int] = []
    through.encode_queries(["a", "b", "a"], progress=done.append)
    through.encode_queries(["a", "c", "b"], progress=done.append)
    assert done == [3, 2, 1]


# Threads ------------------------------------------------------------------------------------------


def test_threads_that_want_the_same_text_encode_it_once(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    through = CachedEncoder(encoder, cache)
    started, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        assert go_on.wait(60)

    encoder.before = hold
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(through.encode_documents, ["duck", "pond"])
        assert started.wait(60)
        encoder.before = lambda: None
        others = [pool.submit(through.encode_documents, ["pond", "duck", f"mine {i}"]) for i in range(6)]
        # What is held, or is nobody else's, is not kept waiting.
        assert len(pool.submit(through.encode_documents, ["alone"]).result(60)) == 1
        assert len(pool.submit(through.encode_documents, ["alone"]).result(60)) == 1
        assert not any(other.done() for other in others)
        go_on.set()
        assert same(first.result(60), HashEncoder().encode_documents(["duck", "pond"]))
        for i, other in enumerate(others):
            assert same(other.result(60), HashEncoder().encode_documents(["pond", "duck", f"mine {i}"]))
    assert sorted(encoder.encoded) == sorted(["duck", "pond", "alone", *(f"mine {i}" for i in range(6))])


def test_threads_in_opposite_order_do_not_wait_for_each_other(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "LOOKED_UP_AT_ONCE", 3)
    monkeypatch.setattr(cached, "ENCODED_AT_ONCE", 5)
    encoder = CountingEncoder()
    through = CachedEncoder(encoder, cache)
    texts = [f"duck {i}" for i in range(200)]
    expected = HashEncoder().encode_documents(texts)
    with ThreadPoolExecutor(6) as pool:
        turns = [texts, texts[::-1], texts[100:] + texts[:100]] * 2
        outputs = [pool.submit(through.encode_documents, turn) for turn in turns]
        assert not wait(outputs, timeout=60).not_done
    rows = {text: i for i, text in enumerate(texts)}
    for turn, output in zip(turns, outputs, strict=True):
        assert same(output.result(), expected[[rows[text] for text in turn]])
    assert sorted(encoder.encoded) == sorted(texts)


def test_when_the_encoding_thread_fails_the_others_encode_for_themselves(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    through = CachedEncoder(encoder, cache)
    started, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        encoder.before = lambda: None
        started.set()
        assert go_on.wait(60)
        raise RuntimeError("the device is gone")

    encoder.before = fail
    with ThreadPoolExecutor(4) as pool:
        failing = pool.submit(through.encode_documents, ["duck"])
        assert started.wait(60)
        others = [pool.submit(through.encode_documents, ["duck"]) for _ in range(3)]
        go_on.set()
        with pytest.raises(RuntimeError, match="the device is gone"):
            failing.result(60)
        for other in others:
            assert same(other.result(60), HashEncoder().encode_documents(["duck"]))
    assert encoder.encoded == ["duck", "duck"]


def test_nothing_is_left_claimed_when_progress_raises(cache: EmbeddingCache) -> None:
    through = CachedEncoder(HashEncoder(), cache)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        through.encode_documents(["duck"], progress=stop)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(through.encode_documents, ["duck"]).result(60)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.parametrize("forking", ["another thread", "the encoding thread"])
def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent(forking: str) -> None:
    code = f"""
import os, signal, threading, warnings
from m3rag.encoder.cache import MemoryCache
from m3rag.encoder.cached import CachedEncoder
from m3rag.testing import HashEncoder
warnings.simplefilter("ignore")
parent, started, go_on = os.getpid(), threading.Event(), threading.Event()
forks = {forking == "the encoding thread"}

def child():
    signal.alarm(60)
    assert len(through.encode_documents(["duck"])) == 1
    os._exit(0)

class Slow(HashEncoder):
    def encode_documents(self, texts):
        global forks
        if texts and os.getpid() == parent:
            started.set()
            if forks:
                forks = False
                pid = os.fork()
                assert pid == 0 or os.waitpid(pid, 0)[1] == 0
            else:
                assert go_on.wait(60)
        return super().encode_documents(texts)

through = CachedEncoder(Slow(), MemoryCache())
if forks:
    assert len(through.encode_documents(["duck"])) == 1
    if os.getpid() != parent:
        child()
else:
    thread = threading.Thread(target=through.encode_documents, args=(["duck"],))
    thread.start()
    assert started.wait(60)
    pid = os.fork()
    if pid == 0:
        child()
    status = os.waitpid(pid, 0)[1]
    go_on.set()
    thread.join()
    assert status == 0, status
assert len(through.encode_documents(["duck"])) == 1
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr


async def test_tasks_share_the_cache(cache: EmbeddingCache) -> None:
    encoder = CountingEncoder()
    through = CachedEncoder(encoder, cache)
    expected = HashEncoder().encode_queries(["duck", "pond"])
    assert same(await through.aencode_queries(["duck", "pond"]), expected)
    outputs = await asyncio.gather(*(through.aencode_queries([text]) for text in ("duck", "pond", "duck")))
    assert same(M3Output.concatenate(outputs), expected[[0, 1, 0]])
    assert np.array_equal(await through.aencode_dense(["pond"], role="query"), expected.dense[1:])
    assert encoder.calls == [["duck", "pond"]]


# The rest of the protocol --------------------------------------------------------------------------


def test_everything_else_is_the_encoders(tiny: M3Encoder) -> None:
    through = CachedEncoder(tiny, MemoryCache())
    conforming: Encoder = through
    info: ModelInfo = conforming.info
    assert info == tiny.info
    assert through.max_length == tiny.max_length
    assert through.token(42) == tiny.token(42)
    assert np.array_equal(through.token_spans("Ducks swim."), tiny.token_spans("Ducks swim."))
    assert np.array_equal(through.word_spans("Ducks swim."), tiny.word_spans("Ducks swim."))
    assert (through.device, through.dtype, through.recipe) == (tiny.device, tiny.dtype, tiny.recipe)
    with pytest.raises(AttributeError, match="'CachedEncoder' object has no attribute 'encode_otherwise'"):
        through.encode_otherwise(["duck"])


def test_a_memory_cache_may_stand_before_a_disk_cache(tiny: M3Encoder, tmp_path: Path) -> None:
    memory = MemoryCache()
    with DiskCache(tmp_path / "embeddings.cache") as disk:
        through = CachedEncoder(CachedEncoder(tiny, disk), memory)
        done: list[int] = []
        expected = tiny.encode_documents(TEXTS)
        assert same(through.encode_documents(TEXTS, progress=done.append), expected)
        assert same(through.encode_documents(TEXTS), expected)
        assert sum(done) == len(TEXTS)
        assert (memory.stats().hits, disk.stats().hits, disk.stats().entries) == (len(TEXTS), 0, len(TEXTS))


def test_bad_input_is_named() -> None:
    through = CachedEncoder(HashEncoder(), MemoryCache())
    with pytest.raises(InputError, match="got one string: 'ducks'"):
        through.encode_queries("ducks")
    with pytest.raises(InputError, match="text 1 is a NoneType"):
        through.encode_documents(["ducks", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="role is 'passage', must be query or document"):
        through.encode_dense(["ducks"], role="passage")  # type: ignore[arg-type]
    with contextlib.suppress(InputError):
        through.encode_documents(["ducks", None])  # type: ignore[list-item]
    assert len(through.encode_documents(["ducks"])) == 1


def test_a_pickled_encoder_reads_the_same_file(tmp_path: Path) -> None:
    with DiskCache(tmp_path / "embeddings.cache", max_bytes=2**21) as cache:
        encoder = CachedEncoder(CountingEncoder(), cache)
        expected = encoder.encode_documents(TEXTS)
        other = pickle.loads(pickle.dumps(CachedEncoder(HashEncoder(), cache)))  # noqa: S301
        with other.cache as its:
            assert its.path == cache.path
            assert its.max_bytes == cache.max_bytes
            assert np.array_equal(other.encode_documents(TEXTS).dense, expected.dense)
            assert its.stats().misses == 0


def test_a_pickled_encoder_begins_with_an_empty_memory() -> None:
    encoder = CachedEncoder(HashEncoder(), MemoryCache(max_bytes=2**20, ttl=5))
    encoder.encode_documents(TEXTS)
    other = pickle.loads(pickle.dumps(encoder))  # noqa: S301
    assert (other.cache.max_bytes, other.cache.ttl, other.cache.stats().entries) == (2**20, 5, 0)
    assert np.array_equal(other.encode_documents(TEXTS).dense, encoder.encode_documents(TEXTS).dense)
